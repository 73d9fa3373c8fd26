"""image encrypt, decrypt, convert, rekey against QEMU and cryptsetup, as makers and readers."""

import json

import pytest

from kit import (CHEAP, MIB, THEIR_CHEAP, bytes_of, cryptsetup, lukskeep, need, qemu_img, run, same,
                 write)
from test_qcow2 import check, image_bytes, luks_opts, secret

pytestmark = pytest.mark.usefixtures("either_qemu")

SIZE = 5 * MIB
PBKDF2 = CHEAP["pbkdf2"]


@pytest.fixture
def place(tmp_path):
    need("qemu-img")
    write(tmp_path / "key", b"open for qemu")
    write(tmp_path / "raw", image_bytes(3, SIZE))
    return tmp_path


def opts(place, image, format):
    if format == "luks in qcow2":
        return luks_opts(place / image)
    key = ",key-secret=s" if format == "luks" else ""
    return f"driver={format},file.filename={place / image}{key}"


def same_to_qemu(place, image, format):
    """qemu-img compare finds the disk in `image`, and qemu-img check finds nothing."""
    run(["qemu-img", "compare", "-q", *secret(place / "key"), "--image-opts",
         opts(place, image, format), opts(place, "raw", "raw")])
    if format.endswith("qcow2"):
        check(place / image, place / "key" if format == "luks in qcow2" else None)
    info = run(["qemu-img", "info", "--output", "json", *secret(place / "key"), "--image-opts",
                opts(place, image, format)]).stdout
    assert json.loads(info)["virtual-size"] == SIZE


def made_by_qemu(place, format):
    image = place / "theirs"
    luks = ["-o", "iter-time=10,key-secret=s"]
    words = {"raw": ["-O", "raw"], "qcow2": ["-O", "qcow2"],
             "compressed qcow2": ["-c", "-O", "qcow2"],
             "qcow2 of version 2": ["-O", "qcow2", "-o", "compat=0.10"],
             "luks": ["-O", "luks", *luks],
             "luks with aes-128": ["-O", "luks", *luks, "-o", "cipher-alg=aes-128"],
             "luks in qcow2": ["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.iter-time=10,"
                                                    "encrypt.key-secret=s"]}[format]
    qemu_img("convert", *secret(place / "key"), "-f", "raw", *words, place / "raw", image)
    return image


ENCRYPTED = ["luks", "luks with aes-128", "luks in qcow2"]
PLAIN = ["raw", "qcow2", "compressed qcow2", "qcow2 of version 2"]


@pytest.mark.parametrize("source", PLAIN)
@pytest.mark.parametrize("format, theirs", [("raw", "luks"), ("qcow2", "luks in qcow2")])
def test_qemu_opens_what_was_encrypted(place, source, format, theirs):
    lukskeep("image", "encrypt", made_by_qemu(place, source), place / "ours", "--format", format,
             "--key", f"file:{place}/key", *PBKDF2)
    same_to_qemu(place, "ours", theirs)


@pytest.mark.parametrize("source", ENCRYPTED)
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_qemus_images_are_decrypted_and_converted(place, source, format):
    image = made_by_qemu(place, source)
    key = ("--key", f"file:{place}/key")
    lukskeep("image", "decrypt", image, place / "plain", "--format", format, *key)
    same_to_qemu(place, "plain", format)
    lukskeep("image", "convert", image, place / "ours", "--format", format, *key)
    same_to_qemu(place, "ours", "luks" if format == "raw" else "luks in qcow2")
    lukskeep("image", "rekey", image, place / "new", "--format", format, *key, "--new-key",
             f"file:{place}/key", *PBKDF2)
    same_to_qemu(place, "new", "luks" if format == "raw" else "luks in qcow2")


@pytest.mark.parametrize("source", PLAIN)
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_plain_images_are_converted(place, source, format):
    lukskeep("image", "convert", made_by_qemu(place, source), place / "ours", "--format", format)
    same_to_qemu(place, "ours", format)
    if format == "raw":
        assert same(place / "ours", place / "raw")


@pytest.mark.parametrize("size", [SIZE, 512, 65536, 3 * MIB + 1536, 700 * MIB])
def test_compressed_clusters(place, size):
    """As qemu-img reads, counts and checks them; and not larger than it makes them, or hardly."""
    with open(place / "raw", "r+b") as file:
        file.truncate(size)
        file.seek(max(0, size - 100_000))
        file.write(b"the end " * (min(size, 100_000) // 8))
    lukskeep("image", "convert", place / "raw", place / "ours", "--format", "qcow2", "--compress")
    check(place / "ours")
    run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", place / "ours", place / "raw"])
    run(["qemu-img", "convert", "-c", "-O", "qcow2", place / "raw", place / "theirs"])
    assert (place / "ours").stat().st_size <= (place / "theirs").stat().st_size + 4 * 65536
    lukskeep("image", "convert", place / "ours", place / "back")
    assert same(place / "back", place / "raw")
    report = json.loads(lukskeep("inspect", place / "ours", "--json").stdout)
    assert report["safe"] and report["virtual_size"] == size


def test_a_backing_file_is_read_if_that_is_allowed(place):
    made_by_qemu(place, "qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "theirs", "-F", "qcow2", "overlay"],
        cwd=place)
    lukskeep("image", "convert", place / "overlay", place / "ours", status=6)
    lukskeep("image", "convert", place / "overlay", place / "ours", "--allow-backing")
    assert same(place / "ours", place / "raw")


@pytest.mark.parametrize("type", ["luks1", "luks2"])
def test_cryptsetup_opens_what_was_encrypted(place, type):
    lukskeep("image", "encrypt", place / "raw", place / "ours", "--type", type, "--key",
             f"file:{place}/key", *PBKDF2)
    cryptsetup("open", "--test-passphrase", "--key-file", place / "key", place / "ours")
    size = (place / "ours").stat().st_size
    assert size == SIZE + (2 if type == "luks1" else 16) * MIB


def test_cryptsetups_volumes_become_luks1(place):
    volume = write(place / "theirs", bytes(16 * MIB + SIZE))
    cryptsetup("luksFormat", "--type", "luks2", volume, place / "key", *THEIR_CHEAP["argon2id"])
    lukskeep("image", "rekey", volume, place / "ours", "--key", f"file:{place}/key", "--new-key",
             f"file:{place}/key", *PBKDF2)
    plain = place / "plain"
    lukskeep("decrypt", volume, plain, "--key", f"file:{place}/key")
    write(place / "raw", plain.read_bytes())
    same_to_qemu(place, "ours", "luks")


def test_a_passphrase_of_any_keyslot_goes_on_opening(place):
    image = made_by_qemu(place, "luks in qcow2")
    write(place / "second", bytes_of(1, 20).hex().encode())
    lukskeep("key", "add", f"qcow2:{image}", "--key", f"file:{place}/key", "--new-key",
             f"file:{place}/second", *PBKDF2)
    lukskeep("image", "convert", image, place / "ours", "--key", f"file:{place}/second")
    same_to_qemu(place, "ours", "luks")
    cryptsetup("open", "--test-passphrase", "--key-file", place / "second", place / "ours")
