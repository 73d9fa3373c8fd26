"""header check: what it finds, where, and with which status."""

import hashlib
import json
import os

import pytest

from cli_tools import ARGON2, PBKDF2, fails, ok, run

# Enough that guessing is not called easy, and still cheap.
STRONG = ["--pbkdf", "argon2id", "--pbkdf-iterations", "4", "--pbkdf-memory", "64M",
          "--pbkdf-parallel", "1"]
STRONG1 = ["--pbkdf-iterations", "600000"]
# What the cheap key derivation of tests, and LUKS1 as such, get.
USUAL = {"kdf-weak", "luks1"}
AREA = {"v1": 4096, "v2": 32768}


def check(volume, *args, cwd, status=1):
    before = (cwd / volume).read_bytes()
    result = run("header", "check", volume, *args, "--json", check=status, cwd=cwd).json
    assert (cwd / volume).read_bytes() == before
    assert result["good"] == (status == 0)
    return result


def others(result):
    return [finding for finding in result["findings"] if finding["code"] not in USUAL]


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def ext_superblock():
    """The first 4 KiB of an ext4 file system: nothing, a superblock at 1024, and nothing."""
    block = bytearray(4096)
    fields = {0x00: b"\x00\x28\x00\x00\x00\xa0\x00\x00", 0x18: b"\x02\x00\x00\x00",
              0x38: b"\x53\xef\x01\x00", 0x4c: b"\x01\x00\x00\x00", 0x58: b"\x00\x01",
              0x68: bytes(range(16)), 0x78: b"label"}
    for offset, data in fields.items():
        block[1024 + offset:1024 + offset + len(data)] = data
    return bytes(block)


TEXT = (b"The quick brown fox jumps over the lazy dog.\n" * 12)[:512]


@pytest.mark.parametrize("volume", ["v1", "v2"])
def test_a_good_volume(place, volume):
    kind = ["--type", "luks1", *STRONG1] if volume == "v1" else STRONG
    ok("create", volume, "--size", "64K", *kind, "--key", "file:k1", cwd=place)
    result = check(volume, cwd=place, status=0)
    assert others(result) == []
    assert all(finding["severity"] == "note" for finding in result["findings"])
    assert [slot["bad_blocks"] for slot in result["keyslots"]] == [0]
    assert result["keyslots"][0]["blocks"] == 500
    assert 100 < result["keyslots"][0]["guesses_per_second"] < 20000
    text = ok("header", "check", volume, cwd=place).text
    assert "0 errors, 0 warnings, " in text
    # The places cover the file without gap.
    at = 0
    for part in result["layout"]:
        assert part["offset"] == at
        at += part["size"]
    assert at == (place / volume).stat().st_size


@pytest.mark.parametrize("data,seems", [
    (bytes(512), "zeroes"), (b"\xff" * 512, "bytes 0xff"), (TEXT, "text"),
    (ext_superblock(), "an ext superblock"),
], ids=["zeroes", "ones", "text", "ext4"])
@pytest.mark.parametrize("fixture,volume", [("luks1", "v1"), ("luks2", "v2")])
@pytest.mark.parametrize("block", [0, 8, 200, 492])
def test_an_overwritten_block_is_found(request, fixture, volume, data, seems, block):
    folder = request.getfixturevalue(fixture)
    offset = AREA[volume] + 512 * block
    overwrite(folder / volume, offset, data)
    findings = others(check(volume, cwd=folder))
    assert len(findings) == 1, findings
    finding = findings[0]
    assert finding["code"] == "keyslot-not-random" and finding["severity"] == "error"
    assert finding["object"] == "keyslot 0"
    assert (finding["offset"], finding["size"]) == (offset, len(data))
    assert seems in finding["problem"] and finding["advice"]
    text = run("header", "check", volume, check=1, cwd=folder).text
    assert f"error    keyslot 0, {len(data)} bytes from byte {offset}: " in text
    # And it is true: the passphrase is lost.
    fails(2, "key", "test", volume, "--key", "file:k1", cwd=folder)


def test_the_damaged_keyslot_is_named(luks2):
    info = ok("info", "v2", "--json", cwd=luks2).json["keyslots"]
    overwrite(luks2 / "v2", info[1]["area"]["offset"] + 4096, bytes(4096))
    result = check("v2", cwd=luks2)
    assert [finding["object"] for finding in others(result)] == ["keyslot 1"]
    assert [slot["bad_blocks"] for slot in result["keyslots"]] == [0, 8]
    ok("key", "test", "v2", "--key", "file:k1", cwd=luks2)


def test_what_is_not_in_use_may_hold_anything(luks1):
    overwrite(luks1 / "v1", 4096 + 258048, bytes(256000))
    assert others(check("v1", cwd=luks1)) == []


def test_changing_keys_leaves_nothing_to_find(luks1, luks2):
    for folder, volume in ((luks1, "v1"), (luks2, "v2")):
        for number in (3, 1):
            ok("key", "add", volume, "--key", "file:k1", "--new-key", f"file:k{number}", *PBKDF2,
               cwd=folder)
        ok("key", "remove", volume, "--key", "file:k3", cwd=folder)
        assert others(check(volume, cwd=folder)) == []


def test_the_copies(luks2):
    overwrite(luks2 / "v2", 8000, b"garbage")
    finding, = others(check("v2", cwd=luks2))
    assert finding["code"] == "copy-damaged" and finding["object"] == "primary header"
    assert finding["advice"] == "lukskeep header repair"
    ok("header", "repair", "v2", cwd=luks2)
    assert others(check("v2", cwd=luks2)) == []


def test_a_header_that_is_beyond_reading(luks2):
    for offset in (8000, 16384 + 8000):
        overwrite(luks2 / "v2", offset, b"garbage")
    result = check("v2", cwd=luks2)
    assert [finding["code"] for finding in result["findings"]] == ["header-unusable"]
    assert "primary" in result["findings"][0]["problem"]
    assert result["type"] is None and result["layout"] == [] == result["keyslots"]
    assert "both copies" in run("header", "check", "v2", check=1, cwd=luks2).text


def rewrite_json(path, change):
    """Changes the JSON of both copies, and makes their checksums right."""
    whole = bytearray(path.read_bytes())
    for start in (0, 16384):
        area = whole[start + 4096:start + 16384]
        model = json.loads(area[:area.index(0)])
        change(model)
        text = json.dumps(model).encode()
        whole[start + 4096:start + 16384] = text + bytes(12288 - len(text))
        whole[start + 448:start + 512] = bytes(64)
        digest = hashlib.sha256(whole[start:start + 16384]).digest()
        whole[start + 448:start + 480] = digest
    path.write_bytes(whole)


@pytest.mark.parametrize("change,part", [
    (lambda m: m["tokens"].update({"0": {"type": "t", "keyslots": ["7"]}}),
     "token 0: keyslot 7 does not exist"),
    (lambda m: m["digests"]["0"]["keyslots"].remove("1"), "keyslot 1: 0 digests"),
    (lambda m: m["keyslots"]["1"]["area"].update(m["keyslots"]["0"]["area"]), "overlap"),
    (lambda m: m["keyslots"]["1"]["area"].update({"offset": str(1 << 40)}), "keyslots area"),
])
def test_parts_that_do_not_fit_together(luks2, change, part):
    rewrite_json(luks2 / "v2", change)
    finding, = check("v2", cwd=luks2)["findings"]
    assert finding["severity"] == "error" and part in finding["problem"]


def test_weak_key_derivation_is_priced(luks2):
    weak = [f for f in check("v2", cwd=luks2)["findings"] if f["code"] == "kdf-weak"]
    assert [f["object"] for f in weak] == ["keyslot 0", "keyslot 1"]
    assert "1000 iterations of sha256" in weak[0]["problem"]
    assert "5.5 million passphrases a second" in weak[0]["problem"]
    assert "argon2id with 32 KiB and time 4" in weak[1]["problem"]
    # The advice works.
    words = weak[0]["advice"].replace("VOLUME", "v2").split()[1:]
    ok(*words, "--pbkdf-iterations", "4", "--pbkdf-memory", "64M", "--key", "file:k1", cwd=luks2)
    weak = [f for f in check("v2", cwd=luks2)["findings"] if f["code"] == "kdf-weak"]
    assert [f["object"] for f in weak] == ["keyslot 1"]


@pytest.mark.parametrize("cipher,code,severity", [
    ("aes-ecb", "cipher-weak", "warning"),
    ("aes-cbc-plain64", "cipher-weak", "warning"),
    ("aes-cbc-essiv:sha256", "cipher-old", "note"),
])
def test_weak_ciphers(place, cipher, code, severity):
    ok("create", "v", "--size", "64K", "--cipher", cipher, *ARGON2, "--key", "file:k1", cwd=place)
    result = check("v", cwd=place)
    assert code in {f["code"] for f in result["findings"] if f["severity"] == severity}
    assert result["keyslots"][0]["bad_blocks"] == 0


def test_an_erased_volume(luks2):
    ok("erase", "v2", "--yes", cwd=luks2)
    assert [f["code"] for f in check("v2", cwd=luks2)["findings"]] == ["no-keyslot"]


def test_cut_volumes_and_backups(luks2):
    ok("header", "backup", "v2", "h", cwd=luks2)
    assert [f["code"] for f in others(check("h", cwd=luks2))] == ["header-only"]
    os.truncate(luks2 / "v2", 100000)
    codes = {f["code"] for f in others(check("v2", cwd=luks2))}
    assert codes == {"keyslot-outside", "payload-outside", "header-cut"}


def test_a_detached_header_and_its_payload(place):
    ok("create", "p", "--size", "64K", "--header", "h", "--key", "file:k1", *PBKDF2, cwd=place)
    (place / "p").write_bytes(os.urandom(65536))
    assert others(check("p", "--header", "h", cwd=place)) == []
    assert [f["code"] for f in others(check("h", cwd=place))] == ["payload-elsewhere"]
    overwrite(place / "p", 0, ext_superblock())
    finding, = others(check("p", "--header", "h", cwd=place))
    assert finding["code"] == "payload-not-encrypted" and finding["offset"] == 1024 + 0x38
    overwrite(place / "p", 0, os.urandom(4096))
    overwrite(place / "p", 65024, b"EFI PART")
    finding, = others(check("p", "--header", "h", cwd=place))
    assert finding["code"] == "backup-gpt" and finding["offset"] == 65024
    assert "wipefs --offset 65024" in finding["advice"]


def test_a_partition_table_over_luks1(luks1):
    table = bytearray(66)
    table[4], table[8:16], table[64:] = 0x83, b"\0\x08\0\0\0\x08\0\0", b"\x55\xaa"
    overwrite(luks1 / "v1", 446, bytes(table))
    findings = {f["code"]: f for f in check("v1", cwd=luks1)["findings"]}
    assert set(findings) == {"header-unusable", "foreign-signature"}
    assert "MBR" in findings["foreign-signature"]["problem"]
    assert findings["foreign-signature"]["offset"] == 446


def test_what_has_no_header(place):
    fails(4, "header", "check", "plain", cwd=place)
    fails(1, "header", "check", "nowhere", cwd=place)
