"""serve: what it says and refuses, sockets, exports, locks, its end; with real clients."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

from cli_tools import fails, ok, wait_until
from nbd_server import EIO, ENOSPC, READ, WRITE, Closed, NbdServer
from nbd_tools import (PLUGIN, PROGRAM, decrypt, environment, lukskeep, make_volume, require, serving)

nbd = require()
KEY = ("--key", "file:k1")
MIB = 1 << 20


@pytest.fixture
def volume(place):
    make_volume(place)
    return place


WRONG = [
    (1, ["serve"], "VOLUME is missing"),
    (1, ["serve", "--header", "h", "--export", "a=v"], "--header goes with VOLUME"),
    (1, ["serve", "v", "--export", "a"], "there is no '='"),
    (1, ["serve", "v", "--export", "=v"], "the name is empty"),
    (1, ["serve", "v", "--export", "a="], "names no volume"),
    (1, ["serve", "v", "--export", "a=v,header="], "is unknown, empty or given twice"),
    (1, ["serve", "v", "--export", "a=v,writable"], "'writable' is unknown"),
    (1, ["serve", "v", "--export", "a=v,key="], "key= names no source"),
    (1, ["serve", "v", "--export", "a%zz=v"], "'%' begins no byte"),
    (1, ["serve", "--export", "a=v", "--export", "a=w"], "two volumes are called 'a'"),
    (1, ["serve", "v", "--socket", "s", "--listen", "127.0.0.1:1"], "exclude each other"),
    (1, ["serve", "v", "--tls-psk", "p", "--tls-certificates", "c"], "exclude each other"),
    (1, ["serve", "v", "--tls-verify-peer"], "goes with --tls-certificates"),
    (1, ["serve", "v", "--insecure", "--tls-psk", "p"], "contradicts TLS"),
    (6, ["serve", "v", "--listen", "127.0.0.1:10809"], "without TLS"),
    (1, ["serve", "v", "--insecure", "--listen", "127.0.0.1"], "is not ADDR:PORT"),
    (1, ["serve", "v", "--insecure", "--listen", "::1:10809"], "is not ADDR:PORT"),
    (1, ["serve", "v", "--insecure", "--listen", "127.0.0.1:65536"], "is not ADDR:PORT"),
    (1, ["serve", "v", "--insecure", "--listen", "127.0.0.1:0"], "is not ADDR:PORT"),
    (1, ["serve", "v", "--threads", "0"], "--threads is from 1"),
    (1, ["serve", "v", "--connections", "99999"], "--connections is from 1"),
    (1, ["serve", "v", "--discard", "maybe"], "is none of off, on, zeroes"),
    (1, ["serve", "v", "--run", "true", "--json"], "both want standard output"),
    (2, ["serve", "v", "--key", "file:k2"], "no keyslot of 'v' opens"),
    (1, ["serve", "nowhere"], "'nowhere'"),
    (4, ["serve", "plain"], "no LUKS header"),
    (5, ["serve", "v", "--socket", "plain"], "exists and is no socket"),
    (1, ["serve", "v", "--socket", "s" * 120], "too long for a socket"),
]


@pytest.mark.parametrize("status,words,part", WRONG, ids=lambda v: " ".join(v)[:50]
                         if isinstance(v, list) else "")
def test_what_is_refused(volume, status, words, part):
    key = () if "--key" in words else KEY
    before = sorted(path.name for path in volume.iterdir())
    assert part in fails(status, *words, *key, cwd=volume).err
    assert sorted(path.name for path in volume.iterdir()) == before


def test_without_nbdkit_the_remedy_is_said(volume):
    result = fails(1, "serve", "v", *KEY, cwd=volume, env={**os.environ, "PATH": "/nowhere"})
    assert "apt-get install nbdkit" in result.err


def test_the_plugin_exports_its_entry_only():
    listed = subprocess.run(["nm", "-D", "--defined-only", PLUGIN], capture_output=True, text=True,
                            check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    # What the sanitizers add is theirs.
    assert {n for n in names if not n.startswith(("__asan", "__odr_asan"))} == {"plugin_init"}


# ---- copying --------------------------------------------------------------------------------------

FORMS = [("luks1", 512), ("luks2", 512), ("luks2", 4096)]


@pytest.mark.parametrize("kind,sector", FORMS, ids=str)
@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_copies_both_ways(place, kind, sector, detached):
    options = ["--type", kind] + (["--sector-size", sector] if kind == "luks2" else [])
    header = ["--header", "h"] if detached else []
    make_volume(place, "v", *options, *header, size="3M")
    image = random.Random(kind).randbytes(3 * MIB)
    (place / "image").write_bytes(image)
    lukskeep("serve", "v", *header, *KEY, "--run", 'nbdcopy image "$uri"', cwd=place)
    assert decrypt(place, "v", *header) == image
    lukskeep("serve", "v", *header, *KEY, "--read-only", "--run", 'nbdcopy "$uri" out', cwd=place)
    assert (place / "out").read_bytes() == image


def test_run_gives_the_status_of_its_command(volume):
    lukskeep("serve", "v", *KEY, "--run", "exit 7", status=7, cwd=volume)
    with serving("v", *KEY, cwd=volume):
        pass  # the lock is free again


def test_the_key_is_in_no_argument_and_no_environment(volume):
    with serving("v", *KEY, cwd=volume) as server:
        key = ok("info", "v", "--json", cwd=volume)  # read meanwhile: only the payload is locked
        assert key.json["uuid"]
        for what in ("cmdline", "environ"):
            text = open(f"/proc/{server.process.pid}/{what}", "rb").read()
            assert b"passphrase 1" not in text
        # Nothing of it is left to read in a descriptor either.
        arguments = open(f"/proc/{server.process.pid}/cmdline").read().split("\0")
        fd = next(a for a in arguments if a.startswith("volume-key-fd=")).split("=")[1]
        link = f"/proc/{server.process.pid}/fd/{fd}"
        assert not os.path.exists(link) or not os.readlink(link).startswith("pipe:")


# ---- many volumes ---------------------------------------------------------------------------------


def test_many_volumes_by_name(place):
    make_volume(place, "one")
    make_volume(place, "two,2", "--header", "two%", size="2M", key="k2")
    make_volume(place, "three", "--type", "luks1", size="512K")
    with serving("one", *KEY, "--export", "second=two%2C2,header=two%25,key=file:k2",
                 "--export", "third=three,read-only", cwd=place) as server:
        sizes = {e["name"]: e["size"] for e in server.ready["exports"]}
        assert sizes == {"": MIB, "second": 2 * MIB, "third": MIB // 2}
        for name, size in sizes.items():
            handle = server.connect(name)
            assert handle.get_size() == size
            assert handle.is_read_only() == (name == "third")
            if name != "third":
                handle.pwrite(name.encode() * 10 + b"!", 1000)
            handle.shutdown()
        listed = subprocess.run(["nbdinfo", "--list", "--json", server.uri()], check=True,
                                capture_output=True, text=True).stdout
        assert all(f'"export-name": "{name}"' in listed for name in sizes)
        stranger = nbd.NBD()
        with pytest.raises(nbd.Error):
            stranger.connect_uri(server.uri("second").replace("/second?", "/fourth?"))
    assert decrypt(place, "two,2", "--header", "two%", key="k2")[1000:1061] == b"second" * 10 + b"!"


def test_a_volume_is_served_for_writing_once(volume):
    with serving("v", *KEY, "--socket", "s", cwd=volume):
        assert "another program is using it" in fails(5, "serve", "v", *KEY, cwd=volume).err
        assert "another program is writing it" in fails(
            5, "serve", "v", "--read-only", *KEY, cwd=volume).err
        assert "another program serves" in fails(
            5, "serve", make_volume(volume, "w"), *KEY, "--socket", "s", cwd=volume).err
        # The same volume twice in one process is no better.
        fails(5, "decrypt", "v", "out", *KEY, cwd=volume)
    assert not (volume / "s").exists()
    with serving("v", "--read-only", *KEY, cwd=volume):
        with serving("v", "--read-only", *KEY, cwd=volume) as second:
            assert second.connect().is_read_only()
        fails(5, "serve", "v", *KEY, cwd=volume)


def test_a_header_that_changes_meanwhile_does_no_harm(volume):
    with serving("v", *KEY, cwd=volume) as server:
        handle = server.connect()
        handle.pwrite(b"before", 0)
        ok("key", "add", "v", *KEY, "--new-key", "file:k2", "--pbkdf", "pbkdf2",
           "--pbkdf-iterations", "1000", cwd=volume)
        ok("key", "remove", "v", *KEY, "--yes", cwd=volume)
        assert handle.pread(6, 0) == b"before"
        handle.pwrite(b"behind", 6)
        # Two at a time is still too many.
        handle.flush()
        handle.shutdown()
    assert decrypt(volume, key="k2")[:12] == b"beforebehind"


# ---- sockets --------------------------------------------------------------------------------------


def test_the_default_socket_is_private_and_goes_with_the_server(volume):
    # A socket's path is 107 bytes long at most, whatever the tests' folder is called.
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime, \
            serving("v", *KEY, cwd=volume, env={"XDG_RUNTIME_DIR": runtime}) as server:
        folder = os.path.dirname(server.socket)
        assert os.path.dirname(folder) == runtime
        assert os.stat(folder).st_mode & 0o77 == 0
        assert server.connect().get_size() == MIB
    assert not os.path.exists(folder)


def test_a_socket_that_was_left_is_replaced(volume):
    with serving("v", *KEY, "--socket", "s", cwd=volume) as server:
        server.process.kill()
        server.process.wait()
        assert (volume / "s").exists()
    with serving("v", *KEY, "--socket", "s", cwd=volume) as server:
        assert server.connect().get_size() == MIB


def test_without_json_the_address_is_printed(volume):
    process = subprocess.Popen([PROGRAM, "serve", "v", *KEY, "--socket", "a b", "--exit-with-last"],
                               cwd=volume, env=environment(), stdout=subprocess.PIPE)
    line = process.stdout.readline().decode().strip()
    assert line.startswith("nbd+unix:///?socket=") and line.endswith("a%20b")
    handle = nbd.NBD()
    handle.connect_uri(line)
    handle.shutdown()
    assert process.wait(timeout=30) == 0  # its last client has gone
    assert process.stdout.read() == b""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_tcp_when_it_is_spelt_out(volume):
    port = free_port()
    with serving("v", *KEY, "--listen", f"127.0.0.1:{port}", "--insecure", cwd=volume) as server:
        assert server.uri() == f"nbd://127.0.0.1:{port}/"
        assert server.connect().get_size() == MIB


def activated(volume, listening, *words):
    """Starts the server as a service manager does."""
    script = ("import os,sys\nos.dup2(int(sys.argv[1]), 3)\nos.environ['LISTEN_PID']=str(os.getpid())\n"
              "os.environ['LISTEN_FDS']='1'\nos.execv(sys.argv[2], sys.argv[2:])")
    return subprocess.Popen(["/usr/bin/python3", "-c", script, str(listening.fileno()), PROGRAM, "serve",
                             "v", *KEY, *words], cwd=volume, env=environment(),
                            pass_fds=[listening.fileno(), 3], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def test_a_socket_of_the_service_manager(volume):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(volume / "s"))
        listening.listen()
        process = activated(volume, listening)
        handle = nbd.NBD()
        handle.connect_unix(str(volume / "s"))
        handle.pwrite(b"activated", 0)
        process.terminate()
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 0
    assert decrypt(volume)[:9] == b"activated"


def test_a_tcp_socket_of_the_service_manager_needs_tls_too(volume):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = activated(volume, listening)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 6 and b"to the network" in errors


def test_the_service_manager_is_told(volume):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(volume / "notify"))
        manager.settimeout(30)
        with serving("v", *KEY, cwd=volume, env={"NOTIFY_SOCKET": str(volume / "notify")}):
            assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"STOPPING=1"


# ---- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_an_idle_client(volume, number):
    with serving("v", *KEY, "--socket", "s", cwd=volume) as server:
        handle = server.connect()
        handle.pwrite(b"written and not flushed", 100)
        started = time.monotonic()
        assert server.stop(number)[0] == 0
        assert time.monotonic() - started < 20
        with pytest.raises(nbd.Error):
            handle.pread(1, 0)
    assert not (volume / "s").exists()
    assert decrypt(volume)[100:123] == b"written and not flushed"


@pytest.mark.skipif(not shutil.which("strace"), reason="no program 'strace'")
def test_the_end_flushes(volume):
    with serving("v", *KEY, cwd=volume) as server:
        server.connect().pwrite(b"x", 0)
        tracer = subprocess.Popen(["strace", "-f", "-p", str(server.process.pid), "-e",
                                   "trace=fdatasync,fsync", "-o", "trace"], cwd=volume,
                                  stderr=subprocess.PIPE)
        tracer.stderr.readline()  # attached
        server.stop()
        tracer.wait(timeout=30)
    assert "sync(" in (volume / "trace").read_text()


def test_a_client_that_takes_no_answers_does_not_keep_it(volume):
    with serving("v", *KEY, cwd=volume) as server:
        handle = server.connect()
        for _ in range(64):  # far more than a socket holds; nobody reads them
            handle.aio_pread(nbd.Buffer(256 * 1024), 0)
        time.sleep(0.2)
        assert server.stop()[0] == 0


def test_sigkill_loses_nothing_that_was_flushed_and_tears_no_sector(place):
    """Each sector of the second half is written over and over as a whole; then the plug is pulled."""
    make_volume(place, "v", "--sector-size", "4096", size="4M")
    flushed = random.Random(1).randbytes(2 * MIB)
    with serving("v", *KEY, cwd=place) as server:
        handle = server.connect()
        handle.pwrite(flushed, 0)
        handle.flush()
        for number in range(2000):
            at = 2 * MIB + number * 12345 % (500) * 4096
            handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([number % 255 + 1]) * 8192), at)
            if number == 1500:
                server.process.kill()
        server.process.wait()
    data = decrypt(place)
    assert data[:2 * MIB] == flushed
    for at in range(2 * MIB, 2 * MIB + 500 * 4096, 4096):
        sector = data[at:at + 4096]
        untouched = at >= 4 * MIB or len(set(sector)) > 200  # of a new volume: noise
        assert len(set(sector)) == 1 or untouched, at


def test_memory_with_sixteen_clients(place):
    make_volume(place, size="64M")
    with serving("v", *KEY, cwd=place) as server:
        clients = [subprocess.Popen(["nbdcopy", server.uri(), "null:"]) for _ in range(16)]
        assert all(client.wait(timeout=120) == 0 for client in clients)
        status = open(f"/proc/{server.process.pid}/status").read()
        peak = next(int(line.split()[1]) for line in status.splitlines()
                    if line.startswith("VmHWM"))
    assert peak <= 128 * 1024, f"{peak} KiB"


def test_nothing_is_left_behind(volume):
    """Of all that: no process, no folder."""
    with serving("v", *KEY, cwd=volume) as server:
        folder = os.path.dirname(server.socket)
    wait_until(lambda: not os.path.exists(folder), "its folder to go")


# ---- storage that other servers have -------------------------------------------------------------


@contextlib.contextmanager
def stored_elsewhere(volume, **settings):
    """The volume behind an NBD server of the tests, as a URI."""
    data = bytearray((volume / "v").read_bytes())
    (volume / "v").rename(volume / "was")
    with NbdServer(volume / "store", data, **settings) as store:
        yield store


def test_a_volume_that_another_server_has(volume):
    with stored_elsewhere(volume) as store:
        with serving(store.uri, *KEY, cwd=volume) as server:
            client = server.connect()
            client.pwrite(b"written through two servers", 4096 - 7)
            client.flush()
            assert client.pread(27, 4096 - 7) == b"written through two servers"
            client.shutdown()
        (volume / "v").write_bytes(store.data)
    assert decrypt(volume)[4096 - 7:][:27] == b"written through two servers"


def test_a_header_that_another_server_has(place):
    make_volume(place, "p", "--header", "h")
    data = bytearray((place / "h").read_bytes())
    with NbdServer(place / "store", data) as store:
        done = lukskeep("serve", "p", "--header", store.uri, *KEY, "--run", "nbdinfo --size $uri",
                        cwd=place)
    assert int(done.stdout) == 1 << 20


def test_errors_of_the_storage_reach_the_client(volume):
    with stored_elsewhere(volume) as store:
        with serving(store.uri, *KEY, cwd=volume) as server:
            client = server.connect()
            before = client.pread(512, 0)
            store.errors = {READ: EIO, WRITE: ENOSPC}
            with pytest.raises(Exception, match="Input/output error"):
                client.pread(512, 8192)
            with pytest.raises(Exception, match="No space left"):
                client.pwrite(bytes(4096), 0)
                client.flush()
            store.errors = {}
            # It goes on when the storage does.
            assert client.pread(512, 0) == before
            client.shutdown()


def test_storage_that_hangs_holds_up_only_who_reads_from_it(volume):
    hanging = threading.Event()

    def hang(server, _connection, command, *_):
        if hanging.is_set() and command == READ:
            server.closing.wait(60)
            raise Closed

    make_volume(volume, "w")
    with stored_elsewhere(volume, on_request=hang) as store:
        with serving("--export", f"a={store.uri}", "--export", "b=w", *KEY, cwd=volume) as server:
            stuck, other = server.connect("a"), server.connect("b")
            hanging.set()
            stuck.aio_pread(nbd.Buffer(512), 0)
            stuck.poll(100)
            other.pwrite(b"goes on", 0)
            other.flush()
            assert other.pread(7, 0) == b"goes on"
            store.close()
            with pytest.raises(Exception):
                while not stuck.aio_command_completed(1):
                    stuck.poll(-1)
            other.shutdown()
