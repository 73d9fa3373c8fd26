"""How these tests run programs: ours, and the peers it is compared with."""

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LUKSKEEP = os.environ.get("LUKSKEEP") or str(ROOT / "build" / "release" / "lukskeep")
MIB = 1 << 20

# The smallest costs that are legal, so that no test waits for a key derivation.
CHEAP = {
    "pbkdf2": ("--pbkdf", "pbkdf2", "--pbkdf-iterations", "1000"),
    "argon2i": ("--pbkdf", "argon2i", "--pbkdf-iterations", "4", "--pbkdf-memory", "32",
                "--pbkdf-parallel", "1"),
    "argon2id": ("--pbkdf", "argon2id", "--pbkdf-iterations", "4", "--pbkdf-memory", "32",
                 "--pbkdf-parallel", "1"),
}
THEIR_CHEAP = {
    "pbkdf2": ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"),
    "argon2i": ("--pbkdf", "argon2i", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32",
                "--pbkdf-parallel", "1"),
    "argon2id": ("--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32",
                 "--pbkdf-parallel", "1"),
}


def without(why):
    """This machine lacks a peer: a gap on a desktop, a failure where everything must be tested."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"a peer is missing: {why}")
    pytest.skip(why)


def need(*programs):
    for program in programs:
        if not shutil.which(program, path=search_path()):
            without(f"{program} is not installed")


def search_path():
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def run(argv, status=0, stdin=b"", timeout=120, **options):
    """Runs a program and checks its exit status (None: any, or a tuple of good ones)."""
    argv = [str(word) for word in argv]
    env = {**os.environ, "LUKSKEEP_ARCHIVE": "off", "PATH": search_path(), "LC_ALL": "C.UTF-8", **options.pop("env", {})}
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, env=env,
                          **options)
    expected = status if isinstance(status, tuple) or status is None else (status,)
    if expected is not None and done.returncode not in expected:
        pytest.fail(f"{' '.join(argv)}\n  ended with {done.returncode}, not {expected}\n"
                    f"  stdout: {done.stdout[-2000:]!r}\n  stderr: {done.stderr[-2000:]!r}",
                    pytrace=True)
    return done


def lukskeep(*arguments, status=0, **options):
    return run([LUKSKEEP, *arguments], status, **options)


def cryptsetup(*arguments, status=0, **options):
    need("cryptsetup")
    return run(["cryptsetup", "-q", *arguments], status, **options)


def qemu_img(*words, status=0):
    """Where it makes a keyslot: QEMU measures its KDF by the thread's CPU time, which some kernels
    count too coarsely."""
    for _ in range(8):
        done = run(["qemu-img", *words], status=None)
        if b"accurate CPU usage" not in done.stderr:
            break
    assert status is None or done.returncode == status, done.stderr
    return done


def bytes_of(seed, size):
    """`size` bytes that look random and are the same each time."""
    return random.Random(seed).randbytes(size)


def write(path, data):
    Path(path).write_bytes(data)
    return Path(path)


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return Path(path)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def same(left, right):
    """Whether two files hold the same bytes."""
    return (Path(left).stat().st_size == Path(right).stat().st_size
            and sha256(left) == sha256(right))
