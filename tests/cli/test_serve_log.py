"""Where the messages of a server go that nobody watches: `serve --system-log`, and `vm attach --via
nbd`, which starts one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import pytest

import nbd_tools
from cli_tools import PBKDF2, ok, wait_until
from test_vm import GREETING, FakeMonitor, qemu

nbd = nbd_tools.require()
MIB = 1 << 20

# A /dev of its own, with a system log: $1 is the socket of that, the rest is run.
OWN_DEV = """
log=$1; shift
dev=$(mktemp -d -p /tmp)
mount -t tmpfs none $dev
for name in null zero urandom random log; do
  touch $dev/$name
  [ $name = log ] || mount --bind /dev/$name $dev/$name
done
mkdir $dev/shm
mount --rbind /dev/shm $dev/shm
ln -s /proc/self/fd $dev/fd
mount --bind $log $dev/log
mount --move $dev /dev
rmdir $dev
exec "$@"
"""


class SystemLog:
    """What a daemon of syslog has at /dev/log."""

    def __init__(self, folder):
        self.path = folder / "log"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(60)
        self.prefix = ["unshare", "--mount", "sh", "-eu", "-c", OWN_DEV, "sh", str(self.path)]
        done = subprocess.run([*self.prefix, "true"], capture_output=True, text=True)
        if done.returncode != 0:
            give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            give_up(f"no /dev of one's own: {done.stderr.strip()}")

    def wait_for(self, words):
        deadline = time.monotonic() + 60
        while True:
            message = self.socket.recv(65536).decode()
            if words in message:
                return message
            assert time.monotonic() < deadline, message


@pytest.fixture
def log(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root has a /dev of its own")
    return SystemLog(tmp_path)


@pytest.fixture
def volume(tmp_path):
    (tmp_path / "key").write_bytes(b"secret words")
    path = tmp_path / "v.luks"
    ok("create", path, "--size", "1M", "--type", "luks1", "--key", f"file:{tmp_path}/key", *PBKDF2)
    return ["--volume", path, "--key", f"file:{tmp_path}/key"]


def break_and_read(path, uri):
    """A request that the server cannot carry out."""
    handle = nbd.NBD()
    handle.connect_uri(uri)
    os.truncate(path, os.stat(path).st_size - 512 * 1024)
    with pytest.raises(nbd.Error):
        handle.pread(4096, MIB - 4096)
    handle.shutdown()


def test_messages_of_a_server_reach_the_system_log_and_standard_error(tmp_path, volume, log):
    path = volume[1]
    process = subprocess.Popen(
        [*log.prefix, nbd_tools.PROGRAM, "serve", path, *volume[2:], "--socket", tmp_path / "s",
         "--json", "--system-log"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    try:
        ready = json.loads(process.stdout.readline())
        break_and_read(path, ready["exports"][0]["uri"])
        message = log.wait_for("it has become shorter")
        assert message.startswith("<27>") and f"lukskeep[{ready['pid']}]: " in message
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "it has become shorter" in errors


def test_a_plugin_that_is_unloaded_leaves_a_stream_that_works(tmp_path, volume):
    """With -v nbdkit and its filters say more after they have closed the plugin."""
    plugin = nbd_tools.PLUGIN
    process = subprocess.Popen(
        ["nbdkit", "-f", "-v", "--filter=exitlast", "-U", tmp_path / "s", "-P", tmp_path / "pid",
         plugin, f"file={volume[1]}", f"key={volume[3]}", "system-log=true"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_until((tmp_path / "pid").exists, "nbdkit")
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "debug: " in errors, errors


def test_the_server_of_an_attached_disk_writes_to_the_system_log(tmp_path, volume, log):
    FakeMonitor(tmp_path / "q", GREETING, qemu)
    done = subprocess.run([*log.prefix, nbd_tools.PROGRAM, "vm", "attach", "--qmp", tmp_path / "q",
                           *volume, "--via", "nbd", "--json"], capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    server = json.loads(done.stdout)["server"]
    try:
        break_and_read(volume[1], f"nbd+unix:///{volume[1]}?socket={server['socket']}")
        assert f"lukskeep[{server['pid']}]: " in log.wait_for("it has become shorter")
    finally:
        try:
            os.kill(server["pid"], signal.SIGTERM)
        except ProcessLookupError:
            pass  # its last client has gone
        wait_until(lambda: not os.path.exists(server["socket"]), "the end of the server")


def test_what_a_server_says_before_it_ends_is_in_the_message(tmp_path, volume):
    """QEMU cannot connect, and only the server knows why."""
    def answer(asked):
        if asked["execute"] != "blockdev-add":
            return qemu(asked)
        client = socket.socket(socket.AF_UNIX)
        client.connect(asked["arguments"]["server"]["path"])
        client.sendall(b"this is no NBD")
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass
        return {"error": {"class": "GenericError", "desc": "no server"}}

    FakeMonitor(tmp_path / "q", GREETING, answer)
    attach = [nbd_tools.PROGRAM, "vm", "attach", "--qmp", tmp_path / "q", *volume, "--via", "nbd"]
    done = subprocess.run(list(map(str, attach)), capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 7
    assert f"no server; the server of '{volume[1]}' said: nbdkit: " in done.stderr, done.stderr
