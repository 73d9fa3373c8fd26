"""Payload bytes against cryptsetup without a kernel: its offline re-encryption reads and writes the
payload in user space, so it is a second implementation of what encrypt and decrypt do."""

import json

import pytest

from kit import (CHEAP, MIB, THEIR_CHEAP, bytes_of, cryptsetup, lukskeep, same, sparse, write)

OFFLINE = ("--force-offline-reencrypt", "--disable-locks")
CIPHERS = [("aes-xts-plain64", 512), ("aes-xts-plain64", 256), ("aes-cbc-essiv:sha256", 256),
           ("aes-cbc-plain64", 128)]
# The smallest unit that cryptsetup's re-encryption moves is 4096 bytes.
PLAIN_BYTES = 3 * MIB + 12288


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("cipher,bits", CIPHERS, ids=lambda value: str(value))
def test_cryptsetup_encrypts_lukskeep_decrypts(cipher, bits, sector, keys, tmp_path):
    plain = write(tmp_path / "plain", bytes_of(cipher, PLAIN_BYTES))
    volume = write(tmp_path / "volume", plain.read_bytes())
    header = tmp_path / "header"
    cryptsetup("reencrypt", "--encrypt", "--type", "luks2", "--header", header, "--cipher", cipher,
               "--key-size", bits, "--sector-size", sector, "--key-file", keys[0],
               *THEIR_CHEAP["pbkdf2"], *OFFLINE, volume)
    assert not same(plain, volume)
    lukskeep("decrypt", volume, tmp_path / "out", "--header", header, "--key", f"file:{keys[0]}")
    assert same(plain, tmp_path / "out")


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("cipher,bits", CIPHERS, ids=lambda value: str(value))
def test_lukskeep_encrypts_cryptsetup_decrypts(cipher, bits, sector, keys, tmp_path):
    plain = write(tmp_path / "plain", bytes_of(cipher, PLAIN_BYTES))
    volume, header = tmp_path / "volume", tmp_path / "header"
    lukskeep("encrypt", plain, volume, "--header", header, "--type", "luks2", "--cipher", cipher,
             "--key-size", bits, "--sector-size", sector, "--key", f"file:{keys[0]}",
             *CHEAP["pbkdf2"])
    assert volume.stat().st_size == PLAIN_BYTES and not same(plain, volume)
    cryptsetup("reencrypt", "--decrypt", "--header", header, "--key-file", keys[0], *OFFLINE,
               volume)
    assert same(plain, volume)


def test_a_volume_that_cryptsetup_has_given_a_new_key(keys, tmp_path):
    """Attached header, new volume key and another sector size: the same contents."""
    plain = write(tmp_path / "plain", bytes_of("rekey", PLAIN_BYTES))
    volume = tmp_path / "volume"
    lukskeep("encrypt", plain, volume, "--type", "luks2", "--sector-size", "512", "--key",
             f"file:{keys[0]}", *CHEAP["argon2id"])
    cryptsetup("reencrypt", "--key-file", keys[0], "--sector-size", 4096, *THEIR_CHEAP["argon2id"],
               *OFFLINE, volume)
    lukskeep("decrypt", volume, tmp_path / "out", "--key", f"file:{keys[0]}")
    assert same(plain, tmp_path / "out")


def test_an_unfinished_reencryption_is_described_and_not_activated(keys, tmp_path):
    plain = write(tmp_path / "plain", bytes_of("unfinished", PLAIN_BYTES))
    volume = tmp_path / "volume"
    lukskeep("encrypt", plain, volume, "--type", "luks2", "--sector-size", "512", "--key",
             f"file:{keys[0]}", *CHEAP["pbkdf2"])
    cryptsetup("reencrypt", "--init-only", "--key-file", keys[0], *THEIR_CHEAP["pbkdf2"], *OFFLINE,
               volume)
    before = volume.read_bytes()
    described = lukskeep("info", volume, "--json").stdout
    json.loads(described)
    assert b"online-reencrypt" in described
    refused = lukskeep("decrypt", volume, tmp_path / "out", "--key", f"file:{keys[0]}", status=4)
    assert b"online-reencrypt" in refused.stderr
    assert not (tmp_path / "out").exists() and volume.read_bytes() == before
    cryptsetup("reencrypt", "--resume-only", "--key-file", keys[0], *OFFLINE, volume)
    lukskeep("decrypt", volume, tmp_path / "out", "--key", f"file:{keys[0]}")
    assert same(plain, tmp_path / "out")


def test_a_volume_encrypted_in_place_behind_a_moved_start(keys, tmp_path):
    """--reduce-device-size puts the header in front: the segment starts behind 16 MiB and more."""
    plain = bytes_of("reduced", 2 * MIB)
    volume = sparse(tmp_path / "volume", 34 * MIB)
    with open(volume, "r+b") as file:
        file.write(plain)
    cryptsetup("reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M",
               "--key-file", keys[0], *THEIR_CHEAP["pbkdf2"], *OFFLINE, volume)
    lukskeep("decrypt", volume, tmp_path / "out", "--key", f"file:{keys[0]}")
    assert (tmp_path / "out").read_bytes()[: 2 * MIB] == plain
