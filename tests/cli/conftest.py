import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

import cli_tools
from cli_tools import ARGON2, PBKDF2, ok


def pytest_sessionstart(session):
    # A shell starts what runs in the background, and nohup all it runs, with signals ignored, and
    # the programs tested would inherit that.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if not Path(cli_tools.PROGRAM).exists():
        pytest.exit(f"{cli_tools.PROGRAM} is not built; set LUKSKEEP to the program to test", 2)


@pytest.fixture
def place(tmp_path):
    """A folder with key files k1, k2, k3 and a plain image of 1 MiB and 3 bytes."""
    for number in (1, 2, 3):
        (tmp_path / f"k{number}").write_bytes(b"passphrase %d\n" % number)
    (tmp_path / "plain").write_bytes(os.urandom(1 << 20) + b"end")
    yield tmp_path
    # Headers of 16 MiB add up, and the folder is in memory.
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture
def luks2(place):
    """A small LUKS2 volume: k1 opens keyslot 0 (pbkdf2), k2 keyslot 1 (argon2id)."""
    ok("create", "v2", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=place)
    ok("key", "add", "v2", "--key", "file:k1", "--new-key", "file:k2", *ARGON2, cwd=place)
    return place


@pytest.fixture
def luks1(place):
    ok("create", "v1", "--size", "64K", "--type", "luks1", "--key", "file:k1", *PBKDF2, cwd=place)
    return place


@pytest.fixture
def public_place():
    """A folder that any user may enter and write to, whatever TMPDIR is."""
    folder = tempfile.mkdtemp(prefix="lukskeep-cli-", dir="/tmp")
    os.chmod(folder, 0o777)
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def as_nobody():
    """A command prefix under which permissions count, also when the tests run as root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("no program 'setpriv'")
    prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if subprocess.run([*prefix, "test", "-x", cli_tools.PROGRAM]).returncode != 0:
        pytest.skip("another user cannot reach the program")
    return prefix


def mounts_possible():
    probe = subprocess.run(["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"],
                           capture_output=True)
    return os.geteuid() == 0 and probe.returncode == 0


needs_mounts = pytest.mark.skipif(not mounts_possible(),
                                  reason="mounting needs root and the right to unshare")


@pytest.fixture
def mounted():
    """mounted(setup) is a command prefix: a private set of mounts, made by the shell text."""
    def prefix(setup):
        return ["unshare", "-m", "sh", "-c", f'{setup} && exec "$@"', "sh"]
    return prefix
