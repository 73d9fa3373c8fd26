"""image encrypt, decrypt, convert, rekey: one image of another, whole or not at all."""

import json
import os
import signal
import struct

import pytest

from cli_tools import PBKDF2, fails, interrupt, ok, run, start, tree
from conftest import needs_mounts
from nbd_server import EIO, FLUSH, NbdServer

MIB = 1 << 20
CHEAP = ["--pbkdf-iterations", "1", "--pbkdf-memory", "32", "--pbkdf-parallel", "1"]


def backing_qcow2():
    """Version 3 with a backing file: header, refcount table, refcount block, L1 table."""
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 512, 9, 16, MIB, 0, 1, 3 * 65536,
                         65536, 1, 0, 0, 0, 0, 0, 4, 104)
    return header.ljust(512, b"\0") + b"/etc/host".ljust(4 * 65536 - 512, b"\0")


@pytest.fixture
def disk(place):
    """A disk of 3 MiB: data, a hole, data; and what can be made of it."""
    data = os.urandom(MIB) + bytes(MIB) + os.urandom(MIB)
    (place / "raw").write_bytes(data)
    ok("image", "convert", "raw", "qcow2", "--format", "qcow2", cwd=place)
    for name, more in {"luks1": (), "luks2": ("--type", "luks2"),
                       "inqcow2": ("--format", "qcow2")}.items():
        ok("image", "encrypt", "raw", name, "--key", "file:k1", *PBKDF2, *more, cwd=place)
    return place


def plain_bytes(place, image):
    """The disk of any image, by the commands that know nothing of images."""
    out = place / "plain.out"
    kind = ok("inspect", image, "--json", cwd=place).json
    source = f"qcow2:{image}" if kind["format"] == "qcow2" else image
    if kind["encrypted"]:
        ok("decrypt", source, out, "--key", "file:k1", "--yes", cwd=place)
        return out.read_bytes()
    if kind["format"] != "qcow2":
        return (place / image).read_bytes()
    ok("encrypt", source, "through", "--type", "luks1", "--key", "file:k1", "--yes", *PBKDF2,
       cwd=place)
    ok("decrypt", "through", out, "--key", "file:k1", "--yes", cwd=place)
    return out.read_bytes()


# ---- what becomes of what ----------------------------------------------------------------------


@pytest.mark.parametrize("source", ["raw", "qcow2"])
@pytest.mark.parametrize("more, format, offset", [
    ([], "luks1", 2 * MIB),
    (["--type", "luks2"], "luks2", 16 * MIB),
    (["--format", "qcow2"], "qcow2", 2 * MIB),
    (["--cipher", "aes-xts-plain64", "--key-size", "256"], "luks1", 2 * MIB),
])
def test_encrypt(disk, source, more, format, offset):
    result = ok("image", "encrypt", source, "new", "--key", "file:k1", *PBKDF2, *more, "--json",
                cwd=disk).json
    assert result["virtual_size"] == result["payload_size"] == 3 * MIB and result["padding"] == 0
    assert result["payload_offset"] == offset and result["key_id"] is None
    report = ok("inspect", "new", "--json", "--key", "file:k1", cwd=disk).json
    assert (report["format"], report["encrypted"]) == (format, True)
    assert report["payload_size"] == report["virtual_size"] == 3 * MIB
    if format != "qcow2":
        assert (disk / "new").stat().st_size == offset + 3 * MIB
    assert plain_bytes(disk, "new") == (disk / "raw").read_bytes()


@pytest.mark.parametrize("source", ["luks1", "luks2", "inqcow2"])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_decrypt(disk, source, format):
    result = ok("image", "decrypt", source, "new", "--key", "file:k1", "--format", format, "--json",
                cwd=disk).json
    assert result["virtual_size"] == 3 * MIB
    assert ok("inspect", "new", "--json", cwd=disk).json["format"] == format
    assert plain_bytes(disk, "new") == (disk / "raw").read_bytes()
    # The hole of the disk is one of the file, whatever was encrypted.
    assert (disk / "new").stat().st_blocks * 512 < 2.5 * MIB


@pytest.mark.parametrize("source, format", [("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2"),
                                            ("luks1", "raw"), ("luks1", "qcow2"),
                                            ("inqcow2", "raw"), ("inqcow2", "qcow2"),
                                            ("luks2", "raw")])
def test_convert(disk, source, format):
    before = ok("inspect", source, "--json", cwd=disk).json
    result = ok("image", "convert", source, "new", "--key", "file:k1", "--format", format, "--json",
                cwd=disk).json
    after = ok("inspect", "new", "--json", cwd=disk).json
    assert after["encrypted"] == before["encrypted"] == result["encrypted"]
    assert (after["format"] == "qcow2") == (format == "qcow2")
    assert plain_bytes(disk, "new") == (disk / "raw").read_bytes()


@pytest.mark.parametrize("verb, source", [("convert", "raw"), ("convert", "qcow2"),
                                          ("decrypt", "luks2"), ("decrypt", "inqcow2")])
def test_compress(disk, verb, source):
    (disk / "raw").write_bytes(b"shrinks " * (3 * MIB // 8))
    for image, more in {"qcow2": (), "luks2": ("--type", "luks2"),
                        "inqcow2": ("--format", "qcow2")}.items():
        key = () if image == "qcow2" else ("--key", "file:k1", *PBKDF2)
        ok("image", "encrypt" if key else "convert", "raw", image, *key, "--yes",
           *(more if key else ("--format", "qcow2")), cwd=disk)
    ok("image", verb, source, "new", "--key", "file:k1", "--format", "qcow2", "--compress",
       cwd=disk)
    assert (disk / "new").stat().st_size < MIB
    assert plain_bytes(disk, "new") == (disk / "raw").read_bytes()


def test_convert_keeps_the_header_and_every_passphrase(disk):
    ok("key", "add", "luks1", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2, cwd=disk)
    ok("image", "convert", "luks1", "q", "--key", "file:k2", "--format", "qcow2", cwd=disk)
    ok("image", "convert", "q", "back", "--key", "file:k1", cwd=disk)
    assert (disk / "back").read_bytes() == (disk / "luks1").read_bytes()
    # LUKS2 as it is: every byte.
    ok("image", "convert", "luks2", "copy", "--key", "file:k1", cwd=disk)
    assert (disk / "copy").read_bytes() == (disk / "luks2").read_bytes()


def test_luks2_does_not_go_into_qcow2(disk):
    for verb in (["convert"], ["rekey", "--new-key", "file:k2", "--type", "luks2"]):
        result = fails(4, "image", verb[0], "luks2", "new", "--format", "qcow2", "--key", "file:k1",
                       *verb[1:], cwd=disk)
        assert "LUKS1 only" in result.err and "luks1" in result.err
    assert not (disk / "new").exists()


@pytest.mark.parametrize("source, more", [
    ("luks1", []), ("luks2", ["--type", "luks2"]), ("inqcow2", []), ("luks1", ["--format", "qcow2"])])
def test_rekey(disk, source, more):
    result = ok("image", "rekey", source, "new", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2,
                *more, "--json", cwd=disk).json
    assert result["uuid"] != ok("info", f"qcow2:{source}" if source == "inqcow2" else source,
                                "--json", cwd=disk).json["uuid"]
    fails(2, "image", "decrypt", "new", "out", "--key", "file:k1", cwd=disk)
    ok("image", "decrypt", "new", "out", "--key", "file:k2", cwd=disk)
    assert (disk / "out").read_bytes() == (disk / "raw").read_bytes()


def test_rekey_makes_a_new_volume_key_unless_told_not_to(disk):
    (disk / "vk").write_bytes(os.urandom(64))
    ok("encrypt", "raw", "known", "--type", "luks1", "--volume-key", "file:vk", "--key", "file:k1",
       *PBKDF2, cwd=disk)
    keys = ["--key", "file:k1", "--new-key", "file:k2", *PBKDF2]
    ok("image", "rekey", "known", "new", *keys, cwd=disk)
    ok("image", "rekey", "known", "kept", *keys, "--keep-volume-key", cwd=disk)
    fails(2, "image", "decrypt", "new", "out", "--key", "volume-key:vk", cwd=disk)
    ok("image", "decrypt", "kept", "out", "--key", "volume-key:vk", cwd=disk)
    fails(2, "image", "decrypt", "kept", "out2", "--key", "file:k1", cwd=disk)
    assert (disk / "out").read_bytes() == (disk / "raw").read_bytes()


def test_a_disk_of_no_whole_sectors_is_filled_up(place):
    result = ok("image", "encrypt", "plain", "new", "--key", "file:k1", *PBKDF2, "--json",
                cwd=place).json
    assert (result["virtual_size"], result["padding"]) == (MIB + 3, 509)
    ok("image", "decrypt", "new", "out", "--key", "file:k1", cwd=place)
    assert (place / "out").read_bytes() == (place / "plain").read_bytes() + bytes(509)


def test_holes_are_told_only_if_asked_for(disk):
    blocks = {}
    for mode in ("fill", "keep"):
        ok("image", "encrypt", "qcow2", mode, "--key", "file:k1", *PBKDF2, "--holes", mode, cwd=disk)
        blocks[mode] = (disk / mode).stat().st_blocks * 512
        ok("image", "decrypt", mode, f"{mode}.raw", "--key", "file:k1", "--holes", mode, cwd=disk)
        assert (disk / f"{mode}.raw").read_bytes() == (disk / "raw").read_bytes()
    noise = ok("image", "decrypt", "keep", "noise", "--key", "file:k1", cwd=disk)
    assert "holes" in noise.err
    assert (disk / "noise").read_bytes()[:MIB] == (disk / "raw").read_bytes()[:MIB]
    assert (disk / "noise").read_bytes() != (disk / "raw").read_bytes()
    assert blocks["fill"] - blocks["keep"] >= MIB
    ciphertext = (disk / "fill").read_bytes()[2 * MIB:]
    assert all(any(ciphertext[at:at + 512]) for at in range(0, len(ciphertext), 512))


# ---- what is refused, and leaves nothing -------------------------------------------------------


@pytest.mark.parametrize("verb, more", [
    ("encrypt", ["--key", "file:k1"]), ("decrypt", ["--key", "file:k1"]),
    ("convert", []), ("rekey", ["--key", "file:k1", "--new-key", "file:k2"])])
def test_images_that_are_not_safe(disk, verb, more):
    (disk / "bad").write_bytes(backing_qcow2())
    before = tree(disk)
    result = fails(6, "image", verb, "bad", "new", *more, *(PBKDF2 if len(more) == 4 else []),
                   cwd=disk)
    assert "qcow2-backing-file" in result.err and "/etc/host" in result.err
    assert tree(disk) == before
    # That it is no danger does not mean that the file may be read.
    fails(1 if verb in ("decrypt", "rekey") else 6, "image", verb, "bad", "new", *more, "--allow",
          "qcow2-backing-file", cwd=disk)
    assert tree(disk) == before


def test_a_payload_that_is_not_safe(disk):
    (disk / "bad").write_bytes(backing_qcow2())
    ok("encrypt", "bad", "outer", "--type", "luks1", "--key", "file:k1", *PBKDF2, cwd=disk)
    assert "qcow2-backing-file" in fails(6, "image", "decrypt", "outer", "new", "--key", "file:k1",
                                         cwd=disk).err
    ok("image", "decrypt", "outer", "new", "--key", "file:k1", "--allow", "qcow2-backing-file",
       cwd=disk)
    assert (disk / "new").read_bytes() == (disk / "bad").read_bytes()


def test_the_null_cipher(disk):
    ok("encrypt", "raw", "null", "--cipher", "cipher_null-ecb", "--type", "luks1", "--key",
       "file:k1", "--allow-insecure", *PBKDF2, cwd=disk)
    assert "luks-null-cipher" in fails(6, "image", "decrypt", "null", "new", "--key", "file:k1",
                                       cwd=disk).err
    fails(6, "image", "encrypt", "raw", "new", "--cipher", "cipher_null-ecb", "--key", "file:k1",
          *PBKDF2, cwd=disk)
    assert not (disk / "new").exists()


@pytest.mark.parametrize("status, words, message", [
    (1, ["encrypt", "luks1", "new", "--key", "file:k1"], "encrypted already"),
    (1, ["decrypt", "qcow2", "new"], "not encrypted"),
    (1, ["rekey", "raw", "new"], "not encrypted"),
    (2, ["decrypt", "luks1", "new", "--key", "file:k3"], "no keyslot"),
    (2, ["convert", "inqcow2", "new", "--key", "file:k3"], "no keyslot"),
    (1, ["convert", "nothing", "new"], "nothing"),
    (1, ["convert", "raw", "raw", "--format", "qcow2"], "same"),
    (1, ["convert", "raw", "-"], "pipe"),
    (1, ["convert", "raw", "nbd:x", "--format", "qcow2"], "no file"),
    (5, ["convert", "raw", "luks1"], "holds data"),
    (1, ["encrypt", "raw", "new", "--key", "file:k1", "--make-key", "symmetric"], "contradict"),
    (1, ["encrypt", "empty", "new", "--key", "file:k1"], "empty"),
    (4, ["convert", "vdi", "new"], "vdi"),
    (6, ["encrypt", "gz", "new", "--key", "file:k1"], "compressed"),
    (4, ["encrypt", "gz", "new", "--key", "file:k1", "--allow", "compressed"], "decompress"),
    (1, ["convert", "raw", "new", "--compress"], "raw image"),
    (1, ["convert", "luks1", "new", "--key", "file:k1", "--format", "qcow2", "--compress"],
     "does not get smaller"),
    (1, ["encrypt", "raw", "new", "--key", "file:k1", "--format", "qcow2", "--compress"],
     "does not get smaller"),
])
def test_refusals(disk, status, words, message):
    (disk / "empty").write_bytes(b"")
    (disk / "gz").write_bytes(b"\x1f\x8b\x08" + bytes(509))
    # A dynamic VDI of one block, which is not there.
    (disk / "vdi").write_bytes(
        struct.pack("<64sIIIII256sIIIIIIIQIIII", b"<<< vdi >>>\n", 0xbeda107f, 0x10001, 400, 1, 0,
                    b"", 512, 1024, 0, 0, 0, 512, 0, MIB, MIB, 0, 1, 0).ljust(512, b"\0")
        + struct.pack("<I", 0xffffffff).ljust(512, b"\0"))
    before = tree(disk)
    assert message in fails(status, "image", *words, cwd=disk).err
    assert tree(disk) == before


def test_dry_run_and_overwriting(disk):
    before = tree(disk)
    for verb in (["encrypt", "raw"], ["decrypt", "luks1"], ["convert", "luks1"],
                 ["rekey", "luks1", "--new-key", "file:k2"]):
        result = ok("image", verb[0], verb[1], "new", "--key", "file:k1", *verb[2:], "--dry-run",
                    cwd=disk)
        assert "would" in result.text
    assert tree(disk) == before
    ok("image", "convert", "raw", "luks2", "--yes", cwd=disk)
    assert (disk / "luks2").read_bytes() == (disk / "raw").read_bytes()


SLOW = ["--limit-rate", "64K", "--progress", "json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("words", [["encrypt", "raw", "--key", "file:k1", *PBKDF2],
                                   ["decrypt", "luks1", "--key", "file:k1", "--format", "qcow2"],
                                   ["convert", "raw", "--format", "qcow2"],
                                   ["convert", "raw", "--format", "qcow2", "--compress"]])
def test_what_is_killed_leaves_nothing(disk, number, words):
    before = tree(disk)
    process = start("image", words[0], words[1], "new", *words[2:], *SLOW, cwd=disk)
    assert b"progress" in process.stderr.readline()
    status, _, _ = interrupt(process, number)
    assert status == (-9 if number == signal.SIGKILL else 130)
    assert tree(disk) == before


@needs_mounts
@pytest.mark.parametrize("words", [["encrypt", "raw", "--key", "file:k1", *PBKDF2],
                                   ["decrypt", "luks1", "--key", "file:k1"],
                                   ["decrypt", "luks1", "--key", "file:k1", "--format", "qcow2"],
                                   ["convert", "raw", "--format", "qcow2", "--compress"],
                                   ["rekey", "luks1", "--key", "file:k1", "--new-key", "file:k2",
                                    *PBKDF2]])
def test_a_full_disk_leaves_nothing(disk, mounted, words):
    (disk / "small").mkdir()
    setup = f"mount -t tmpfs -o size=1500k none {disk}/small"
    result = run("image", words[0], words[1], "small/new", *words[2:], cwd=disk,
                 wrap=mounted(f"{setup}"), check=4)
    assert "no space" in result.err.lower()
    wrap = ["unshare", "-m", "sh", "-c",
            f'{setup} && "$@"; ls -A {disk}/small > {disk}/left', "sh"]
    run("image", words[0], words[1], "small/new", *words[2:], cwd=disk, wrap=wrap)
    assert (disk / "left").read_text() == ""


# ---- keys that are made with the image ---------------------------------------------------------


@pytest.fixture
def store(disk, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OS_", "VAULT_", "LUKSKEEP_KEY", "LUKSKEEP_CRED")):
            monkeypatch.delenv(name)
    (disk / "w").write_bytes(b"w" * 32)
    monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", f"file:{disk}/keystore")
    ok("keystore", "init", "--wrapping-key", "file:w", cwd=disk)
    return disk


def secrets():
    return ok("keystore", "list", "--json").json["secrets"]


@pytest.mark.parametrize("type, length", [("symmetric", 64), ("passphrase", 88)])
def test_a_key_is_made_with_the_image(store, type, length):
    result = ok("image", "encrypt", "raw", "new", "--make-key", type, "--key-name", "disk", *PBKDF2,
                "--json", cwd=store).json
    secret, = secrets()
    assert (secret["id"], secret["type"], secret["name"]) == (result["key_id"], type, "disk")
    ok("image", "decrypt", "new", "out", "--key", f"manager:{result['key_id']}", cwd=store)
    assert (store / "out").read_bytes() == (store / "raw").read_bytes()
    # What Cinder and Nova make of it: the hex of the bytes, or the text.
    stored = ok("keystore", "get", result["key_id"]).out
    (store / "passphrase").write_bytes(stored.hex().encode() if type == "symmetric" else stored)
    assert (store / "passphrase").stat().st_size == length
    ok("key", "test", "new", "--key", "file:passphrase", cwd=store)
    again = ok("image", "rekey", "new", "again", "--key", f"manager:{result['key_id']}",
               "--make-key", type, *PBKDF2, "--json", cwd=store).json
    assert again["key_id"] != result["key_id"] and len(secrets()) == 2
    fails(2, "key", "test", "again", "--key", "file:passphrase", cwd=store)


def test_no_key_is_left_of_an_image_that_was_not_made(store):
    make = ["--make-key", "symmetric", *PBKDF2]
    fails(6, "image", "encrypt", "raw", "new", *make, "--cipher", "cipher_null-ecb", cwd=store)
    fails(4, "image", "encrypt", "raw", "new", *make, "--cipher", "rot13", cwd=store)
    ok("image", "encrypt", "raw", "new", *make, "--dry-run", cwd=store)
    process = start("image", "encrypt", "raw", "new", *make, *SLOW, cwd=store)
    assert b"progress" in process.stderr.readline()
    status, _, _ = interrupt(process)
    assert status == 130 and not (store / "new").exists()
    assert secrets() == []


def test_key_of_an_image_whose_header_is_on_the_device_stays(store):
    def break_flushes(server, _, command, *__):
        if command == FLUSH and server.data[:4] == b"LUKS":
            server.errors[FLUSH] = EIO
    with NbdServer(store / "nbd.sock", bytearray(16 * MIB), on_request=break_flushes) as server:
        result = run("image", "encrypt", "raw", server.uri, "--make-key", "passphrase", "--yes", *PBKDF2,
                     cwd=store)
        assert result.status == 4 and server.data[:4] == b"LUKS", result
        (store / "made").write_bytes(server.data)
    [secret] = secrets()
    assert f"secret '{secret['id']}' is still there" in result.err
    ok("key", "test", "made", "--key", f"manager:{secret['id']}", cwd=store)


def test_who_cannot_make_a_key_makes_no_image(store, monkeypatch):
    monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", f"file:{store}/other")
    fails(1, "image", "encrypt", "raw", "new", "--make-key", "symmetric", *PBKDF2, cwd=store)
    assert not (store / "new").exists()


# ---- volume-check ------------------------------------------------------------------------------


def type_json(provider="luks", **more):
    return json.dumps({"name": "LUKS", "properties": {}, "encryption": provider and {
        "provider": provider, "cipher": "aes-xts-plain64", "key_size": 256,
        "control_location": "front-end", **more}}).encode()


def reasons(result, back_end):
    return {reason["name"] for reason in result.json["back_ends"][back_end]["reasons"]
            if reason["refuses"]}


@pytest.mark.parametrize("image, provider, more, brick, rbd", [
    ("raw", None, [], set(), set()),
    ("luks1", None, [], {"type-not-encrypted"}, {"type-not-encrypted"}),
    ("luks1", "luks", [], set(), set()),
    ("luks2", "luks", [], {"luks2-in-luks1-type"}, {"luks2-in-luks1-type"}),
    ("luks2", "luks2", [], set(), {"type-provider"}),
    ("inqcow2", "luks", [], {"luks-in-qcow2"}, {"luks-in-qcow2"}),
    ("qcow2", "luks", [], set(), set()),
    ("qcow2", "luks", ["--volume-size", "0"], {"volume-too-small"}, {"volume-too-small"}),
    ("bad", None, [], {"not-safe"}, {"not-safe"}),
])
def test_volume_check(disk, image, provider, more, brick, rbd):
    (disk / "bad").write_bytes(backing_qcow2())
    (disk / "type").write_bytes(type_json(provider))
    words = ["image", "volume-check", image, "--type-json", "type", *more]
    result = run(*words, "--json", cwd=disk, check=6 if brick or rbd else 0)
    assert result.json["allowed"] == (not (brick or rbd))
    assert (reasons(result, "brick"), reasons(result, "rbd")) == (brick, rbd)
    assert result.json["image"]["format"] == ok("inspect", image, "--allow", "qcow2-backing-file",
                                                "--json", cwd=disk).json["format"]
    one = run(*words, "--back-end", "brick", cwd=disk, check=6 if brick else 0)
    assert ("NO" if brick else "yes") in one.text and "rbd " not in one.text
    for name in brick:
        assert name in one.text


def test_volume_check_reads_a_pipe_and_refuses_nonsense(disk):
    ok("image", "volume-check", "luks1", "--type-json", "-", stdin=type_json(), cwd=disk)
    fails(4, "image", "volume-check", "luks1", "--type-json", "-", stdin=b"{", cwd=disk)
    fails(1, "image", "volume-check", "luks1", "--type-json", "-", stdin=b"{}", cwd=disk)
    fails(1, "image", "volume-check", "luks1", "--type-json", "-", stdin=b" " * 300_000, cwd=disk)
    fails(1, "image", "volume-check", "luks1", cwd=disk)
    fails(1, "image", "volume-check", "luks1", "--type-json", "absent", cwd=disk)


def test_volume_check_of_the_secret(store):
    check = ["image", "volume-check", "new", "--type-json", "-", "--json"]

    def judged(status, key):
        result = run(*check, "--key", f"manager:{key}", stdin=type_json(), cwd=store, check=status)
        return reasons(result, "brick")

    ids = {}
    for type in ("symmetric", "passphrase"):
        ids[type] = ok("image", "encrypt", "raw", "new", "--yes", "--make-key", type, *PBKDF2,
                       "--json", cwd=store).json["key_id"]
        assert judged(*{"symmetric": (0, ids[type]), "passphrase": (6, ids[type])}[type]) == (
            set() if type == "symmetric" else {"key-type"})
    # A symmetric key whose bytes open the image, and whose hex, which Nova takes, does not.
    key = ok("keystore", "store", "--type", "symmetric", stdin=b"passphrase 1\n").text.strip()
    ok("image", "encrypt", "raw", "new", "--yes", "--key", "file:k1", *PBKDF2, cwd=store)
    assert judged(6, key) == {"key-does-not-open"}
    run(*check, "--key", f"manager:{ids['symmetric']}", stdin=type_json(), cwd=store, check=2)


def test_volume_check_looks_under_the_encryption(disk):
    ok("encrypt", "qcow2", "outer", "--type", "luks1", "--key", "file:k1", *PBKDF2, cwd=disk)
    words = ["image", "volume-check", "outer", "--type-json", "-", "--json"]
    run(*words, stdin=type_json(), cwd=disk, check=0)
    result = run(*words, "--key", "file:k1", stdin=type_json(), cwd=disk, check=6)
    assert reasons(result, "rbd") == {"inner-format"}
