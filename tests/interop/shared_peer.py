"""Peers that take long to start: one for all test processes of a run, in a process of its own, which
ends when the last of them does, however that one ends."""

import contextlib
import ctypes
import fcntl
import json
import shutil
import signal
import socket
import subprocess
import time


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Keeper:
    """Of a kind of peers; start() starts them, and gives what the tests have to know."""

    def __init__(self, folder):
        self.folder = folder
        self.daemons = []

    def start(self):
        raise NotImplementedError

    def stop(self):
        for daemon in self.daemons:
            daemon.kill()  # nothing of it is to last
        for daemon in self.daemons:
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def state_file(folder):
    return folder.with_suffix(".json")


def keep(keeper):
    """Until nobody holds FOLDER.users locked."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = keeper.folder
    with open(folder.with_suffix(".users"), "a") as users:
        try:
            try:
                state = keeper.start()
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                state = {"error": str(error)}
            new = folder.with_suffix(".new")
            new.write_text(json.dumps(state))
            new.rename(state_file(folder))
            fcntl.flock(users, fcntl.LOCK_EX)  # when the last one is gone
        finally:
            state_file(folder).unlink(missing_ok=True)
            keeper.stop()


@contextlib.contextmanager
def running(folder, argv, seconds):
    """What start() gave. Whoever is first runs `argv`, which is to keep() the peers in `folder`."""
    with open(folder.with_suffix(".users"), "a") as users, \
            open(folder.with_suffix(".start"), "a") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not state_file(folder).exists():
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + seconds
        while not state_file(folder).exists():
            assert time.monotonic() < end, f"{argv} brought nothing up"
            time.sleep(0.1)
        fcntl.flock(start, fcntl.LOCK_UN)
        state = json.loads(state_file(folder).read_text())
        assert "error" not in state, state["error"]
        yield state
