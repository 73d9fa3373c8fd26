"""Converted, resized and moved headers against cryptsetup, which converts too."""

import json

import pytest

from kit import CHEAP, MIB, THEIR_CHEAP, bytes_of, cryptsetup, lukskeep, same, write


def opens(volume, key, *more):
    cryptsetup("open", "--test-passphrase", volume, "--key-file", key, *more)


def make(place, maker, type, keys, bits=512, hash="sha256"):
    """A volume with an image in it and two keyslots of both keys; returns it and the image."""
    plain = write(place / "plain", bytes_of(f"{maker}{type}", 2 * MIB))
    volume = place / "v"
    form = ("--cipher", "aes-xts-plain64", "--key-size", bits, "--hash", hash)
    lukskeep("encrypt", plain, volume, "--type", type, "--sector-size", 512, *form,
             "--key", f"file:{keys[0]}", *CHEAP["pbkdf2"])
    if maker == "cryptsetup":
        # Its own header and key, over ours; the payload is then ours to write again.
        cryptsetup("luksFormat", "--type", type, *form, *THEIR_CHEAP["pbkdf2"],
                   "--sector-size" if type == "luks2" else "--use-urandom",
                   *([512] if type == "luks2" else []), volume, keys[0])
        lukskeep("decrypt", volume, plain, "--key", f"file:{keys[0]}", "--yes")
    cryptsetup("luksAddKey", volume, keys[1], "--key-file", keys[0], "--hash", hash,
               *THEIR_CHEAP["pbkdf2"])
    return volume, plain


def check(volume, plain, keys, type, place, *header):
    assert cryptsetup("isLuks", "--type", type, header[1] if header else volume).returncode == 0
    for key in keys:
        opens(volume, key, *header)
    lukskeep("decrypt", volume, place / "again", "--key", f"file:{keys[1]}", "--yes", *header)
    assert same(place / "again", plain)


@pytest.mark.parametrize("maker", ["lukskeep", "cryptsetup"])
@pytest.mark.parametrize("type,other", [("luks1", "luks2"), ("luks2", "luks1")])
@pytest.mark.parametrize("bits,hash", [(512, "sha256"), (256, "sha1"), (256, "sha512")])
def test_converted_either_way_by_either(maker, type, other, bits, hash, keys, tmp_path):
    volume, plain = make(tmp_path, maker, type, keys, bits, hash)
    ours = lambda to: lukskeep("header", "convert", volume, "--type", to)
    theirs = lambda to: cryptsetup("convert", volume, "--type", to)
    for convert, to in ((ours, other), (theirs, type), (ours, other), (ours, type),
                        (theirs, other)):
        convert(to)
        check(volume, plain, keys, to, tmp_path)
    # Both can still change what the other made.
    cryptsetup("luksKillSlot", volume, 1, "--key-file", keys[0])
    lukskeep("key", "add", volume, "--key", f"file:{keys[0]}", "--new-key", f"file:{keys[1]}",
             *CHEAP["pbkdf2"])
    check(volume, plain, keys, other, tmp_path)


def test_resized(keys, tmp_path):
    volume, plain = make(tmp_path, "cryptsetup", "luks2", keys)
    for kib in (16 << n for n in (8, 2, 5, 0)):
        lukskeep("header", "resize", volume, "--metadata-size", f"{kib}K")
        check(volume, plain, keys, "luks2", tmp_path)
        dump = json.loads(cryptsetup("luksDump", "--dump-json-metadata", volume).stdout)
        assert int(dump["config"]["json_size"]) == kib * 1024 - 4096
        cryptsetup("luksChangeKey", volume, keys[0], "--key-file", keys[0],
                   *THEIR_CHEAP["pbkdf2"])


@pytest.mark.parametrize("type", ["luks1", "luks2"])
def test_detached_and_attached(type, keys, tmp_path):
    volume, plain = make(tmp_path, "cryptsetup", type, keys)
    lukskeep("header", "detach", volume, tmp_path / "h")
    assert cryptsetup("isLuks", volume, status=None).returncode != 0
    check(volume, plain, keys, type, tmp_path, "--header", tmp_path / "h")
    lukskeep("header", "attach", volume, tmp_path / "h")
    check(volume, plain, keys, type, tmp_path)


def test_a_restore_that_leaves_keyslots_out(keys, tmp_path):
    for type in ("luks1", "luks2"):
        place = tmp_path / type
        place.mkdir()
        volume, plain = make(place, "cryptsetup", type, keys)
        cryptsetup("luksHeaderBackup", volume, "--header-backup-file", place / "b")
        cryptsetup("luksKillSlot", volume, 1, "--key-file", keys[0])
        lukskeep("header", "restore", volume, place / "b", "--allow", "older", "--kill-revived")
        opens(volume, keys[0])
        assert cryptsetup("open", "--test-passphrase", volume, "--key-file", keys[1],
                          status=None).returncode == 2
        cryptsetup("repair", volume)
        check(volume, plain, keys[:1] * 2, type, place)
