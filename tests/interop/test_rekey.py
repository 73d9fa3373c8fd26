"""rekey of many volumes against tangd: after a key was compromised, until it can be destroyed."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

import kit
from test_clevis_luks import (clevis_bind, clevis_pass, rotate, tang_option, tangs)  # noqa: F401

KEY = b"first passphrase"


def thumbprints(server, hidden=False):
    """Of the exchange and the signing key."""
    found = {}
    for path in server.keys.glob(".*.jwk" if hidden else "[!.]*.jwk"):
        purpose = "signing" if '"verify"' in path.read_text() else "exchange"
        found[purpose] = path.name.removeprefix(".").removesuffix(".jwk")
    return found


def make_volumes(folder, count, server):
    """LUKS2 and LUKS1 volumes that Clevis bound to the server: one, and copies with other UUIDs."""
    kit.need("clevis", "luksmeta")
    folder.mkdir()
    kit.write(folder.parent / "k", KEY)
    for version in ("luks2", "luks1"):
        first = kit.sparse(folder.parent / version, 20 << 20)
        kit.cryptsetup("luksFormat", "--type", version, *kit.THEIR_CHEAP["pbkdf2"], "--key-file",
                       folder.parent / "k", first)
        kit.run(["clevis", "luks", "bind", "-d", first, "-y", "-k", folder.parent / "k", "tang",
                 json.dumps({"url": server.url})])
    for number in range(count):
        source = folder.parent / ("luks1" if number % 3 == 2 else "luks2")
        path = folder / f"v{number:02}"
        kit.run(["cp", "--sparse=always", source, path])
        kit.cryptsetup("luksUUID", path, "--uuid", f"00000000-0000-4000-8000-{number:012}")
    return sorted(folder.iterdir())


def rekey(*arguments, **options):
    return json.loads(kit.lukskeep("rekey", *arguments, "--json", **options).stdout)


@pytest.fixture
def fleet(tmp_path, tangs):
    server, = tangs()
    volumes = make_volumes(tmp_path / "fleet", 5, server)
    return server, volumes, thumbprints(server)


def test_a_compromised_key_is_rekeyed_away_and_destroyed(fleet, tmp_path):
    server, volumes, old = fleet
    rotate(server)
    # A thumbprint may start with a hyphen.
    delete = ["tang", "delete", "--keys", server.keys, "--usage", "none", "--yes", "--allow",
              "unrecorded", "--wait-for", tmp_path / "report", "--wait-limit", "0", "--",
              old["exchange"]]
    assert b"is not there" in kit.lukskeep(*delete, status=6).stderr
    # Somebody else's volume that cannot be read is left, and named.
    bad = kit.write(tmp_path / "fleet" / "bad", volumes[0].read_bytes()[:4096])
    options = ["--tang-key", old["exchange"], "--report", tmp_path / "report"]
    result = rekey(*volumes, bad, *options, status=1)
    states = {row["volume"]: row["state"] for row in result["volumes"]}
    assert states == {**{str(v): "done" for v in volumes}, str(bad): "left"}
    assert not result["good"] and result["left"] == 1
    assert b"are left" in kit.lukskeep(*delete, status=6).stderr
    bad.unlink()
    result = rekey("--directory", tmp_path / "fleet", *options)
    assert result["good"] and {row["state"] for row in result["volumes"]} == {"unchanged"}
    new = thumbprints(server)
    assert set(new.values()) == set(result["in_use"])
    assert result == {**json.loads((tmp_path / "report").read_text()), "dry_run": False}
    kit.lukskeep(*delete)
    for volume in volumes:
        kit.lukskeep("unlock", volume)
        assert clevis_pass(volume, 1)


def test_signing_keys_and_all_bindings(fleet, tmp_path):
    server, volumes, old = fleet
    rotate(server)
    new = thumbprints(server)
    before = [kit.sha256(v) for v in volumes]
    # What the old key signs may be a thief's.
    for more, part in ([], "--new-key"), (["--new-key", new["signing"]], new["exchange"]):
        result = rekey(*volumes[:2], f"--tang-key={old['signing']}", *more, status=1)
        assert result["left"] == 2
        for row in result["volumes"]:
            assert row["left"][0]["code"] == "unsafe" and part in row["left"][0]["message"]
        assert [kit.sha256(v) for v in volumes] == before
    result = rekey(*volumes[:2], f"--tang-key={old['signing']}",
                   *(f"--new-key={key}" for key in new.values()))
    assert {row["state"] for row in result["volumes"]} == {"done"}
    # All that have a server: those two again, and the next rotation is not passed over.
    every = [*volumes, "--journal", tmp_path / "journal"]
    for _ in range(2):
        assert {row["state"] for row in rekey(*every)["volumes"]} == {"done"}


def test_a_journal_goes_on_while_something_is_left(fleet, tmp_path):
    _, volumes, _ = fleet
    every = ["--journal", tmp_path / "journal", *volumes]
    missing = tmp_path / "missing"
    for state in "done", "unchanged":
        states = {row["volume"]: row["state"]
                  for row in rekey(*every, missing, status=1)["volumes"]}
        assert states == {**{str(v): state for v in volumes}, str(missing): "left"}


def test_a_server_that_was_not_rotated_is_told_and_nothing_is_written(fleet):
    server, volumes, old = fleet
    before = [kit.sha256(v) for v in volumes]
    result = rekey(*volumes, "--tang-key", old["exchange"], status=1)
    assert result["left"] == len(volumes)
    assert "still tells of the key" in result["volumes"][0]["left"][0]["message"]
    assert [kit.sha256(v) for v in volumes] == before


def test_volumes_of_other_keys_and_dry_runs_are_left_alone(fleet, tangs):
    server, volumes, old = fleet
    other, = tangs()
    before = [kit.sha256(v) for v in volumes]
    result = rekey(*volumes, "--tang-key", thumbprints(other)["exchange"])
    assert {row["state"] for row in result["volumes"]} == {"unchanged"}
    rotate(server)
    result = rekey(*volumes, "--tang-key", old["exchange"], "--dry-run")
    assert {row["state"] for row in result["volumes"]} == {"done"} and result["dry_run"]
    assert [kit.sha256(v) for v in volumes] == before


def test_a_server_that_is_down_leaves_its_volumes(fleet, tmp_path):
    server, volumes, old = fleet
    rotate(server)
    server.stop()
    options = [f"--tang-key={old['exchange']}", "--tries", "1"]
    result = rekey(*volumes, *options, status=1)
    assert result["left"] == len(volumes)
    server.start()
    assert rekey(*volumes, *options)["good"]


@pytest.mark.parametrize("keyed", [True, False])
def test_a_run_that_is_killed_is_done_again_and_completes(tmp_path, tangs, keyed):
    server, = tangs()
    volumes = make_volumes(tmp_path / "fleet", 12, server)
    old = thumbprints(server)
    rotate(server)
    listed = kit.write(tmp_path / "list", "".join(f"{v}\n" for v in volumes).encode())
    journal = tmp_path / "journal"
    command = ["rekey", "--list", listed, "--jobs", "2", "--json",
               *([f"--tang-key={old['exchange']}"] if keyed else ["--journal", journal])]
    made = {v: v.stat().st_mtime_ns for v in volumes}

    def touched():
        return sum(v.stat().st_mtime_ns != at for v, at in made.items())
    killed = 0
    for goal in (2, 5, 8):
        process = subprocess.Popen([kit.LUKSKEEP, *map(str, command)], stdout=subprocess.DEVNULL,
                                   env={**os.environ, "LUKSKEEP_ARCHIVE": "off"})
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            if touched() > goal:
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.002)
        process.wait()
        # Whatever was cut: every volume opens.
        kit.lukskeep("unlock", *volumes)
    assert killed > 0
    result = json.loads(kit.lukskeep(*command).stdout)
    assert result["good"]
    assert set(old.values()).isdisjoint(result["in_use"])
    # With nothing left the journal is over.
    again = json.loads(kit.lukskeep(*command).stdout)
    assert {row["state"] for row in again["volumes"]} == {"unchanged" if keyed else "done"}
    for key in server.keys.glob(".*.jwk"):
        key.unlink()
    kit.lukskeep("unlock", *volumes)


def test_deletion_waits_for_the_report(fleet, tmp_path):
    server, volumes, old = fleet
    rotate(server)
    process = subprocess.Popen(
        [kit.LUKSKEEP, "tang", "delete", "--keys", server.keys, "--usage", "none", "--yes",
         "--allow", "unrecorded", "--wait-for", tmp_path / "report", "--", old["exchange"]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"waiting" in process.stderr.readline()
    rekey(*volumes, "--tang-key", old["exchange"], "--report", tmp_path / "report")
    assert process.wait(timeout=60) == 0
    process.communicate()
    assert old["exchange"] not in thumbprints(server, hidden=True).values()


def test_the_archive_has_every_header_of_before_and_after(fleet, tmp_path):
    server, volumes, old = fleet
    rotate(server)
    env = {"LUKSKEEP_ARCHIVE": str(tmp_path / "store"),
           "LUKSKEEP_ARCHIVE_KEY": str(tmp_path / "identity")}
    assert rekey(*volumes, "--tang-key", old["exchange"], env=env)["good"]
    listed = json.loads(kit.lukskeep("archive", "list", "--json", env=env).stdout)["snapshots"]
    assert len(listed) == 2 * len(volumes)
    assert len({snapshot["uuid"] for snapshot in listed}) == len(volumes)


def test_the_daemon_set_rekeys_until_nothing_is_left(fleet, tmp_path):
    yaml = pytest.importorskip("yaml")
    server, volumes, old = fleet
    text = (kit.ROOT / "packaging/kubernetes/tang-rekey.yaml").read_text()
    objects = {one["kind"]: one for one in yaml.safe_load_all(text)}
    container, = objects["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    (tmp_path / "rekey.sh").write_text(objects["ConfigMap"]["data"]["rekey.sh"])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/lukskeep").symlink_to(kit.LUKSKEEP)
    state = tmp_path / "state"
    env = {**os.environ, **{variable["name"]: variable["value"] for variable in container["env"]},
           "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LUKSKEEP_ARCHIVE": "off",
           "TANG_KEYS": old["exchange"], "STATE": str(state), "READY": str(tmp_path / "ready"),
           "PAUSE_SECONDS": "0.2", "VOLUMES": f"--directory={tmp_path / 'fleet'}"}
    ready = ["test", "-e", tmp_path / "ready"]
    process = subprocess.Popen(["sh", tmp_path / "rekey.sh"], env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        # The server was not rotated. The report is away while the next run is under way.
        wait_until(lambda: '"good": false' in read_if_there(state / "report.json"))
        assert subprocess.run(ready, env=env, check=False).returncode != 0
        rotate(server)
        wait_until(lambda: subprocess.run(ready, env=env, check=False).returncode == 0)
        assert json.loads((state / "report.json").read_text())["good"]
        process.terminate()
        process.wait(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    kit.lukskeep("tang", "delete", "--keys", server.keys, "--usage", "none", "--yes", "--allow",
                 "unrecorded", "--wait-for", state / "report.json", "--wait-limit", "0", "--",
                 old["exchange"])
    kit.lukskeep("unlock", *volumes)


def read_if_there(path):
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""


def wait_until(done, seconds=60):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_passphrase_binds_anew_what_no_server_opens(fleet, tmp_path):
    """The server was lost, and made anew without a backup of its keys."""
    server, volumes, _ = fleet
    # Who can write to a header puts himself into the policy of a binding that nobody can open.
    forged = kit.write(tmp_path / "forged", volumes[0].read_bytes())
    shares = {"t": 1, "pins": {"null": [{"fail": True}], "tang": [{"url": server.url}]}}
    kit.lukskeep("edit", forged, "--trust-on-first-use", "--pin", "sss", json.dumps(shares))
    for path in server.keys.glob("*.jwk"):
        path.unlink()
    kit.lukskeep("tang", "keygen", "--keys", server.keys)
    new = [f"--new-key={key}" for key in thumbprints(server).values()]
    every = [*volumes, forged, "--journal", tmp_path / "journal", "--tries", "1"]
    before = [kit.sha256(v) for v in volumes]
    assert rekey(*every, status=1)["left"] == len(volumes) + 1
    # Another key than the server's is not taken, and none without --key.
    key = ["--key", f"file:{tmp_path / 'k'}"]
    assert rekey(*every, *new, status=1)["left"] == len(volumes) + 1
    assert rekey(*every, *key, *new[:1], status=1)["left"] == len(volumes) + 1
    assert [kit.sha256(v) for v in volumes] == before
    result = rekey(*every, *key, *new, status=1)
    states = {row["volume"]: row["state"] for row in result["volumes"]}
    assert states == {**{str(v): "done" for v in volumes}, str(forged): "left"}
    for row in result["volumes"]:
        assert row["unproven"] == row["keyslots"] == ([] if row["state"] == "left" else [1])
    for volume in volumes:
        kit.lukskeep("unlock", volume)
        assert clevis_pass(volume, 1)
