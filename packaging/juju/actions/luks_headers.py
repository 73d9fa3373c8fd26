#!/usr/bin/env python3
"""The Juju actions luks-header-backup, luks-header-restore and luks-header-list.

Each is a symbolic link to this file. docs/juju.md of LuksKeep says what they are for.
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the charm's folder is not ours

# pylint: disable=wrong-import-position
from juju_tools import (ActionFailed, Results, fail, flag_parameter, get_parameters,  # noqa: E402
                        text_parameter)
from luks_volumes import UUID, Tree, Volume, device_of, find_volumes  # noqa: E402
from lukskeep_program import LukskeepError, TooLong, lukskeep, run  # noqa: E402

# All relayed snapshots of one call together: Juju keeps results in documents of at most 16 MiB.
RELAY_CHARS_MAX = 4 << 20
PATH = r"/[^\x00-\x1f]*"
REASONS = re.compile(r"[a-z]+(-[a-z]+)*(,[a-z]+(-[a-z]+)*)*")
SNAPSHOT_ID = r"[0-9a-f]{4,64}"
RECIPIENTS = r"age1[0-9a-z]+(,age1[0-9a-z]+)*"
# Tests have a tree of their own.
TREE = Tree(os.environ.get("LUKSKEEP_JUJU_ROOT") or "/")


def store_option(parameters):
    archive = text_parameter(parameters, "archive", PATH, "an absolute path")
    if not archive:
        return []
    # What a restore replaces goes there too.
    os.environ["LUKSKEEP_ARCHIVE"] = archive
    return [f"--store={archive}"]


# ---- the archive -------------------------------------------------------------------------------


def snapshots_of(store):
    """(directory, snapshots newest first); (None, []) if there is no archive yet."""
    try:
        answer = lukskeep("archive", "list", *store)
        return answer["store"], answer["snapshots"]
    except LukskeepError as error:
        if error.code == "not-found":
            return None, []
        raise


def recipients_of(directory):
    lines = (Path(directory) / "recipients").read_text().splitlines()
    return sorted(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def settle_recipients(parameters, store, results):
    """Makes the archive where the caller says whom to seal to; refuses one sealed to others."""
    wanted = text_parameter(parameters, "recipients", RECIPIENTS,
                            "a list of public keys, age1... with commas between")
    directory, _ = snapshots_of(store)
    if wanted and directory is None:
        lukskeep("archive", "init", f"--recipient={wanted}", *store)
    elif wanted and recipients_of(directory) != sorted(wanted.split(",")):
        raise ActionFailed(f"the archive {directory} is sealed to other keys than recipients says")
    elif directory is None:
        results.add("warning", "the key that opens the archive was made on this unit: copy it away, "
                               "or start with recipients=age1... (docs/juju.md)")


# ---- luks-header-backup ------------------------------------------------------------------------


def wanted_volumes(parameters):
    uuid = text_parameter(parameters, "uuid", UUID, "a UUID").lower()
    device = text_parameter(parameters, "device", PATH, "an absolute path")
    if device:
        if not TREE.resolve(device):
            raise ActionFailed(f"there is no {device}")
        volume = Volume(header_uuid(device))
        if uuid and volume.uuid != uuid:
            raise ActionFailed(f"{device} holds the volume {volume.uuid}, not {uuid}")
        volume.device = device
        return [volume]
    volumes = [volume for volume in find_volumes(TREE) if uuid in ("", volume.uuid)]
    if not volumes:
        raise ActionFailed(f"this unit has no vaultlocker volume {uuid}".rstrip())
    return volumes


def header_uuid(device):
    uuid = lukskeep("info", TREE.place(device))["uuid"].lower()
    if not re.fullmatch(UUID, uuid):
        raise ActionFailed(f"the header of {device} has no usable UUID")
    return uuid


def back_up(volume, store, results):
    """Archives one header; returns whether that was needed."""
    key = f"volumes.{volume.uuid}"
    results.add(f"{key}.device", volume.device)
    if not volume.device:
        raise ActionFailed("no device with this UUID is there, and no open mapping of it")
    found = header_uuid(volume.device)
    if found != volume.uuid:
        raise ActionFailed(f"{volume.device} holds the header of another volume now: {found}")
    answer = lukskeep("archive", "add", TREE.place(volume.device), *store)
    results.add(f"{key}.snapshot", answer["id"])
    results.add(f"{key}.state", "archived" if answer["new"] else "current")
    return answer["new"]


def relay(volume, store, results, room):
    """Adds the sealed snapshot to the results; returns how many characters of `room` are left."""
    try:
        status, sealed, errors = run("archive", "add", TREE.place(volume.device), "--stdout",
                                     "--compact", *store, size_max=room // 4 * 3)
    except TooLong:
        raise ActionFailed("the snapshot is too large to relay with the others: name one volume with "
                           "uuid, or fetch its file from the archive with juju ssh") from None
    if status != 0:
        raise ActionFailed(errors)
    text = base64.b64encode(sealed).decode()
    key = f"volumes.{volume.uuid}.relay"
    results.add(f"{key}.size", len(sealed))
    results.add(f"{key}.sha256", hashlib.sha256(sealed).hexdigest())
    results.add_parts(key, text)
    return room - len(text)


def backup(parameters, results):
    store = store_option(parameters)
    wants_relay = flag_parameter(parameters, "relay")
    volumes = wanted_volumes(parameters)
    settle_recipients(parameters, store, results)
    room = RELAY_CHARS_MAX
    added = 0
    failures = []
    for volume in volumes:
        try:
            added += back_up(volume, store, results)
            if wants_relay:
                room = relay(volume, store, results, room)
        except ActionFailed as error:
            failures.append(f"{volume.uuid}: {error}")
            results.add(f"volumes.{volume.uuid}.error", error)
    directory, _ = snapshots_of(store)
    results.add("archive", directory or "")
    if directory:
        results.add_list("recipients", recipients_of(directory))
    results.add("volumes-found", len(volumes))
    results.add("snapshots-added", added)
    results.add("volumes-failed", len(failures))
    if failures:
        raise ActionFailed("; ".join(failures))


# ---- luks-header-restore -----------------------------------------------------------------------


def target_device(parameters, uuid):
    device = text_parameter(parameters, "device", PATH, "an absolute path")
    if device:
        if not TREE.resolve(device):
            raise ActionFailed(f"there is no {device}")
        return device
    device = device_of(TREE, uuid)
    if not device:
        raise ActionFailed(f"nothing tells which device carries {uuid} now: name it with device, "
                           "after comparing its serial number (lukskeep archive show)")
    return device


def restore(parameters, results):
    store = store_option(parameters)
    name = text_parameter(parameters, "id", SNAPSHOT_ID, "a snapshot: 4 to 64 hex digits")
    if not name:
        raise ActionFailed("parameter id names the snapshot to restore")
    confirmed = text_parameter(parameters, "confirm", UUID, "a UUID").lower()
    allowed = text_parameter(parameters, "allow", REASONS, "reasons with commas between")
    identity = text_parameter(parameters, "identity", PATH, "an absolute path")
    options = [*store, *([f"--identity=file:{TREE.place(identity)}"] if identity else [])]

    manifest = lukskeep("archive", "show", name, *store)
    snapshot, uuid = manifest["id"], manifest["uuid"].lower()
    device = target_device(parameters, uuid)
    command = ["header", "restore", TREE.place(device), f"archive:{snapshot}", *options]
    plan = lukskeep(*command, "--dry-run")
    for key, value in (("snapshot", snapshot), ("taken", manifest["taken"]), ("uuid", uuid),
                       ("device", device), ("serial", manifest["manifest"]["device"]["serial"]),
                       ("keyslots", len(plan["keyslots"])), ("restored", False)):
        results.add(key, value)
    objections = [f"{one['reason']}: {one['text']}" for one in plan["objections"]]
    results.add_list("objections", objections)
    results.add_list("changes", plan["notes"])
    if not confirmed:
        return results.add("dry-run", f"nothing was changed; confirm={uuid} restores it")
    if confirmed != uuid:
        raise ActionFailed(f"confirm is {confirmed}, but the snapshot is of {uuid}")
    refused = sorted({one["reason"] for one in plan["objections"]} - set(allowed.split(",")))
    if refused:
        raise ActionFailed(f"not restored (allow={','.join(refused)} does it all the same), because "
                           "of: " + "; ".join(objections))
    lukskeep(*command, *(["--allow", allowed] if allowed else []))
    results.add("restored", True)


# ---- luks-header-list --------------------------------------------------------------------------


def state_of(volume, store):
    """"current", or what is wrong with what the archive has of it."""
    if not volume.device:
        return "no-device"
    try:
        found = lukskeep("archive", "scan", TREE.place(volume.device), *store)["volumes"]
    except LukskeepError as error:
        return f"unreadable: {error}"
    if not found:
        return "no-header"
    if found[0]["uuid"].lower() != volume.uuid:
        return "replaced"
    return {"new": "missing"}.get(found[0]["state"], found[0]["state"])


def list_all(parameters, results):
    store = store_option(parameters)
    limit = parameters.get("limit", 50)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= 200:
        raise ActionFailed("parameter limit is no number from 0 to 200")
    directory, snapshots = snapshots_of(store)
    newest = {}
    for snapshot in reversed(snapshots):
        newest[snapshot["uuid"].lower()] = snapshot
    uncovered = []
    volumes = find_volumes(TREE)
    for volume in volumes:
        key = f"volumes.{volume.uuid}"
        state = state_of(volume, store)
        if state != "current":
            uncovered.append(volume.uuid)
        results.add(f"{key}.state", state)
        results.add(f"{key}.device", volume.device)
        results.add(f"{key}.open", volume.is_open)
        results.add(f"{key}.found-by", " ".join(volume.found_by))
        if volume.uuid in newest:
            results.add(f"{key}.newest", newest[volume.uuid]["id"])
            results.add(f"{key}.taken", newest[volume.uuid]["taken"])
    results.add("archive", directory or "none")
    results.add("volumes-found", len(volumes))
    results.add("volumes-uncovered", len(uncovered))
    results.add("uncovered", " ".join(uncovered))
    results.add("snapshots-total", len(snapshots))
    for snapshot in snapshots[:limit]:
        for name in ("uuid", "device", "taken", "reason", "keyslots", "revoked", "file"):
            results.add(f"snapshots.{snapshot['id'][:12]}.{name}", snapshot[name])


ACTIONS = {"luks-header-backup": backup, "luks-header-restore": restore,
           "luks-header-list": list_all}


def main(name):
    action = ACTIONS.get(name)
    if action is None:
        print(f"call this as one of: {', '.join(ACTIONS)}", file=sys.stderr)
        return 1
    results = Results()
    message = ""
    try:
        action(get_parameters(), results)
    except ActionFailed as error:
        message = str(error)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        message = f"{type(error).__name__}: {error}"
    results.send()
    if message:
        fail(message)
    return 0


if __name__ == "__main__":
    sys.exit(main(os.path.basename(sys.argv[0])))
