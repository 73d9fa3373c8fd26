"""cryptsetup and lukskeep on the same volumes: each creates, the other opens and changes keys.

cryptsetup runs here without device-mapper and without AF_ALG, so it handles AES (and Camellia-CBC)
keyslots only; test_dm_crypt.py covers the other ciphers with a real kernel.
"""

import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from kit import CHEAP, MIB, THEIR_CHEAP, cryptsetup, lukskeep, sparse


@dataclass(frozen=True)
class Format:
    type: str
    cipher: str = "aes-xts-plain64"
    bits: int = 512
    hash: str = "sha256"
    pbkdf: str = "pbkdf2"
    sector: int = 512
    metadata_kib: int = 16
    detached: bool = False

    def __str__(self):
        """The type, and what is not as usual."""
        words = [self.type]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                words.append(field.name if value is True else f"{value}")
        return " ".join(words)


CIPHERS = [("aes-xts-plain64", 256), ("aes-cbc-essiv:sha256", 128), ("aes-cbc-essiv:sha256", 192),
           ("aes-cbc-essiv:sha256", 256), ("aes-cbc-plain", 256), ("aes-cbc-plain64", 256),
           ("aes-xts-essiv:sha256", 512), ("aes-xts-plain64be", 512), ("aes-xts-plain", 512),
           ("aes-cbc-benbi", 256), ("aes-cbc-eboiv", 256), ("aes-cbc-null", 256),
           ("aes-ecb", 256), ("aes-ctr-plain64", 256), ("camellia-cbc-plain64", 256)]
HASHES = ["sha1", "sha224", "sha384", "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512",
          "ripemd160", "whirlpool", "blake2b-512", "blake2s-256"]
TYPES = ("luks1", "luks2")

FORMATS = [Format(t, c, b) for t in TYPES for c, b in CIPHERS]
FORMATS += [Format(t, hash=h) for t in TYPES for h in HASHES]
FORMATS += [Format(t, detached=d) for t in TYPES for d in (False, True)]
FORMATS += [Format("luks2", pbkdf=p, sector=s) for p in CHEAP for s in (512, 1024, 2048, 4096)
            if (p, s) != ("pbkdf2", 512)]
FORMATS += [Format("luks2", metadata_kib=16 << n) for n in range(1, 9)]
FORMATS += [Format("luks2", metadata_kib=4096, detached=True),
            Format("luks2", pbkdf="argon2id", sector=4096, detached=True),
            Format("luks1", "aes-cbc-essiv:sha256", 256, "sha1", detached=True)]


@dataclass
class Places:
    """The files of one volume. Opening needs `at()` from either program."""

    volume: Path
    header: Path = None

    def at(self):
        return (self.volume, "--header", self.header) if self.header else (self.volume,)

    @property
    def header_file(self):
        return self.header or self.volume


def size_of(form):
    """Room for the header of any format and a few sectors behind it."""
    return (16 + (24 if form.metadata_kib > 1024 else 0)) * MIB + 64 * 1024


def made_by_cryptsetup(form, key, folder):
    places = Places(folder / "volume", folder / "header" if form.detached else None)
    sparse(places.volume, MIB if form.detached else size_of(form))
    options = ["--type", form.type, "--cipher", form.cipher, "--key-size", form.bits,
               "--hash", form.hash, "--key-file", key, *THEIR_CHEAP[form.pbkdf]]
    if form.type == "luks2":
        options += ["--sector-size", form.sector,
                    "--luks2-metadata-size", f"{form.metadata_kib}k"]
    cryptsetup("luksFormat", *options, *places.at())
    return places


def made_by_lukskeep(form, key, folder):
    places = Places(folder / "volume", folder / "header" if form.detached else None)
    options = ["--type", form.type, "--cipher", form.cipher, "--key-size", form.bits,
               "--hash", form.hash, "--key", f"file:{key}", "--size", "64K", *CHEAP[form.pbkdf]]
    if form.type == "luks2":
        options += ["--sector-size", form.sector, "--metadata-size", f"{form.metadata_kib}K"]
    lukskeep("create", *places.at(), *options)
    return places


def opens(places, key, expected, slot=None):
    """Both programs must agree on whether a key opens the volume."""
    slot_option = () if slot is None else ("--key-slot", slot)
    cryptsetup("open", "--test-passphrase", *slot_option, "--key-file", key, *places.at(),
               status=0 if expected else (1, 2))
    slot_option = () if slot is None else ("--slot", slot)
    lukskeep("key", "test", *slot_option, *places.at(), "--key", f"file:{key}",
             status=0 if expected else 2)


def luks_dump(places):
    return cryptsetup("luksDump", places.header_file).stdout.decode()


def active_slots(dump):
    """Numbers of the keyslots in use, from luksDump's text for either version."""
    if "Version:       \t1" in dump or re.search(r"^Version:\s+1$", dump, re.M):
        return {int(n) for n in re.findall(r"^Key Slot (\d): ENABLED", dump, re.M)}
    keyslots = dump.split("Keyslots:")[1].split("Tokens:")[0]
    return {int(n) for n in re.findall(r"^  (\d+): ", keyslots, re.M)}


def check_key_changes(places, form, keys):
    """Both programs add and remove keys in turn; each time both agree on what opens."""
    first, second = keys
    cost, their_cost = CHEAP[form.pbkdf], THEIR_CHEAP[form.pbkdf]
    opens(places, first, True)
    opens(places, second, False)

    lukskeep("key", "add", *places.at(), "--key", f"file:{first}", "--new-key", f"file:{second}",
             *cost)
    assert active_slots(luks_dump(places)) == {0, 1}
    opens(places, second, True)
    opens(places, second, True, slot=1)
    opens(places, second, False, slot=0)

    cryptsetup("luksKillSlot", *places.at(), 0)
    opens(places, first, False)
    cryptsetup("luksAddKey", "--key-file", second, "--key-slot", 5, *their_cost, *places.at(),
               first)
    assert active_slots(luks_dump(places)) == {1, 5}
    opens(places, first, True, slot=5)

    lukskeep("key", "remove", *places.at(), "--key", f"file:{second}")
    assert active_slots(luks_dump(places)) == {5}
    opens(places, second, False)
    opens(places, first, True)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_cryptsetup_creates_lukskeep_opens(form, keys, tmp_path):
    places = made_by_cryptsetup(form, keys[0], tmp_path)
    check_key_changes(places, form, keys)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_lukskeep_creates_cryptsetup_opens(form, keys, tmp_path):
    places = made_by_lukskeep(form, keys[0], tmp_path)
    cryptsetup("isLuks", "--type", form.type, places.header_file)
    dump = luks_dump(places)
    if form.type == "luks1":
        name, mode = form.cipher.split("-", 1)
        assert re.search(rf"^Cipher name:\s+{name}$", dump, re.M)
        assert re.search(rf"^Cipher mode:\s+{re.escape(mode)}$", dump, re.M)
        assert re.search(rf"^MK bits:\s+{form.bits}$", dump, re.M)
    else:
        described = json.loads(cryptsetup("luksDump", "--dump-json-metadata",
                                          places.header_file).stdout)
        segment = described["segments"]["0"]
        assert segment["encryption"] == form.cipher
        assert segment["sector_size"] == form.sector
        assert described["keyslots"]["0"]["kdf"]["type"] == form.pbkdf
        assert described["keyslots"]["0"]["key_size"] * 8 == form.bits
        assert int(described["config"]["json_size"]) == form.metadata_kib * 1024 - 4096
    check_key_changes(places, form, keys)


BACKUPS = [Format("luks1"), Format("luks1", detached=True), Format("luks2"),
           Format("luks2", metadata_kib=4096), Format("luks2", detached=True)]


def damage(path, size):
    with open(path, "r+b") as file:
        file.write(b"\xa5" * size)


def held(path, form):
    """A digest of what a backup must hold. Behind the last keyslot of LUKS1 up to the next page
    nothing is stored, and cryptsetup's backups have zeroes there, whatever the volume has."""
    end = 3536 * 512 + 4000 * 64 if form.type == "luks1" else -1
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(end)).hexdigest()


@pytest.mark.parametrize("form", BACKUPS, ids=str)
@pytest.mark.parametrize("maker", ["cryptsetup", "lukskeep"])
def test_header_backups_are_the_same_and_restore_either_way(form, maker, keys, tmp_path):
    make = made_by_cryptsetup if maker == "cryptsetup" else made_by_lukskeep
    places = make(form, keys[0], tmp_path)
    target = places.header_file
    theirs, ours = tmp_path / "their-backup", tmp_path / "our-backup"
    cryptsetup("luksHeaderBackup", target, "--header-backup-file", theirs)
    lukskeep("header", "backup", target, ours)
    assert theirs.stat().st_size == ours.stat().st_size
    assert held(theirs, form) == held(ours, form)

    whole = held(target, form)
    for restore in (lambda: lukskeep("header", "restore", target, theirs, "--yes"),
                    lambda: cryptsetup("luksHeaderRestore", target, "--header-backup-file", ours)):
        damage(target, 1 * MIB)
        restore()
        assert held(target, form) == whole
        opens(places, keys[0], True)


def test_restore_revives_a_key_that_was_removed_since(keys, tmp_path):
    places = made_by_lukskeep(Format("luks2"), keys[0], tmp_path)
    lukskeep("header", "backup", places.volume, tmp_path / "backup")
    lukskeep("key", "change", places.volume, "--key", f"file:{keys[0]}", "--new-key",
             f"file:{keys[1]}", *CHEAP["pbkdf2"])
    opens(places, keys[0], False)
    cryptsetup("luksHeaderRestore", places.volume, "--header-backup-file", tmp_path / "backup")
    opens(places, keys[0], True)
    opens(places, keys[1], False)


@pytest.mark.parametrize("type", TYPES)
def test_changed_passphrases_keep_their_keyslot(type, keys, tmp_path):
    places = made_by_cryptsetup(Format(type), keys[0], tmp_path)
    lukskeep("key", "change", places.volume, "--key", f"file:{keys[0]}", "--new-key",
             f"file:{keys[1]}", *CHEAP["pbkdf2"])
    assert active_slots(luks_dump(places)) == {0}
    opens(places, keys[1], True)
    opens(places, keys[0], False)
    cryptsetup("luksChangeKey", *THEIR_CHEAP["pbkdf2"], "--key-slot", 0, "--key-file", keys[1],
               places.volume, keys[0])
    opens(places, keys[0], True)
    opens(places, keys[1], False)


def test_keyslots_converted_to_another_kdf(keys, tmp_path):
    places = made_by_cryptsetup(Format("luks2"), keys[0], tmp_path)
    for ours, theirs in (("argon2id", "pbkdf2"), ("argon2i", "argon2id")):
        lukskeep("key", "convert", places.volume, "--key", f"file:{keys[0]}", *CHEAP[ours])
        assert f"PBKDF:      {ours}" in luks_dump(places)
        opens(places, keys[0], True)
        cryptsetup("luksConvertKey", "--key-file", keys[0], *THEIR_CHEAP[theirs], places.volume)
        opens(places, keys[0], True)


def test_all_keyslots_of_luks1_fill_up(keys, tmp_path):
    places = made_by_lukskeep(Format("luks1"), keys[0], tmp_path)
    for slot in range(1, 8):
        lukskeep("key", "add", places.volume, "--key", f"file:{keys[0]}", "--new-key",
                 f"file:{keys[1]}", "--slot", slot, *CHEAP["pbkdf2"])
        opens(places, keys[1], True, slot=slot)
    lukskeep("key", "add", places.volume, "--key", f"file:{keys[0]}", "--new-key",
             f"file:{keys[1]}", *CHEAP["pbkdf2"], status=tuple(range(1, 7)))
    assert active_slots(luks_dump(places)) == set(range(8))


def test_all_keyslots_of_luks2_fill_up(keys, tmp_path):
    places = made_by_lukskeep(Format("luks2"), keys[0], tmp_path)
    for _ in range(1, 32):
        lukskeep("key", "add", places.volume, "--key", f"file:{keys[0]}", "--new-key",
                 f"file:{keys[1]}", *CHEAP["pbkdf2"])
    assert active_slots(luks_dump(places)) == set(range(32))
    opens(places, keys[1], True, slot=31)
    lukskeep("key", "add", places.volume, "--key", f"file:{keys[0]}", "--new-key",
             f"file:{keys[1]}", *CHEAP["pbkdf2"], status=tuple(range(1, 7)))


def test_parts_of_key_files(keys, tmp_path):
    """--keyfile-offset and --keyfile-size name the bytes that our source's offset= and size= do."""
    places = made_by_cryptsetup(Format("luks2"), keys[0], tmp_path)
    cryptsetup("luksAddKey", "--key-file", keys[0], *THEIR_CHEAP["pbkdf2"],
               "--new-keyfile-offset", 100, "--new-keyfile-size", 37, places.volume, keys[1])
    lukskeep("key", "test", places.volume, "--key", f"file:{keys[1]},offset=100,size=37")
    lukskeep("key", "test", places.volume, "--key", f"file:{keys[1]},offset=101,size=37", status=2)
    lukskeep("key", "test", places.volume, "--key", f"file:{keys[1]}", status=2)


def test_volume_keys(keys, tmp_path):
    """The key that cryptsetup dumps opens the volume here; a key chosen here is what it dumps."""
    places = made_by_cryptsetup(Format("luks2"), keys[0], tmp_path)
    cryptsetup("luksDump", "--dump-volume-key", "--volume-key-file", tmp_path / "vk", "--key-file",
               keys[0], places.volume)
    lukskeep("key", "test", places.volume, "--key", f"volume-key:{tmp_path / 'vk'}")
    other = Places(tmp_path / "other")
    lukskeep("create", other.volume, "--type", "luks1", "--size", "64K", "--key",
             f"file:{keys[0]}", "--volume-key", f"file:{tmp_path / 'vk'}", *CHEAP["pbkdf2"])
    cryptsetup("luksDump", "--dump-volume-key", "--volume-key-file", tmp_path / "vk2",
               "--key-file", keys[0], other.volume)
    assert (tmp_path / "vk").read_bytes() == (tmp_path / "vk2").read_bytes()


def test_keyslots_encrypted_unlike_the_payload(keys, tmp_path):
    volume = sparse(tmp_path / "volume", 17 * MIB)
    cryptsetup("luksFormat", "--type", "luks2", "--keyslot-cipher", "aes-cbc-essiv:sha256",
               "--keyslot-key-size", 192, *THEIR_CHEAP["argon2id"], "--key-file", keys[0], volume)
    check_key_changes(Places(volume), Format("luks2", pbkdf="argon2id"), keys)


def test_priorities(keys, tmp_path):
    """A keyslot of priority "ignore" opens only when it is named."""
    places = made_by_cryptsetup(Format("luks2"), keys[0], tmp_path)
    cryptsetup("luksAddKey", "--key-file", keys[0], "--key-slot", 3, *THEIR_CHEAP["pbkdf2"],
               places.volume, keys[1])
    cryptsetup("config", "--key-slot", 3, "--priority", "ignore", places.volume)
    opens(places, keys[1], False)
    opens(places, keys[1], True, slot=3)
    lukskeep("config", places.volume, "--slot", 3, "--priority", "prefer")
    described = json.loads(cryptsetup("luksDump", "--dump-json-metadata", places.volume).stdout)
    assert described["keyslots"]["3"]["priority"] == 2
    opens(places, keys[1], True)


def test_unbound_keyslots_open_nothing(keys, tmp_path):
    places = made_by_cryptsetup(Format("luks2"), keys[0], tmp_path)
    cryptsetup("luksAddKey", "--unbound", "--key-size", 256, "--key-slot", 4,
               *THEIR_CHEAP["pbkdf2"], places.volume, keys[1])
    cryptsetup("open", "--test-passphrase", "--unbound", "--key-slot", 4, "--key-file", keys[1],
               places.volume)
    opens(places, keys[1], False)
    opens(places, keys[0], True)
    # Keys that are added afterwards belong to the payload.
    lukskeep("key", "add", places.volume, "--key", f"file:{keys[0]}", "--new-key",
             f"file:{keys[1]}", *CHEAP["pbkdf2"])
    opens(places, keys[1], True, slot=1)


TOKEN = {"type": "example-token", "keyslots": ["0"], "key_description": "a b",
         "nested": {"list": [1, 2, {"deep": None}], "text": "\u00fc\n"}}


def test_tokens(keys, tmp_path):
    places = made_by_cryptsetup(Format("luks2"), keys[0], tmp_path)
    source = tmp_path / "token.json"
    source.write_text(json.dumps(TOKEN))
    cryptsetup("token", "import", "--json-file", source, "--token-id", 2, places.volume)
    cryptsetup("token", "add", "--key-description", "desc", "--token-id", 7, places.volume)
    ours = lukskeep("token", "export", places.volume, "2").stdout
    assert json.loads(ours) == TOKEN
    source.write_bytes(ours)
    lukskeep("token", "import", places.volume, source)
    assert json.loads(cryptsetup("token", "export", "--token-id", 0, places.volume).stdout) == TOKEN
    lukskeep("token", "remove", places.volume, "2")
    described = json.loads(cryptsetup("luksDump", "--dump-json-metadata", places.volume).stdout)
    assert set(described["tokens"]) == {"0", "7"}
    assert described["tokens"]["7"]["type"] == "luks2-keyring"
    cryptsetup("token", "remove", "--token-id", 0, places.volume)
    cryptsetup("token", "remove", "--token-id", 7, places.volume)
    lukskeep("token", "export", places.volume, "7", status=tuple(range(1, 7)))


def test_labels_and_uuids(keys, tmp_path):
    uuid = "0b5a9a7e-6b1f-4f57-8d0e-2f3f4a5b6c7d"
    volume = tmp_path / "volume"
    lukskeep("create", volume, "--type", "luks2", "--size", "64K", "--key", f"file:{keys[0]}",
             "--label", "a label", "--uuid", uuid, *CHEAP["pbkdf2"])
    assert cryptsetup("luksUUID", volume).stdout.decode().strip() == uuid
    dump = luks_dump(Places(volume))
    assert re.search(r"^Label:\s+a label$", dump, re.M)
    cryptsetup("config", "--label", "theirs", "--subsystem", "sub", volume)
    described = lukskeep("info", volume, "--json").stdout
    json.loads(described)
    assert b'"theirs"' in described and b'"sub"' in described and uuid.encode() in described
    lukskeep("config", volume, "--label", "ours", "--subsystem", "")
    dump = luks_dump(Places(volume))
    assert re.search(r"^Label:\s+ours$", dump, re.M)
    assert re.search(r"^Subsystem:\s+\(no subsystem\)$", dump, re.M)


def test_conversion_by_cryptsetup(keys, tmp_path):
    """luks1 of ours becomes luks2 and luks1 again; ours opens and changes each."""
    places = made_by_lukskeep(Format("luks1"), keys[0], tmp_path)
    cryptsetup("convert", "--type", "luks2", places.volume)
    opens(places, keys[0], True)
    lukskeep("key", "add", places.volume, "--key", f"file:{keys[0]}", "--new-key",
             f"file:{keys[1]}", *CHEAP["pbkdf2"])
    opens(places, keys[1], True)
    cryptsetup("convert", "--type", "luks1", places.volume)
    opens(places, keys[0], True)
    opens(places, keys[1], True)


def test_a_lost_primary_header_is_read_around_and_not_repaired(keys, tmp_path):
    places = made_by_cryptsetup(Format("luks2", metadata_kib=64), keys[0], tmp_path)
    damage(places.volume, 8192)
    before = places.volume.read_bytes()
    lukskeep("key", "test", places.volume, "--key", f"file:{keys[0]}")
    lukskeep("info", places.volume)
    assert places.volume.read_bytes() == before
    cryptsetup("open", "--test-passphrase", "--disable-locks", "--key-file", keys[0],
               places.volume)


def test_erase(keys, tmp_path):
    for make in (made_by_cryptsetup, made_by_lukskeep):
        places = make(Format("luks2"), keys[0], tmp_path)
        lukskeep("erase", places.volume, "--yes")
        assert active_slots(luks_dump(places)) == set()
        opens(places, keys[0], False)
        places.volume.unlink()
