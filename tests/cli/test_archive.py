"""The archive: what is added by itself, and what can be done with it."""

import os
import re
import sqlite3
import subprocess

import pytest

from cli_tools import IDENTITY, PBKDF2, PROGRAM, RECIPIENT, fails, ok, run, tree

CHANGE = ["--new-key", "file:k3", *PBKDF2]


@pytest.fixture
def kept(luks2, monkeypatch):
    """The volume v2 (k1, k2) and an archive that is on."""
    monkeypatch.setenv("LUKSKEEP_ARCHIVE", str(luks2 / "store"))
    monkeypatch.setenv("LUKSKEEP_ARCHIVE_KEY", str(luks2 / "own.key"))
    (luks2 / "id").write_text(IDENTITY + "\n")
    return luks2


def snapshots(folder, *more):
    return ok("archive", "list", "--json", *more, cwd=folder).json["snapshots"]


def test_every_change_is_archived_before_and_after(kept):
    before = (kept / "v2").read_bytes()
    result = ok("key", "add", "v2", "--key", "file:k1", *CHANGE, cwd=kept)
    assert "own.key" in result.err  # told once where the key is
    assert (kept / "own.key").stat().st_mode & 0o077 == 0
    assert (kept / "store").stat().st_mode & 0o077 == 0
    after, first = snapshots(kept)
    assert [(s["reason"], s["command"], s["keyslots"]) for s in (first, after)] == \
        [("before", "key add", 2), ("after", "key add", 3)]
    ok("archive", "export", first["id"], "old", cwd=kept)
    assert (kept / "old").read_bytes() == before[:(kept / "old").stat().st_size]
    for files in (kept / "store").rglob("*"):
        assert files.stat().st_mode & 0o077 == 0, files
    # The next change finds the last state there already.
    result = ok("config", "v2", "--label", "x", cwd=kept)
    assert "own.key" not in result.err
    assert len(snapshots(kept)) == 3


@pytest.mark.parametrize("command", [
    ["key", "remove", "v2", "--slot", "1"],
    ["key", "change", "v2", "--key", "file:k2", *CHANGE],
    ["config", "v2", "--label", "new"],
    ["erase", "v2", "--yes"],
    ["create", "v2", "--key", "file:k1", "--yes", *PBKDF2],
    ["encrypt", "plain", "v2", "--key", "file:k1", "--yes", *PBKDF2],
    ["header", "restore", "v2", "backup", "--allow", "older"],
])
def test_which_commands_archive(kept, command):
    ok("header", "backup", "v2", "backup", cwd=kept)
    old = ok("info", "v2", "--json", cwd=kept).json["uuid"]
    ok(*command, "--no-archive", "--dry-run", cwd=kept)
    ok(*command, "--dry-run", cwd=kept)
    assert not (kept / "store").exists()
    ok(*command, cwd=kept)
    listed = snapshots(kept)
    assert listed[-1]["reason"] == "before" and listed[-1]["uuid"] == old
    if command[1] == "restore":
        assert len(listed) == 1  # the same header as before
    else:
        assert listed[0]["reason"] == "after" and len(listed) == 2
    # Another volume is where the old one was: its snapshot is all that is left of it.
    states = {v["state"] for v in run("archive", "status", "--json", cwd=kept).json["volumes"]}
    replaced = command[0] in ("create", "encrypt")
    assert states == ({"current", "replaced"} if replaced else {"current"})


def test_no_archive_and_off(kept, monkeypatch):
    ok("config", "v2", "--label", "a", "--no-archive", cwd=kept)
    monkeypatch.setenv("LUKSKEEP_ARCHIVE", "off")
    ok("config", "v2", "--label", "b", cwd=kept)
    assert not (kept / "store").exists() and not (kept / "own.key").exists()
    fails(1, "archive", "list", cwd=kept)


def test_nothing_is_changed_without_a_copy(kept):
    (kept / "store").write_text("in the way")
    before = (kept / "v2").read_bytes()
    result = run("config", "v2", "--label", "x", cwd=kept)
    assert result.status != 0 and "--no-archive" in result.err
    assert (kept / "v2").read_bytes() == before


def test_a_removed_key_is_marked_and_pruned(kept):
    ok("archive", "add", "v2", cwd=kept)
    ok("key", "remove", "v2", "--slot", "1", cwd=kept)
    newest, old = snapshots(kept)
    assert old["revoked"] and not newest["revoked"]
    assert "removed since" in ok("archive", "list", cwd=kept).text
    assert ok("archive", "status", "--json", cwd=kept).json["revoked"] == 1
    assert len(ok("archive", "prune", "--revoked", "--dry-run", "--json",
                  cwd=kept).json["removed"]) == 1
    assert len(snapshots(kept)) == 2
    ok("archive", "prune", "--revoked", cwd=kept)
    assert [s["id"] for s in snapshots(kept)] == [newest["id"]]
    ok("archive", "prune", "--keep", "0", cwd=kept)
    assert len(snapshots(kept)) == 1  # the newest stays


def test_a_moved_key_is_the_same_key(kept):
    """cryptsetup's change of a passphrase moves keyslots about: a number says nothing."""
    ok("archive", "add", "v2", cwd=kept)
    ok("key", "change", "v2", "--key", "file:k2", *CHANGE, cwd=kept)
    first, second = snapshots(kept)[1]["id"], snapshots(kept)[0]["id"]
    keys = ok("archive", "diff", first, second, "--json", cwd=kept).json["keyslots"]
    assert sorted((k["from"], k["to"]) for k in keys if k["from"] is not None) == [(1, None)]
    assert snapshots(kept)[1]["revoked"]


def test_status_sees_what_others_did(kept):
    ok("archive", "add", "v2", cwd=kept)
    ok("config", "v2", "--label", "x", "--no-archive", cwd=kept)
    result = run("archive", "status", "--json", cwd=kept, check=1)
    assert [v["state"] for v in result.json["volumes"]] == ["changed"]
    ok("archive", "add", "v2", cwd=kept)
    ok("archive", "status", cwd=kept)
    os.rename(kept / "v2", kept / "elsewhere")
    assert run("archive", "status", "--json", cwd=kept,
               check=1).json["volumes"][0]["state"] == "absent"


def test_an_unchanged_header_adds_no_byte(kept):
    ok("archive", "add", "v2", cwd=kept)
    before = tree(kept / "store")
    assert ok("archive", "add", "v2", "--json", cwd=kept).json["new"] is False
    assert tree(kept / "store") == before


def test_a_damaged_copy_is_archived_with_its_damage(kept):
    with open(kept / "v2", "r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 64)
    ok("config", "v2", "--label", "mended", cwd=kept)
    first = snapshots(kept)[1]["id"]
    shown = ok("archive", "show", first, "--json", cwd=kept).json["manifest"]
    assert "primary" in shown["problems"][0]


def test_sealed_to_a_key_that_is_not_here(kept):
    ok("archive", "init", "--recipient", RECIPIENT, cwd=kept)
    fails(5, "archive", "init", "--recipient", RECIPIENT, cwd=kept)
    ok("archive", "add", "v2", cwd=kept)
    assert not (kept / "own.key").exists()
    newest = snapshots(kept)[0]["id"]
    fails(1, "archive", "export", newest, "out", cwd=kept)  # there is no key of our own
    (kept / "other").write_text(
        "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0S5CH2QH\n")
    ok("archive", "export", newest, "out", "--identity", "file:id", cwd=kept)
    assert (kept / "v2").read_bytes().startswith((kept / "out").read_bytes())


def test_stdout_carries_the_whole_snapshot(kept):
    data = ok("archive", "add", "v2", "--stdout", cwd=kept).out
    (kept / "carried").write_bytes(data)
    entry = snapshots(kept)[0]
    assert (kept / "store" / entry["file"]).read_bytes() == data
    result = ok("archive", "import", "carried", "--store", "second", "--json", cwd=kept).json
    assert result == {"file": "carried", "id": entry["id"], "new": True, "proven": True,
                      "mended": False, "dry_run": False}
    assert ok("archive", "import", "carried", "--store", "second", "--json",
              cwd=kept).json["new"] is False


@pytest.mark.parametrize("fixture,volume", [("luks1", "v1"), ("luks2", "v2")])
def test_a_compact_snapshot_has_all_that_opens_the_volume(kept, request, fixture, volume):
    folder = request.getfixturevalue(fixture)
    whole = (folder / volume).read_bytes()
    data = ok("archive", "add", volume, "--stdout", "--compact", cwd=folder).out
    assert len(data) < 700_000
    (folder / "carried").write_bytes(data)
    carried = ok("archive", "import", "carried", "--store", "second", "--json", cwd=folder).json["id"]
    ids = [ok("archive", "show", snapshot, "--store", store, "--json", cwd=folder).json
           ["manifest"]["content_id"]
           for store, snapshot in (("store", snapshots(folder)[0]["id"]), ("second", carried))]
    assert ids[0] == ids[1]
    with open(folder / volume, "r+b") as file:
        file.write(os.urandom(100_000))
    ok("header", "restore", volume, f"archive:{carried}", "--store", "second", "--yes", cwd=folder)
    ok("key", "test", volume, "--key", "file:k1", cwd=folder)
    now = (folder / volume).read_bytes()
    assert now[-65536:] == whole[-65536:] and now[:4096] == whole[:4096] and now != whole
    fails(1, "archive", "add", volume, "--compact", cwd=folder)


def test_verify_finds_every_changed_byte_region(kept):
    ok("archive", "add", "v2", cwd=kept)
    entry = snapshots(kept)[0]
    assert ok("archive", "verify", "--open", "--json", cwd=kept).json["problems"] == []
    path = kept / "store" / entry["file"]
    whole = path.read_bytes()
    manifest_end = whole.index(b"\n", 20)
    for at in (3, 60, manifest_end + 5, manifest_end + 90, manifest_end + 300, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        result = run("archive", "verify", "--open", "--json", cwd=kept, check=4)
        assert len(result.json["problems"]) == 1, at
    path.write_bytes(whole[:-100])
    run("archive", "verify", "--open", cwd=kept, check=4)
    path.unlink()
    run("archive", "verify", cwd=kept, check=4)


def test_a_lost_or_damaged_catalogue_is_made_anew(kept):
    ok("archive", "add", "v2", cwd=kept)
    ok("key", "remove", "v2", "--slot", "1", cwd=kept)
    listed = snapshots(kept)
    catalogue = kept / "store" / "catalogue.sqlite"
    for damage in (catalogue.unlink, lambda: catalogue.write_bytes(b"no database" * 1000),
                   lambda: catalogue.write_bytes(b"")):
        damage()
        assert snapshots(kept) == listed
    with sqlite3.connect(catalogue) as database:
        database.execute("DELETE FROM snapshots")
    assert snapshots(kept) == []
    ok("archive", "verify", "--rebuild", cwd=kept)
    assert snapshots(kept) == listed


def test_files_that_are_no_snapshots_are_named(kept):
    ok("archive", "add", "v2", cwd=kept)
    (kept / "store" / "snapshots" / "bad.snapshot").write_text("nonsense")
    for command in (["list"], ["add", "v2"], ["scan", "v2", "--add"]):
        (kept / "store" / "catalogue.sqlite").unlink()
        assert "bad.snapshot' is no snapshot" in ok("archive", *command, cwd=kept).err
        assert ok("archive", *command, cwd=kept).err == ""


def test_several_writers_at_once(kept):
    processes = []
    for number in range(8):
        name = f"w{number}"
        processes.append(subprocess.Popen(
            [PROGRAM, "create", name, "--size", "64K", "--key", "file:k1", *PBKDF2], cwd=kept,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    for process in processes:
        err = process.stderr.read().decode()
        process.stderr.close()
        assert process.wait(timeout=60) == 0 and "not in the archive" not in err, err
    assert len(snapshots(kept)) == 8
    assert ok("archive", "verify", "--open", "--json", cwd=kept).json["problems"] == []


def test_a_header_comes_back_from_the_archive(kept):
    ok("key", "add", "v2", "--key", "file:k1", *CHANGE, cwd=kept)
    newest, first = snapshots(kept)
    whole = (kept / "v2").read_bytes()
    ok("header", "restore", "v2", f"archive:{first['id']}", "--allow", "older", cwd=kept)
    fails(2, "key", "test", "v2", "--key", "file:k3", cwd=kept)
    # What was there before is in the archive too: the restore can be undone.
    ok("header", "restore", "v2", f"archive:{newest['id'][:8]}", cwd=kept)
    assert (kept / "v2").read_bytes() == whole
    fails(1, "header", "restore", "v2", "archive:ffffffffffff", cwd=kept)
    fails(1, "header", "restore", "v2", "archive:", cwd=kept)


def test_repair_writes_a_damaged_copy_anew(kept):
    for place in (5000, 16384 + 5000):
        with open(kept / "v2", "r+b") as file:
            file.seek(place)
            file.write(b"\xff" * 16)
        before = (kept / "v2").read_bytes()
        ok("header", "repair", "v2", "--dry-run", cwd=kept)
        assert (kept / "v2").read_bytes() == before
        assert len(ok("header", "repair", "v2", "--json", cwd=kept).json["repaired"]) == 1
        copies = ok("info", "v2", cwd=kept).text
        assert "primary good, secondary good" in copies
    before = (kept / "v2").read_bytes()
    assert "nothing to repair" in ok("header", "repair", "v2", cwd=kept).text
    assert (kept / "v2").read_bytes() == before
    ok("key", "test", "v2", "--key", "file:k1", cwd=kept)
    ok("key", "test", "v2", "--key", "file:k2", cwd=kept)


@pytest.mark.parametrize("fixture,volume", [("luks1", "v1"), ("luks2", "v2")])
def test_repair_of_a_lost_header_takes_the_newest_snapshot(kept, request, fixture, volume):
    folder = request.getfixturevalue(fixture)
    result = fails(4, "header", "repair", "plain", cwd=folder)
    assert "no snapshot" in result.err
    ok("key", "add", volume, "--key", "file:k1", *CHANGE, cwd=folder)
    whole = (folder / volume).read_bytes()
    with open(folder / volume, "r+b") as file:
        file.write(b"\x7f" * 100_000)
    damaged = (folder / volume).read_bytes()
    fails(6, "header", "repair", volume, cwd=folder)
    ok("header", "repair", volume, "--dry-run", "--yes", cwd=folder)
    assert (folder / volume).read_bytes() == damaged
    ok("header", "repair", volume, "--yes", cwd=folder)
    assert (folder / volume).read_bytes() == whole
    ok("key", "test", volume, "--key", "file:k3", cwd=folder)


def test_scan_finds_volumes_and_archives_them(kept):
    (kept / "deep" / "er").mkdir(parents=True)
    os.rename(kept / "v2", kept / "deep" / "er" / "v2")
    ok("create", "deep/v1", "--type", "luks1", "--size", "64K", "--key", "file:k1", "--no-archive",
       *PBKDF2, cwd=kept)
    # Only the second copy is left of this one; and here are things that are none.
    ok("create", "deep/half", "--size", "64K", "--key", "file:k1", "--no-archive", *PBKDF2, cwd=kept)
    with open(kept / "deep" / "half", "r+b") as file:
        file.write(bytes(4096))
    (kept / "deep" / "magic").write_bytes(b"LUKS\xba\xbe" + bytes(10_000))
    (kept / "deep" / "text").write_bytes(b"SKUL")
    os.symlink(kept / "deep", kept / "deep" / "loop")
    os.mkfifo(kept / "deep" / "pipe")

    found = ok("archive", "scan", "deep", "--json", cwd=kept).json
    assert {(v["path"], v["state"]) for v in found["volumes"]} == \
        {("deep/er/v2", "new"), ("deep/v1", "new"), ("deep/half", "new")}
    assert not (kept / "store").exists()
    states = [v["state"] for v in ok("archive", "scan", "deep", "--add", "--json",
                                     cwd=kept).json["volumes"]]
    assert states == ["added"] * 3 and len(snapshots(kept)) == 3
    ok("config", "deep/er/v2", "--label", "x", "--no-archive", cwd=kept)
    found = ok("archive", "scan", "deep", "--json", cwd=kept).json
    assert {v["state"] for v in found["volumes"]} == {"current", "changed"}
    ok("archive", "scan", "deep", "--add", cwd=kept)
    ok("archive", "status", cwd=kept)
    fails(1, "archive", "scan", "nowhere", cwd=kept)
    ok("archive", "scan", cwd=kept)  # the block devices of this machine, whatever they are


def test_a_drill_proves_that_a_snapshot_opens_the_payload(kept):
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "disk", "2M"], cwd=kept, check=True)
    ok("encrypt", "disk", "v", "--key", "file:k1", *PBKDF2, cwd=kept)
    newest = snapshots(kept)[0]["id"]
    with open(kept / "v", "r+b") as file:
        file.write(os.urandom(1 << 20))
    before = (kept / "v").read_bytes()
    assert ok("archive", "drill", newest, "v", "--key", "file:k1", "--json",
              cwd=kept).json["content"] == "ext"
    fails(2, "archive", "drill", newest, "v", "--key", "file:k2", cwd=kept)
    # The right key, and another payload.
    ok("encrypt", "disk", "w", "--key", "file:k1", *PBKDF2, cwd=kept)
    assert run("archive", "drill", newest, "w", "--key", "file:k1", "--json", cwd=kept,
               check=6).json["content"] == ""
    assert (kept / "v").read_bytes() == before


def test_names_and_keys_that_are_wrong(kept):
    ok("archive", "add", "v2", cwd=kept)
    for name, status in (("xyz", 1), ("../..", 1), ("abc", 1), ("0" * 64, 1), ("f" * 65, 1)):
        fails(status, "archive", "show", name, cwd=kept)
    newest = snapshots(kept)[0]["id"]
    fails(1, "archive", "export", newest, "out", "--identity", "file:k1", cwd=kept)
    fails(1, "archive", "init", "--store", "s2", "--recipient", "age1nonsense", cwd=kept)
    fails(4, "archive", "import", "plain", cwd=kept)
    assert not (kept / "out").exists() and not (kept / "s2").exists()


def test_a_hostile_manifest_stays_in_the_store(kept):
    data = ok("archive", "add", "v2", "--stdout", cwd=kept).out
    text = data.split(b"\n", 2)
    for change in ((rb'"uuid":"[^"]*"', b'"uuid":"../../../x"'),
                   (rb'"header_bytes":\d+', b'"header_bytes":99999999999'),
                   (rb'"sha256":"[^"]*"', b'"sha256":"00"'),
                   (rb'"keyslots":', b'"keyslots":1,"keyslots":'),
                   (rb'"taken_ns":\d+', b'"taken_ns":-1')):
        manifest = re.sub(*change, text[1])
        assert manifest != text[1]
        (kept / "bad").write_bytes(b"\n".join([text[0], manifest, text[2]]))
        outside = set(kept.parent.iterdir())
        result = run("archive", "import", "bad", cwd=kept)
        assert result.status in (0, 4)
        assert set(kept.parent.iterdir()) == outside


@pytest.mark.parametrize("name", ["store2", "store2/", "deep/er/store2//"])
def test_the_archive_is_for_its_owner_only(kept, name):
    ok("archive", "add", "v2", "--store", name, cwd=kept)
    for path in [kept / name, *(kept / name).rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_folder_that_others_can_write_to_is_refused(kept):
    (kept / "open").mkdir(mode=0o700)
    os.chmod(kept / "open", 0o777)
    assert "other users" in fails(6, "archive", "add", "v2", "--store", "open/", cwd=kept).err
    assert not list((kept / "open").iterdir())
    os.chmod(kept / "open", 0o700)
    ok("archive", "add", "v2", "--store", "open/", cwd=kept)


@pytest.mark.parametrize("command", [
    ["archive", "import", "old.hdr"],
    ["archive", "add", "clone"],
    ["archive", "scan", "backup", "--add"],
])
def test_an_older_copy_does_not_cost_the_volume_its_backup(kept, command):
    """Newest by the clock is not newest: the copy was archived later, and is older."""
    (kept / "backup").mkdir()
    ok("header", "backup", "v2", "old.hdr", cwd=kept)
    for copy in ("clone", "backup/v2"):
        (kept / copy).write_bytes((kept / "v2").read_bytes())
    ok("key", "remove", "v2", "--slot", "1", cwd=kept)
    newest = snapshots(kept)[0]["id"]
    ok(*command, cwd=kept)
    ok("archive", "prune", "--keep", "1", cwd=kept)
    ok("archive", "prune", "--keep", "0", cwd=kept)
    ok("archive", "prune", "--revoked", cwd=kept)
    left = {s["id"]: s for s in snapshots(kept)}
    assert newest in left and not left[newest]["revoked"]
    assert ok("archive", "status", "--json", cwd=kept).json["volumes"][0]["state"] == "current"


def test_what_was_imported_is_marked_and_kept_only_if_there_is_no_other(kept):
    ok("header", "backup", "v2", "old.hdr", cwd=kept)
    first = ok("archive", "import", "old.hdr", "--json", cwd=kept).json["id"]
    assert ok("archive", "import", "old.hdr", "--json", cwd=kept).json["new"] is False
    ok("archive", "prune", "--keep", "0", "--revoked", cwd=kept)
    assert [(s["id"], s["imported"], s["proven"]) for s in snapshots(kept)] == [(first, True, True)]
    assert ok("archive", "status", "--json", cwd=kept).json["volumes"] == []
    ok("key", "remove", "v2", "--slot", "1", cwd=kept)
    assert {s["id"] for s in snapshots(kept) if s["revoked"]} > {first}
    ok("archive", "prune", "--revoked", cwd=kept)
    assert [s["reason"] for s in snapshots(kept)] == ["after"]


def sealed_by_a_stranger(folder, change):
    """A snapshot of v2 with another manifest, and something sealed behind it."""
    data = ok("archive", "add", "v2", "--store", "strange", "--stdout", cwd=folder).out
    magic, manifest, sealed = data.split(b"\n", 2)
    (folder / "forged").write_bytes(b"\n".join([magic, change(manifest), sealed]))


def test_a_forged_snapshot_is_no_backup(kept):
    ok("archive", "add", "v2", cwd=kept)
    real = snapshots(kept)[0]["id"]
    at = rb'"taken_ns":\d+'
    sealed_by_a_stranger(kept, lambda m: re.sub(at, b'"taken_ns":9223372036854775807', m))
    assert "future" in fails(1, "archive", "import", "forged", cwd=kept).err
    sealed_by_a_stranger(
        kept, lambda m: re.sub(rb'"keyslots":\[.*\],"tokens"', b'"keyslots":[],"tokens"', m))
    fails(4, "archive", "import", "forged", cwd=kept)  # the key is here, and tells
    os.rename(kept / "own.key", kept / "elsewhere")
    said = ok("archive", "import", "forged", cwd=kept)
    assert "nothing proves" in said.text
    assert "not proven" in ok("archive", "list", cwd=kept).text
    os.rename(kept / "elsewhere", kept / "own.key")
    ok("archive", "prune", "--revoked", "--keep", "1", cwd=kept)
    assert real in [s["id"] for s in snapshots(kept)]
    ok("config", "v2", "--label", "x", cwd=kept)
    assert [s["reason"] for s in snapshots(kept)].count("before") == 0  # the real one is current
    run("archive", "verify", "--open", cwd=kept, check=4)  # names the forged one


def test_import_mends_a_lost_snapshot(kept):
    data = ok("archive", "add", "v2", "--stdout", cwd=kept).out
    (kept / "carried").write_bytes(data)
    path = kept / "store" / snapshots(kept)[0]["file"]
    for damage in (path.unlink, lambda: path.write_bytes(data[:-50])):
        damage()
        run("archive", "verify", cwd=kept, check=4)
        assert "mended" in ok("archive", "import", "carried", cwd=kept).text
        assert path.read_bytes() == data
        ok("archive", "verify", "--open", cwd=kept)
    assert "already" in ok("archive", "import", "carried", cwd=kept).text


def test_a_volume_that_cannot_be_archived_does_not_stop_the_scan(kept):
    (kept / "deep").mkdir()
    data = (kept / "v2").read_bytes()
    (kept / "deep" / "a").write_bytes(data[:40_000])  # ends inside its header
    (kept / "deep" / "b").write_bytes(data)
    result = run("archive", "scan", "deep", "--add", "--json", cwd=kept, check=4)
    assert [v["state"] for v in result.json["volumes"]] == ["failed", "added"]
    assert "40000 bytes" in result.json["volumes"][0]["problem"]
    # An archive that fails does stop it.
    snapshot = kept / "store" / snapshots(kept)[0]["file"]
    snapshot.unlink()
    snapshot.parent.rmdir()
    snapshot.parent.write_text("in the way")
    fails(1, "archive", "scan", "deep", "--add", "--json", cwd=kept)


def test_diff_prints_no_control_characters(kept):
    ok("archive", "add", "v2", cwd=kept)
    ok("config", "v2", "--label", "x\u009b31m\u0085", cwd=kept)
    newest, first = snapshots(kept)
    said = ok("archive", "diff", first["id"], newest["id"], cwd=kept).text
    assert "label" in said and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)


def test_a_path_that_is_no_text(kept):
    name = os.fsdecode(b"v\xff\xfe")
    os.rename(kept / "v2", kept / name)
    ok("archive", "add", name, cwd=kept)
    assert ok("archive", "add", name, "--json", cwd=kept).json["new"] is False
    assert ok("archive", "status", "--json", cwd=kept).json["volumes"][0]["state"] == "current"
    ok("archive", "scan", name, "--add", cwd=kept)
    assert len(snapshots(kept)) == 1


def test_a_store_below_a_symbolic_link(kept):
    (kept / "real").mkdir()
    os.symlink("real", kept / "link")
    ok("archive", "add", "v2", "--store", "link/store", cwd=kept)
    assert len(snapshots(kept, "--store", "link/store")) == 1
    ok("archive", "verify", "--rebuild", "--store", "link/store", cwd=kept)


def test_prune_keeps_one_snapshot_for_each_change_of_keys(kept):
    def label(text):
        ok("config", "v2", "--label", text, cwd=kept)

    ok("archive", "add", "v2", cwd=kept)          # keys 1, 2: 0
    label("a")                                    # 1
    ok("key", "add", "v2", "--key", "file:k1", *CHANGE, cwd=kept)  # keys 1, 2, 3: 2
    label("b")                                    # 3
    ok("key", "remove", "v2", "--key", "file:k3", cwd=kept)        # keys 1, 2 again: 4
    label("c")                                    # 5
    label("d")                                    # 6
    taken = [s["id"] for s in reversed(snapshots(kept))]
    assert len(taken) == 7
    fails(1, "archive", "prune", "--keep-key-changes", cwd=kept)  # says what stays, not what goes
    for limit in (["--keep", "0"], ["--older-than", "0"], ["--keep", "1", "--older-than", "0"]):
        gone = ok("archive", "prune", *limit, "--keep-key-changes", "--dry-run", "--json",
                  cwd=kept).json["removed"]
        assert {s["id"] for s in gone} == {taken[i] for i in (0, 2, 4, 5)}, limit
    gone = ok("archive", "prune", "--keep", "2", "--keep-key-changes", "--dry-run", "--json",
              cwd=kept).json["removed"]
    assert {s["id"] for s in gone} == {taken[i] for i in (0, 2, 4)}
    ok("archive", "prune", "--keep", "0", "--keep-key-changes", cwd=kept)
    assert [s["id"] for s in snapshots(kept)] == [taken[6], taken[3], taken[1]]
    ok("archive", "prune", "--keep", "0", "--keep-key-changes", cwd=kept)
    assert len(snapshots(kept)) == 3
    # A key that was removed goes all the same.
    ok("archive", "prune", "--revoked", "--keep", "0", "--keep-key-changes", cwd=kept)
    assert [s["id"] for s in snapshots(kept)] == [taken[6], taken[1]]
# What makes the archive without being asked for one by name, and whether it succeeds.
MAKERS = {
    "a change": (["config", "v2", "--label", "x"], 0),
    "a change that fails": (["key", "remove", "v2", "--slot", "9"], 1),
    "add": (["archive", "add", "v2"], 0),
    "add to a pipe": (["archive", "add", "v2", "--stdout"], 0),
    "import": (["archive", "import", "backup"], 0),
    "import of a snapshot": (["archive", "import", "snapshot"], 0),
    "scan": (["archive", "scan", "v2", "--add"], 0),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_who_makes_an_archive_is_told_of_its_only_key(kept, maker):
    command, status = MAKERS[maker]
    ok("header", "backup", "v2", "backup", cwd=kept)
    (kept / "snapshot").write_bytes(
        ok("archive", "add", "v2", "--stdout", "--store", "other", "--quiet", cwd=kept).out)
    (kept / "own.key").unlink()
    result = run(*command, cwd=kept, check=status)
    assert result.err.count(f"only the key '{kept / 'own.key'}' opens the archive") == 1
    assert f"'{kept / 'store'}'" in result.err
    assert "own.key" not in run(*command, cwd=kept, check=status).err


def test_quiet_says_nothing_of_a_new_archive(kept):
    assert ok("archive", "add", "v2", "--quiet", cwd=kept).err == ""
    assert (kept / "store").exists()


@pytest.fixture
def service(public_place, as_nobody):
    """run_as(words…) runs the program as a user without a home, who has a volume v and its key k."""
    (public_place / "k").write_bytes(b"secret")
    os.chmod(public_place / "k", 0o644)

    def run_as(*words, status=0, **environment):
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("LUKSKEEP_", "XDG_"))}
        return run(*words, cwd=public_place, wrap=as_nobody, check=status,
                   env={**env, "HOME": "/nonexistent", **environment})

    run_as("create", "v", "--size", "64K", "--key", "file:k", "--no-archive", *PBKDF2)
    return public_place, run_as


def test_a_user_without_a_home_changes_headers(service):
    place, run_as = service
    assert run_as("config", "v", "--label", "x").err == ""
    assert "no home directory" in run_as("archive", "list", status=1).err
    # The archive is named, but there is no place for a new key.
    store = {"LUKSKEEP_ARCHIVE": str(place / "store")}
    refused = run_as("config", "v", "--label", "y", status=1, **store)
    assert "home" in refused.err and "--no-archive" in refused.err
    # An archive that is there needs no key to be added to.
    run_as("archive", "init", "--store", "store", "--recipient", RECIPIENT)
    assert run_as("config", "v", "--label", "y", **store).err == ""
    assert run_as("archive", "add", "v", **store).err == ""
    listed = run_as("archive", "list", "--json", **store).json["snapshots"]
    assert [one["reason"] for one in listed] == ["after", "before"]


def test_what_is_left_of_a_header_is_kept_before_it_is_overwritten(kept):
    ok("header", "backup", "v2", "h", cwd=kept)
    with open(kept / "v2", "r+b") as file:
        for at in (5000, 16384 + 5000):
            file.seek(at)
            file.write(b"\xff" * 16)
    wreck = (kept / "v2").read_bytes()
    result = ok("header", "restore", "v2", "h", "--json", cwd=kept).json
    newest = next(s for s in snapshots(kept) if s["id"] == result["undo"])
    assert newest["reason"] == "wreck"
    ok("archive", "export", newest["id"], "left", cwd=kept)
    assert wreck.startswith((kept / "left").read_bytes())
    assert ok("archive", "verify", "--open", "--json", cwd=kept).json["problems"] == []
    # It is no state of the volume that anything is measured by, and nothing to restore.
    assert ok("archive", "status", "--json", cwd=kept).json["volumes"][0]["state"] == "current"
    fails(4, "header", "restore", "v2", f"archive:{newest['id']}", cwd=kept)
