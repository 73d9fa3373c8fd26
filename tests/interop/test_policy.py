"""The policy `untrusted` and volumes that cryptsetup made: ordinary ones are allowed, tricks not."""

import hashlib
import json

import pytest

from kit import MIB, THEIR_CHEAP, cryptsetup, lukskeep, sparse

OFFLINE = ("--force-offline-reencrypt", "--disable-locks")


def made(folder, keys, *options):
    volume = sparse(folder / "volume", 20 * MIB)
    cryptsetup("luksFormat", *options, "--key-file", keys[0], volume)
    return volume


def judged(volume, status):
    found = json.loads(lukskeep("policy", "check", volume, "--json", status=status).stdout)
    assert found["allowed"] == (status == 0)
    return found


def test_a_strangers_volume(keys, tmp_path):
    """All in one: each kind of volume is made by the real program."""
    for number, options in enumerate((
            ("--type", "luks1", *THEIR_CHEAP["pbkdf2"]),
            ("--type", "luks1", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256", "--hash",
             "sha1", *THEIR_CHEAP["pbkdf2"]),
            ("--type", "luks2", *THEIR_CHEAP["argon2id"]),
            ("--type", "luks2", "--sector-size", "512", "--hash", "sha512",
             *THEIR_CHEAP["pbkdf2"]))):
        folder = tmp_path / str(number)
        folder.mkdir()
        volume = made(folder, keys, *options)
        found = judged(volume, 0)
        backup = folder / "backup"
        cryptsetup("luksHeaderBackup", "--header-backup-file", backup, volume)
        # What a pin holds is the sum of the file that cryptsetup makes.
        assert found["fingerprint"] == hashlib.sha256(backup.read_bytes()).hexdigest()
        lukskeep("key", "test", volume, "--key", f"file:{keys[0]}", "--policy", "untrusted")


def without_encryption(volume):
    """What somebody who can write to the storage does: the next writer's data is in the clear."""
    with open(volume, "r+b") as file:
        head = file.read(16 * 1024)
        if head[6:8] == b"\x00\x01":
            file.seek(8)
            return file.write(b"cipher_null".ljust(32, b"\0") + b"ecb".ljust(32, b"\0"))
        metadata = json.loads(head[4096:].rstrip(b"\0"))
        metadata["segments"]["0"]["encryption"] = "cipher_null-ecb"
        area = json.dumps(metadata, separators=(",", ":")).encode().ljust(12 * 1024, b"\0")
        for offset in (0, len(head)):
            file.seek(offset)
            binary = bytearray(file.read(4096))
            binary[448:512] = bytes(64)
            binary[448:480] = hashlib.sha256(binary + area).digest()
            file.seek(offset)
            file.write(binary + area)
    return None


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_a_null_cipher(kind, keys, tmp_path):
    volume = made(tmp_path, keys, "--type", kind, *THEIR_CHEAP["pbkdf2"])
    judged(volume, 0)
    without_encryption(volume)
    # cryptsetup sees nothing wrong with it.
    assert b"cipher_null" in cryptsetup("luksDump", "--disable-locks", volume).stdout
    if kind == "luks2":
        cryptsetup("open", "--test-passphrase", "--disable-locks", "--key-file", keys[0], volume)
    rules = {(one["rule"], one["object"]) for one in judged(volume, 6)["violations"]}
    assert ("ciphers", "segment 0") in rules
    lukskeep("decrypt", volume, tmp_path / "out", "--key", f"file:{keys[0]}", "--allow-insecure",
             "--policy", "untrusted", status=6)
    assert not (tmp_path / "out").exists()


def test_a_reencryption_on_its_way(keys, tmp_path):
    volume = made(tmp_path, keys, "--type", "luks2", *THEIR_CHEAP["pbkdf2"])
    cryptsetup("reencrypt", "--init-only", "--key-file", keys[0], *THEIR_CHEAP["pbkdf2"],
               *OFFLINE, volume)
    rules = {one["rule"] for one in judged(volume, 6)["violations"]}
    assert {"requirements", "segment_flags", "keyslot_types", "segments"} <= rules
    # Where nothing would be activated, a policy is what refuses.
    lukskeep("header", "backup", volume, tmp_path / "backup")
    lukskeep("header", "backup", volume, tmp_path / "backup-2", "--policy", "untrusted", status=6)
    cryptsetup("reencrypt", "--resume-only", "--key-file", keys[0], *OFFLINE, volume)
    judged(volume, 0)
