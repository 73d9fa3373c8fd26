"""QEMU's LUKS1 driver and lukskeep: payload bytes agree both ways, far offsets included."""

import re

import pytest

from kit import (CHEAP, MIB, bytes_of, lukskeep, need, qemu_img, run, same, sparse, without,
                 write)

pytestmark = pytest.mark.usefixtures("either_qemu")

PLAIN_BYTES = 2 * MIB + 1536
TIB = 1 << 40
# What QEMU 7.2 can create and open. 192-bit keys in other modes than xts trip an assertion in it.
CIPHERS = [(name, bits, mode, iv)
           for name in ("aes", "serpent", "twofish") for bits in (128, 256)
           for mode, iv in (("xts", "plain64"), ("cbc", "plain64"), ("cbc", "plain"),
                            ("cbc", "essiv:sha256"), ("ctr", "plain64"))]
CIPHERS += [(name, 192, "xts", "plain64") for name in ("aes", "serpent", "twofish")]
CIPHERS += [("cast5", 128, "cbc", "plain64"), ("aes", 256, "xts", "plain")]
# Creating takes QEMU seconds, whatever iter-time says, so each cipher, mode and IV occurs once.
CREATED = [("aes", 256, "xts", "plain64", "sha256"), ("serpent", 256, "cbc", "essiv:sha256", "sha1"),
           ("twofish", 128, "ctr", "plain64", "sha512"), ("cast5", 128, "cbc", "plain64", "sha256"),
           ("aes", 128, "cbc", "plain", "ripemd160")]


def label(value):
    return "-".join(str(part) for part in value)


def need_qemu():
    need("qemu-img", "qemu-io")


def secret(key):
    return ("--object", f"secret,id=s,file={key}")


def opened(volume):
    return ("--image-opts", f"driver=luks,key-secret=s,file.filename={volume}")


def qemu_io(key, volume, *commands):
    words = [word for command in commands for word in ("-c", command)]
    done = run(["qemu-io", *secret(key), *words, *opened(volume)])
    # qemu-io ends with 0 whatever it read; it says so in words.
    assert b"verification failed" not in done.stdout and b"error" not in done.stdout, done.stdout
    return done


def qemu_create(key, volume, size, *, cipher, bits, mode, iv, hash):
    generator, _, iv_hash = iv.partition(":")
    options = (f"key-secret=s,cipher-alg={cipher}-{bits},cipher-mode={mode},ivgen-alg={generator},"
               f"hash-alg={hash},iter-time=10")
    if iv_hash:
        options += f",ivgen-hash-alg={iv_hash}"
    qemu_img("create", "-q", "-f", "luks", *secret(key), "-o", options, volume, size)


@pytest.fixture
def key(tmp_path):
    """QEMU's passphrases are text."""
    return write(tmp_path / "key", b"open for qemu")


@pytest.mark.parametrize("form", CIPHERS, ids=label)
def test_lukskeep_encrypts_qemu_reads_and_writes(form, key, tmp_path):
    need_qemu()
    cipher, bits, mode, iv = form
    plain = write(tmp_path / "plain", bytes_of(str(form), PLAIN_BYTES))
    volume = tmp_path / "volume"
    lukskeep("encrypt", plain, volume, "--type", "luks1", "--cipher", f"{cipher}-{mode}-{iv}",
             "--key-size", bits * (2 if mode == "xts" else 1), "--key", f"file:{key}",
             *CHEAP["pbkdf2"])
    run(["qemu-img", "convert", *secret(key), *opened(volume), "-O", "raw", tmp_path / "out"])
    assert same(plain, tmp_path / "out")

    qemu_io(key, volume, "write -P 0x5a 65536 70144")
    lukskeep("decrypt", volume, tmp_path / "back", "--key", f"file:{key}")
    expected = bytearray(plain.read_bytes())
    expected[65536:65536 + 70144] = b"\x5a" * 70144
    assert (tmp_path / "back").read_bytes() == expected


@pytest.mark.parametrize("form", CREATED, ids=label)
def test_qemu_creates_lukskeep_reads(form, key, keys, tmp_path):
    need_qemu()
    cipher, bits, mode, iv, hash = form
    volume = tmp_path / "volume"
    qemu_create(key, volume, 4 * MIB, cipher=cipher, bits=bits, mode=mode, iv=iv, hash=hash)
    qemu_io(key, volume, "write -P 0x11 0 1M", "write -P 0x22 1M 2560", f"write -P 0x33 {3 * MIB} 1M")
    lukskeep("decrypt", volume, tmp_path / "out", "--key", f"file:{key}")
    data = (tmp_path / "out").read_bytes()
    assert len(data) == 4 * MIB
    assert data[:MIB] == b"\x11" * MIB and data[MIB:MIB + 2560] == b"\x22" * 2560
    assert data[3 * MIB:] == b"\x33" * MIB

    # A key added here opens there; one added there (amend) opens here.
    text = write(tmp_path / "text", b"another passphrase")
    lukskeep("key", "add", volume, "--key", f"file:{key}", "--new-key", f"file:{text}",
             *CHEAP["pbkdf2"])
    qemu_io(text, volume, "read -P 0x11 0 1M")
    lukskeep("key", "remove", volume, "--key", f"file:{key}")
    run(["qemu-img", "convert", *secret(key), *opened(volume), "-O", "raw", tmp_path / "no"],
        status=1)


def test_qemu_changes_keys(key, tmp_path):
    need_qemu()
    volume = tmp_path / "volume"
    lukskeep("create", volume, "--type", "luks1", "--size", "1M", "--key", f"file:{key}",
             *CHEAP["pbkdf2"])
    other = write(tmp_path / "other", b"added by qemu")
    qemu_img("amend", *secret(key), "--object", f"secret,id=n,file={other}", "-o",
             "state=active,new-secret=n,keyslot=3,iter-time=10", *opened(volume))
    lukskeep("key", "test", volume, "--key", f"file:{other}", "--slot", 3)
    run(["qemu-img", "amend", *secret(other), "-o", "state=inactive,keyslot=0", *opened(volume)])
    lukskeep("key", "test", volume, "--key", f"file:{key}", status=2)
    lukskeep("key", "test", volume, "--key", f"file:{other}")


# 32-bit sector numbers end at 2 TiB; "plain" starts anew there, "plain64" does not.
FAR = [("aes", 256, "xts", "plain64"), ("aes", 256, "cbc", "plain"),
       ("twofish", 256, "cbc", "essiv:sha256")]


def far_offsets_fit(folder):
    try:
        sparse(folder / "probe", 5 * TIB).unlink()
    except OSError as error:
        without(f"no sparse files of 5 TiB here: {error}")


@pytest.mark.parametrize("form", FAR, ids=label)
def test_offsets_beyond_two_tebibytes(form, key, tmp_path):
    """A sparse volume of 4 TiB that keeps its holes, with data on both sides of 2 TiB."""
    need_qemu()
    far_offsets_fit(tmp_path)
    cipher, bits, mode, iv = form
    places = {0: b"\x41", 2 * TIB - MIB: b"\x42", 2 * TIB: b"\x43", 3 * TIB + 4096: b"\x44",
              4 * TIB - MIB: b"\x45"}
    plain = sparse(tmp_path / "plain", 4 * TIB)
    with open(plain, "r+b") as file:
        for offset, byte in places.items():
            file.seek(offset)
            file.write(byte * MIB)
    volume = tmp_path / "volume"
    lukskeep("encrypt", plain, volume, "--type", "luks1", "--cipher", f"{cipher}-{mode}-{iv}",
             "--key-size", bits * (2 if mode == "xts" else 1), "--holes", "keep", "--key",
             f"file:{key}", *CHEAP["pbkdf2"])
    assert volume.stat().st_blocks * 512 < 64 * MIB
    qemu_io(key, volume, *(f"read -P {byte[0]} {offset} 1M" for offset, byte in places.items()))

    qemu_io(key, volume, f"write -P 0x77 {3 * TIB + 8 * MIB} 1M", "write -P 0x78 32M 1M")
    lukskeep("decrypt", volume, tmp_path / "out", "--holes", "keep", "--key", f"file:{key}")
    with open(tmp_path / "out", "rb") as file:
        for offset, byte in {**places, 3 * TIB + 8 * MIB: b"\x77", 32 * MIB: b"\x78"}.items():
            file.seek(offset)
            assert file.read(MIB) == byte * MIB, hex(offset)


def test_detached_headers(key, tmp_path):
    """QEMU 9 and later open a payload whose header is another file."""
    need_qemu()
    version = re.search(rb"version (\d+)\.", run(["qemu-img", "--version"]).stdout)
    if int(version.group(1)) < 9:
        pytest.skip(f"QEMU {version.group(1).decode()} knows no detached headers, 9 and later do")
    plain = write(tmp_path / "plain", bytes_of("detached", PLAIN_BYTES))
    lukskeep("encrypt", plain, tmp_path / "payload", "--header", tmp_path / "header", "--type",
             "luks1", "--key", f"file:{key}", *CHEAP["pbkdf2"])
    run(["qemu-img", "convert", *secret(key), "--image-opts",
         f"driver=luks,key-secret=s,file.filename={tmp_path / 'payload'},header.driver=file,"
         f"header.filename={tmp_path / 'header'}", "-O", "raw", tmp_path / "out"])
    assert same(plain, tmp_path / "out")
