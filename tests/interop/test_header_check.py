"""header check on what cryptsetup makes, changes and damages: no false alarm, and nothing missed."""

import json

import pytest

from kit import MIB, THEIR_CHEAP, cryptsetup, lukskeep, run, need, sparse

# Enough that guessing is not called easy.
STRONG = {"luks1": ("--pbkdf-force-iterations", "600000"),
          "luks2": ("--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory",
                    "65536", "--pbkdf-parallel", "1")}
USUAL = {"kdf-weak", "luks1"}


def check(*places, status):
    return json.loads(lukskeep("header", "check", *places, "--json", status=status).stdout)


def others(result):
    return [finding["code"] for finding in result["findings"] if finding["code"] not in USUAL]


def make(path, key, *options, size=20 * MIB):
    sparse(path, size)
    cryptsetup("luksFormat", "--key-file", key, *options, path)
    return path


@pytest.mark.parametrize("type_name", STRONG)
def test_a_good_volume(type_name, keys, tmp_path):
    volume = make(tmp_path / "v", keys[0], "--type", type_name, *STRONG[type_name])
    result = check(volume, status=0)
    assert others(result) == []
    assert [slot["bad_blocks"] for slot in result["keyslots"]] == [0]


# Keys of all sizes: areas that end inside a block of 512 or 4096 bytes.
@pytest.mark.parametrize("cipher,bits", [("aes-xts-plain64", 256), ("aes-xts-plain64", 512),
                                         ("aes-cbc-essiv:sha256", 128), ("aes-ecb", 192),
                                         ("aes-cbc-essiv:sha256", 192), ("aes-ecb", 256)])
@pytest.mark.parametrize("type_name", STRONG)
def test_all_keyslots_of_a_volume_are_noise(type_name, cipher, bits, keys, tmp_path):
    volume = make(tmp_path / "v", keys[0], "--type", type_name, "--cipher", cipher, "--key-size",
                  bits, *THEIR_CHEAP["pbkdf2"])
    for slot in range(1, 8):
        cryptsetup("luksAddKey", "--key-file", keys[0], "--key-slot", slot,
                   *THEIR_CHEAP["pbkdf2"], volume, keys[1])
    cryptsetup("luksKillSlot", volume, 3)
    result = check(volume, status=1)
    assert {slot["slot"]: slot["bad_blocks"] for slot in result["keyslots"]} == \
        {slot: 0 for slot in (0, 1, 2, 4, 5, 6, 7)}
    assert not {"keyslot-not-random", "keyslot-not-wiped", "foreign-signature",
                "old-header-copy"} & set(others(result))


def test_reencrypting_and_converting_leave_nothing(keys, tmp_path):
    volume = make(tmp_path / "v", keys[0], "--type", "luks1", *THEIR_CHEAP["pbkdf2"])
    cryptsetup("convert", "--type", "luks2", volume)
    assert others(check(volume, status=1)) == []
    cryptsetup("config", "--label", "x", volume)
    assert others(check(volume, status=1)) == []


def test_an_unfinished_reencryption(keys, tmp_path):
    volume = make(tmp_path / "v", keys[0], "--type", "luks2", *THEIR_CHEAP["pbkdf2"])
    cryptsetup("reencrypt", "--init-only", "--key-file", keys[0], "--disable-locks",
               "--force-offline-reencrypt", *THEIR_CHEAP["pbkdf2"], volume)
    result = check(volume, status=1)
    assert "reencryption-unfinished" in others(result)
    assert all(slot["bad_blocks"] == 0 for slot in result["keyslots"])


@pytest.mark.parametrize("type_name", STRONG)
def test_backups_and_detached_headers(type_name, keys, tmp_path):
    options = ("--type", type_name, *STRONG[type_name])
    volume = make(tmp_path / "v", keys[0], *options)
    cryptsetup("luksHeaderBackup", "--header-backup-file", tmp_path / "b", volume)
    assert others(check(tmp_path / "b", status=0)) == ["header-only"]
    payload = sparse(tmp_path / "p", MIB)
    cryptsetup("luksFormat", "--key-file", keys[0], *options, "--header", tmp_path / "h", payload)
    assert others(check(payload, "--header", tmp_path / "h", status=0)) == []
    assert others(check(tmp_path / "h", status=0)) == ["payload-elsewhere"]


@pytest.mark.parametrize("type_name,area", [("luks1", 4096), ("luks2", 32768)])
def test_a_file_system_over_a_keyslot(type_name, area, keys, tmp_path):
    """The superblock that mke2fs writes 32 KiB into a file system, over a keyslot of cryptsetup."""
    need("mke2fs")
    image = sparse(tmp_path / "fs", 8 * MIB)
    run(["mke2fs", "-q", "-t", "ext4", "-b", "1024", image])
    volume = make(tmp_path / "v", keys[0], "--type", type_name, *STRONG[type_name])
    with open(volume, "r+b") as file:
        file.seek(area + 8192)
        file.write(image.read_bytes()[:4096])
    finding, = (f for f in check(volume, status=1)["findings"] if f["severity"] == "error")
    assert finding["code"] == "keyslot-not-random"
    assert area + 8192 <= finding["offset"] and \
        finding["offset"] + finding["size"] <= area + 8192 + 4096
    cryptsetup("open", "--test-passphrase", "--key-file", keys[0], volume, status=(1, 2))
