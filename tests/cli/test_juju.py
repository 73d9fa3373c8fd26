"""The Juju actions of packaging/juju, with stand-ins for Juju's tools and a tree of their own."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from cli_tools import IDENTITY, PBKDF2, PROGRAM, RECIPIENT, ROOT, fails, ok

JUJU = ROOT / "packaging" / "juju"
FIRST = "11111111-aaaa-4bbb-8ccc-000000000001"
SECOND = "22222222-aaaa-4bbb-8ccc-000000000002"

# They refuse what Juju's own refuse.
ACTION_GET = """#!{python}
import os, sys
assert sys.argv[1:] == ["--format=json"], sys.argv
print(os.environ["PARAMETERS"])
"""
ACTION_SET = """#!{python}
import json, os, re, sys
for argument in sys.argv[1:]:
    key, equals, value = argument.partition("=")
    assert equals and len(argument) < 128 * 1024, argument[:100]
    for part in key.split("."):
        assert re.fullmatch("[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", part), key
    assert key.split(".")[0] not in ("stdout", "stderr"), key
    with open(os.environ["RESULTS"], "a") as file:
        file.write(json.dumps([key, value]) + "\\n")
"""
ACTION_FAIL = """#!{python}
import json, os, sys
assert len(sys.argv) == 2 and not sys.argv[1].startswith("-"), sys.argv
with open(os.environ["RESULTS"], "a") as file:
    file.write(json.dumps(["FAILED", sys.argv[1]]) + "\\n")
"""


class Unit:
    """A machine with two of vaultlocker's volumes: one on LUKS2, one on LUKS1."""

    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "root"
        self.environment = {}
        tools = folder / "tools"
        tools.mkdir()
        for name, text in (("get", ACTION_GET), ("set", ACTION_SET), ("fail", ACTION_FAIL)):
            tool = tools / f"action-{name}"
            tool.write_text(text.format(python=sys.executable))
            tool.chmod(0o755)
        self.path = f"{tools}:{os.environ['PATH']}"
        for part in ("dev/mapper", "dev/disk/by-uuid", "etc/systemd/system/multi-user.target.wants",
                     "sys/class/block", "sys/devices"):
            (self.root / part).mkdir(parents=True)
        self.make("sdb", FIRST, "luks2")
        self.make("sdc", SECOND, "luks1")
        # The first is known by fstab and an open mapping, the second by its unit only.
        (self.root / "dev/mapper" / f"crypt-{FIRST}").write_bytes(b"")
        (self.root / "etc/fstab").write_text(
            "# /dev/mapper/crypt-99999999-aaaa-4bbb-8ccc-000000000009 /x xfs comment=vaultlocker 0 0\n"
            "UUID=0 / ext4 defaults 0 1\nbroken line\n"
            f"/dev/mapper/crypt-{FIRST} /var/lib/nova/instances xfs defaults,nofail,"
            f"x-systemd.requires=vaultlocker-decrypt@{FIRST}.service,comment=vaultlocker 0 0\n")
        wants = self.root / "etc/systemd/system/multi-user.target.wants"
        (wants / f"vaultlocker-decrypt@{SECOND}.service").symlink_to("/lib/systemd/system/none")
        # Those of others: os-brick's mapping, LVM, somebody's unit.
        for name in ("crypt-sdx", "vg-root", "control", "crypt-volume-" + SECOND):
            (self.root / "dev/mapper" / name).write_bytes(b"")
        (wants / "ssh.service").write_text("")

    def make(self, name, uuid, kind):
        ok("create", f"root/dev/{name}", "--size", "64K", "--type", kind, "--uuid", uuid, "--key",
           "file:k1", "--no-archive", *PBKDF2, cwd=self.folder)
        (self.root / "dev/disk/by-uuid" / uuid).symlink_to(f"../../{name}")

    def map_in_sysfs(self, uuid, device):
        disk = self.root / "sys/devices/virtual/block/dm-0"
        (disk / "dm").mkdir(parents=True)
        (disk / "slaves" / device).mkdir(parents=True)
        (disk / "dm/name").write_text(f"crypt-{uuid}\n")
        (self.root / "sys/class/block/dm-0").symlink_to("../../devices/virtual/block/dm-0")

    def act(self, name, **parameters):
        """(results as Juju nests them flat, message of action-fail or None)."""
        file = self.folder / "results"
        file.write_text("")
        done = subprocess.run(
            [str(JUJU / "actions" / f"luks-header-{name}")], cwd="/", capture_output=True,
            timeout=120, env={**os.environ, "PATH": self.path, "LUKSKEEP": PROGRAM,
                              "LUKSKEEP_JUJU_ROOT": str(self.root), "RESULTS": str(file),
                              "LUKSKEEP_ARCHIVE": str(self.folder / "store"),
                              "LUKSKEEP_ARCHIVE_KEY": str(self.folder / "own.key"),
                              "PARAMETERS": json.dumps({key.replace("_", "-"): value for key, value
                                                        in parameters.items()})})
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode()
        results = dict(json.loads(line) for line in file.read_text().splitlines())
        return results, results.pop("FAILED", None)

    def does(self, name, **parameters):
        results, failure = self.act(name, **parameters)
        assert failure is None, (failure, results)
        return results

    def fails(self, name, **parameters):
        results, failure = self.act(name, **parameters)
        assert failure, results
        return failure, results

    def device(self, name):
        return self.root / "dev" / name


@pytest.fixture
def unit(place):
    return Unit(place)


def test_backup_finds_all_volumes_and_archives_each_once(unit):
    first = unit.does("backup")
    assert (first["volumes-found"], first["snapshots-added"], first["volumes-failed"]) == \
        ("2", "2", "0")
    assert first[f"volumes.{FIRST}.device"] == "/dev/sdb"
    assert first[f"volumes.{SECOND}.state"] == "archived"
    assert "warning" in first and (unit.folder / "own.key").exists()
    second = unit.does("backup")
    assert second["snapshots-added"] == "0" and "warning" not in second
    assert second[f"volumes.{FIRST}.snapshot"] == first[f"volumes.{FIRST}.snapshot"]
    assert second[f"volumes.{FIRST}.state"] == "current"
    assert unit.does("backup", uuid=SECOND)["volumes-found"] == "1"
    assert "no vaultlocker volume" in unit.fails("backup", uuid=FIRST.replace("1", "7"))[0]


def test_backup_seals_to_keys_that_are_not_on_the_unit(unit):
    results = unit.does("backup", recipients=RECIPIENT)
    assert results["recipients.0"] == RECIPIENT and "warning" not in results
    assert not (unit.folder / "own.key").exists()
    unit.does("backup", recipients=RECIPIENT)
    other = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
    assert "other keys" in unit.fails("backup", recipients=other)[0]
    assert "not a list" in unit.fails("backup", recipients="--yes")[0]


def test_a_relayed_snapshot_opens_the_volume_elsewhere(unit):
    results = unit.does("backup", recipients=RECIPIENT, relay=True)
    for uuid, device in ((FIRST, "sdb"), (SECOND, "sdc")):
        key = f"volumes.{uuid}.relay"
        parts = [results[f"{key}.part-{n + 1:03}"] for n in range(int(results[f"{key}.parts"]))]
        sealed = base64.b64decode("".join(parts), validate=True)
        assert hashlib.sha256(sealed).hexdigest() == results[f"{key}.sha256"]
        assert len(sealed) == int(results[f"{key}.size"])
        (unit.folder / "carried").write_bytes(sealed)
        (unit.folder / "id").write_text(IDENTITY + "\n")
        taken = ok("archive", "import", "carried", "--store", "away", "--json", cwd=unit.folder).json
        ok("archive", "export", taken["id"], f"{device}.header", "--store", "away", "--identity",
           "file:id", cwd=unit.folder)
        ok("key", "test", f"{device}.header", "--key", "file:k1", cwd=unit.folder)


@pytest.mark.skipif(not shutil.which("jq"), reason="no program 'jq'")
def test_the_recipe_of_the_documentation_carries_snapshots_away(unit):
    """The shell text of docs/juju.md, on results as `juju run --format json` prints them."""
    flat = unit.does("backup", recipients=RECIPIENT, relay=True)
    nested = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        level = nested
        for part in path:
            level = level.setdefault(part, {})
        level[last] = value
    (unit.folder / "result.json").write_text(
        json.dumps({"nova-compute/3": {"id": "2", "results": nested, "status": "completed"}}))
    text = (ROOT / "docs/juju.md").read_text()
    recipe = re.search(r"^ +for uuid in .*?^ +done$", text, re.M | re.S).group()
    tool = unit.folder / "tools" / "lukskeep"
    tool.symlink_to(PROGRAM)
    subprocess.run(["sh", "-ec", recipe.replace("/srv/headers", "away")], cwd=unit.folder, check=True,
                   env={**os.environ, "PATH": unit.path}, capture_output=True)
    kept = ok("archive", "list", "--store", "away", "--json", cwd=unit.folder).json["snapshots"]
    assert {snapshot["uuid"] for snapshot in kept} == {FIRST, SECOND}


def test_a_relay_that_is_too_large_is_refused_and_the_rest_is_done(unit):
    key = ["--key", "file:k1", "--new-key", "file:k2", "--no-archive", *PBKDF2]
    for _ in range(14):
        ok("key", "add", "root/dev/sdb", *key, cwd=unit.folder)
    failure, results = unit.fails("backup", relay=True)
    assert FIRST in failure and "juju ssh" in failure and SECOND not in failure
    assert results["snapshots-added"] == "2" and results["volumes-failed"] == "1"
    assert f"volumes.{SECOND}.relay.part-001" in results
    assert not any(name.startswith(f"volumes.{FIRST}.relay") for name in results)


def test_one_bad_volume_does_not_keep_the_others(unit):
    with open(unit.device("sdb"), "r+b") as file:
        file.write(bytes(100_000))
    failure, results = unit.fails("backup")
    assert FIRST in failure and results[f"volumes.{SECOND}.state"] == "archived"
    assert results[f"volumes.{FIRST}.error"] and results["volumes-failed"] == "1"


def test_a_device_that_holds_another_volume_now_is_not_archived_as_this_one(unit):
    os.replace(unit.device("sdc"), unit.device("sdb"))
    failure, results = unit.fails("backup")
    assert f"{FIRST}: /dev/sdb holds the header of another volume now: {SECOND}" in failure
    assert results["snapshots-added"] == "0"


def test_a_unit_without_volumes(unit):
    (unit.root / "etc/fstab").unlink()
    for path in (unit.root / "dev/mapper").iterdir():
        path.unlink()
    for path in (unit.root / "etc/systemd/system").rglob("*.service"):
        path.unlink()
    assert "no vaultlocker volume" in unit.fails("backup")[0]
    results = unit.does("list")
    assert results["volumes-found"] == "0" and results["archive"] == "none"
    # One may still be named.
    results = unit.does("backup", device="/dev/disk/by-uuid/" + FIRST)
    assert results[f"volumes.{FIRST}.state"] == "archived"
    assert "there is no /dev/sdz" in unit.fails("backup", device="/dev/sdz")[0]
    assert "not an absolute path" in unit.fails("backup", device="dev/sdb")[0]


def test_list_names_what_has_no_current_snapshot(unit):
    results = unit.does("list")
    assert results[f"volumes.{FIRST}.state"] == "missing"
    assert results["uncovered"].split() == [FIRST, SECOND]
    assert results[f"volumes.{FIRST}.found-by"] == "fstab mapping"
    assert (results[f"volumes.{FIRST}.open"], results[f"volumes.{SECOND}.open"]) == ("true", "false")
    unit.does("backup")
    results = unit.does("list")
    assert results["volumes-uncovered"] == "0" and "uncovered" not in results
    assert results["snapshots-total"] == "2"
    ok("key", "add", "root/dev/sdc", "--key", "file:k1", "--new-key", "file:k2", "--no-archive",
       *PBKDF2, cwd=unit.folder)
    results = unit.does("list", limit=1)
    assert results[f"volumes.{SECOND}.state"] == "changed" and results["uncovered"] == SECOND
    assert len({name.split(".")[1] for name in results if name.startswith("snapshots.")}) == 1
    os.remove(unit.device("sdc"))
    assert unit.does("list")[f"volumes.{SECOND}.state"] == "no-device"
    assert "limit" in unit.fails("list", limit=1000)[0]


def test_restore_tells_first_and_does_it_when_confirmed(unit):
    snapshot = unit.does("backup")[f"volumes.{FIRST}.snapshot"]
    ok("key", "add", "root/dev/sdb", "--key", "file:k1", "--new-key", "file:k2", "--no-archive",
       *PBKDF2, cwd=unit.folder)
    changed = unit.device("sdb").read_bytes()

    results = unit.does("restore", id=snapshot[:12])
    assert results["restored"] == "false" and results["device"] == "/dev/sdb"
    assert f"confirm={FIRST}" in results["dry-run"]
    assert any("older" in value for name, value in results.items() if name.startswith("objections."))
    assert "but the snapshot is of" in unit.fails("restore", id=snapshot, confirm=SECOND)[0]
    assert "not restored" in unit.fails("restore", id=snapshot, confirm=FIRST)[0]
    assert unit.device("sdb").read_bytes() == changed

    results = unit.does("restore", id=snapshot, confirm=FIRST.upper(), allow="older,foreign")
    assert results["restored"] == "true" and "dry-run" not in results
    fails(2, "key", "test", "root/dev/sdb", "--key", "file:k2", cwd=unit.folder)
    assert unit.does("list")[f"volumes.{FIRST}.state"] == "current"
    # What was there before can be had back.
    listed = ok("archive", "list", "--json", "--store", "store", "--uuid", FIRST,
                cwd=unit.folder).json["snapshots"]
    assert {s["keyslots"] for s in listed} == {1, 2}


def test_restore_of_a_lost_header_finds_the_device_by_the_open_mapping(unit):
    whole = unit.device("sdb").read_bytes()
    snapshot = unit.does("backup")[f"volumes.{FIRST}.snapshot"]
    with open(unit.device("sdb"), "r+b") as file:
        file.write(os.urandom(100_000))
    (unit.root / "dev/disk/by-uuid" / FIRST).unlink()  # as udev does
    assert "nothing tells which device" in unit.fails("restore", id=snapshot)[0]
    unit.map_in_sysfs(FIRST, "sdb")
    assert unit.does("list")[f"volumes.{FIRST}.state"] == "no-header"
    results = unit.does("restore", id=snapshot)
    assert results["device"] == "/dev/sdb"
    unit.does("restore", id=snapshot, confirm=FIRST, allow="older,foreign")
    assert unit.device("sdb").read_bytes() == whole


def test_restore_onto_a_replaced_disk_with_a_key_that_was_brought(unit):
    """The disk's payload was copied to a new one; its first megabytes could not be read."""
    whole = unit.device("sdb").read_bytes()
    snapshot = unit.does("backup", recipients=RECIPIENT)[f"volumes.{FIRST}.snapshot"]
    unit.device("sdd").write_bytes(bytes(16 << 20) + whole[16 << 20:])
    unit.device("sdb").unlink()
    call = {"id": snapshot, "device": "/dev/sdd", "confirm": FIRST, "allow": "older,foreign"}
    failure, _ = unit.fails("restore", **call)
    assert "own.key" in failure
    (unit.root / "run").mkdir()
    (unit.root / "run/key").write_text(IDENTITY + "\n")
    assert unit.does("restore", **call, identity="/run/key")["restored"] == "true"
    assert unit.device("sdd").read_bytes() == whole


def test_an_archive_elsewhere_is_used_for_everything(unit):
    elsewhere = str(unit.folder / "elsewhere")
    snapshot = unit.does("backup", archive=elsewhere)[f"volumes.{FIRST}.snapshot"]
    assert unit.does("list")[f"volumes.{FIRST}.state"] == "missing"
    assert unit.does("list", archive=elsewhere)["volumes-uncovered"] == "0"
    ok("config", "root/dev/sdb", "--label", "x", "--no-archive", cwd=unit.folder)
    unit.does("restore", id=snapshot, archive=elsewhere, confirm=FIRST, allow="older,foreign")
    assert unit.does("list", archive=elsewhere)["snapshots-total"] == "4"  # before and after it
    assert not (unit.folder / "store").exists()
    assert "not an absolute path" in unit.fails("list", archive="elsewhere")[0]


@pytest.mark.parametrize("parameters,message", [
    ({}, "parameter id"),
    ({"id": "--help"}, "not a snapshot"),
    ({"id": "../../etc"}, "not a snapshot"),
    ({"id": "abcd1234"}, "no snapshot"),
    ({"id": 7}, "not a snapshot"),
    ({"id": "abcd", "confirm": "yes"}, "not a UUID"),
    ({"id": "abcd", "allow": "--yes"}, "not reasons"),
    ({"id": "abcd", "identity": "key"}, "not an absolute path"),
])
def test_parameters_that_are_wrong(unit, parameters, message):
    unit.does("backup")
    assert message in unit.fails("restore", **parameters)[0]


def test_a_unit_without_lukskeep(unit, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", "/nowhere/lukskeep")
    assert "nowhere" in unit.fails("list")[0]


def test_a_hostile_machine_is_bounded(unit):
    """Links in a circle, a name that is no UUID, thousands of mappings, a label full of escapes."""
    by_uuid = unit.root / "dev/disk/by-uuid"
    loop = "33333333-aaaa-4bbb-8ccc-000000000003"
    (by_uuid / loop).symlink_to(loop)
    (unit.root / "dev/mapper" / f"crypt-{loop}").write_bytes(b"")
    # An absolute link stays inside the tree.
    (by_uuid / FIRST).unlink()
    (by_uuid / FIRST).symlink_to("/dev/../../../dev/sdb")
    for number in range(200):
        (unit.root / "dev/mapper" / f"crypt-ffffffff-aaaa-4bbb-8ccc-{number:012x}").write_bytes(b"")
    results = unit.does("list")
    assert results["volumes-found"] == "64"
    assert results[f"volumes.{loop}.state"] == "no-device"
    assert results[f"volumes.{FIRST}.device"] == "/dev/sdb"


def test_actions_yaml_describes_what_the_programs_take():
    yaml = pytest.importorskip("yaml")
    described = yaml.safe_load((JUJU / "actions.yaml").read_text())
    programs = {path.name for path in (JUJU / "actions").iterdir() if path.is_symlink()}
    assert set(described) == programs
    source = (JUJU / "actions/luks_headers.py").read_text()
    read = set(re.findall(r'_parameter\(parameters, "([a-z-]+)"', source)) | \
        set(re.findall(r'parameters.get\("([a-z-]+)"', source))
    declared = set().union(*(action["params"] for action in described.values()))
    assert declared == read
    for action in described.values():
        assert action["additionalProperties"] is False and action["description"]
        assert set(action.get("required", [])) <= set(action["params"])
        for parameter in action["params"].values():
            assert parameter["description"] and parameter["type"] in ("string", "boolean", "integer")
