"""Runs the program under test: what all tests of the command line share."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = str(Path(os.environ.get("LUKSKEEP") or ROOT / "build/release/lukskeep").resolve())
SANITIZED = b"__asan_init" in Path(PROGRAM).read_bytes() if Path(PROGRAM).exists() else False
TIMEOUT_S = 120
# No test writes to the archive of whoever runs it; those that test the archive name one.
os.environ["LUKSKEEP_ARCHIVE"] = "off"

# Cheap, so that no test waits for a KDF.
PBKDF2 = ["--pbkdf", "pbkdf2", "--pbkdf-iterations", "1000"]
ARGON2 = ["--pbkdf", "argon2id", "--pbkdf-iterations", "4", "--pbkdf-memory", "32",
          "--pbkdf-parallel", "1"]
# A key of age: 32 bytes 0x42, as in age's own test kit.
IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
# Takes far longer than any test waits.
ENDLESS = ["--pbkdf", "pbkdf2", "--pbkdf-iterations", "900000000"]


@dataclass
class Result:
    status: int
    out: bytes
    err: str

    @property
    def text(self):
        return self.out.decode()

    @property
    def json(self):
        return json.loads(self.out)


def run(*args, cwd=None, stdin=subprocess.DEVNULL, wrap=(), check=None, **more):
    """Runs the program without a terminal; `wrap` is a command to run it under."""
    if isinstance(stdin, bytes):
        more["input"] = stdin
    else:
        more["stdin"] = stdin
    done = subprocess.run([*map(str, wrap), PROGRAM, *map(str, args)], cwd=cwd, timeout=TIMEOUT_S,
                          stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          start_new_session=True, **more)
    result = Result(done.returncode, done.stdout or b"", done.stderr.decode(errors="replace"))
    assert "Sanitizer" not in result.err, result.err
    if check is not None:
        assert result.status == check, f"{args}: {result}"
    return result


def ok(*args, **more):
    return run(*args, check=0, **more)


def fails(status, *args, **more):
    """Expects `status`, one error line, and no capital or full stop in it (the house's rule)."""
    result = run(*args, check=status, **more)
    errors = [line for line in result.err.splitlines() if line.startswith("lukskeep: error: ")]
    assert len(errors) == 1, result
    assert not errors[0].endswith("."), errors
    for line in result.err.splitlines():
        assert line.startswith(("lukskeep: error: ", "lukskeep: hint: ", "lukskeep: warning: ")), line
    return result


def start(*args, cwd=None, **more):
    return subprocess.Popen([PROGRAM, *map(str, args)], cwd=cwd, start_new_session=True,
                            stdin=more.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **more)


def wait_until(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def interrupt(process, number=signal.SIGINT):
    """Sends a signal; returns (status, out, err) and fails if that takes long."""
    process.send_signal(number)
    try:
        # Its standard input stays open until it is gone: the signal alone must end it.
        process.wait(timeout=30)
    finally:
        process.kill()
    out, err = process.communicate()
    return process.returncode, out, err.decode(errors="replace")


def tree(folder):
    """Every file below with its bytes, to tell whether anything changed."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*")) if path.is_file()}
