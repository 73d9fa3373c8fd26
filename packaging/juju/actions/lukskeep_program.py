"""Runs lukskeep and reads what it says."""

import json
import os
import shutil
import subprocess
import tempfile
import threading

from juju_tools import ActionFailed

TIMEOUT_S = 600
JSON_BYTES_MAX = 64 << 20
_ERROR_CHARS_MAX = 500


class LukskeepError(ActionFailed):
    def __init__(self, code, message, hint):
        super().__init__(f"{message} ({hint})" if hint else message)
        self.code = code


class TooLong(ActionFailed):
    """More output than was asked for."""


def run(*arguments, size_max):
    """Standard output and the end of standard error; at most size_max of the one."""
    program = os.environ.get("LUKSKEEP") or shutil.which("lukskeep")
    if not program:
        raise ActionFailed("the program lukskeep is not installed on this unit")
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=errors) as process:
            # A disk that does not answer must not keep the unit's agent for ever.
            timer = threading.Timer(TIMEOUT_S, process.kill)
            timer.start()
            try:
                out = process.stdout.read(size_max + 1)
                if len(out) > size_max:
                    process.kill()
                    raise TooLong(f"lukskeep {arguments[0]} gave more than {size_max} bytes")
                status = process.wait()
            finally:
                timer.cancel()
        errors.seek(0)
        text = errors.read(64 << 10).decode(errors="replace").strip()
    return status, out, text[-_ERROR_CHARS_MAX:]


def lukskeep(*arguments):
    """What the command answers with --json. Throws LukskeepError if that is an error."""
    status, out, errors = run(*arguments, "--json", size_max=JSON_BYTES_MAX)
    try:
        answer = json.loads(out.decode())
    except ValueError:
        raise ActionFailed(f"lukskeep {arguments[0]} ended with status {status}: {errors}") from None
    if "error" in answer:
        error = answer["error"]
        raise LukskeepError(error["code"], error["message"], error["hint"])
    return answer
