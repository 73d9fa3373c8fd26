"""Requests of all kinds against a model, clients that misbehave, storage that fails."""

import os
import random
import socket
import struct
import subprocess
import threading
import time

import pytest

from cli_tools import ok
from nbd_tools import PLUGIN, decrypt, environment, make_volume, require, serving

nbd = require()
KEY = ("--key", "file:k1")
MIB = 1 << 20
REGION = 96 * 1024 + 512  # no multiple of 4096: neighbours share sectors


class Client(threading.Thread):
    """Random requests within a part of the volume of its own, each followed by a look at the model."""

    def __init__(self, server, seed, start, rounds, discards):
        super().__init__()
        self.handle = server.connect()
        self.random = random.Random(seed)
        self.start_at = start
        self.rounds = rounds
        self.discards = discards
        self.model = bytearray(self.handle.pread(REGION, start))
        self.unknown = set()  # trimmed bytes
        self.failure = None

    def run(self):
        try:
            for _ in range(self.rounds):
                self.step()
            self.handle.flush()
            self.handle.shutdown()
        except Exception as error:  # noqa: BLE001: told by the test
            self.failure = error

    def forget(self, at, length):
        self.unknown.difference_update(range(at, at + length))

    def step(self):
        rnd = self.random
        at = rnd.randrange(REGION)
        length = min(1 + int(rnd.expovariate(1 / 3000)), REGION - at)
        if rnd.random() < 0.3:
            at, length = at // 4096 * 4096, max(1, length // 4096) * 4096
            length = min(length, REGION - at)
        kind = rnd.choice(["read", "read", "write", "write", "zero", "trim", "flush"])
        fua = nbd.CMD_FLAG_FUA if rnd.random() < 0.1 else 0
        where = self.start_at + at
        if kind == "write":
            data = rnd.randbytes(length)
            self.handle.pwrite(data, where, fua)
            self.model[at:at + length] = data
            self.forget(at, length)
        elif kind == "zero":
            hole = rnd.choice([0, nbd.CMD_FLAG_NO_HOLE])
            self.handle.zero(length, where, fua | hole)
            self.model[at:at + length] = bytes(length)
            self.forget(at, length)
        elif kind == "trim" and self.discards:
            self.handle.trim(length, where, fua)
            self.unknown.update(range(at, at + length))
        elif kind == "flush":
            self.handle.flush()
        else:
            self.check(at, self.handle.pread(length, where))

    def check(self, at, data):
        expected = self.model[at:at + len(data)]
        if data == expected:
            return
        wrong = [i for i in range(len(data)) if data[i] != expected[i] and at + i not in self.unknown]
        assert not wrong, f"byte {self.start_at + at + wrong[0]}"


@pytest.mark.parametrize("discard", ["off", "on", "zeroes"])
@pytest.mark.parametrize("kind,sector", [("luks1", 512), ("luks2", 4096)])
def test_random_requests_of_many_connections_agree_with_a_model(place, kind, sector, discard):
    options = ["--sector-size", sector] if kind == "luks2" else []
    make_volume(place, "v", "--type", kind, *options, size="1M")
    seed = random.randrange(1 << 32)
    print("seed", seed)
    with serving("v", *KEY, "--discard", discard, "--threads", "4", cwd=place) as server:
        clients = [Client(server, seed + number, number * REGION, 250, discard != "off")
                   for number in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert [client.failure for client in clients] == [None] * len(clients)
    holes = ["--holes", "keep"] if discard == "zeroes" else []
    data = decrypt(place, "v", *holes)
    for client in clients:
        client.check(0, data[client.start_at:client.start_at + REGION])


def test_writers_of_the_same_bytes_leave_one_of_them_whole(place):
    """Overlapping requests, also of parts of one sector: readers see what somebody wrote, whole."""
    make_volume(place, "v", "--sector-size", "4096")
    with serving("v", *KEY, "--threads", "4", cwd=place) as server:
        torn = []

        def work(number):
            handle = server.connect()
            rnd = random.Random(number)
            for _ in range(150):
                handle.pwrite(bytes([number + 1]) * 10000, 1000)
                data = handle.pread(10000, 1000)
                if len(set(data)) != 1:
                    torn.append(number)
                at = 12000 + number * 100 + rnd.randrange(90)
                handle.pwrite(bytes([number + 1]) * 10, at)  # neighbours in one sector
            assert set(handle.pread(100, 12000 + number * 100)) <= before | {number + 1}
            handle.shutdown()

        first = server.connect()
        first.pwrite(bytes(1000), 12000)
        before = {0}
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torn == []


# ---- what is offered -------------------------------------------------------------------------------


@pytest.mark.parametrize("discard,trim,fast", [("off", False, False), ("on", True, False),
                                               ("zeroes", True, True)])
def test_what_is_offered(place, discard, trim, fast):
    make_volume(place)
    with serving("v", *KEY, "--discard", discard, cwd=place) as server:
        handle = server.connect()
        assert (handle.can_trim(), handle.can_fast_zero()) == (trim, fast)
        assert handle.can_multi_conn() and handle.can_flush() and handle.can_fua()
        assert handle.get_block_size(nbd.SIZE_MINIMUM) == 1
        assert handle.get_block_size(nbd.SIZE_PREFERRED) == 4096
        assert handle.get_block_size(nbd.SIZE_MAXIMUM) == 32 * MIB


def blocks_of(path):
    return os.stat(path).st_blocks * 512


def test_discard_off_tells_nobody_what_is_zero(place):
    make_volume(place, size="4M")
    with serving("v", *KEY, cwd=place) as server:
        handle = server.connect()
        handle.zero(4 * MIB, 0)
        assert handle.pread(4 * MIB, 0) == bytes(4 * MIB)
        with pytest.raises(nbd.Error):
            handle.trim(4096, 0)
        mapped = subprocess.run(["nbdinfo", "--map", server.uri()], capture_output=True, text=True,
                                check=True).stdout.split()
        assert mapped == ["0", str(4 * MIB), "0", "data"]
    assert blocks_of(place / "v") >= 4 * MIB
    assert decrypt(place) == bytes(4 * MIB)


def test_discard_zeroes_gives_storage_back_and_shows_it(place):
    make_volume(place, size="4M")
    with serving("v", *KEY, "--discard", "zeroes", cwd=place) as server:
        handle = server.connect()
        handle.pwrite(b"\xaa" * (4 * MIB), 0)
        handle.flush()
        full = blocks_of(place / "v")
        handle.zero(2 * MIB, MIB)
        handle.trim(4096, 0)
        assert blocks_of(place / "v") <= full - 2 * MIB
        assert handle.pread(4 * MIB, 0) == (bytes(4096) + b"\xaa" * (MIB - 4096) + bytes(2 * MIB)
                                            + b"\xaa" * MIB)
        mapped = subprocess.run(["nbdinfo", "--map", "--json", server.uri()], capture_output=True,
                                text=True, check=True).stdout
        assert mapped.count('"hole,zero"') == 2 and mapped.count('"data"') == 2
        with pytest.raises(nbd.Error) as refused:
            handle.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
        assert refused.value.errnum in (95, 524)
    assert decrypt(place, "v", "--holes", "keep")[MIB:3 * MIB] == bytes(2 * MIB)


# ---- clients ---------------------------------------------------------------------------------------


def test_requests_out_of_range_are_refused_and_do_nothing(place):
    make_volume(place)
    with serving("v", *KEY, "--discard", "on", cwd=place) as server:
        handle = server.connect()
        before = handle.pread(MIB, 0)
        for at, length in ((MIB, 1), (MIB - 1, 2), (1 << 62, 4096), (0, 2 * MIB)):
            for request in (lambda: handle.pread(length, at), lambda: handle.pwrite(b"x" * length, at),
                            lambda: handle.zero(length, at), lambda: handle.trim(length, at)):
                with pytest.raises(nbd.Error):
                    request()
        assert handle.pread(MIB, 0) == before


def test_a_read_only_volume_is_not_written(place):
    make_volume(place)
    before = (place / "v").read_bytes()
    with serving("v", *KEY, "--read-only", "--discard", "on", cwd=place) as server:
        handle = server.connect()
        for request in (lambda: handle.pwrite(b"x", 0), lambda: handle.zero(1, 0),
                        lambda: handle.trim(1, 0)):
            with pytest.raises(nbd.Error) as refused:
                request()
            assert refused.value.errnum in (1, 22)
        handle.flush()
    assert (place / "v").read_bytes() == before


def raw(server):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(server.socket)
    return client


def negotiated(server):
    """A connection past its handshake, with no library that keeps the rules."""
    client = raw(server)
    client.recv(18, socket.MSG_WAITALL)
    client.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))  # EXPORT_NAME
    client.recv(10, socket.MSG_WAITALL)
    return client


def request(kind, at, length, flags=0):
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, 7, at, length)


def test_clients_that_lie_and_vanish_hurt_nobody_else(place):
    make_volume(place)
    rnd = random.Random(5)
    with serving("v", *KEY, cwd=place) as server:
        good = server.connect()
        good.pwrite(b"still here", 0)
        for number in range(60):
            kind = number % 6
            client = raw(server) if kind == 0 else negotiated(server)
            if kind == 0:
                client.sendall(rnd.randbytes(100))
            elif kind == 1:
                client.sendall(rnd.randbytes(28 * 3))
            elif kind == 2:
                client.sendall(request(1, 0, 0xFFFFFFFF))  # 4 GiB announced, none sent
            elif kind == 3:
                client.sendall(request(1, 0, 65536) + b"half")
            elif kind == 4:
                client.sendall(b"".join(request(0, 0, MIB) for _ in range(20)))  # never taken
            else:
                client.sendall(request(99, 0, 1) + request(0, 1 << 63, 1) + request(0, 0, 0, 0xFFFF))
            client.close()
            assert server.process.poll() is None, kind
        assert good.pread(10, 0) == b"still here"
        assert server.connect().get_size() == MIB


def exactly(client, size):
    """That many bytes, or fewer where the server hangs up."""
    got = b""
    while len(got) < size and (more := client.recv(size - len(got))):
        got += more
    return got


def test_requests_larger_than_any_are_refused_and_the_next_is_carried_out(place):
    """What is announced is not made room for; only a write, whose bytes follow, ends the connection."""
    make_volume(place, size="8M")
    with serving("v", *KEY, "--discard", "on", cwd=place) as server:
        for kind in (0, 4, 6):  # read, trim, write zeroes
            client = negotiated(server)
            client.sendall(request(kind, 0, 0xFFFFFFFF) + request(0, 0, 512))
            magic, error, handle = struct.unpack(">IIQ", exactly(client, 16))
            assert (magic, handle) == (0x67446698, 7) and error != 0
            magic, error, _ = struct.unpack(">IIQ", exactly(client, 16))
            assert (magic, error) == (0x67446698, 0)
            assert len(exactly(client, 512)) == 512
            client.close()
        status = open(f"/proc/{server.process.pid}/status").read()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 128 * 1024, peak


# Edges of the volume, of sectors, and of numbers.
PLACES = (0, 1, 511, 512, 4095, 4096, MIB - 512, MIB - 1, MIB, MIB + 1, 1 << 32, (1 << 63) - 1,
          (1 << 64) - 1)
LENGTHS = (0, 1, 511, 512, 513, 4096, 65536, MIB, MIB + 1)


def is_answered(client, kind, length):
    """Takes the simple reply to a request; false where the server hangs up instead."""
    header = exactly(client, 16)
    if not header:
        return False
    magic, error, handle = struct.unpack(">IIQ", header)
    assert (magic, handle) == (0x67446698, 7), header
    if kind == 0 and error == 0:
        assert len(exactly(client, length)) == length
    return True


@pytest.mark.parametrize("seed", range(4))
def test_any_request_gets_one_answer(place, seed):
    """Well-formed and otherwise as it falls: kind, flags, place and length. None ends the server, nor
    changes a volume that is read only."""
    make_volume(place)
    before = (place / "v").read_bytes()
    rnd = random.Random(seed)
    read_only = ("--read-only",) if seed % 2 else ()
    with serving("v", *KEY, "--discard", "zeroes", *read_only, cwd=place) as server:
        answered = 0
        for _ in range(40):
            client = negotiated(server)
            for _ in range(20):
                kind, length = rnd.choice((0, 0, 1, 1, 3, 4, 5, 6, 7, 8, 99)), rnd.choice(LENGTHS)
                flags = rnd.choice((0, 0, 0, 1, 2, 4, 8, 16, 0xFFFF))
                client.sendall(request(kind, rnd.choice(PLACES), length, flags)
                               + rnd.randbytes(length if kind == 1 else 0))
                if not is_answered(client, kind, length):
                    break
                answered += 1
            client.close()
        assert answered > 200, f"seed {seed}"
        assert server.process.poll() is None
        assert len(server.connect().pread(MIB, 0)) == MIB
    if read_only:
        assert (place / "v").read_bytes() == before


def test_a_thousand_clients_at_once_are_all_served(place):
    make_volume(place)
    with serving("v", *KEY, "--connections", "1000", cwd=place) as server:
        clients = [server.connect() for _ in range(1000)]
        first = bytes(clients[0].pread(512, 4096))
        assert all(client.pread(512, 4096) == first for client in clients)
        with pytest.raises(nbd.Error):
            server.connect()
        for client in clients:
            client.shutdown()


def test_a_thousand_connections(place):
    make_volume(place)
    with serving("v", *KEY, "--connections", "40", cwd=place) as server:
        good = server.connect()
        silent = []
        for _ in range(1000):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(30)
            client.connect(server.socket)
            silent.append(client)
        assert good.pread(1, 0) is not None
        for client in silent:
            client.close()
        opened = []
        refused = 0
        for _ in range(50):
            try:
                opened.append(server.connect())
            except nbd.Error:
                refused += 1
        assert len(opened) == 39 and refused == 11
        opened.pop().shutdown()
        end = time.monotonic() + 30
        while True:  # the place of one that has gone is free, as soon as the server knows
            try:
                assert server.connect().get_size() == MIB
                break
            except nbd.Error:
                assert time.monotonic() < end


# ---- storage ---------------------------------------------------------------------------------------


def test_a_volume_that_is_cut_short(place):
    make_volume(place, size="1M")
    with serving("v", *KEY, cwd=place) as server:
        handle = server.connect()
        handle.pwrite(b"kept", 0)
        os.truncate(place / "v", os.stat(place / "v").st_size - 512 * 1024)
        with pytest.raises(nbd.Error) as refused:
            handle.pread(4096, MIB - 4096)
        assert refused.value.errnum == 22
        assert handle.pread(4, 0) == b"kept"
        _, errors = server.stop()
        assert "it has become shorter" in errors


def test_a_volume_that_is_removed_is_served_on(place):
    make_volume(place)
    with serving("v", *KEY, cwd=place) as server:
        handle = server.connect()
        (place / "v").unlink()
        handle.pwrite(b"data", 0)
        handle.flush()
        assert handle.pread(4, 0) == b"data"


def test_storage_that_is_full(place):
    """A file may not grow past RLIMIT_FSIZE, nor be written there: EFBIG, as a client sees it."""
    make_volume(place, size="1M")
    limit = os.stat(place / "v").st_size - 4096 * 4

    def limited():
        import resource
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with serving("v", *KEY, cwd=place, preexec_fn=limited) as server:
        handle = server.connect()
        handle.pwrite(b"x" * 4096, 0)
        with pytest.raises(nbd.Error) as refused:
            handle.pwrite(b"x" * 4096, MIB - 4096)
        assert refused.value.errnum in (5, 27, 28)
        handle.pread(4096, MIB - 4096)


# ---- the plugin by itself --------------------------------------------------------------------------

WRONG = [
    (["key=file:k1"], "no file=PATH"),
    (["v"], "has no key=SOURCE"),
    (["v", "key=file:k1", "key=file:k2"], "given twice"),
    (["v", "key=file:k1", "export=a"], "export= stands behind a volume"),
    (["export=a", "file=v", "key=file:k1", "export=a", "file=v", "key=file:k1"], "given twice"),
    (["v", "key=file:k1", "frob=1"], "unknown parameter 'frob'"),
    (["v", "key=file:k1", "readonly=maybe"], "neither true nor false"),
    (["v", "key=file:k1", "discard=maybe"], "none of off, on, zeroes"),
    (["v", "key=file:k1", "connections=many"], "not a number"),
    (["v", "key=frob:k1"], "frob"),
    (["v", "key=file:k2"], "no keyslot of 'v' opens"),
    (["v", "key=volume-key:k1"], "not a volume key"),
    (["plain", "key=file:k1"], "no LUKS header"),
    (["v", "header=plain", "key=file:k1"], "no LUKS header"),
    (["nowhere", "key=file:k1"], "nowhere"),
]


def nbdkit(*words, cwd, status):
    done = subprocess.run(["nbdkit", "-f", "-U", "-", str(PLUGIN), *words], cwd=cwd, timeout=60,
                          env=environment(), capture_output=True, text=True)
    assert "Sanitizer" not in done.stderr, done.stderr
    assert done.returncode == status, done
    return done


@pytest.mark.parametrize("words,part", WRONG, ids=lambda v: " ".join(v)[:40]
                         if isinstance(v, list) else "")
def test_wrong_parameters(place, words, part):
    make_volume(place)
    assert part in nbdkit(*words, "--run", "true", cwd=place, status=1).stderr


def test_the_plugin_by_itself(place):
    make_volume(place)
    make_volume(place, "w", "--type", "luks1", "--header", "h")
    (place / "image").write_bytes(os.urandom(MIB))
    nbdkit("v", "key=file:k1", "--run", 'nbdcopy image "$uri"', cwd=place, status=0)
    assert decrypt(place) == (place / "image").read_bytes()
    nbdkit("export=x", "file=v", "key=file:k1", "readonly=yes", "export=y", "file=w", "header=h",
           "key=file:k1", "discard=on", "--run",
           'nbdcopy "nbd+unix:///x?socket=$unixsocket" "nbd+unix:///y?socket=$unixsocket"', cwd=place,
           status=0)
    assert decrypt(place, "w", "--header", "h") == (place / "image").read_bytes()


def test_the_plugin_in_the_background(place):
    """nbdkit forks after the keys were found; memory for secrets does not survive that."""
    make_volume(place)
    subprocess.run(["nbdkit", "-P", "pid", "-U", "s", str(PLUGIN), "v", "key=file:k1"], cwd=place,
                   env=environment(), check=True, timeout=60)
    pid = int((place / "pid").read_text())
    try:
        handle = nbd.NBD()
        handle.connect_unix(str(place / "s"))
        handle.pwrite(b"in the background", 0)
        handle.shutdown()
    finally:
        os.kill(pid, 15)
    end = time.monotonic() + 30
    while True:  # the lock tells that it has gone
        result = subprocess.run(["nbdkit", "-U", "-", str(PLUGIN), "v", "key=file:k1", "--run", "true"],
                                cwd=place, env=environment(), capture_output=True)
        if result.returncode == 0:
            break
        assert time.monotonic() < end, result.stderr
        time.sleep(0.05)
    assert decrypt(place)[:17] == b"in the background"
    ok("info", "v", cwd=place)
