"""image volume-check against what cryptsetup and qemu-img really make of a volume type."""

import json

import pytest

from kit import THEIR_CHEAP, cryptsetup, lukskeep, need, qemu_img, run, sparse, write
from test_qcow2 import secret

CIPHERS = ["aes-xts-plain64", "aes-cbc-essiv:sha256", "serpent-xts-plain64",
           "twofish-cbc-plain64", "camellia-xts-plain64", "cast5-cbc-plain64"]


@pytest.fixture
def place(tmp_path):
    need("qemu-img")
    write(tmp_path / "key", b"open for qemu")
    write(tmp_path / "image", bytes(512))
    return tmp_path


def judged(place, cipher, key_size, provider="luks", image="image"):
    type = {"name": "t", "encryption": {"provider": provider, "cipher": cipher,
                                        "key_size": key_size, "control_location": "front-end"}}
    done = lukskeep("image", "volume-check", place / image, "--type-json", "-", "--json",
                    stdin=json.dumps(type).encode(), status=(0, 6))
    return json.loads(done.stdout)["back_ends"]


def header_of(volume):
    return json.loads(lukskeep("info", volume, "--json").stdout)


def by_cryptsetup(place, cipher, key_size, provider="luks1"):
    """As os-brick calls it (os_brick/encryptors/luks.py)."""
    volume = sparse(place / "brick", 64 << 20)
    kdf = THEIR_CHEAP["pbkdf2"]
    done = run(["cryptsetup", "--batch-mode", "luksFormat", "--type", provider, "--key-file",
                place / "key", "--cipher", cipher, "--key-size", key_size, *kdf, volume],
               status=None)
    return header_of(volume) if done.returncode == 0 else None


def by_qemu(place, cipher, key_size):
    """As Cinder's RBD driver calls it (cinder/volume/drivers/rbd.py, image_utils.decode_cipher)."""
    name, mode, iv = cipher.split("-")
    done = qemu_img("create", "-q", "-f", "luks", *secret(place / "key"), "-o",
                    f"key-secret=s,iter-time=10,cipher-alg={name}-{key_size},cipher-mode={mode},"
                    f"ivgen-alg={iv}", place / "rbd", "1M", status=None)
    return header_of(place / "rbd") if done.returncode == 0 else None


@pytest.mark.parametrize("cipher, key_size", [
    *((cipher, size) for cipher in CIPHERS for size in (128, 256)),
    ("aes-xts-plain64", 192), ("aes-xts-plain64", 512), ("aes-cbc-plain64", 256), ("aes-cbc-essiv:sha256", 192),
    ("aes-cbc-essiv:sha256", 512), ("camellia-xts-plain64", 512)])
def test_a_type_becomes_what_was_said(place, cipher, key_size):
    need("cryptsetup")
    verdict = judged(place, cipher, key_size)
    peers = {"rbd": by_qemu(place, cipher, key_size)}
    # Of other ciphers cryptsetup asks the kernel, and not every kernel has them.
    if cipher.startswith("aes-"):
        peers["brick"] = by_cryptsetup(place, cipher, key_size)
    for back_end, made in peers.items():
        said = verdict[back_end]
        assert said["allowed"] == (made is not None), (back_end, said, made)
        if made is None:
            continue
        assert said["key_bits"] == made["key_bits"]
        # The smallest volume is the image's 512 bytes and the header.
        assert said["volume_bytes_min"] - 512 == made["payload_offset"]


def test_the_header_of_luks2_is_counted(place):
    made = by_cryptsetup(place, "aes-xts-plain64", 512, "luks2")
    said = judged(place, "aes-xts-plain64", 512, "luks2")["brick"]
    assert said["volume_bytes_min"] - 512 == made["payload_offset"]


@pytest.mark.parametrize("cipher, bits", [
    ("aes-xts-plain64", 256), ("aes-xts-plain64", 512), ("aes-cbc-essiv:sha256", 128),
    ("aes-cbc-essiv:sha256", 192), ("aes-cbc-essiv:sha256", 256), ("serpent-xts-plain64", 512),
    ("twofish-cbc-essiv:sha256", 192), ("twofish-cbc-essiv:sha256", 256),
    ("camellia-xts-plain64", 512), ("cast5-cbc-plain64", 128)])
def test_qemu_opens_what_was_said(place, cipher, bits):
    """An encrypted image in a type with the provider luks, which QEMU opens."""
    lukskeep("encrypt", place / "image", place / "volume", "--type", "luks1", "--cipher",
             cipher, "--key-size", str(bits), "--key", f"file:{place}/key", "--pbkdf", "pbkdf2",
             "--pbkdf-iterations", "1000")
    said = judged(place, "aes-xts-plain64", 256, image="volume")["rbd"]
    opened = run(["qemu-io", *secret(place / "key"), "--image-opts", "-r", "-c", "read -P 0 0 512",
                  f"driver=luks,key-secret=s,file.filename={place}/volume"], status=None)
    works = opened.returncode == 0 and b"read 512/512" in opened.stdout
    refused = {reason["name"] for reason in said["reasons"] if reason["refuses"]}
    if cipher.startswith("cast5"):  # the inspector knows better: blocks of 64 bits
        assert refused == {"not-safe"}
    else:
        assert refused == (set() if works else {"cipher-not-in-qemu"}), opened
