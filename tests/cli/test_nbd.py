"""Volumes behind NBD servers that are slow, mean, broken or odd; real servers are in interop."""

import os
import signal
import struct
import time

import pytest

import nbd_server
from cli_tools import PBKDF2, fails, interrupt, ok, run, start, wait_until
from nbd_server import (CAN_FLUSH, CAN_ZERO, EIO, ENOSPC, ESHUTDOWN, FLUSH, MULTI_CONN, READ,
                        READ_ONLY, WRITE, ZERO, Closed, NbdServer)

KEY = ["--key", "file:k1"]
NEW = [*KEY, *PBKDF2]
MIB = 1 << 20
VOLUME_BYTES = 16 * MIB + 64 * 1024


@pytest.fixture
def serve(place):
    """serve(...) starts an NbdServer of an empty disk, or of `data`."""
    servers = []

    def start_one(data=None, **more):
        if data is None:
            data = bytearray(18 * MIB)
        servers.append(NbdServer(place / f"s{len(servers)}", data, **more))
        return servers[-1]

    yield start_one
    for server in servers:
        server.close()


@pytest.fixture
def volume(luks2):
    """The bytes of a small volume that k1 opens."""
    return bytearray((luks2 / "v2").read_bytes())


# ---- servers that behave -----------------------------------------------------------------------


def test_a_volume_as_source_and_destination(place, serve):
    server = serve()
    ok("encrypt", "plain", server.uri, *NEW, cwd=place)
    (place / "copy").write_bytes(server.data)
    for source in (server.uri, "copy"):
        out = ok("decrypt", source, "-", *KEY, cwd=place).out
        assert out.startswith((place / "plain").read_bytes())
    assert ok("info", server.uri, "--json", cwd=place).json["volume"] == server.uri
    assert server.requests[FLUSH] > 0 and server.requests[WRITE] > 0
    ok("key", "add", server.uri, *KEY, "--new-key", "file:k2", *PBKDF2, cwd=place)
    ok("key", "test", server.uri, "--key", "file:k2", cwd=place)
    ok("key", "remove", server.uri, "--slot", "0", cwd=place)
    fails(2, "key", "test", server.uri, *KEY, cwd=place)
    wait_until(lambda: server.left_politely == server.connections, "every client to say goodbye")


def test_header_and_payload_on_two_servers(place, serve):
    header, payload = serve(), serve(bytearray(2 * MIB))
    ok("encrypt", "plain", payload.uri, "--header", header.uri, *NEW, cwd=place)
    ok("decrypt", payload.uri, "out", "--header", header.uri, *KEY, cwd=place)
    assert (place / "out").read_bytes().startswith((place / "plain").read_bytes())
    (place / "p").write_bytes(payload.data)
    ok("decrypt", "p", "out2", "--header", header.uri, *KEY, cwd=place)
    assert (place / "out2").read_bytes() == (place / "out").read_bytes()
    ok("header", "backup", "p", "h.bak", "--header", header.uri, cwd=place)
    info = ok("info", payload.uri, "--header", "h.bak", "--json", cwd=place).json
    assert info["payload_size"] == 2 * MIB


def test_create_backup_restore_and_check(place, serve):
    server = serve()
    fails(1, "create", server.uri, "--size", "1M", *NEW, cwd=place)
    ok("create", server.uri, *NEW, cwd=place)
    ok("header", "backup", server.uri, "h.bak", cwd=place)
    assert "weak" in run("header", "check", server.uri, cwd=place, check=1).text
    ok("config", server.uri, "--label", "x", cwd=place)
    ok("erase", server.uri, "--yes", cwd=place)
    fails(2, "key", "test", server.uri, *KEY, cwd=place)
    ok("header", "restore", server.uri, "h.bak", "--allow", "older", "--yes", cwd=place)
    ok("key", "test", server.uri, *KEY, cwd=place)


def test_an_export_that_holds_data_is_not_overwritten(place, serve, volume):
    server = serve(bytearray(volume))
    fails(5, "encrypt", "plain", server.uri, *NEW, cwd=place)
    fails(1, "encrypt", server.uri, server.uri, *NEW, cwd=place)
    assert server.data == volume


def test_an_export_that_is_too_small(place, serve):
    server = serve(bytearray(MIB))
    result = fails(4, "encrypt", "plain", server.uri, *NEW, cwd=place)
    assert server.uri in result.err and str(MIB) in result.err
    assert not any(server.data)


def test_what_a_server_leaves_out_of_an_answer_is_not_our_memory(place, serve):
    """A buffer that held other data, encrypted in place, is used again for the next read."""
    server = serve(bytearray(b"\x55" * (24 * MIB)), answered=512)
    done = run("encrypt", server.uri, "v", *NEW, cwd=place)
    if done.status != 0:
        # Newer versions of libnbd say so themselves.
        assert done.status in (4, 7) and not (place / "v").exists()
        return
    out = ok("decrypt", "v", "-", *KEY, cwd=place).out
    assert len(out) >= 24 * MIB and out[:512] == b"\x55" * 512
    assert set(out) == {0, 0x55} and out.count(0x55) <= 512 * server.requests[READ]


@pytest.mark.parametrize("flags", [CAN_FLUSH, 0, CAN_FLUSH | CAN_ZERO | MULTI_CONN])
def test_what_a_server_lacks_is_done_without(place, serve, flags):
    server = serve(flags=flags)
    ok("encrypt", "plain", server.uri, *NEW, cwd=place)
    out = ok("decrypt", server.uri, "-", *KEY, cwd=place).out
    assert out.startswith((place / "plain").read_bytes())


def test_a_server_for_one_client_gets_one(place, serve):
    """qemu-nbd serves one client at a time, and ends after the first."""
    server = serve(clients=1)
    ok("encrypt", "plain", server.uri, *NEW, cwd=place)
    assert server.connections == 1 and server.requests[WRITE] > 0


def test_several_requests_are_under_way(place, serve):
    slow = lambda *_: time.sleep(0.02)
    (place / "big").write_bytes(os.urandom(8 * MIB))
    for flags, connections in ((CAN_FLUSH, 1), (CAN_FLUSH | MULTI_CONN, 4)):
        server = serve(bytearray(26 * MIB), flags=flags)
        ok("encrypt", "big", server.uri, *NEW, cwd=place)
        server.on_request, server.connections = slow, 0
        ok("decrypt", server.uri, "out", *KEY, "--yes", cwd=place)
        assert (place / "out").read_bytes()[:8 * MIB] == (place / "big").read_bytes()
        assert server.most_under_way > 1
        assert 1 <= server.connections <= connections


@pytest.mark.parametrize("blocks", [(512, 4096, MIB), (4096, 4096, 64 * 1024), (65536, 65536, MIB),
                                    (1, 4096, 4096)])
def test_block_size_constraints_are_kept(place, serve, blocks):
    server = serve(blocks=blocks)
    ok("encrypt", "plain", server.uri, *NEW, cwd=place)
    ok("key", "add", server.uri, *KEY, "--new-key", "file:k2", *PBKDF2, cwd=place)
    ok("config", server.uri, "--label", "odd", cwd=place)
    out = ok("decrypt", server.uri, "-", "--key", "file:k2", cwd=place).out
    assert out.startswith((place / "plain").read_bytes())
    for command, offset, length, _ in server.ranges:
        if command in (READ, WRITE, ZERO):
            assert offset % blocks[0] == 0 and length % blocks[0] == 0, (command, offset, length)
        if command in (READ, WRITE):
            assert length <= blocks[2]


# ---- servers that do not -----------------------------------------------------------------------


def test_nobody_listens(place):
    for uri in (f"nbd+unix:///?socket={place}/nowhere", "nbd://127.0.0.1:1"):
        result = fails(7, "info", uri, cwd=place)
        assert f"'{uri}'" in result.err and "hint: " in result.err


@pytest.mark.parametrize("uri", ["nbd:unix:/x", "nbd+unix:///", "nbd+unix:///?socket=x&timeout=0",
                                 "nbd+unix:///?socket=x&timeout=1s", "nbd://[", "nbd+vsock://x",
                                 "nbds+unix:///?socket=" + "x" * 9000],
                         ids=range(7))
def test_uris_that_make_no_sense(place, uri):
    result = fails(1, "info", uri, cwd=place)
    assert "nbd" in result.err and len(result.err) < 1000


def test_an_export_that_is_not_there(place, serve):
    result = fails(1, "info", serve(export_error=nbd_server.ERR_UNKNOWN).uri, cwd=place)
    assert "hint: " in result.err


def test_a_server_that_wants_tls(place, serve):
    result = fails(7, "info", serve(export_error=nbd_server.ERR_TLS_REQUIRED).uri, cwd=place)
    assert "nbds" in result.err


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2\r\n" * 20,
                                      bytes(range(256)) * 16, b"NBDMAGIC",
                                      b"NBDMAGIC" + bytes(200)],
                         ids=["nothing", "ssh", "noise", "cut", "wrong magic"])
def test_greetings_that_are_none(place, serve, greeting):
    server = serve(greeting=greeting)
    result = fails(7, "info", server.uri, cwd=place)
    assert server.uri in result.err


def test_a_read_only_export(place, serve, volume):
    server = serve(volume, flags=READ_ONLY)
    ok("key", "test", server.uri, *KEY, cwd=place)
    result = fails(4, "key", "add", server.uri, *KEY, "--new-key", "file:k3", *PBKDF2, cwd=place)
    assert "read-only" in result.err and server.requests[WRITE] == 0
    fails(4, "create", serve(flags=READ_ONLY).uri, *NEW, cwd=place)


def test_sizes_that_are_lies(place, serve, volume):
    # Far more than there is: the server refuses what is behind its end.
    server = serve(bytearray(volume), size=1 << 40)
    ok("key", "test", server.uri, *KEY, cwd=place)
    result = fails(4, "decrypt", server.uri, "out", *KEY, cwd=place)
    assert server.uri in result.err and not (place / "out").exists()
    # So much that no disk has it: not believed unless it can be read.
    for size in ((1 << 63) - 1, 1 << 60):
        result = fails(7, "info", serve(bytearray(volume), size=size).uri, cwd=place)
        assert "which it has not" in result.err
    # More than a size can be, and less than a header.
    fails(7, "info", serve(volume, size=(1 << 64) - 1).uri, cwd=place)
    fails(4, "info", serve(volume, size=512).uri, cwd=place)
    fails(4, "info", serve(volume, size=0).uri, cwd=place)


def test_impossible_block_sizes(place, serve, volume):
    for blocks in ((0, 0, 0), (3, 7, 100), (1 << 20, 1 << 20, 1 << 25), (4096, 4096, 512)):
        server = serve(bytearray(volume), blocks=blocks)
        # libnbd leaves out what makes no sense, and says so of the rest.
        result = run("key", "test", server.uri, *KEY, cwd=place)
        assert result.status == 0 or (result.status == 7 and server.uri in result.err), result


@pytest.mark.parametrize("command, args", [
    (READ, ["info"]), (READ, ["decrypt", "out"]),
    (WRITE, ["config", "--label", "x"]), (FLUSH, ["config", "--label", "x"]),
    (WRITE, ["key", "add"])], ids=str)
@pytest.mark.parametrize("error, word", [(EIO, "input/output"), (ENOSPC, "space"),
                                         (ESHUTDOWN, "shutdown"), (0xDEADBEEF, "")])
def test_errors_of_the_server_are_told(place, serve, volume, command, args, error, word):
    server = serve(volume, errors={command: error})
    more = {"decrypt": KEY, "key": [*KEY, "--new-key", "file:k3", *PBKDF2]}.get(args[0], [])
    words = 2 if args[0] == "key" else 1
    result = fails(4, *args[:words], server.uri, *args[words:], *more, cwd=place)
    assert server.uri in result.err and "the server says" in result.err and word in result.err


def test_a_server_that_goes_away_in_the_middle(place, serve):
    """After every count of requests: an error each time, and never half a file."""
    server = serve()
    ok("encrypt", "plain", server.uri, *NEW, cwd=place)
    whole = server.requests.total()
    count = []

    def leave(_, connection, *rest):
        count.append(rest)
        if len(count) >= leave.after:
            raise Closed

    for leave.after in (1, 2, 5, 8):
        count.clear()
        other = serve(bytearray(server.data), on_request=leave)
        result = fails(7, "decrypt", other.uri, "out", *KEY, cwd=place)
        assert other.uri in result.err and not (place / "out").exists()
    assert whole > 8


@pytest.mark.parametrize("reply", [b"\x00" * 16, b"garbage!" * 64,
                                   struct.pack(">IIQ", 0x67446698, 0, 77),
                                   struct.pack(">I", 0x67446698)],
                         ids=["zeroes", "noise", "unknown cookie", "cut"])
def test_replies_that_are_none(place, serve, volume, reply):
    def nonsense(server, connection, *_):
        connection.sendall(reply)
        raise Closed

    server = serve(volume, on_request=nonsense)
    result = fails(7, "info", server.uri, cwd=place)
    assert server.uri in result.err


def test_a_server_that_hangs_in_its_greeting(place):
    import socket
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "s"))
    listener.listen(4)  # nobody ever accepts
    begun = time.monotonic()
    result = fails(7, "info", f"nbd+unix:///?socket={place}/s&timeout=1", cwd=place)
    assert "1 seconds" in result.err and "timeout=" in result.err
    assert time.monotonic() - begun < 30
    listener.close()


def hang_at(command, after=0):
    """For on_request: the request of this kind after so many others of it is never answered."""
    seen = []

    def on_request(server, connection, kind, *_):
        if kind == command:
            seen.append(kind)
            if len(seen) > after:
                server.hang()

    return on_request


@pytest.mark.parametrize("command, args", [(READ, ["decrypt", "out", *KEY]),
                                           (WRITE, ["config", "--label", "x"]),
                                           (FLUSH, ["config", "--label", "x"])], ids=str)
def test_a_server_that_hangs(place, serve, volume, command, args):
    server = serve(volume, on_request=hang_at(command))
    uri = server.uri + "&timeout=1"
    result = fails(7, args[0], uri, *args[1:], cwd=place)
    assert uri in result.err and "has not answered for 1 seconds" in result.err
    assert not (place / "out").exists()


def test_ctrl_c_does_not_wait_for_a_server(place, serve, volume):
    server = serve(volume, on_request=hang_at(READ))
    process = start("decrypt", server.uri, "out", *KEY, cwd=place)
    wait_until(lambda: server.requests[READ] > 0, "the first request")
    begun = time.monotonic()
    status, _, err = interrupt(process, signal.SIGINT)
    assert status == 130 and "interrupted" in err
    assert time.monotonic() - begun < 20 and not (place / "out").exists()


def test_a_header_torn_by_a_server_that_dies(place, serve, volume):
    """Cut off after each write of `key add`: the first passphrase opens the volume every time."""
    after, whole = 0, False
    while not whole:
        after += 1
        writes = []

        def die(server, connection, command, *_):
            if command == WRITE:
                writes.append(command)
                if len(writes) > after:
                    raise Closed

        server = serve(bytearray(volume), on_request=die)
        result = run("key", "add", server.uri, *KEY, "--new-key", "file:k3", *PBKDF2, cwd=place)
        whole = result.status == 0
        assert whole or (result.status == 7 and server.uri in result.err), result
        (place / "after").write_bytes(server.data)
        ok("key", "test", "after", *KEY, cwd=place)
    assert after > 2
