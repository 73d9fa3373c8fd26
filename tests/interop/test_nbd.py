"""Volumes behind nbdkit and qemu-nbd, as headers, payloads, sources and destinations."""

import contextlib
import os
import signal
import socket
import subprocess
import time

import pytest

from kit import CHEAP, LUKSKEEP, MIB, bytes_of, lukskeep, need, run, same, search_path, write

PLAIN_BYTES = 5 * MIB + 512
VOLUME_BYTES = 24 * MIB
NEW = CHEAP["pbkdf2"]


@pytest.fixture
def key(tmp_path):
    return write(tmp_path / "key", b"open for nbd")


@pytest.fixture
def plain(tmp_path):
    return write(tmp_path / "plain", bytes_of("nbd", PLAIN_BYTES))


@pytest.fixture
def servers():
    """servers(argv, socket) runs a server until the test ends, and gives its process."""
    with contextlib.ExitStack() as stack:
        def start(argv, socket):
            need(argv[0])
            process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            end = time.monotonic() + 30
            while not socket.exists():
                assert time.monotonic() < end and process.poll() is None, argv
                time.sleep(0.01)
            return process
        yield start


@pytest.fixture
def nbdkit(servers, tmp_path):
    """nbdkit(words…) gives a URI."""
    count = []

    def start(*words, first=()):
        count.append(words)
        socket = tmp_path / f"nbdkit-{len(count)}"
        start.process = servers(["nbdkit", "-f", "-U", socket, *first, *words], socket)
        return f"nbd+unix:///?socket={socket}"

    return start


@pytest.fixture
def disk(tmp_path):
    def make(name, size=VOLUME_BYTES):
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
        return tmp_path / name
    return make


def kinds_of_server(nbdkit, servers, disk, tmp_path):
    """Every server with an empty disk, by name."""
    def qemu_nbd(*words):
        socket = tmp_path / "qemu"
        servers(["qemu-nbd", "-k", socket, "-f", "raw", *words, disk("raw")], socket)
        return f"nbd+unix:///?socket={socket}"

    def qcow2():
        run(["qemu-img", "create", "-f", "qcow2", tmp_path / "q", VOLUME_BYTES])
        socket = tmp_path / "qemu"
        servers(["qemu-nbd", "-k", socket, "-f", "qcow2", "-t", tmp_path / "q"], socket)
        return f"nbd+unix:///?socket={socket}"

    return {
        "nbdkit file": lambda: nbdkit("file", disk("raw")),
        "nbdkit memory": lambda: nbdkit("memory", VOLUME_BYTES),
        "nbdkit without zero and extents": lambda: nbdkit(
            "--filter=nozero", "--filter=noextents", "memory", VOLUME_BYTES),
        "nbdkit in 4 KiB blocks": lambda: nbdkit(
            "--filter=blocksize-policy", "memory", VOLUME_BYTES, "blocksize-minimum=4096",
            "blocksize-error-policy=error"),
        "nbdkit slow": lambda: nbdkit("--filter=delay", "memory", VOLUME_BYTES, "rdelay=2ms",
                                      "wdelay=2ms"),
        "nbdkit without parallel": lambda: nbdkit(
            "--filter=noparallel", "memory", VOLUME_BYTES, "serialize=connections"),
        "qemu-nbd for one client": lambda: qemu_nbd(),
        "qemu-nbd for many": lambda: qemu_nbd("-t", "-e", "8"),
        "qemu-nbd with qcow2": qcow2,
    }


@pytest.mark.parametrize("kind", kinds_of_server(None, None, None, None))
def test_a_volume_goes_in_and_out(kind, nbdkit, servers, disk, key, plain, tmp_path):
    uri = kinds_of_server(nbdkit, servers, disk, tmp_path)[kind]()
    lukskeep("encrypt", plain, uri, "--key", f"file:{key}", *NEW)
    if kind == "qemu-nbd for one client":
        # It has ended with its client.
        out = lukskeep("decrypt", tmp_path / "raw", "-", "--key", f"file:{key}").stdout
        assert out[:PLAIN_BYTES] == plain.read_bytes()
        return
    other = write(tmp_path / "other", b"another")
    lukskeep("key", "add", uri, "--key", f"file:{key}", "--new-key", f"file:{other}", *NEW)
    out = lukskeep("decrypt", uri, "-", "--key", f"file:{other}").stdout
    assert out[:PLAIN_BYTES] == plain.read_bytes()
    assert b"LUKS2" in lukskeep("info", uri).stdout


def test_what_nbdcopy_and_ours_read_is_the_same(nbdkit, disk, key, plain, tmp_path):
    need("nbdcopy")
    uri = nbdkit("file", disk("raw"))
    lukskeep("encrypt", plain, uri, "--key", f"file:{key}", *NEW)
    run(["nbdcopy", uri, tmp_path / "copied"])
    assert same(tmp_path / "raw", tmp_path / "copied")


def test_header_and_payload_from_different_servers(nbdkit, servers, disk, key, plain, tmp_path):
    header = nbdkit("file", disk("header"))
    socket = tmp_path / "qemu"
    servers(["qemu-nbd", "-k", socket, "-f", "raw", "-t", "-x", "pay", disk("payload")], socket)
    payload = f"nbd+unix:///pay?socket={socket}"
    lukskeep("encrypt", plain, payload, "--header", header, "--key", f"file:{key}", *NEW)
    out = lukskeep("decrypt", payload, "-", "--header", header, "--key", f"file:{key}").stdout
    assert out[:PLAIN_BYTES] == plain.read_bytes()
    lukskeep("info", f"nbd+unix:///other?socket={socket}", status=1)


def test_holes_are_seen_through_the_server(nbdkit, disk, key, tmp_path):
    sparse = disk("sparse", 64 * MIB)
    with open(sparse, "r+b") as file:
        file.write(b"start")
    lukskeep("encrypt", nbdkit("file", sparse), tmp_path / "volume", "--holes", "keep", "--key",
             f"file:{key}", *NEW)
    assert (tmp_path / "volume").stat().st_blocks * 512 < 24 * MIB
    # nbdkit's memory gives back what is punched.
    target = nbdkit("memory", 64 * MIB)
    lukskeep("decrypt", tmp_path / "volume", target, "--holes", "keep", "--key", f"file:{key}")
    run(["nbdcopy", target, tmp_path / "out"])
    assert same(sparse, tmp_path / "out")


def test_errors_of_the_storage_behind_the_server(nbdkit, disk, key, plain, tmp_path):
    lukskeep("encrypt", plain, tmp_path / "volume", "--key", f"file:{key}", *NEW)
    uri = nbdkit("--filter=error", "file", tmp_path / "volume", "error-pread=EIO",
                 "error-pread-rate=100%")
    result = lukskeep("decrypt", uri, tmp_path / "out", "--key", f"file:{key}", status=4)
    assert b"the server says: input/output error" in result.stderr
    full = nbdkit("--filter=error", "memory", VOLUME_BYTES, "error-pwrite=ENOSPC",
                  "error-pwrite-rate=100%")
    result = lukskeep("encrypt", plain, full, "--key", f"file:{key}", *NEW, status=4)
    assert b"no space left" in result.stderr
    read_only = nbdkit("file", tmp_path / "volume", first=["-r"])
    lukskeep("key", "test", read_only, "--key", f"file:{key}")
    result = lukskeep("erase", read_only, "--yes", status=4)
    assert b"read-only" in result.stderr


def slow_decrypt(uri, key, out):
    """Started, and seen to have begun; gives the process."""
    process = subprocess.Popen(
        [LUKSKEEP, "decrypt", uri, out, "--key", f"file:{key}", "--limit-rate", "512KiB",
         "--progress", "json"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": search_path(), "LUKSKEEP_ARCHIVE": "off"})
    assert process.stderr.readline().startswith(b"{")
    return process


def test_a_disk_that_shrinks_behind_the_server(nbdkit, key, plain, tmp_path):
    lukskeep("encrypt", plain, tmp_path / "volume", "--key", f"file:{key}", *NEW)
    uri = nbdkit("file", tmp_path / "volume")
    ours = slow_decrypt(uri, key, tmp_path / "out")
    os.truncate(tmp_path / "volume", 18 * MIB)
    _, err = ours.communicate(timeout=120)
    assert ours.returncode == 4 and uri.encode() in err and b"the server says" in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how,status,words", [(signal.SIGKILL, 7, b"broke"),
                                              (signal.SIGSTOP, 7, b"not answered")])
def test_a_server_that_is_killed_or_stopped(how, status, words, nbdkit, key, plain, tmp_path):
    lukskeep("encrypt", plain, tmp_path / "volume", "--key", f"file:{key}", *NEW)
    uri = nbdkit("file", tmp_path / "volume") + "&timeout=2"
    server = nbdkit.process
    ours = slow_decrypt(uri, key, tmp_path / "out")
    server.send_signal(how)
    _, err = ours.communicate(timeout=120)
    assert ours.returncode == status and words in err, err
    assert not (tmp_path / "out").exists()


# ---- TLS ---------------------------------------------------------------------------------------


def test_tls_with_a_shared_key(nbdkit, disk, key, plain, tmp_path):
    psk = write(tmp_path / "psk", b"alice:" + bytes_of("psk", 32).hex().encode() + b"\n")
    uri = nbdkit("file", disk("raw"), first=["--tls=require", f"--tls-psk={psk}"])
    secret = uri.replace("nbd+unix://", "nbds+unix://alice@") + f"&tls-psk-file={psk}"
    lukskeep("encrypt", plain, secret, "--key", f"file:{key}", *NEW)
    out = lukskeep("decrypt", secret, "-", "--key", f"file:{key}").stdout
    assert out[:PLAIN_BYTES] == plain.read_bytes()
    result = lukskeep("info", uri, status=7)
    assert b"nbds" in result.stderr
    wrong = write(tmp_path / "wrong", b"alice:" + bytes_of("wrong", 32).hex().encode() + b"\n")
    lukskeep("info", secret.replace(str(psk), str(wrong)), status=7)


def certificates(folder):
    """A CA, and a server certificate for localhost, where libnbd and nbdkit look for them."""
    need("openssl")
    folder.mkdir()
    def openssl(*words):
        run(["openssl", *words], cwd=folder)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out",
            "ca-cert.pem", "-days", "30", "-subj", "/CN=test ca")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server-key.pem", "-out", "s.csr",
            "-subj", "/CN=localhost")
    write(folder / "ext", b"subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl("x509", "-req", "-in", "s.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-out", "server-cert.pem", "-days", "30", "-extfile", "ext")
    return folder


def test_tls_with_certificates(servers, disk, key, plain, tmp_path):
    folder = certificates(tmp_path / "pki")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pid = tmp_path / "pid"
    servers(["nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "-P", pid, "--tls=require",
             f"--tls-certificates={folder}", "file", disk("raw")], pid)
    secret = f"nbds://localhost:{port}/"
    trusting = f"{secret}?tls-certificates={folder}"
    lukskeep("encrypt", plain, trusting, "--key", f"file:{key}", *NEW)
    out = lukskeep("decrypt", trusting, "-", "--key", f"file:{key}").stdout
    assert out[:PLAIN_BYTES] == plain.read_bytes()
    other = certificates(tmp_path / "other")
    result = lukskeep("info", f"{secret}?tls-certificates={other}", status=7)
    assert b"certificate" in result.stderr
    # libnbd would take any server then.
    result = lukskeep("info", secret, status=1)
    assert b"proves" in result.stderr
