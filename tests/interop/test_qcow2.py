"""qcow2 images: QEMU's read by lukskeep byte for byte, ours read and checked by QEMU."""

import json
import os
import random
import subprocess

import pytest
from kit import CHEAP, MIB, lukskeep, need, qemu_img, run, same, write

pytestmark = pytest.mark.usefixtures("either_qemu")

SIZE = 5 * MIB + 512


def need_qemu():
    need("qemu-img")
    need("qemu-io")


def image_bytes(seed, size=SIZE):
    """Data in some places, zeroes in most, and something that compresses."""
    source = random.Random(seed)
    data = bytearray(size)
    for _ in range(12):
        length = source.randrange(1, 200_000)
        at = source.randrange(size)
        length = min(length, size - at)
        data[at:at + length] = (source.randbytes(length) if source.random() < 0.6
                                else (b"text " * length)[:length])
    return bytes(data)


def write_folder(path):
    path.mkdir()
    return path


def check(image, key=None):
    """qemu-img check is clean: neither corruptions nor leaks."""
    if key is None:
        return run(["qemu-img", "check", "-q", "-f", "qcow2", image])
    return run(["qemu-img", "check", "-q", *secret(key), "--image-opts", luks_opts(image)])


def secret(key):
    return ("--object", f"secret,id=s,file={key}")


def luks_opts(image):
    return f"driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename={image}"


@pytest.fixture
def key(tmp_path):
    return write(tmp_path / "key", b"open for qemu")


class Reader:
    """What is on the disk of an image: read through a LUKS volume and back, in whole sectors."""

    def __init__(self, folder, key):
        self.folder = folder
        self.key = key

    def read(self, image, *options):
        volume, plain = self.folder / "through.luks", self.folder / "through.raw"
        lukskeep("encrypt", f"qcow2:{image}", volume, "--yes", "--type", "luks1", "--key",
                 f"file:{self.key}", *CHEAP["pbkdf2"], *options)
        lukskeep("decrypt", volume, plain, "--yes", "--key", f"file:{self.key}")
        return plain.read_bytes()


@pytest.fixture
def reader(tmp_path, key):
    return Reader(tmp_path, key)


FORMATS = ["cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=2M",
           "compat=0.10", "compat=0.10,cluster_size=512", "refcount_bits=1", "refcount_bits=2",
           "refcount_bits=8,cluster_size=512", "refcount_bits=64", "lazy_refcounts=on",
           "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=128k",
           "extended_l2=on,cluster_size=2M", "compression_type=zstd",
           "compression_type=zstd,cluster_size=2M", "compression_type=zstd,extended_l2=on"]
PREALLOCATED = ["preallocation=metadata", "preallocation=falloc", "preallocation=full",
                "preallocation=metadata,extended_l2=on", "preallocation=metadata,cluster_size=512"]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("options", FORMATS)
def test_every_format_is_read(options, compressed, reader, tmp_path):
    need_qemu()
    plain = write(tmp_path / "plain", image_bytes(options))
    run(["qemu-img", "convert", *(["-c"] if compressed else []), "-f", "raw", "-O", "qcow2", "-o",
         options, plain, tmp_path / "image"])
    assert reader.read(tmp_path / "image") == plain.read_bytes()


@pytest.mark.parametrize("options", PREALLOCATED)
def test_preallocated_images_are_read(options, reader, tmp_path):
    need_qemu()
    image = tmp_path / "image"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, str(SIZE)])
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x41 70000 100000", "-c", "write -z 1M 1M",
         "-c", "discard 2M 64k", image])
    expected = bytearray(SIZE)
    expected[70000:170000] = b"\x41" * 100000
    assert reader.read(image) == expected


@pytest.mark.parametrize("options", ["cluster_size=64k", "extended_l2=on", "cluster_size=512"])
@pytest.mark.parametrize("size", [SIZE // 512 // 2 * 512, SIZE + MIB], ids=["longer", "shorter"])
def test_backing_chains_are_read_when_allowed(size, options, reader, tmp_path):
    need_qemu()
    write(tmp_path / "base", image_bytes("base"))
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", options,
         tmp_path / "middle"])
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x42 100000 5000", "-c", "write -z 1M 200k",
         tmp_path / "middle"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "-o", options,
         tmp_path / "top", str(size)])
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x43 102000 1000", tmp_path / "top"])
    run(["qemu-img", "convert", "-O", "raw", tmp_path / "top", tmp_path / "expected"])
    refused = lukskeep("encrypt", f"qcow2:{tmp_path / 'top'}", tmp_path / "no", "--key",
                       f"file:{reader.key}", status=6)
    assert b"--allow-backing" in refused.stderr and not (tmp_path / "no").exists()
    assert reader.read(tmp_path / "top", "--allow-backing") == (tmp_path / "expected").read_bytes()


class Chain:
    """Images over each other, the lowest first, each with a key of its own or none."""

    def __init__(self, folder, keys, base):
        self.folder = folder
        self.secrets = [word for name in "abc"
                        for word in ("--object", f"secret,id={name},file={self.key(name)}")]
        self.path = folder / "base"
        self.opts = f"driver=raw,file.filename={self.path}"
        self.backing_keys = []
        self.top = None
        write(self.path, base)
        for number, key in enumerate(keys):
            self.add(number, key)

    def key(self, name):
        return write(self.folder / f"key-{name}", b"of " + name.encode())

    def add(self, number, key):
        path = self.folder / f"layer{number}"
        options = f"encrypt.format=luks,encrypt.key-secret={key},encrypt.iter-time=10" if key else ""
        # -u: it does not look at the backing file, for which it takes no key here.
        qemu_img("create", "-q", "-u", "-f", "qcow2", *self.secrets, "-b", self.path.name, "-F",
                 "qcow2" if number else "raw", *(["-o", options] if options else []), path, SIZE)
        below = ",".join(f"backing.{option}" for option in self.opts.split(","))
        own = f"encrypt.format=luks,encrypt.key-secret={key}," if key else ""
        self.opts = f"driver=qcow2,{own}file.filename={path},{below}"
        run(["qemu-io", *self.secrets, "-c", f"write -P {number + 1} {number * 300000 + 777} 5000",
             "--image-opts", self.opts])
        if self.top:
            self.backing_keys.insert(0, self.top)
        self.path, self.top = path, key

    def options(self):
        keys = [("--backing-key", f"file:{self.key(key)}") for key in self.backing_keys]
        return ["--allow-backing", *(word for pair in keys for word in pair)]

    def disk(self):
        out = self.folder / "expected"
        run(["qemu-img", "convert", *self.secrets, "--image-opts", self.opts, "-O", "raw", out])
        return out


@pytest.mark.parametrize("keys", [("a", None), ("a", "b"), ("a", "b", None, "c"), (None, "a", "b")],
                         ids=lambda keys: "-".join(key or "plain" for key in keys))
def test_encrypted_backing_files_are_read(keys, tmp_path):
    need_qemu()
    chain = Chain(tmp_path, keys, image_bytes("encrypted chain"))
    out = tmp_path / "out"
    if keys[-1] is None:
        lukskeep("image", "convert", chain.path, out, "--format", "raw", *chain.options())
    else:
        key = ("--key", f"file:{chain.key(keys[-1])}")
        lukskeep("decrypt", f"qcow2:{chain.path}", out, *key, *chain.options())
        lukskeep("image", "decrypt", chain.path, tmp_path / "again", *key, *chain.options())
        assert same(out, tmp_path / "again")
        seen = lukskeep("inspect", chain.path, "--allow", "qcow2-backing-file", "--json", *key,
                        *chain.options())
        assert json.loads(seen.stdout)["inner"]["format"] == "raw"
    assert same(out, chain.disk())


def test_one_key_for_all_encrypted_backing_files(tmp_path):
    need_qemu()
    chain = Chain(tmp_path, ("a", "a", None), image_bytes("one key"))
    key = f"file:{chain.key('a')}"
    lukskeep("image", "convert", chain.path, tmp_path / "out", "--format", "raw",
             "--allow-backing", "--backing-key", key)
    assert same(tmp_path / "out", chain.disk())


def test_a_key_that_can_be_read_once_opens_all_encrypted_backing_files(tmp_path):
    need_qemu()
    chain = Chain(tmp_path, ("a", "a", None), image_bytes("one pipe"))
    for source in ("file:-", "fd:0"):
        out = tmp_path / f"out-{source[:2]}"
        lukskeep("image", "convert", chain.path, out, "--format", "raw", "--allow-backing",
                 "--backing-key", source, stdin=chain.key("a").read_bytes())
        assert same(out, chain.disk())
    other = Chain(write_folder(tmp_path / "other"), ("a", "b", None), image_bytes("one pipe"))
    wrong = lukskeep("image", "convert", other.path, tmp_path / "no", "--format", "raw",
                     "--allow-backing", "--backing-key", "fd:0", status=2,
                     stdin=other.key("a").read_bytes())
    assert b"layer1" in wrong.stderr and b"--backing-key" in wrong.stderr


def test_the_limit_on_kdfs_holds_for_backing_files(tmp_path):
    need_qemu()
    chain = Chain(tmp_path, ("a", None), image_bytes("limit"))
    convert = ("image", "convert", chain.path, tmp_path / "out", "--format", "raw",
               *chain.options())
    refused = lukskeep(*convert, "--kdf-limit", "0s", status=6)
    assert b"--kdf-limit" in refused.stderr and not (tmp_path / "out").exists()
    lukskeep(*convert)


def test_a_plain_copy_of_encrypted_backing_files_is_warned_of(tmp_path):
    need_qemu()
    chain = Chain(tmp_path, ("a", None), image_bytes("warned"))
    made = lukskeep("image", "convert", chain.path, tmp_path / "out", "--format", "qcow2",
                    *chain.options())
    assert b"in the clear" in made.stderr and b"image encrypt" in made.stderr
    plain = Chain(write_folder(tmp_path / "plain"), (None, None), image_bytes("warned"))
    quiet = lukskeep("image", "convert", plain.path, tmp_path / "out2", "--format", "qcow2",
                     "--allow-backing")
    assert b"in the clear" not in quiet.stderr


def test_headers_in_overlays_are_restored_and_archived(key, tmp_path):
    need_qemu()
    env = {"LUKSKEEP_ARCHIVE": str(tmp_path / "archive"),
           "LUKSKEEP_ARCHIVE_KEY": str(tmp_path / "identity")}
    lukskeep("create", tmp_path / "volume", "--size", "4M", "--type", "luks1", "--key",
             f"file:{key}", *CHEAP["pbkdf2"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "volume", "-F", "raw", tmp_path / "top"])
    top = f"qcow2:{tmp_path / 'top'}"
    lukskeep("header", "backup", top, tmp_path / "backup", "--allow-backing")
    added = lukskeep("key", "add", top, "--key", f"file:{key}", "--new-key",
                     f"file:{write(tmp_path / 'new', b'new words')}", *CHEAP["pbkdf2"],
                     "--allow-backing", env=env)
    assert b"not in the archive" not in added.stderr, added.stderr
    reasons = [one["reason"] for one in json.loads(
        lukskeep("archive", "list", "--json", env=env).stdout)["snapshots"]]
    assert reasons.count("after") >= 1 and reasons.count("before") == 1, reasons
    lukskeep("header", "restore", top, tmp_path / "backup", "--allow", "older", "--yes",
             "--allow-backing")
    lukskeep("key", "test", top, "--key", f"file:{tmp_path / 'new'}", "--allow-backing", status=2)
    lukskeep("key", "test", top, "--key", f"file:{key}", "--allow-backing")


def test_keys_of_backing_files_are_asked_for_by_name(tmp_path):
    need_qemu()
    chain = Chain(tmp_path, ("a", "b"), image_bytes("refused"))
    out = tmp_path / "out"
    decrypt = ("decrypt", f"qcow2:{chain.path}", out, "--key", f"file:{chain.key('b')}")
    # The key of the image is not tried on files that it names.
    wanting = lukskeep(*decrypt, "--allow-backing", status=4)
    assert b"layer0" in wanting.stderr and b"--backing-key" in wanting.stderr
    wrong = lukskeep(*decrypt, "--allow-backing", "--backing-key", f"file:{chain.key('c')}",
                     status=2)
    assert b"layer0" in wrong.stderr
    lonely = lukskeep(*decrypt, "--backing-key", f"file:{chain.key('a')}", status=1)
    assert b"--allow-backing" in lonely.stderr
    assert not out.exists()


def test_an_encrypted_image_of_ours_as_backing_file(reader, key, tmp_path):
    need_qemu()
    plain = write(tmp_path / "plain", image_bytes("ours below"))
    lukskeep("encrypt", plain, f"qcow2:{tmp_path / 'below'}", "--type", "luks1", "--key",
             f"file:{key}", *CHEAP["pbkdf2"])
    run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "below", "-F", "qcow2",
         tmp_path / "top", str(SIZE)])
    opts = (f"driver=qcow2,file.filename={tmp_path / 'top'},"
            + ",".join(f"backing.{option}" for option in luks_opts(tmp_path / "below").split(",")))
    run(["qemu-io", *secret(key), "-c", "write -P 9 100000 3000", "--image-opts", opts])
    run(["qemu-img", "convert", *secret(key), "--image-opts", opts, "-O", "raw",
         tmp_path / "expected"])
    seen = reader.read(tmp_path / "top", "--allow-backing", "--backing-key", f"file:{key}")
    assert seen == (tmp_path / "expected").read_bytes()


def test_a_raw_backing_file_is_data_whatever_it_looks_like(reader, key, tmp_path):
    need_qemu()
    plain = write(tmp_path / "plain", image_bytes("luks as data", 2 * MIB))
    volume = tmp_path / "volume"
    lukskeep("encrypt", plain, volume, "--type", "luks1", "--key", f"file:{key}", *CHEAP["pbkdf2"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "volume", "-F", "raw", tmp_path / "top"])
    lukskeep("decrypt", f"qcow2:{tmp_path / 'top'}", tmp_path / "out", "--key", f"file:{key}",
             "--allow-backing")
    assert same(plain, tmp_path / "out")
    assert reader.read(tmp_path / "top", "--allow-backing") == volume.read_bytes()


@pytest.mark.parametrize("raw", ["on", "off"])
def test_data_files_are_read_when_allowed(raw, reader, tmp_path):
    need_qemu()
    plain = write(tmp_path / "plain", image_bytes("data"))
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file=data,data_file_raw={raw}",
         "image", str(SIZE)], cwd=tmp_path)
    run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", plain, tmp_path / "image"])
    refused = lukskeep("encrypt", f"qcow2:{tmp_path / 'image'}", tmp_path / "no", "--key",
                       f"file:{reader.key}", status=6)
    assert b"--allow-data-file" in refused.stderr
    assert reader.read(tmp_path / "image", "--allow-data-file") == plain.read_bytes()


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=64k", "cluster_size=2M"])
def test_luks_in_qcow2_of_qemu(options, key, tmp_path):
    need_qemu()
    plain = write(tmp_path / "plain", image_bytes(options))
    image = tmp_path / "image"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *secret(key), "-o",
             f"{options},encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", plain,
             image)
    volume = f"qcow2:{image}"
    lukskeep("key", "test", volume, "--key", f"file:{key}")
    lukskeep("decrypt", volume, tmp_path / "out", "--key", f"file:{key}")
    assert same(plain, tmp_path / "out")
    info = json.loads(lukskeep("info", volume, "--json").stdout)
    # The header names an offset, which means nothing in an image.
    assert info["payload_size"] == SIZE and info["payload_offset"] is None
    assert [segment["offset"] for segment in info["segments"]] == [None]
    assert b"in clusters of the image" in lukskeep("info", volume).stdout

    other = write(tmp_path / "other", b"another")
    lukskeep("key", "add", volume, "--key", f"file:{key}", "--new-key", f"file:{other}",
             *CHEAP["pbkdf2"])
    lukskeep("key", "remove", volume, "--key", f"file:{key}")
    lukskeep("key", "test", volume, "--key", f"file:{key}", status=2)
    check(image, other)
    run(["qemu-img", "convert", *secret(other), "--image-opts", luks_opts(image), "-O", "raw",
         tmp_path / "back"])
    assert same(plain, tmp_path / "back")


def test_luks_in_qcow2_of_ours(key, tmp_path):
    need_qemu()
    plain = write(tmp_path / "plain", image_bytes("ours"))
    image = tmp_path / "image"
    lukskeep("encrypt", plain, f"qcow2:{image}", "--type", "luks1", "--key", f"file:{key}",
             *CHEAP["pbkdf2"])
    check(image, key)
    run(["qemu-img", "convert", *secret(key), "--image-opts", luks_opts(image), "-O", "raw",
         tmp_path / "out"])
    assert same(plain, tmp_path / "out")
    run(["qemu-io", *secret(key), "-c", "write -P 0x77 1234567 70000", "--image-opts",
         luks_opts(image)])
    lukskeep("decrypt", f"qcow2:{image}", tmp_path / "back", "--key", f"file:{key}")
    expected = bytearray(plain.read_bytes())
    expected[1234567:1304567] = b"\x77" * 70000
    assert (tmp_path / "back").read_bytes() == expected


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_a_luks2_volume_and_its_contents_in_qcow2(source, key, tmp_path):
    """LUKS2 is nothing that QEMU encrypts images with: it is on the disk of the image."""
    need_qemu()
    plain = write(tmp_path / "plain", image_bytes("luks2", 5 * MIB))
    volume = f"qcow2:{tmp_path / 'volume'}"
    if source == "file":
        lukskeep("encrypt", plain, volume, "--key", f"file:{key}", *CHEAP["pbkdf2"])
    else:
        lukskeep("encrypt", "-", volume, "--key", f"file:{key}", *CHEAP["pbkdf2"],
                 stdin=plain.read_bytes())
    check(tmp_path / "volume")
    run(["qemu-img", "convert", "-O", "raw", tmp_path / "volume", tmp_path / "raw"])
    lukskeep("decrypt", tmp_path / "raw", tmp_path / "out", "--key", f"file:{key}")
    assert same(plain, tmp_path / "out")
    lukskeep("decrypt", volume, f"qcow2:{tmp_path / 'plain.qcow2'}", "--key", f"file:{key}",
             "--holes", "keep")
    check(tmp_path / "plain.qcow2")
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", plain, tmp_path / "plain.qcow2"])


def test_create_makes_luks_in_qcow2(key, tmp_path):
    need_qemu()
    image = tmp_path / "image"
    lukskeep("create", f"qcow2:{image}", "--size", "20M", "--type", "luks1", "--key", f"file:{key}",
             *CHEAP["pbkdf2"])
    check(image, key)
    run(["qemu-io", *secret(key), "-c", "write -P 0x11 3M 1M", "--image-opts", luks_opts(image)])
    lukskeep("decrypt", f"qcow2:{image}", tmp_path / "out", "--key", f"file:{key}")
    data = (tmp_path / "out").read_bytes()
    assert len(data) == 20 * MIB and data[3 * MIB:4 * MIB] == b"\x11" * MIB


def test_snapshots_and_bitmaps_are_not_written_over(key, tmp_path):
    need_qemu()
    image = tmp_path / "image"
    lukskeep("create", f"qcow2:{image}", "--size", "20M", "--type", "luks2", "--key", f"file:{key}",
             *CHEAP["pbkdf2"])
    run(["qemu-img", "snapshot", "-c", "before", image])
    refused = lukskeep("config", f"qcow2:{image}", "--label", "x", status=4)
    assert b"'before'" in refused.stderr and b"qemu-img snapshot -d" in refused.stderr
    lukskeep("key", "test", f"qcow2:{image}", "--key", f"file:{key}")
    run(["qemu-img", "snapshot", "-d", "before", image])
    run(["qemu-img", "bitmap", "--add", image, "changes"])
    refused = lukskeep("config", f"qcow2:{image}", "--label", "x", status=4)
    assert b"'changes'" in refused.stderr and b"--remove" in refused.stderr
    run(["qemu-img", "bitmap", "--remove", image, "changes"])
    lukskeep("config", f"qcow2:{image}", "--label", "x")
    check(image)


def test_an_image_that_qemu_writes_is_busy(key, tmp_path):
    need_qemu()
    image = tmp_path / "image"
    lukskeep("create", f"qcow2:{image}", "--size", "20M", "--type", "luks2", "--key", f"file:{key}",
             *CHEAP["pbkdf2"])
    held = subprocess.Popen(["qemu-io", "-f", "qcow2", str(image)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    try:
        # The prompt comes when the image is open.
        assert os.read(held.stdout.fileno(), 7) == b"qemu-io"
        refused = lukskeep("key", "test", f"qcow2:{image}", "--key", f"file:{key}", status=5)
        assert b"by another program" in refused.stderr
    finally:
        held.communicate(b"quit\n")
    lukskeep("key", "test", f"qcow2:{image}", "--key", f"file:{key}")


def test_what_is_no_qcow2_is_said_so(key, tmp_path):
    write(tmp_path / "image", b"\0" * 4096)
    refused = lukskeep("info", f"qcow2:{tmp_path / 'image'}", status=4)
    assert b"no qcow2 image" in refused.stderr
