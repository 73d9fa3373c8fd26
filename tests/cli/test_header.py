"""header backup and restore, info, tokens, config."""

import json
import os
import subprocess

import pytest

from cli_tools import ARGON2, PBKDF2, fails, ok


# ---- header ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture,volume", [("luks1", "v1"), ("luks2", "v2")])
def test_backup_and_restore(request, fixture, volume):
    folder = request.getfixturevalue(fixture)
    result = ok("header", "backup", volume, "h", "--json", cwd=folder).json
    assert (folder / "h").stat().st_size == result["size"]
    assert (folder / "h").stat().st_mode & 0o077 == 0
    whole = (folder / volume).read_bytes()
    # LUKS1: the last bytes fill up a block and are zero, as in cryptsetup's backups.
    assert whole.startswith((folder / "h").read_bytes()[:-4096])
    assert ok("header", "backup", volume, "-", cwd=folder).out == (folder / "h").read_bytes()
    with open(folder / volume, "r+b") as file:
        file.write(os.urandom(65536))
    fails(4, "info", volume, cwd=folder)
    # It might be somebody else's data.
    assert "other data" in fails(6, "header", "restore", volume, "h", cwd=folder).err
    ok("header", "restore", volume, "h", "--yes", cwd=folder)
    assert (folder / volume).read_bytes() == whole
    ok("key", "test", volume, "--key", "file:k1", cwd=folder)


@pytest.fixture
def loop(luks2):
    """A block device of volume v2."""
    done = subprocess.run(["losetup", "--find", "--show", luks2 / "v2"], capture_output=True,
                          text=True)
    if done.returncode != 0:
        pytest.skip("there are no loop devices: " + done.stderr.strip())
    device = done.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.parametrize("start", [b"file system" * 40, bytes(4096)], ids=["data", "zero"])
def test_what_was_mounted_since_is_not_repaired_away(luks2, loop, start):
    """The second copy is left of a volume that was made something else, and that is in use: a mount
    holds the device in this way."""
    with open(loop, "r+b", buffering=0) as file:
        file.write(start.ljust(4096, b"\0"))
    before = (luks2 / "v2").read_bytes()
    held = os.open(loop, os.O_RDWR | os.O_EXCL)
    try:
        for command in (["header", "repair", loop, "--yes"],
                        ["config", loop, "--label", "x"],
                        ["key", "remove", loop, "--slot", "0", "--yes"]):
            assert "busy" in fails(5, *command, cwd=luks2).err
        assert (luks2 / "v2").read_bytes() == before
    finally:
        os.close(held)
    ok("header", "repair", loop, "--yes", cwd=luks2)
    # What starts as a volume is changed whoever has it as that.
    held = os.open(loop, os.O_RDWR | os.O_EXCL)
    try:
        ok("key", "add", loop, "--key", "file:k1", "--new-key", "file:k2", *PBKDF2, cwd=luks2)
    finally:
        os.close(held)


def test_a_backup_does_not_overwrite(luks2):
    fails(5, "header", "backup", "v2", "plain", cwd=luks2)
    fails(1, "header", "backup", "v2", "./v2", "--yes", cwd=luks2)
    fails(1, "header", "restore", "v2", "v2", cwd=luks2)
    ok("header", "backup", "v2", "plain", "--yes", cwd=luks2)


def test_restoring_an_old_header_must_be_allowed(luks2):
    ok("header", "backup", "v2", "h", cwd=luks2)
    ok("key", "remove", "v2", "--slot", "1", cwd=luks2)
    before = (luks2 / "v2").read_bytes()
    result = fails(6, "header", "restore", "v2", "h", cwd=luks2)
    assert "older" in result.err and "--allow older" in result.err
    # Consent to being asked is no consent to this, and one reason is not another.
    fails(6, "header", "restore", "v2", "h", "--yes", cwd=luks2)
    fails(6, "header", "restore", "v2", "h", "--allow", "uuid,size", cwd=luks2)
    fails(1, "header", "restore", "v2", "h", "--allow", "everything", cwd=luks2)
    assert "--allow older" in ok("header", "restore", "v2", "h", "--dry-run", cwd=luks2).err
    assert (luks2 / "v2").read_bytes() == before
    result = ok("header", "restore", "v2", "h", "--allow", "older", "--json", cwd=luks2)
    assert "keyslot 1 comes back" in result.err
    assert [(one["reason"], one["allowed"]) for one in result.json["objections"]] == [
        ("older", True)]
    assert result.json["revived"] == [1] and result.json["killed"] == []
    ok("key", "test", "v2", "--key", "file:k2", cwd=luks2)


def test_revived_keyslots_can_be_left_out(luks2):
    ok("header", "backup", "v2", "h", cwd=luks2)
    ok("key", "remove", "v2", "--slot", "1", cwd=luks2)
    material = slice(32768 + 258048, 32768 + 2 * 258048)
    result = ok("header", "restore", "v2", "h", "--allow", "older", "--kill-revived", "--json",
                cwd=luks2)
    assert result.json["killed"] == [1] and len(result.json["keyslots"]) == 1
    ok("key", "test", "v2", "--key", "file:k1", cwd=luks2)
    fails(2, "key", "test", "v2", "--key", "file:k2", cwd=luks2)
    assert (luks2 / "v2").read_bytes()[material] != (luks2 / "h").read_bytes()[material]
    # Not where nothing would be left.
    ok("key", "change", "v2", "--key", "file:k1", "--new-key", "file:k3", *PBKDF2, cwd=luks2)
    before = (luks2 / "v2").read_bytes()
    fails(6, "header", "restore", "v2", "h", "--allow", "older", "--kill-revived", cwd=luks2)
    assert (luks2 / "v2").read_bytes() == before


def test_a_restore_with_the_key_looks_at_the_payload(place):
    subprocess.run(["mkfs.ext4", "-q", "fs", "2M"], cwd=place, check=True)
    for number in (1, 2):
        ok("encrypt", "fs", f"v{number}", "--key", f"file:k{number}", *PBKDF2, cwd=place)
    ok("header", "backup", "v1", "h", cwd=place)
    with open(place / "v1", "r+b") as file:
        file.write(bytes(16 << 20))
    result = ok("header", "restore", "v1", "h", "--key", "file:k1", "--json", cwd=place)
    assert "the payload holds ext" in result.json["notes"]
    fails(2, "header", "restore", "v1", "h", "--key", "file:k2", cwd=place)
    with open(place / "v2", "r+b") as file:
        file.write(bytes(16 << 20))
    result = fails(6, "header", "restore", "v2", "h", "--key", "file:k1", cwd=place)
    assert "--allow payload" in result.err


# What is left of a damaged header may know more than the backup.
@pytest.mark.parametrize("type", ["luks1", "luks2"])
def test_a_damaged_header_is_not_taken_for_an_old_one(place, type):
    ok("create", "v", "--type", type, "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=place)
    ok("header", "backup", "v", "old", cwd=place)
    ok("key", "add", "v", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2, cwd=place)
    ok("header", "backup", "v", "new", cwd=place)
    damage = (108,) if type == "luks1" else (5000, 16384 + 5000)
    with open(place / "v", "r+b") as file:
        for at in damage:
            file.seek(at)
            file.write(b"\xff\xff")
    fails(4, "info", "v", cwd=place)
    result = fails(6, "header", "restore", "v", "old", cwd=place)
    assert "what is left of the header" in result.err and "--allow older" in result.err
    ok("header", "restore", "v", "new", cwd=place)
    ok("key", "test", "v", "--key", "file:k2", cwd=place)


def test_a_header_of_another_volume_must_be_confirmed(luks2):
    ok("create", "w", "--size", "64K", "--key", "file:k3", *PBKDF2, cwd=luks2)
    ok("header", "backup", "w", "h", cwd=luks2)
    before = (luks2 / "v2").read_bytes()
    result = fails(6, "header", "restore", "v2", "h", cwd=luks2)
    assert "volume key" in result.err
    assert (luks2 / "v2").read_bytes() == before


def test_what_is_no_backup(luks2):
    before = (luks2 / "v2").read_bytes()
    fails(4, "header", "restore", "v2", "plain", "--yes", cwd=luks2)
    fails(1, "header", "restore", "v2", "nowhere", "--yes", cwd=luks2)
    ok("header", "backup", "v2", "h", cwd=luks2)
    with open(luks2 / "h", "r+b") as file:
        file.truncate(1 << 20)
    fails(4, "header", "restore", "v2", "h", "--yes", cwd=luks2)
    assert (luks2 / "v2").read_bytes() == before


def damage_primary(path):
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"garbage")


def test_a_damaged_copy_is_reported_and_left_alone(luks2):
    damage_primary(luks2 / "v2")
    before = (luks2 / "v2").read_bytes()
    info = ok("info", "v2", "--json", cwd=luks2).json
    assert info["copies"]["primary"] == "damaged" and info["copies"]["secondary"] == "good"
    assert info["problems"]
    assert "problems" in ok("info", "v2", cwd=luks2).text
    ok("key", "list", "v2", cwd=luks2)
    ok("key", "test", "v2", "--key", "file:k1", cwd=luks2)
    ok("decrypt", "v2", "out", "--key", "file:k1", cwd=luks2)
    fails(4, "header", "backup", "v2", "h", cwd=luks2)
    assert (luks2 / "v2").read_bytes() == before
    ok("header", "backup", "v2", "h", "--yes", cwd=luks2)
    # A change writes both copies anew.
    ok("config", "v2", "--label", "new", cwd=luks2)
    assert ok("info", "v2", "--json", cwd=luks2).json["copies"]["primary"] == "good"


def test_repair_mends_a_luks1_header_without_an_archive(luks1):
    whole = (luks1 / "v1").read_bytes()
    for at, data in ((0, b"DUKS"), (208 + 44, bytes(4)), (208 + 40, b"\xff" * 4)):
        with open(luks1 / "v1", "r+b") as file:
            file.seek(at)
            file.write(data)
        damaged = (luks1 / "v1").read_bytes()
        fails(4, "info", "v1", cwd=luks1)
        ok("header", "repair", "v1", "--dry-run", cwd=luks1)
        fails(2, "header", "repair", "v1", "--key", "file:k2", cwd=luks1)
        assert (luks1 / "v1").read_bytes() == damaged
        assert len(ok("header", "repair", "v1", "--key", "file:k1", "--json",
                      cwd=luks1).json["repaired"]) == 1
        assert (luks1 / "v1").read_bytes() == whole
    (luks1 / "v1").write_bytes(b"LUKS\xba\xbe\x00\x01" + os.urandom(1 << 20))
    fails(1, "header", "repair", "v1", cwd=luks1)


def test_repair_removes_orphan_tokens_if_asked(luks2):
    for number, keyslots in enumerate(('["0"]', "[]", "[]")):
        (luks2 / "token").write_text('{"type":"t","keyslots":%s}' % keyslots)
        ok("token", "import", "v2", "token", cwd=luks2)
    assert ok("header", "repair", "v2", "--json", cwd=luks2).json["repaired"] == []
    ok("header", "repair", "v2", "--orphan-tokens", "--dry-run", cwd=luks2)
    assert len(ok("token", "list", "v2", "--json", cwd=luks2).json["tokens"]) == 3
    assert len(ok("header", "repair", "v2", "--orphan-tokens", "--json",
                  cwd=luks2).json["repaired"]) == 2
    assert len(ok("token", "list", "v2", "--json", cwd=luks2).json["tokens"]) == 1


# ---- info --------------------------------------------------------------------------------------

INFO_MEMBERS = {"volume", "type", "uuid", "label", "subsystem", "header_size", "payload_offset",
                "cipher", "key_bits", "sector_size", "payload_size", "sequence_id",
                "metadata_size", "keyslots", "segments", "digests", "tokens", "flags",
                "requirements", "unsupported_requirements", "copies", "problems"}
KEYSLOT_MEMBERS = {"slot", "type", "priority", "key_bits", "kdf", "area", "af", "bound", "digest",
                   "tokens"}


def test_info_has_one_shape_for_both_versions(luks1, luks2):
    for folder, volume in ((luks1, "v1"), (luks2, "v2")):
        info = ok("info", volume, "--json", cwd=folder).json
        assert set(info) == INFO_MEMBERS
        assert all(set(keyslot) == KEYSLOT_MEMBERS for keyslot in info["keyslots"])
        assert set(info["segments"][0]) == {"segment", "type", "offset", "size", "cipher",
                                            "sector_size", "iv_tweak", "integrity", "flags"}
        assert set(info["digests"][0]) == {"digest", "type", "keyslots", "segments", "hash",
                                           "iterations", "salt", "value"}
        assert info["payload_size"] == 65536 and info["key_bits"] == 512


def test_info_for_people(luks2):
    ok("config", "v2", "--label", "my label", "--flags", "allow-discards", cwd=luks2)
    text = ok("info", "v2", cwd=luks2).text
    for part in ("v2: LUKS2, aes-xts-plain64 with a 512-bit key, 4096-byte sectors", "my label",
                 "64 KiB (65536 bytes) from byte 16777216", "allow-discards",
                 "pbkdf2-sha256, 1000 iterations", "argon2id, time 4, 32 KiB, 1 lane"):
        assert part in text


def test_what_is_no_volume(place):
    result = fails(4, "info", "plain", cwd=place)
    assert "'plain' has no LUKS header" in result.err
    (place / "empty").write_bytes(b"")
    fails(4, "info", "empty", cwd=place)
    result = fails(4, "info", "qcow2:plain", cwd=place)
    assert "'plain': it is no qcow2 image" in result.err


# ---- token -------------------------------------------------------------------------------------

TOKEN = '{"type":"example", "keyslots":["1"],  "x":{"deep":[1,2,{"y":null}]}}'


def test_tokens_come_back_byte_for_byte(luks2):
    assert ok("token", "list", "v2", cwd=luks2).text == "  none\n"
    (luks2 / "t").write_text(TOKEN)
    result = ok("token", "import", "v2", "t", "--json", cwd=luks2).json
    assert result["token"] == 0 and result["type"] == "example"
    assert ok("token", "export", "v2", "0", cwd=luks2).text == TOKEN + "\n"
    exported = ok("token", "export", "v2", "0", "--json", cwd=luks2).json
    assert exported["json"] == json.loads(TOKEN) and exported["keyslots"] == [1]
    listed = ok("token", "list", "v2", "--json", cwd=luks2).json["tokens"]
    assert [(token["id"], token["type"], token["keyslots"]) for token in listed] == \
        [(0, "example", [1])]
    assert "example, keyslot 1" in ok("token", "list", "v2", cwd=luks2).text
    assert ok("info", "v2", "--json", cwd=luks2).json["keyslots"][1]["tokens"] == [0]
    ok("token", "remove", "v2", "0", cwd=luks2)
    fails(1, "token", "export", "v2", "0", cwd=luks2)
    fails(1, "token", "remove", "v2", "0", cwd=luks2)


def test_a_token_can_be_numbered_and_replaced(luks2):
    ok("token", "import", "v2", "-", "--token", "31", stdin=TOKEN.encode(), cwd=luks2)
    fails(5, "token", "import", "v2", "-", "--token", "31", stdin=TOKEN.encode(), cwd=luks2)
    other = b'{"type":"other","keyslots":[]}'
    ok("token", "import", "v2", "-", "--token", "31", "--replace", stdin=other, cwd=luks2)
    assert ok("token", "export", "v2", "31", cwd=luks2).out == other + b"\n"
    fails(1, "token", "import", "v2", "-", "--token", "32", stdin=other, cwd=luks2)


@pytest.mark.parametrize("text", [
    b"", b"{", b"[]", b'"x"', b"{}", b'{"type":"t"}', b'{"keyslots":[]}',
    b'{"type":1,"keyslots":[]}', b'{"type":"t","keyslots":[1]}', b'{"type":"t","keyslots":["9"]}',
    b'{"type":"t","keyslots":["x"]}', b'{"type":"t","type":"u","keyslots":[]}',
    b'{"type":"t","keyslots":[],"x":"' + b"y" * 20000 + b'"}', b'{"type":"\xff","keyslots":[]}',
])
def test_what_is_no_token(luks2, text):
    before = (luks2 / "v2").read_bytes()
    (luks2 / "t").write_bytes(text)
    # An empty file is no input, and a keyslot that does not exist is a wrong parameter.
    status = 1 if not text or b'"9"' in text else 4
    assert fails(status, "token", "import", "v2", "t", cwd=luks2).err
    assert (luks2 / "v2").read_bytes() == before


def test_luks1_has_no_tokens(luks1):
    fails(4, "token", "import", "v1", "-", stdin=TOKEN.encode(), cwd=luks1)
    assert ok("token", "list", "v1", "--json", cwd=luks1).json["tokens"] == []


# ---- config ------------------------------------------------------------------------------------


def test_config_changes_and_shows(luks2):
    ok("config", "v2", "--label", "a", "--subsystem", "b", "--flags",
       "no-journal,allow-discards", "--priority", "prefer", "--slot", "1", cwd=luks2)
    config = ok("config", "v2", "--json", cwd=luks2).json
    assert config["label"] == "a" and config["subsystem"] == "b"
    assert config["flags"] == ["allow-discards", "no-journal"]
    assert config["priorities"] == {"0": "normal", "1": "prefer"}
    ok("config", "v2", "--label", "", "--flags", "", cwd=luks2)
    config = ok("config", "v2", "--json", cwd=luks2).json
    assert config["label"] == "" and config["flags"] == [] and config["subsystem"] == "b"
    text = ok("config", "v2", cwd=luks2).text
    assert "label      none" in text and "keyslot 1  priority prefer" in text


def test_showing_writes_nothing(luks2):
    before = (luks2 / "v2").read_bytes()
    ok("config", "v2", cwd=luks2)
    assert (luks2 / "v2").read_bytes() == before


@pytest.mark.parametrize("args,status,part", [
    (["--label", "x" * 48], 1, "47"),
    (["--subsystem", "x" * 48], 1, "47"),
    (["--flags", "allow-discard"], 1, "'allow-discard'"),
    (["--priority", "prefer", "--slot", "9"], 1, "no keyslot 9"),
])
def test_config_refuses(luks2, args, status, part):
    before = (luks2 / "v2").read_bytes()
    assert part in fails(status, "config", "v2", *args, cwd=luks2).err
    assert (luks2 / "v2").read_bytes() == before


def test_luks1_has_no_settings(luks1):
    for option in (["--label", "x"], ["--flags", "allow-discards"],
                   ["--priority", "prefer", "--slot", "0"]):
        fails(4, "config", "v1", *option, cwd=luks1)
    assert ok("config", "v1", "--json", cwd=luks1).json["label"] == ""


def test_the_detached_header_is_the_one_that_changes(place):
    ok("create", "data", "--size", "64K", "--header", "h", "--key", "file:k1", *PBKDF2, cwd=place)
    data = (place / "data").read_bytes()
    ok("key", "add", "data", "--header", "h", "--key", "file:k1", "--new-key", "file:k2", *ARGON2,
       cwd=place)
    ok("config", "data", "--header", "h", "--label", "x", cwd=place)
    ok("header", "backup", "data", "b", "--header", "h", cwd=place)
    ok("erase", "data", "--header", "h", "--yes", cwd=place)
    ok("header", "restore", "data", "b", "--header", "h", "--allow", "older", cwd=place)
    ok("key", "test", "h", "--key", "file:k2", cwd=place)
    assert (place / "data").read_bytes() == data
