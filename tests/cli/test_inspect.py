"""inspect: the verdict, streams that are passed on, and what is under the encryption."""

import re
import struct
import subprocess

import pytest

from cli_tools import PBKDF2, PROGRAM, ROOT, SANITIZED, fails, ok, run

MIB = 1 << 20
HEAD = 512 * 1024  # is judged before a byte is passed on


def qcow2(backing=0, features=0, size=4 * 65536):
    """Version 3: header, refcount table, refcount block and L1 table, of 64 KiB each."""
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, backing, 0, 16, MIB, 0, 1,
                         3 * 65536, 65536, 1, 0, 0, features, 0, 0, 4, 104)
    return header.ljust(size, b"\0")


def vhd_footer(disk_bytes, kind=2):
    footer = bytearray(struct.pack(">8sIIQI4sIIQQIII", b"conectix", 2, 0x10000, (1 << 64) - 1, 0,
                                   b"test", 0, 0, disk_bytes, disk_bytes, 0, kind, 0).ljust(512, b"\0"))
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xffffffff)
    return bytes(footer)


def names(report):
    return [finding["name"] for finding in report["findings"]]


@pytest.fixture
def images(place):
    (place / "good.qcow2").write_bytes(qcow2())
    (place / "bad.qcow2").write_bytes(qcow2(backing=512))
    return place


def encrypt(place, plain, volume, key="k1", *more):
    ok("encrypt", plain, volume, "--key", f"file:{key}", *PBKDF2, *more, cwd=place)


# ---- the verdict -------------------------------------------------------------------------------


def test_safe_image(images):
    report = ok("inspect", "good.qcow2", "--json", cwd=images).json
    assert report == {"file": "good.qcow2", "safe": True, "format": "qcow2", "variant": "version 3",
                      "formats": ["qcow2"], "encrypted": False, "size": 4 * 65536,
                      "payload_size": MIB, "virtual_size": MIB, "findings": [], "inner": None}
    text = ok("inspect", "good.qcow2", cwd=images).text
    assert text.startswith("good.qcow2: qcow2 (version 3), safe\n") and "1048576 bytes" in text


def test_unsafe_image(images):
    result = run("inspect", "bad.qcow2", "--json", cwd=images, check=6)
    assert not result.json["safe"] and result.err == ""
    finding, = result.json["findings"]
    assert finding["name"] == "qcow2-backing-file" and finding["severity"] == "unsafe"
    assert finding["what"] and finding["remedy"] and not finding["allowed"]
    assert "NOT SAFE" in run("inspect", "bad.qcow2", cwd=images, check=6).text


@pytest.mark.parametrize("image, status", [("good.qcow2", 0), ("bad.qcow2", 6), ("plain", 0)])
def test_streams_get_the_verdict_of_files(images, image, status):
    from_file = run("inspect", image, "--json", cwd=images, check=status).json
    from_stream = run("inspect", "-", "--json", stdin=(images / image).read_bytes(),
                      check=status).json
    assert {**from_stream, "file": image} == from_file


def test_expected_format(images):
    ok("inspect", "good.qcow2", "--expect", "qcow2", cwd=images)
    ok("inspect", "plain", "--expect", "raw", cwd=images)
    report = run("inspect", "good.qcow2", "--expect", "raw", "--json", cwd=images, check=6).json
    assert names(report) == ["unexpected-format"]
    assert "qcow3" in fails(1, "inspect", "plain", "--expect", "qcow3", cwd=images).err


def test_allowed_findings(images):
    report = ok("inspect", "bad.qcow2", "--allow", "polyglot,qcow2-backing-file", "--json",
                cwd=images).json
    assert report["safe"] and report["findings"][0]["allowed"]
    run("inspect", "bad.qcow2", "--allow", "polyglot", cwd=images, check=6)
    assert "qcow2-backing" in fails(1, "inspect", "bad.qcow2", "--allow", "qcow2-backing",
                                    cwd=images).err


def test_empty_and_absent_files(place):
    (place / "empty").write_bytes(b"")
    assert ok("inspect", "empty", "--json", cwd=place).json["format"] == "raw"
    assert ok("inspect", "-", "--json").json["size"] == 0
    fails(1, "inspect", "absent", cwd=place)
    fails(4, "inspect", ".", cwd=place)


def test_names_in_messages_are_printable(place):
    image = bytearray(qcow2(backing=512))
    image[16:20] = struct.pack(">I", 4)
    image[512:516] = b"\x1b[2J"
    (place / "x").write_bytes(image)
    assert "\x1b" not in run("inspect", "x", cwd=place, check=6).text


def test_the_manual_lists_every_finding_and_no_other():
    source = (ROOT / "src/image/finding.cpp").read_text()
    known = re.findall(r'FindingKind\{"([a-z0-9-]+)", (kNote|kUnsafe)', source)
    page = (ROOT / "docs/man/lukskeep-inspect.1.scd").read_text()
    listed = re.findall(r"^\*([a-z0-9-]+)\*( \(note\))?$", page.split("# FINDINGS")[1], re.M)
    assert len(known) > 50
    assert [(name, bool(note)) for name, note in listed] == \
        [(name, severity == "kNote") for name, severity in known]


# ---- --tee -------------------------------------------------------------------------------------


def test_tee_passes_a_safe_image_on(images):
    for data in (qcow2(), qcow2(size=3 * HEAD), qcow2(size=2 * HEAD + 7), b"", b"x"):
        passed = run("inspect", "-", "--tee", "-", stdin=data, check=0)
        assert passed.out == data and passed.err == ""
        shown = run("inspect", "-", "--tee", "copy", "--json", stdin=data, cwd=images, check=0)
        assert (images / "copy").read_bytes() == data and shown.json["safe"]
        (images / "copy").unlink()


def test_tee_passes_nothing_on_if_the_head_is_dangerous(images):
    data = qcow2(backing=512, size=4 * MIB)
    result = fails(6, "inspect", "-", "--tee", "-", stdin=data)
    assert result.out == b"" and "qcow2-backing-file" in result.err
    result = run("inspect", "-", "--tee", "copy", stdin=data, cwd=images, check=6)
    assert b"qcow2-backing-file" in result.out
    assert not (images / "copy").exists()
    assert fails(6, "inspect", "-", "--tee", "-", "--expect", "raw", stdin=qcow2()).out == b""


def test_tee_stops_before_the_end_of_the_stream(images):
    """The writer is told by a closed pipe: what it has left is not read."""
    process = subprocess.Popen([PROGRAM, "inspect", "-", "--tee", "-"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(qcow2(backing=512, size=HEAD))
    process.stdin.flush()
    assert process.wait(timeout=60) == 6
    process.communicate()


def test_tee_never_passes_all_of_an_image_whose_end_is_dangerous(images):
    data = qcow2(size=4 * HEAD) + vhd_footer(4 * HEAD)
    result = fails(6, "inspect", "-", "--tee", "-", stdin=data)
    assert len(result.out) < len(data) and data.startswith(result.out)
    assert "polyglot" in result.err


def test_tee_of_a_file(images):
    ok("inspect", "good.qcow2", "--tee", "copy", cwd=images)
    assert (images / "copy").read_bytes() == qcow2()
    fails(5, "inspect", "good.qcow2", "--tee", "copy", cwd=images)
    fails(1, "inspect", "good.qcow2", "--tee", "good.qcow2", cwd=images)
    fails(1, "inspect", "good.qcow2", "--tee", "-", "--json", cwd=images)


# ---- through the encryption --------------------------------------------------------------------


@pytest.mark.parametrize("type", ["luks1", "luks2"])
def test_looks_inside_with_a_key(images, type):
    encrypt(images, "bad.qcow2", "v", "k1", "--type", type)
    unseen = ok("inspect", "v", "--json", cwd=images).json
    assert unseen["encrypted"] and names(unseen) == ["luks-unseen"] and unseen["inner"] is None
    seen = run("inspect", "v", "--key", "file:k1", "--json", cwd=images, check=6).json
    assert seen["format"] == type and seen["payload_size"] == 4 * 65536
    assert seen["virtual_size"] == MIB and names(seen["inner"]) == ["qcow2-backing-file"]
    streamed = run("inspect", "-", "--key", "file:k1", "--json", cwd=images, check=6,
                   stdin=(images / "v").read_bytes()).json
    assert streamed["inner"] == seen["inner"]


def test_any_keyslot_opens(images):
    encrypt(images, "good.qcow2", "v")
    ok("key", "add", "v", "--key", "file:k1", "--new-key", "file:k2", "--slot", "7", *PBKDF2, cwd=images)
    ok("key", "remove", "v", "--key", "file:k1", "--yes", cwd=images)
    seen = ok("inspect", "v", "--key", "file:k2", "--json", cwd=images).json
    assert seen["inner"]["format"] == "qcow2"
    fails(2, "inspect", "v", "--key", "file:k3", cwd=images)
    fails(1, "inspect", "-", "--key", "file:-", cwd=images)


def test_three_layers(images):
    encrypt(images, "bad.qcow2", "v1")
    encrypt(images, "v1", "v2", "k1", "--type", "luks1")
    encrypt(images, "v2", "v3")
    report = run("inspect", "v3", "--key", "file:k1", "--json", cwd=images, check=6).json
    formats = []
    while report:
        formats.append(report["format"])
        report = report["inner"]
    assert formats == ["luks2", "luks1", "luks2", "qcow2"]


def test_detached_header(images):
    encrypt(images, "bad.qcow2", "payload", "k1", "--header", "head")
    report = run("inspect", "payload", "--header", "head", "--key", "file:k1", "--json", cwd=images,
                 check=6).json
    assert report["format"] == "luks2" and names(report["inner"]) == ["qcow2-backing-file"]
    assert names(ok("inspect", "head", "--json", cwd=images).json) == ["luks-no-payload"]


def test_tee_with_a_key_passes_on_what_is_safe_inside(images):
    encrypt(images, "bad.qcow2", "bad")
    encrypt(images, "good.qcow2", "good")
    good = (images / "good").read_bytes()
    assert ok("inspect", "-", "--key", "file:k1", "--tee", "-", stdin=good, cwd=images).out == good
    bad = (images / "bad").read_bytes()
    assert fails(6, "inspect", "-", "--key", "file:k1", "--tee", "-", stdin=bad, cwd=images).out == b""
    run("inspect", "bad", "--key", "file:k1", "--tee", "copy", cwd=images, check=6)
    assert not (images / "copy").exists()


def test_null_cipher_is_not_opened_unless_that_is_allowed(images):
    encrypt(images, "bad.qcow2", "v", "k1", "--cipher", "cipher_null-ecb", "--key-size", "256",
            "--allow-insecure")
    report = run("inspect", "v", "--key", "file:k1", "--json", cwd=images, check=6).json
    assert set(names(report)) == {"luks-null-cipher", "luks-unseen"} and report["inner"] is None
    allowed = run("inspect", "v", "--key", "file:k1", "--allow", "luks-null-cipher", "--json",
                  cwd=images, check=6).json
    assert names(allowed["inner"]) == ["qcow2-backing-file"]


# ---- bounds ------------------------------------------------------------------------------------


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's memory is not the program's")
def test_memory_is_bounded(images):
    """The largest resident set with a stream of 64 MiB, beside that with an empty one."""
    def peak(size):
        process = subprocess.Popen([PROGRAM, "inspect", "-"], stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL)
        for _ in range(size // MIB):
            process.stdin.write(bytes(MIB))
        process.stdin.flush()
        with open(f"/proc/{process.pid}/status") as status:
            kib = int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1))
        process.communicate()
        return kib * 1024
    assert peak(64 * MIB) - peak(0) < 16 * MIB
