import os

import pytest

from cli_tools import ARGON2, PBKDF2, fails, ok, run


def slots(folder, volume):
    keyslots = ok("key", "list", volume, "--json", cwd=folder).json["keyslots"]
    return {keyslot["slot"]: keyslot for keyslot in keyslots}


def opens(folder, volume, key, *more):
    result = run("key", "test", volume, "--key", key, "--json", *more, cwd=folder)
    assert result.status in (0, 2), result
    return result.json["keyslot"] if result.status == 0 else None


def test_key_test_says_which_keyslot(luks2):
    assert opens(luks2, "v2", "file:k1") == 0
    assert opens(luks2, "v2", "file:k2") == 1
    assert opens(luks2, "v2", "file:k3") is None
    result = fails(2, "key", "test", "v2", "--key", "file:k3", cwd=luks2)
    assert "no keyslot of 'v2' opens with this passphrase" in result.err
    result = fails(2, "key", "test", "v2", "--key", "file:k1", "--slot", "1", cwd=luks2)
    assert "keyslot 1 of 'v2'" in result.err
    fails(1, "key", "test", "v2", "--key", "file:k1", "--slot", "7", cwd=luks2)
    assert ok("key", "test", "v2", "--key", "file:k1", cwd=luks2).text == "keyslot 0 opens\n"
    assert ok("key", "test", "v2", "--key", "file:k1", "--quiet", cwd=luks2).text == ""


def test_every_source_of_a_key(luks2):
    (luks2 / "hidden").write_bytes(b"xxxpassphrase 1\nyyy")
    assert opens(luks2, "v2", "file:hidden,offset=3,size=13") == 0
    ok("key", "test", "v2", "--key", "file:-", stdin=b"passphrase 1\n", cwd=luks2)
    ok("key", "test", "v2", "--key", "fd:0", stdin=b"passphrase 1\n", cwd=luks2)
    # A newline at the end belongs to the passphrase.
    fails(2, "key", "test", "v2", "--key", "fd:0", stdin=b"passphrase 1", cwd=luks2)
    read, write = os.pipe()
    os.write(write, b"passphrase 2\n")
    os.close(write)
    ok("key", "test", "v2", "--key", f"fd:{read}", pass_fds=[read], cwd=luks2)
    os.close(read)


@pytest.mark.parametrize("source,status,part", [
    ("file:nowhere", 1, "cannot open key file 'nowhere'"),
    ("file:.", 4, "'.'"),
    ("file:empty", 1, "key in 'empty' is empty"),
    ("file:k1,offset=99", 1, "ends before its offset"),
    ("file:k1,size=99", 1, "99 are wanted"),
    ("fd:77", 4, "descriptor 77"),
    ("prompt:", 1, "there is no terminal"),
    ("manager:", 1, "names nothing"),
    ("binding:", 1, "has no binding that could open it"),
    ("nonsense", 1, "has no scheme"),
])
def test_sources_that_give_no_key(luks2, source, status, part):
    (luks2 / "empty").write_bytes(b"")
    result = fails(status, "key", "test", "v2", "--key", source, cwd=luks2)
    assert part in result.err


def test_without_a_terminal_the_default_is_an_error_with_a_hint(luks2):
    result = fails(1, "key", "test", "v2", cwd=luks2)
    assert "there is no terminal to ask for the passphrase for 'v2'" in result.err
    assert "lukskeep: hint: name a key source" in result.err


def test_binary_passphrases(place):
    secret = bytes(range(256)) * 3
    (place / "binary").write_bytes(secret)
    ok("create", "v", "--size", "64K", "--key", "file:binary", *PBKDF2, cwd=place)
    assert opens(place, "v", "file:binary") == 0
    (place / "binary").write_bytes(secret[:-1])
    assert opens(place, "v", "file:binary") is None


def test_add(luks2):
    result = ok("key", "add", "v2", "--key", "file:k2", "--new-key", "file:k3", "--slot", "5",
                "--priority", "ignore", *ARGON2, "--json", cwd=luks2).json
    assert result["keyslot"] == 5 and result["kdf"]["type"] == "argon2id"
    added = slots(luks2, "v2")[5]
    assert added["priority"] == "ignore" and added["bound"]
    assert opens(luks2, "v2", "file:k3") is None  # ignored unless named
    assert opens(luks2, "v2", "file:k3", "--slot", "5") == 5


def test_add_with_the_volume_key(place):
    (place / "vk").write_bytes(os.urandom(64))
    ok("create", "v", "--size", "64K", "--volume-key", "file:vk", "--key", "file:k1", *PBKDF2,
       cwd=place)
    ok("key", "add", "v", "--key", "volume-key:vk", "--new-key", "file:k2", *PBKDF2, cwd=place)
    assert opens(place, "v", "file:k2") == 1
    (place / "vk").write_bytes(os.urandom(64))
    fails(2, "key", "add", "v", "--key", "volume-key:vk", "--new-key", "file:k3", *PBKDF2,
          cwd=place)


def test_add_with_its_own_keyslot_cipher(luks2):
    ok("key", "add", "v2", "--key", "file:k1", "--new-key", "file:k3", "--keyslot-cipher",
       "serpent-xts-plain64", "--keyslot-key-size", "256", *PBKDF2, cwd=luks2)
    area = slots(luks2, "v2")[2]["area"]
    assert (area["encryption"], area["key_bits"]) == ("serpent-xts-plain64", 256)
    assert opens(luks2, "v2", "file:k3") == 2


def test_add_refuses(luks2, luks1):
    before = (luks2 / "v2").read_bytes()
    new = ["--new-key", "file:k3", *PBKDF2]
    fails(2, "key", "add", "v2", "--key", "file:k3", *new, cwd=luks2)
    fails(5, "key", "add", "v2", "--key", "file:k1", "--slot", "0", *new, cwd=luks2)
    fails(1, "key", "add", "v2", "--key", "file:k1", "--slot", "32", *new, cwd=luks2)
    fails(1, "key", "add", "v2", "--key", "file:k1", "--new-key", "volume-key:k3", cwd=luks2)
    fails(1, "key", "add", "v2", "--key", "file:k1", "--new-key", "file:k3", "--pbkdf", "pbkdf2",
          "--pbkdf-iterations", "10", cwd=luks2)
    assert (luks2 / "v2").read_bytes() == before
    for status, options in ((1, ["--pbkdf", "argon2id"]), (1, ["--slot", "8", *PBKDF2]),
                            (1, ["--priority", "prefer", *PBKDF2])):
        fails(status, "key", "add", "v1", "--key", "file:k1", "--new-key", "file:k3", *options,
              cwd=luks1)


def test_all_keyslots_can_be_filled_and_no_more(luks1):
    for _ in range(7):
        ok("key", "add", "v1", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2, cwd=luks1)
    result = fails(1, "key", "add", "v1", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2,
                   cwd=luks1)
    assert "all keyslots of 'v1' are taken" in result.err
    assert sorted(slots(luks1, "v1")) == list(range(8))


def test_remove_by_passphrase_and_by_number(luks2):
    ok("key", "add", "v2", "--key", "file:k1", "--new-key", "file:k3", *PBKDF2, cwd=luks2)
    assert ok("key", "remove", "v2", "--key", "file:k2", "--json", cwd=luks2).json["removed"] == 1
    assert opens(luks2, "v2", "file:k2") is None
    fails(2, "key", "remove", "v2", "--key", "file:k1", "--slot", "2", cwd=luks2)
    ok("key", "remove", "v2", "--slot", "2", cwd=luks2)
    assert sorted(slots(luks2, "v2")) == [0]
    fails(1, "key", "remove", "v2", "--slot", "2", cwd=luks2)


@pytest.mark.parametrize("fixture,volume", [("luks1", "v1"), ("luks2", "v2")])
def test_the_last_keyslot_needs_yes(request, fixture, volume):
    folder = request.getfixturevalue(fixture)
    if volume == "v2":
        ok("key", "remove", volume, "--slot", "1", cwd=folder)
    before = (folder / volume).read_bytes()
    result = fails(6, "key", "remove", volume, "--slot", "0", cwd=folder)
    assert "last" in result.err and "--yes" in result.err
    assert (folder / volume).read_bytes() == before
    ok("key", "remove", volume, "--slot", "0", "--yes", cwd=folder)
    assert slots(folder, volume) == {}


def test_removed_material_is_gone(luks2):
    area = slots(luks2, "v2")[1]["area"]
    before = (luks2 / "v2").read_bytes()[area["offset"]:area["offset"] + area["size"]]
    ok("key", "remove", "v2", "--slot", "1", cwd=luks2)
    after = (luks2 / "v2").read_bytes()[area["offset"]:area["offset"] + area["size"]]
    same = sum(a == b for a, b in zip(before, after))
    assert same < area["size"] * 0.02


@pytest.mark.parametrize("fixture,volume", [("luks1", "v1"), ("luks2", "v2")])
def test_change(request, fixture, volume):
    folder = request.getfixturevalue(fixture)
    ok("key", "change", volume, "--key", "file:k1", "--new-key", "file:k3", "--pbkdf-iterations",
       "2000", cwd=folder)
    assert opens(folder, volume, "file:k1") is None
    assert opens(folder, volume, "file:k3") == 0
    kdf = slots(folder, volume)[0]["kdf"]
    assert (kdf["type"], kdf["iterations"]) == ("pbkdf2", 2000)


def test_change_keeps_priority_and_tokens(luks2):
    ok("config", "v2", "--priority", "prefer", "--slot", "1", cwd=luks2)
    ok("token", "import", "v2", "-", stdin=b'{"type":"t","keyslots":["1"]}', cwd=luks2)
    ok("key", "change", "v2", "--key", "file:k2", "--new-key", "file:k3", *ARGON2, cwd=luks2)
    changed = slots(luks2, "v2")[1]
    assert changed["priority"] == "prefer" and changed["tokens"] == [0]
    assert opens(luks2, "v2", "file:k3") == 1


def test_convert(luks2):
    ok("key", "convert", "v2", "--key", "file:k1", *ARGON2, cwd=luks2)
    assert slots(luks2, "v2")[0]["kdf"]["type"] == "argon2id"
    assert opens(luks2, "v2", "file:k1") == 0
    fails(2, "key", "convert", "v2", "--key", "file:k1", "--slot", "1", *PBKDF2, cwd=luks2)


def test_a_cost_beyond_the_limit_is_refused_before_any_work(luks2):
    result = fails(6, "key", "test", "v2", "--key", "file:k2", "--slot", "1", "--kdf-limit",
                   "16KiB", cwd=luks2)
    assert "lukskeep: hint:" in result.err
    ok("key", "test", "v2", "--key", "file:k2", "--slot", "1", "--kdf-limit", "32KiB,10s",
       cwd=luks2)


def test_erase(luks2):
    before = (luks2 / "v2").read_bytes()
    fails(6, "erase", "v2", cwd=luks2)
    assert (luks2 / "v2").read_bytes() == before
    ok("erase", "v2", "--yes", cwd=luks2)
    assert slots(luks2, "v2") == {}
    fails(2, "key", "test", "v2", "--key", "file:k1", cwd=luks2)
    fails(2, "key", "test", "v2", "--key", "file:k2", cwd=luks2)


def test_erase_of_what_no_keyslot_uses(luks2):
    ok("key", "add", "v2", "--key", "file:k1", "--new-key", "file:k3", "--slot", "5", *PBKDF2,
       cwd=luks2)
    area = slots(luks2, "v2")[5]["area"]
    start, end = area["offset"], area["offset"] + area["size"]
    material = (luks2 / "v2").read_bytes()[start:end]
    ok("key", "remove", "v2", "--slot", "5", cwd=luks2)
    # As after a power cut between the removal and the wiping.
    with open(luks2 / "v2", "r+b") as volume:
        volume.seek(start)
        volume.write(material)
    before = (luks2 / "v2").read_bytes()
    would = ok("erase", "v2", "--unused", "--dry-run", "--json", cwd=luks2).json
    assert (luks2 / "v2").read_bytes() == before
    done = ok("erase", "v2", "--unused", "--json", cwd=luks2).json
    assert done == {**would, "dry_run": False} and done["wiped_bytes"] > len(material)
    after = (luks2 / "v2").read_bytes()
    assert not any(after[at:at + 512] == before[at:at + 512] for at in range(start, end, 512)
                   if any(before[at:at + 512]))
    assert set(slots(luks2, "v2")) == {0, 1}
    for key in ("k1", "k2"):
        ok("key", "test", "v2", "--key", f"file:{key}", cwd=luks2)
    assert "no keyslot uses" in ok("erase", "v2", "--unused", cwd=luks2).text
