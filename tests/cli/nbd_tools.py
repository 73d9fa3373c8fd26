"""Serving volumes in tests: a running `lukskeep serve`, or nbdkit with the plugin."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

import cli_tools
from cli_tools import PBKDF2, ROOT, SANITIZED, ok

# nbdkit forks, and with the runtime of AddressSanitizer loaded before it that hangs now and then:
# what serves is the optimised program then.
PROGRAM = str(ROOT / "build/release/lukskeep") if SANITIZED else cli_tools.PROGRAM
PLUGIN = Path(PROGRAM).parent / "nbdkit-lukskeep-plugin.so"


def require():
    """nbdkit and libnbd's Python module, or a skip (a failure where everything must be tested)."""
    try:
        import nbd
    except ImportError:
        nbd = None
    for what, there in (("nbdkit", shutil.which("nbdkit")), ("nbdcopy", shutil.which("nbdcopy")),
                        ("the Python module nbd", nbd)):
        if not there:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{what} is missing")
            pytest.skip(f"{what} is missing")
    return nbd


def environment():
    return dict(os.environ)


def lukskeep(*words, status=0, cwd, timeout=60, **more):
    """A run of the program that ends by itself; for serve with --run."""
    done = subprocess.run([PROGRAM, *map(str, words)], cwd=cwd, env={**environment(), **more},
                          capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    assert "Sanitizer" not in done.stderr, done.stderr
    assert done.returncode == status, done
    return done


class Server:
    """A server in the background; `exports` and `socket` as its line of JSON says."""

    def __init__(self, process, ready, errors):
        self.process = process
        self.errors = errors
        self.ready = ready
        self.socket = ready.get("socket")

    def uri(self, name=""):
        return next(e["uri"] for e in self.ready["exports"] if e["name"] == name)

    def connect(self, name=""):
        import nbd
        handle = nbd.NBD()
        handle.set_strict_mode(0)  # the server is tested, not the client
        handle.connect_uri(self.uri(name))
        return handle

    def stop(self, number=signal.SIGTERM):
        """Ends it; its exit status and what it said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()
        self.errors.seek(0)
        errors = self.errors.read().decode(errors="replace")
        assert "Sanitizer" not in errors, errors
        return self.process.returncode, errors


@contextlib.contextmanager
def serving(*words, cwd, **more):
    messages = tempfile.TemporaryFile()  # a pipe that nobody reads would stop the server
    process = subprocess.Popen([PROGRAM, "serve", *map(str, words), "--json"], cwd=cwd,
                               env={**environment(), **more.pop("env", {})},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=messages, start_new_session=True, **more)
    line = process.stdout.readline()
    if not line:
        process.wait(timeout=30)
        messages.seek(0)
        pytest.fail(f"no server: {messages.read().decode()}")
    server = Server(process, json.loads(line), messages)
    try:
        yield server
    finally:
        status, errors = server.stop()
        assert status in (0, -signal.SIGKILL), errors


def make_volume(folder, name="v", *options, size="1M", key="k1"):
    ok("create", name, "--size", size, "--key", f"file:{key}", *PBKDF2, *options, cwd=folder)
    return folder / name


def decrypt(folder, name="v", *options, key="k1"):
    (folder / "decrypted").unlink(missing_ok=True)
    ok("decrypt", name, "decrypted", "--key", f"file:{key}", *options, cwd=folder)
    return (folder / "decrypted").read_bytes()


__all__ = ["PLUGIN", "Server", "cli_tools", "decrypt", "environment", "lukskeep", "make_volume",
           "require", "serving"]
