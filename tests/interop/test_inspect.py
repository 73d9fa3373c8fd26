"""Images that other programs made, as the inspector sees them; and Glance's inspector beside it."""

import importlib.util
import json
import logging
import os
import sys
import types
from pathlib import Path

import pytest

from kit import (MIB, THEIR_CHEAP, bytes_of, cryptsetup, lukskeep, need, run, sparse, without,
                 write)

pytestmark = pytest.mark.usefixtures("either_qemu")

# Of the Debian package python3-glance.
GLANCE = Path(os.environ.get("GLANCE_FORMAT_INSPECTOR")
              or "/usr/lib/python3/dist-packages/glance/common/format_inspector.py")

# format and options of qemu-img: what the inspector calls it.
SAFE = {
    "raw": (("raw",), "raw"),
    "qcow2": (("qcow2",), "qcow2"),
    "qcow2 v2": (("qcow2", "compat=0.10"), "qcow2"),
    "qcow2 extended L2": (("qcow2", "extended_l2=on"), "qcow2"),
    "qcow2 zstd": (("qcow2", "compression_type=zstd"), "qcow2"),
    "qcow2 small clusters": (("qcow2", "cluster_size=512"), "qcow2"),
    "qcow2 large clusters": (("qcow2", "cluster_size=2M"), "qcow2"),
    "qcow2 lazy": (("qcow2", "lazy_refcounts=on"), "qcow2"),
    "vhd dynamic": (("vpc",), "vhd"),
    "vhd fixed": (("vpc", "subformat=fixed"), "vhd"),
    "vhd exact": (("vpc", "force_size=on"), "vhd"),
    "vhdx dynamic": (("vhdx",), "vhdx"),
    "vhdx fixed": (("vhdx", "subformat=fixed"), "vhdx"),
    "vmdk sparse": (("vmdk",), "vmdk"),
    "vmdk stream": (("vmdk", "subformat=streamOptimized"), "vmdk"),
    "vdi dynamic": (("vdi",), "vdi"),
    "vdi static": (("vdi", "static=on"), "vdi"),
    "ploop": (("parallels",), "ploop"),
}


def options_of(made):
    format, *options = made
    return ["-f", format, *(word for option in options for word in ("-o", option))]


def inspected(path, status=0):
    """As a file and as a stream: the verdict must be the same."""
    report = json.loads(lukskeep("inspect", path, "--json", status=status).stdout)
    streamed = lukskeep("inspect", "-", "--json", status=status, stdin=path.read_bytes()).stdout
    assert {**json.loads(streamed), "file": str(path)} == report
    return report


def names(report):
    return {finding["name"] for finding in report["findings"]}


def disk_with_data(path):
    """A disk of 8 MiB with a partition table of the new kind, and something in it."""
    need("sgdisk")
    disk = write(path, bytes(MIB) + bytes_of(7, MIB) + bytes(6 * MIB))
    run(["sgdisk", "-n", "1:2048:4095", disk])
    return disk


def virtual_size(path, format):
    info = run(["qemu-img", "info", "--output", "json", "-f", format, path]).stdout
    return json.loads(info)["virtual-size"]


@pytest.mark.parametrize("name", SAFE)
def test_what_qemu_img_makes(tmp_path, name):
    need("qemu-img")
    made, format = SAFE[name]
    empty = tmp_path / "empty"
    run(["qemu-img", "create", "-q", *options_of(made), empty, "20M"])
    full = tmp_path / "full"
    words = options_of(made)
    run(["qemu-img", "convert", "-O", words[1], *words[2:], disk_with_data(tmp_path / "disk"), full])
    for image in (empty, full):
        report = inspected(image)
        # As a VHD a disk has whole cylinders: the backup of its GPT is not at the end any more.
        notes = {"gpt-backup-moved"} if (name, image) == ("vhd fixed", full) else set()
        assert report["safe"] and names(report) == notes, report
        raw = format == "raw"
        assert report["format"] == ("gpt" if raw and image == full else format)
        assert report["virtual_size"] == virtual_size(image, "vpc" if format == "vhd" else made[0])
        assert report["size"] == image.stat().st_size


@pytest.mark.parametrize("finding, words", [
    ("qcow2-backing-file", ("-f", "qcow2", "-b", "base", "-F", "raw")),
    ("qcow2-data-file", ("-f", "qcow2", "-o", "data_file=data")),
    ("qcow2-data-file", ("-f", "qcow2", "-o", "data_file=data,data_file_raw=on")),
    ("qed-format", ("-f", "qed",)),
    ("vmdk-text", ("-f", "vmdk", "-o", "subformat=monolithicFlat")),
    ("vmdk-text", ("-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse")),
    ("vmdk-text", ("-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat")),
    ("vmdk-parent", ("-f", "vmdk", "-b", "parent", "-F", "vmdk")),
])
def test_what_qemu_img_makes_of_several_files(tmp_path, finding, words):
    need("qemu-img")
    sparse(tmp_path / "base", MIB)
    run(["qemu-img", "create", "-q", "-f", "vmdk", "parent", "1M"])
    run(["qemu-img", "create", "-q", *words, "image", "1M"])
    assert finding in names(inspected(Path("image"), 6))


def test_snapshots_and_bitmaps(tmp_path):
    need("qemu-img")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "image", "8M"])
    for number in range(5):
        run(["qemu-img", "snapshot", "-c", f"snapshot {number}", "image"])
    for number in range(3):
        run(["qemu-img", "bitmap", "--add", "image", f"bitmap-{number}"])
    assert names(inspected(Path("image"))) == {"qcow2-has-snapshots"}


@pytest.mark.parametrize("grow", [0, 3 * MIB])
def test_partition_tables(tmp_path, grow):
    disk = disk_with_data(tmp_path / "disk")
    with open(disk, "r+b") as file:
        file.truncate(8 * MIB + grow)
    report = inspected(disk)
    assert report["format"] == "gpt" and names(report) == ({"gpt-backup-moved"} if grow else set())
    run(["sgdisk", "-e", disk])
    assert names(inspected(disk)) == set()
    run(["sgdisk", "--hybrid", "1", disk])
    assert "mbr-hybrid" in names(inspected(disk, 6))


@pytest.mark.parametrize("options, variant", [((), "iso9660"), (("-udf",), "iso9660 and udf"),
                                              (("-J", "-R"), "iso9660")])
def test_iso_images(tmp_path, options, variant):
    need("genisoimage")
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "file", bytes_of(1, 300_000))
    image = tmp_path / "image.iso"
    run(["genisoimage", "-quiet", *options, "-o", image, folder])
    report = inspected(image)
    assert (report["format"], report["variant"]) == ("iso", variant)
    assert 300_000 < report["virtual_size"] <= image.stat().st_size


@pytest.mark.parametrize("words", [
    ("--type", "luks1", *THEIR_CHEAP["pbkdf2"]),
    ("--type", "luks1", "--key-size", "256", *THEIR_CHEAP["pbkdf2"]),
    ("--type", "luks2", *THEIR_CHEAP["argon2id"]),
    ("--type", "luks2", "--luks2-metadata-size", "256k", *THEIR_CHEAP["pbkdf2"]),
    ("--type", "luks2", "--sector-size", "512", *THEIR_CHEAP["pbkdf2"]),
], ids=" ".join)
def test_what_cryptsetup_makes(tmp_path, keys, words):
    volume = sparse(tmp_path / "volume", 24 * MIB)
    cryptsetup("luksFormat", *words, "--key-file", keys[0], volume)
    assert names(inspected(volume)) == {"luks-unseen"}
    seen = lukskeep("inspect", volume, "--key", f"file:{keys[0]}", "--json").stdout
    assert json.loads(seen)["inner"]["format"] == "raw"


def test_luks_of_qemu(tmp_path, keys):
    need("qemu-img")
    secret = ["--object", f"secret,id=s,file={keys[0]}"]
    run(["qemu-img", "create", "-q", *secret, "-f", "luks", "-o", "key-secret=s,iter-time=10",
         "image.luks", "8M"])
    report = json.loads(lukskeep("inspect", "image.luks", "--key", f"file:{keys[0]}",
                                 "--json").stdout)
    assert report["format"] == "luks1" and report["payload_size"] == 8 * MIB
    run(["qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o",
         "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "image.qcow2", "8M"])
    report = inspected(Path("image.qcow2"))
    assert report["encrypted"] and report["variant"] == "version 3, luks1"
    assert names(report) == {"luks-unseen"}
    seen = json.loads(lukskeep("inspect", "image.qcow2", "--key", f"file:{keys[0]}",
                               "--json").stdout)
    assert names(seen) == set() and seen["virtual_size"] == 8 * MIB


# ---- a second opinion --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glance():
    if not GLANCE.exists():
        without("python3-glance is not installed")
    # It imports its logger and nothing else.
    oslo = types.ModuleType("oslo_log")
    oslo.log = types.SimpleNamespace(getLogger=logging.getLogger)
    kept = sys.modules.get("oslo_log")
    sys.modules["oslo_log"] = oslo
    try:
        spec = importlib.util.spec_from_file_location("glance_format_inspector", GLANCE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        if kept is None:
            del sys.modules["oslo_log"]
        else:
            sys.modules["oslo_log"] = kept
    return module


def judged_by(glance, path):
    found = glance.detect_file_format(str(path))
    return str(found), found.safety_check(), found.virtual_size


# Where Glance's verdict is another, and why ours stands.
DIFFERENCES = {
    "vhd fixed": "Glance looks for the footer at the start only, and takes it for raw",
    "qcow2 extended L2": "Glance knows no extended L2 entries; QEMU has had them since 5.2",
    "ploop": "Glance accepts the format and has no inspector for it",
}


@pytest.mark.parametrize("name", SAFE)
def test_glance_agrees(glance, tmp_path, name):
    need("qemu-img")
    made, format = SAFE[name]
    run(["qemu-img", "create", "-q", *options_of(made), "image", "20M"])
    ours = inspected(Path("image"))
    theirs = judged_by(glance, "image")
    same = theirs[:2] == (ours["format"], True)
    assert same == (name not in DIFFERENCES), (theirs, DIFFERENCES.get(name))
    if same and format != "raw":
        assert theirs[2] == ours["virtual_size"]


@pytest.mark.parametrize("name, words, theirs", [
    ("backing file", ("-f", "qcow2", "-b", "base", "-F", "raw"), ("qcow2", False)),
    ("data file", ("-f", "qcow2", "-o", "data_file=data"), ("qcow2", False)),
    # Refused, under the name of its base class.
    ("qed", ("-f", "qed"), ("raw", False)),
    # A descriptor alone is no format to Glance, so it passes as raw (CVE-2024-40767).
    ("vmdk flat", ("-f", "vmdk", "-o", "subformat=monolithicFlat"), ("raw", True)),
    # It looks at the type and the extents, and not at the parent.
    ("vmdk parent", ("-f", "vmdk", "-b", "parent", "-F", "vmdk"), ("vmdk", True)),
])
def test_glance_calls_nothing_unsafe_that_we_call_safe(glance, tmp_path, name, words, theirs):
    need("qemu-img")
    sparse(tmp_path / "base", MIB)
    run(["qemu-img", "create", "-q", "-f", "vmdk", "parent", "1M"])
    run(["qemu-img", "create", "-q", *words, "image", "1M"])
    assert judged_by(glance, "image")[:2] == theirs
    assert not inspected(Path("image"), 6)["safe"]
