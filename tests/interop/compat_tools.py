"""The programs of Clevis and Tang, and ours that go by their names: the same calls for both."""

import json
import os
import pty
import select
import subprocess
import time
from pathlib import Path

import kit

COMPAT = Path(kit.LUKSKEEP).parent / "compat"
SIDES = ("theirs", "ours")
LIBEXEC = "/usr/libexec"


def environment(side):
    """PATH as somebody has it who wants these programs, and no others."""
    first = f"{COMPAT}:" if side == "ours" else ""
    return {"PATH": f"{first}{kit.search_path()}:{LIBEXEC}"}


def call(side, argv, stdin=b"", **options):
    """Without a terminal, whoever runs the tests."""
    if side == "theirs":
        kit.need("clevis", "jose", "luksmeta", "jq")
        if not Path(LIBEXEC, "tangd").exists():
            kit.without("tangd is not installed")
    env = {**environment(side), **options.pop("env", {})}
    program = next(Path(folder, argv[0]) for folder in env["PATH"].split(":")
                   if Path(folder, argv[0]).exists())
    return subprocess.run([str(word) for word in (program, *argv[1:])], input=stdin, timeout=120,
                          capture_output=True, start_new_session=True,
                          env={**os.environ, "LUKSKEEP_ARCHIVE": "off", "LC_ALL": "C.UTF-8", **env},
                          **options)


class Terminal:
    """A shell line on a terminal of its own."""

    def __init__(self, side, line, cwd):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.environ.update({**environment(side), "LUKSKEEP_ARCHIVE": "off", "LC_ALL": "C.UTF-8"})
            os.execv("/bin/bash", ["/bin/bash", "-c", line])
        self.seen = b""

    def expect(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            assert time.monotonic() < end, (text, self.seen)
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 65536)
                except OSError:
                    raise AssertionError((text, self.seen)) from None
        self.seen = self.seen[self.seen.index(text.encode()) + len(text):]
        return self

    def type(self, line):
        # What is typed before a program has switched off the echo is thrown away.
        time.sleep(0.2)
        os.write(self.fd, f"{line}\n".encode())
        return self

    def end(self):
        while True:
            try:
                if not os.read(self.fd, 65536):
                    break
            except OSError:
                break
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return status


def shape(pin):
    """What a policy is, without what differs each time."""
    if "shares" in pin:
        return [pin["pin"], pin["threshold"], [shape(share) for share in pin["shares"]]]
    return [pin["pin"], pin.get("url"), pin.get("pcrs"), pin.get("kid")]


def header(volume):
    """Keyslots, how they are made, and what is bound to them."""
    info = json.loads(kit.lukskeep("info", volume, "--json").stdout)
    keyslots = [(slot["slot"], slot["kdf"]["type"], slot["kdf"].get("iterations"))
                for slot in info["keyslots"]]
    bound = json.loads(kit.lukskeep("bindings", volume, "--json").stdout)["bindings"]
    return keyslots, [(one["keyslot"], one["token"], one["state"], one["pin"] and shape(one["pin"]))
                      for one in bound]
