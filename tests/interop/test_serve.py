"""Volumes served by lukskeep to other programs: qemu-img, qemu-io, nbdcopy, over TLS too; compared
with nbdkit's luks filter on the same volume."""

import contextlib
import json
import shutil
import socket
import subprocess

import pytest

from kit import CHEAP, LUKSKEEP, MIB, bytes_of, lukskeep, need, run, same, write

PLAIN_BYTES = 3 * MIB + 512


@contextlib.contextmanager
def serving(*words):
    need("nbdkit")
    process = subprocess.Popen([LUKSKEEP, "serve", *map(str, words), "--json"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        line = process.stdout.readline()
        assert line, "no server"
        yield json.loads(line)
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


@pytest.fixture
def key(tmp_path):
    return write(tmp_path / "key", b"open for all")


def encrypted(folder, key, *options, seed="serve", size=PLAIN_BYTES):
    plain = write(folder / "plain", bytes_of(seed, size))
    lukskeep("encrypt", plain, folder / "v", "--key", f"file:{key}", *options, *CHEAP["pbkdf2"])
    return plain, folder / "v"


FORMS = [("luks1", "aes-xts-plain64", 512, 512), ("luks1", "aes-cbc-essiv:sha256", 256, 512),
         ("luks2", "serpent-xts-plain64", 512, 4096), ("luks2", "camellia-xts-plain64", 512, 2048),
         ("luks2", "twofish-cbc-essiv:sha256", 256, 512), ("luks2", "aes-lrw-benbi", 384, 512)]


@pytest.mark.parametrize("kind,cipher,bits,sector", FORMS, ids=str)
def test_qemu_reads_and_writes(kind, cipher, bits, sector, key, tmp_path):
    need("qemu-img", "qemu-io")
    options = ("--sector-size", sector) if kind == "luks2" else ()
    plain, volume = encrypted(tmp_path, key, "--type", kind, "--cipher", cipher, "--key-size", bits,
                              *options, size=3 * MIB)
    with serving(volume, "--key", f"file:{key}", "--discard", "on") as server:
        uri = server["exports"][0]["uri"]
        run(["qemu-img", "convert", "-f", "raw", uri, "-O", "raw", tmp_path / "out"])
        assert same(plain, tmp_path / "out")
        done = run(["qemu-io", "-f", "raw", "-c", "write -P 0x5a 65536 70144", "-c",
                    "write -z 700 3000", "-c", "aio_write -P 0x33 1M 512k", "-c", "aio_flush", "-c",
                    "discard 2M 64k", "-c", "flush", "-c", "read -P 0x5a 65536 70144", uri])
        assert b"failed" not in done.stdout and b"error" not in done.stdout, done.stdout
    lukskeep("decrypt", volume, tmp_path / "back", "--key", f"file:{key}")
    expected = bytearray(plain.read_bytes())
    expected[65536:65536 + 70144] = b"\x5a" * 70144
    expected[700:3700] = bytes(3000)
    expected[MIB:MIB + MIB // 2] = b"\x33" * (MIB // 2)
    back = bytearray((tmp_path / "back").read_bytes())
    back[2 * MIB:2 * MIB + 65536] = expected[2 * MIB:2 * MIB + 65536]  # discarded
    assert back == expected


def test_nbdkits_filter_and_qemu_see_what_was_written_through_serve(key, tmp_path):
    need("nbdkit", "nbdcopy", "qemu-img")
    _, volume = encrypted(tmp_path, key, "--type", "luks1")
    other = write(tmp_path / "other", bytes_of("other", PLAIN_BYTES))
    lukskeep("serve", volume, "--key", f"file:{key}", "--run", f'nbdcopy {other} "$uri"')
    run(["nbdkit", "-U", "-", "--filter=luks", "file", volume, f"passphrase=+{key}", "--run",
         f'nbdcopy "$uri" {tmp_path / "filtered"}'])
    assert same(other, tmp_path / "filtered")
    run(["qemu-img", "convert", "--object", f"secret,id=s,file={key}", "--image-opts",
         f"driver=luks,key-secret=s,file.filename={volume}", "-O", "raw", tmp_path / "converted"])
    assert same(other, tmp_path / "converted")


# ---- TLS -------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certificates(folder):
    """A CA, and a certificate of it for the server and for a client."""
    need("certtool")
    folder.mkdir()

    def certtool(*words):
        run(["certtool", *words], cwd=folder)

    write(folder / "ca.info", b"cn = test CA\nca\ncert_signing_key\n")
    certtool("--generate-privkey", "--ecc", "--outfile", "ca-key.pem")
    certtool("--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.info",
             "--outfile", "ca-cert.pem")
    for who, usage in (("server", "ip_address = 127.0.0.1\ntls_www_server"),
                       ("client", "tls_www_client")):
        write(folder / f"{who}.info", f"cn = {who}\n{usage}\nsigning_key\n".encode())
        certtool("--generate-privkey", "--ecc", "--outfile", f"{who}-key.pem")
        certtool("--generate-certificate", "--load-ca-certificate", "ca-cert.pem",
                 "--load-ca-privkey", "ca-key.pem", "--load-privkey", f"{who}-key.pem",
                 "--template", f"{who}.info", "--outfile", f"{who}-cert.pem")
    return folder


def copied(uri, out, status=0):
    run(["nbdcopy", uri, out], status=status)


def test_tls_with_certificates(key, tmp_path):
    plain, volume = encrypted(tmp_path, key)
    pki = certificates(tmp_path / "pki")
    stranger = tmp_path / "stranger"
    shutil.copytree(pki, stranger)
    for name in ("client-cert.pem", "client-key.pem"):
        (stranger / name).unlink()
    port = free_port()
    with serving(volume, "--key", f"file:{key}", "--listen", f"127.0.0.1:{port}",
                 "--tls-certificates", pki, "--tls-verify-peer") as server:
        assert server["tls"] and server["exports"][0]["uri"] == f"nbds://127.0.0.1:{port}/"
        uri = f"nbds://127.0.0.1:{port}/?tls-certificates="
        copied(uri + str(pki), tmp_path / "out")
        assert same(plain, tmp_path / "out")
        copied(uri + str(stranger), tmp_path / "none", status=1)
        copied(f"nbd://127.0.0.1:{port}/", tmp_path / "none", status=1)


def test_tls_with_a_shared_key(key, tmp_path):
    need("psktool")
    plain, volume = encrypted(tmp_path, key)
    for name in ("psk", "wrong"):
        run(["psktool", "-u", "guest", "-p", tmp_path / name])
    port = free_port()
    with serving(volume, "--key", f"file:{key}", "--listen", f"127.0.0.1:{port}", "--tls-psk",
                 tmp_path / "psk"):
        uri = f"nbds://guest@127.0.0.1:{port}/?tls-psk-file="
        copied(uri + str(tmp_path / "psk"), tmp_path / "out")
        assert same(plain, tmp_path / "out")
        copied(uri + str(tmp_path / "wrong"), tmp_path / "none", status=1)
        copied(f"nbd://127.0.0.1:{port}/", tmp_path / "none", status=1)
