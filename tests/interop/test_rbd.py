"""Images in a real Ceph of one node: opened through librbd, and librbd's own LUKS formats."""

import os
import signal
import subprocess
import time
import uuid

import pytest

import radosgw
from conftest import shared_folder
from kit import CHEAP, LUKSKEEP, MIB, bytes_of, lukskeep, need, run, same, search_path, without, write

PLAIN_BYTES = 3 * MIB + 512
NEW = CHEAP["pbkdf2"]

# Run by the system's Python, whose package python3-rbd is: the peer of ours.
LIBRBD = r"""
import faulthandler, os, sys
import rados, rbd
faulthandler.dump_traceback_later(100, exit=True)
conf, pool, name, action, *rest = sys.argv[1:]
cluster = rados.Rados(conffile=conf)
cluster.connect()
io = cluster.open_ioctx(pool)
image = rbd.Image(io, name, read_only=action == "read")
status = 0
try:
    if action == "lock":
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        print("locked", flush=True)
        sys.stdin.readline()
    else:
        kind, passphrase, file = rest
        with open(passphrase, encoding="ascii") as text:
            image.encryption_load(getattr(rbd, "RBD_ENCRYPTION_FORMAT_" + kind), text.read())
        if action == "write":
            with open(file, "rb") as data:
                image.write(data.read(), 0)
            image.flush()
        else:
            with open(file, "wb") as data:
                data.write(image.read(0, image.size()))
except Exception as error:
    print(repr(error), file=sys.stderr)
    status = 1
image.close()  # else the end hangs
io.close()
cluster.shutdown()
sys.exit(status)
"""


class Pool:
    def __init__(self, conf):
        self.conf, self.name = conf, f"p-{uuid.uuid4()}"
        self.env = {"CEPH_CONF": str(conf)}
        run(["ceph", "osd", "pool", "create", self.name, "4"], env=self.env)
        run(["rbd", "pool", "init", self.name], env=self.env)

    def rbd(self, *words, **more):
        return run(["rbd", "-p", self.name, *words], env=self.env, **more).stdout

    def images(self):
        return self.rbd("ls").decode().split()

    def uri(self, image):
        return f"rbd:{self.name}/{image}?conf={self.conf}"

    def librbd_words(self, image, action, *rest):
        return ["/usr/bin/python3", "-c", LIBRBD, str(self.conf), self.name, image, action,
                *map(str, rest)]

    def librbd(self, *words, **more):
        return run(self.librbd_words(*words), env=self.env, **more)


@pytest.fixture(scope="module")
def pool(request):
    need("rbd", "ceph")
    if subprocess.run(["/usr/bin/python3", "-c", "import rbd"], capture_output=True).returncode:
        without("python3-rbd is not installed")
    folder = shared_folder(request.config) / "radosgw"
    with radosgw.cluster(folder):
        yield Pool(folder / "ceph.conf")


@pytest.fixture
def image():
    return f"i-{uuid.uuid4()}"


@pytest.fixture
def key(tmp_path):
    return write(tmp_path / "key", b"open for rbd")


@pytest.fixture
def plain(tmp_path):
    return write(tmp_path / "plain", bytes_of("rbd", PLAIN_BYTES))


def test_a_new_image(pool, image, key, plain, tmp_path):
    uri = pool.uri(image)
    lukskeep("encrypt", plain, uri, "--key", f"file:{key}", *NEW)
    assert image in pool.images()
    lukskeep("decrypt", uri, tmp_path / "out", "--key", f"file:{key}")
    assert same(plain, tmp_path / "out")
    pool.rbd("export", image, tmp_path / "exported")
    lukskeep("decrypt", tmp_path / "exported", tmp_path / "out2", "--key", f"file:{key}")
    assert same(plain, tmp_path / "out2")
    assert b"LUKS2" in lukskeep("info", uri).stdout
    other = write(tmp_path / "other", b"another")
    lukskeep("key", "add", uri, "--key", f"file:{key}", "--new-key", f"file:{other}", *NEW)
    lukskeep("key", "test", uri, "--key", f"file:{other}")
    # What is there is not overwritten.
    lukskeep("encrypt", plain, uri, "--key", f"file:{key}", *NEW, status=5)
    lukskeep("encrypt", uri, uri, "--key", f"file:{key}", *NEW, status=1)


def test_an_image_that_is_there_is_written_in_place(pool, image, key, plain, tmp_path):
    uri = pool.uri(image)
    pool.rbd("create", image, "--size", "24M")
    lukskeep("encrypt", plain, uri, "--key", f"file:{key}", *NEW)
    info = pool.rbd("info", image)
    assert b"size 24 MiB" in info
    out = lukskeep("decrypt", uri, "-", "--key", f"file:{key}").stdout
    assert out[:PLAIN_BYTES] == plain.read_bytes()
    small = f"{image}-small"
    pool.rbd("create", small, "--size", "1M")
    result = lukskeep("encrypt", plain, pool.uri(small), "--key", f"file:{key}", *NEW, status=4)
    assert small.encode() in result.stderr


def test_header_and_payload_in_two_images(pool, image, key, plain, tmp_path):
    header = pool.uri(image + "-header")
    lukskeep("encrypt", plain, pool.uri(image), "--header", header, "--key", f"file:{key}", *NEW)
    lukskeep("decrypt", pool.uri(image), tmp_path / "out", "--header", header, "--key",
             f"file:{key}")
    assert same(plain, tmp_path / "out")


def test_served_to_clients_that_know_no_ceph(pool, image, key, plain, tmp_path):
    need("nbdkit", "nbdcopy")
    lukskeep("encrypt", plain, pool.uri(image), "--key", f"file:{key}", *NEW)
    lukskeep("serve", pool.uri(image), "--key", f"file:{key}", "--run",
             f"nbdcopy $uri {tmp_path}/out && nbdcopy {tmp_path}/out $uri", timeout=180)
    assert same(plain, tmp_path / "out")
    lukskeep("decrypt", pool.uri(image), tmp_path / "out2", "--key", f"file:{key}")
    assert same(plain, tmp_path / "out2")


def test_a_plain_image_is_the_source_and_the_destination(pool, image, key, plain, tmp_path):
    pool.rbd("import", plain, image)
    lukskeep("encrypt", pool.uri(image), tmp_path / "volume", "--key", f"file:{key}", *NEW)
    lukskeep("decrypt", tmp_path / "volume", pool.uri(image + "-2"), "--key", f"file:{key}")
    pool.rbd("export", image + "-2", tmp_path / "out")
    assert same(plain, tmp_path / "out")


def test_a_snapshot_is_read_only_and_stays(pool, image, key, plain, tmp_path):
    uri = pool.uri(image)
    lukskeep("encrypt", plain, uri, "--key", f"file:{key}", *NEW)
    pool.rbd("snap", "create", f"{image}@s")
    lukskeep("erase", uri, "--yes")
    lukskeep("key", "test", uri, "--key", f"file:{key}", status=2)
    snapshot = uri.replace("?", "@s?")
    lukskeep("decrypt", snapshot, tmp_path / "out", "--key", f"file:{key}")
    assert same(plain, tmp_path / "out")
    result = lukskeep("erase", snapshot, "--yes", status=4)
    assert b"snapshot" in result.stderr


def test_the_lock_of_another_client_is_honoured(pool, image, key, plain):
    uri = pool.uri(image)
    lukskeep("encrypt", plain, uri, "--key", f"file:{key}", *NEW)
    holder = subprocess.Popen(pool.librbd_words(image, "lock"), stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env={**os.environ, **pool.env})
    try:
        assert holder.stdout.readline() == b"locked\n"
        result = lukskeep("config", uri, "--label", "x", status=5)
        assert b"another client" in result.stderr
        lukskeep("key", "test", uri, "--key", f"file:{key}")
    finally:
        holder.communicate(b"\n", timeout=60)
    lukskeep("config", uri, "--label", "x")


def test_what_is_given_up_leaves_no_image(pool, image, key, plain):
    process = subprocess.Popen(
        [LUKSKEEP, "encrypt", plain, pool.uri(image), "--key", f"file:{key}", *NEW,
         "--limit-rate", "64KiB"], env={**os.environ, "PATH": search_path(),
                                        "LUKSKEEP_ARCHIVE": "off"}, start_new_session=True,
        stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not any(image in name for name in pool.images()):
        assert time.monotonic() < end and process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not any(image in name for name in pool.images())


@pytest.mark.parametrize("kind", ["LUKS1", "LUKS2"])
def test_librbd_s_own_format_read_by_ours(pool, image, kind, key, plain, tmp_path):
    pool.rbd("create", image, "--size", "24M")
    pool.rbd("encryption", "format", image, kind.lower(), key)
    pool.librbd(image, "write", kind, key, plain)
    out = lukskeep("decrypt", pool.uri(image), "-", "--key", f"file:{key}").stdout
    assert out[:PLAIN_BYTES] == plain.read_bytes()
    pool.rbd("export", image, tmp_path / "exported")
    out = lukskeep("decrypt", tmp_path / "exported", "-", "--key", f"file:{key}").stdout
    assert out[:PLAIN_BYTES] == plain.read_bytes()
    # Keys that ours adds open it in librbd.
    other = write(tmp_path / "other", b"another")
    lukskeep("key", "add", pool.uri(image), "--key", f"file:{key}", "--new-key", f"file:{other}",
             *NEW)
    pool.librbd(image, "read", kind, other, tmp_path / "theirs")
    assert (tmp_path / "theirs").read_bytes()[:PLAIN_BYTES] == plain.read_bytes()


@pytest.mark.parametrize("kind,sector", [("LUKS1", 512), ("LUKS2", 512), ("LUKS2", 4096)])
def test_ours_loaded_by_librbd(pool, image, kind, sector, key, tmp_path):
    plain = write(tmp_path / "plain", bytes_of(kind, 4 * MIB))
    # librbd wants whole objects before the payload.
    lukskeep("encrypt", plain, pool.uri(image), "--type", kind.lower(), "--sector-size", sector,
             "--payload-offset", "16MiB", "--key", f"file:{key}", *NEW)
    pool.librbd(image, "read", kind, key, tmp_path / "theirs")
    assert same(plain, tmp_path / "theirs")


def test_an_image_that_shrinks_while_it_is_served(pool, image, key, tmp_path):
    """What the image lacks now is no zeroes: librbd says of it only that it read less."""
    need("nbdkit", "nbdcopy")
    plain = write(tmp_path / "large", bytes_of("shrinks", 32 * MIB))
    # With an exclusive lock nobody else resizes it.
    pool.rbd("create", image, "--size", "64M", "--image-feature", "layering")
    lukskeep("encrypt", plain, pool.uri(image), "--key", f"file:{key}", *NEW)
    # It ends inside a request: of what is wholly behind the end librbd says that it is nonsense.
    resize = f"rbd -p {pool.name} resize {image} --size 20580K --allow-shrink --no-progress"
    served = lukskeep("serve", pool.uri(image), "--key", f"file:{key}", "--run",
                      f"{resize} && ! nbdcopy $uri {tmp_path}/out", timeout=180, env=pool.env)
    assert b"has become shorter" in served.stderr, served.stderr


def test_what_is_not_there(pool, image, tmp_path):
    for uri, status in ((pool.uri(image), 1), (f"rbd:nowhere/{image}?conf={pool.conf}", 1),
                        (f"{pool.uri(image)}&id=nobody", 2), (f"rbd:a/b?conf={tmp_path}/no", 1)):
        result = lukskeep("info", uri, status=status)
        assert result.stderr.startswith(b"lukskeep: error: ") and uri.encode() in result.stderr
        assert len(result.stderr.splitlines()) <= 2, result.stderr


def test_a_cluster_that_does_not_answer(pool, tmp_path):
    text = pool.conf.read_text().splitlines()
    text = ["mon_host = 127.0.0.1:1" if line.startswith("mon_host") else line for line in text]
    conf = write(tmp_path / "dead.conf", ("\n".join(text) + "\n").encode())
    begun = time.monotonic()
    result = lukskeep("info", f"rbd:a/b?conf={conf}&timeout=2", status=7)
    assert b"monitors" in result.stderr and time.monotonic() - begun < 60
