"""Prompts on a terminal: no echo, asked twice, put back in order afterwards."""

import os
import pty
import select
import signal
import termios
import time

import pytest

from cli_tools import ENDLESS, PBKDF2, PROGRAM, ok


class Terminal:
    """The program on a pseudo terminal of its own, which is also its three streams."""

    def __init__(self, *args, cwd):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execv(PROGRAM, [PROGRAM, *map(str, args)])
        self.seen = b""

    def read_some(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.fd, 65536)
        except OSError:  # the other end is gone
            return False
        self.seen += piece
        return bool(piece)

    def expect(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            assert time.monotonic() < end, (text, self.seen)
            self.read_some(0.1)
        at = self.seen.index(text.encode()) + len(text.encode())
        self.seen = self.seen[at:]

    def type(self, text):
        os.write(self.fd, text.encode())

    def echoes(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def end(self, seconds=60):
        """The rest of what it prints, and its exit status."""
        end = time.monotonic() + seconds
        while True:
            self.read_some(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"still running: {self.seen}")
        while self.read_some(0.1):
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status), self.seen.decode(errors="replace")


@pytest.fixture
def volume(place):
    (place / "k1").write_bytes(b"correct horse")
    ok("create", "v", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=place)
    return place


def test_a_passphrase_is_not_shown(volume):
    terminal = Terminal("key", "test", "v", cwd=volume)
    assert terminal.echoes()
    terminal.expect("Enter passphrase for 'v': ")
    assert not terminal.echoes()
    terminal.type("correct horse\n")
    status, rest = terminal.end()
    assert status == 0 and "keyslot 0 opens" in rest and "horse" not in rest


def test_three_attempts(volume):
    terminal = Terminal("key", "test", "v", cwd=volume)
    for attempt in range(2):
        terminal.expect("Enter passphrase for 'v': ")
        terminal.type(f"wrong {attempt}\n")
        terminal.expect("lukskeep: warning: no keyslot of 'v' opens with this passphrase")
    terminal.expect("Enter passphrase for 'v': ")
    terminal.type("correct horse\n")
    assert terminal.end()[0] == 0


def test_and_no_fourth(volume):
    terminal = Terminal("key", "test", "v", cwd=volume)
    for _ in range(3):
        terminal.expect("Enter passphrase for 'v': ")
        terminal.type("wrong\n")
    status, rest = terminal.end()
    assert status == 2 and "lukskeep: error: no keyslot" in rest


def test_a_new_passphrase_is_asked_for_twice(volume):
    terminal = Terminal("key", "add", "v", "--key", "file:k1", *PBKDF2, cwd=volume)
    terminal.expect("Enter new passphrase for 'v': ")
    terminal.type("new one\n")
    terminal.expect("Repeat new passphrase for 'v': ")
    assert not terminal.echoes()
    terminal.type("new one\n")
    status, rest = terminal.end()
    assert status == 0 and "new one" not in rest
    (volume / "k2").write_bytes(b"new one")  # without the newline
    ok("key", "test", "v", "--key", "file:k2", cwd=volume)


def test_two_that_differ(volume):
    before = (volume / "v").read_bytes()
    terminal = Terminal("key", "add", "v", "--key", "file:k1", *PBKDF2, cwd=volume)
    terminal.expect("Enter new passphrase")
    terminal.type("one\n")
    terminal.expect("Repeat new passphrase")
    terminal.type("two\n")
    status, rest = terminal.end()
    assert status == 1 and "the two passphrases are not the same" in rest
    assert (volume / "v").read_bytes() == before


def test_both_passphrases_can_be_typed(volume):
    terminal = Terminal("key", "change", "v", "--pbkdf-iterations", "1000", cwd=volume)
    terminal.expect("Enter passphrase for 'v': ")
    terminal.type("correct horse\n")
    terminal.expect("Enter new passphrase for 'v': ")
    terminal.type("battery\n")
    terminal.expect("Repeat new passphrase for 'v': ")
    terminal.type("battery\n")
    assert terminal.end()[0] == 0
    (volume / "k2").write_bytes(b"battery")
    ok("key", "test", "v", "--key", "file:k2", cwd=volume)


def test_nothing_is_no_passphrase(volume):
    terminal = Terminal("key", "test", "v", cwd=volume)
    terminal.expect("Enter passphrase")
    terminal.type("\n")
    status, rest = terminal.end()
    assert status == 1 and "the passphrase is empty" in rest


def test_a_line_that_is_too_long(volume):
    terminal = Terminal("key", "test", "v", cwd=volume)
    terminal.expect("Enter passphrase")
    terminal.type("x" * 600 + "\n")
    status, rest = terminal.end()
    assert status == 1 and "longer than 512 bytes" in rest


@pytest.mark.parametrize("keys", ["\x03", "typed in part\x03", "\x1c", "\x04"],
                         ids=["Ctrl-C", "Ctrl-C in the middle", "Ctrl-backslash", "Ctrl-D"])
def test_giving_up_at_the_prompt(volume, keys):
    terminal = Terminal("key", "test", "v", cwd=volume)
    terminal.expect("Enter passphrase")
    assert not terminal.echoes()
    terminal.type(keys)
    # The echo is back before the program ends: afterwards the terminal is gone.
    deadline = time.monotonic() + 30
    while not terminal.echoes() and time.monotonic() < deadline:
        if not terminal.read_some(0.01) and b"error" in terminal.seen:
            break
    status, rest = terminal.end()
    assert status == 130 and "lukskeep: error: " in rest and "typed" not in rest


def test_the_echo_is_back_after_ctrl_c(volume):
    """Seen by a shell that stays on the terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(volume)
        os.execv("/bin/sh", ["sh", "-c", 'trap : INT; "$@"; stty -a; echo status $?', "sh",
                             PROGRAM, "key", "test", "v"])
    seen = b""
    typed = False
    while True:
        try:
            piece = os.read(fd, 4096)
        except OSError:
            break
        seen += piece
        if b"Enter passphrase" in seen and not typed:
            typed = True
            os.write(fd, b"abc\x03")
    os.waitpid(pid, 0)
    os.close(fd)
    assert b" echo " in seen and b"-echo " not in seen
    assert b"susp = ^Z" in seen


def test_ctrl_z_does_not_leave_the_terminal_silent(volume):
    terminal = Terminal("key", "test", "v", cwd=volume)
    terminal.expect("Enter passphrase")
    terminal.type("correct\x1a horse\n")  # ^Z is a character like any other
    terminal.expect("Enter passphrase")
    terminal.type("correct horse\n")
    assert terminal.end()[0] == 0


def test_destructive_work_wants_yes_typed(volume):
    before = (volume / "v").read_bytes()
    for answer in ("yes\n", "\n", "n\n", "YES please\n"):
        terminal = Terminal("erase", "v", cwd=volume)
        terminal.expect("Type YES to go on: ")
        terminal.type(answer)
        status, rest = terminal.end()
        assert status == 6 and "not erasing" in rest
        assert (volume / "v").read_bytes() == before
    terminal = Terminal("erase", "v", cwd=volume)
    terminal.expect("Every keyslot of 'v' will be removed")
    terminal.expect("Type YES to go on: ")
    terminal.type("YES\n")
    assert terminal.end()[0] == 0
    assert ok("key", "list", "v", "--json", cwd=volume).json["keyslots"] == []


def test_overwriting_and_the_last_keyslot_want_yes_typed(volume):
    terminal = Terminal("key", "remove", "v", "--slot", "0", cwd=volume)
    terminal.expect("Keyslot 0 is the last one that opens 'v'")
    terminal.expect("Type YES to go on: ")
    terminal.type("no\n")
    assert terminal.end()[0] == 6
    terminal = Terminal("create", "v", "--key", "file:k1", *PBKDF2, cwd=volume)
    terminal.expect("'v' holds data. It will be lost.")
    terminal.type("no\n")
    assert terminal.end()[0] == 5
    ok("key", "test", "v", "--key", "file:k1", cwd=volume)


def test_images_do_not_go_to_the_terminal(volume):
    terminal = Terminal("decrypt", "v", "-", "--key", "file:k1", cwd=volume)
    status, rest = terminal.end()
    assert status == 1 and "refusing to write a disk image to the terminal" in rest
    terminal = Terminal("header", "backup", "v", "-", cwd=volume)
    assert terminal.end()[0] == 1


def test_a_bar_on_a_terminal(volume):
    (volume / "big").write_bytes(os.urandom(4 << 20))
    args = ["encrypt", "big", "w", "--key", "file:k1", "--limit-rate", "8M", *PBKDF2]
    terminal = Terminal(*args, cwd=volume)
    status, rest = terminal.end()
    assert status == 0
    assert "encrypt  [" in rest and " %  " in rest and "MiB/s" in rest
    # It is gone before the result is printed.
    assert "\r\x1b[Kencrypted 'big' into 'w'" in rest
    terminal = Terminal(*args, "--yes", "--quiet", cwd=volume)
    assert terminal.end() == (0, "")


def test_ctrl_c_in_the_kdf(place):
    terminal = Terminal("create", "v", "--size", "64K", "--key", "file:k1", *ENDLESS, cwd=place)
    time.sleep(0.5)
    terminal.type("\x03")
    status, rest = terminal.end()
    assert status == 130 and "lukskeep: error: " in rest
    assert not (place / "v").exists()


@pytest.mark.parametrize("command,made,answers", [
    (["encrypt", "plain", "new", *PBKDF2], "new", 2),
    (["encrypt", "plain", "other", "--header", "new", *PBKDF2], "new", 2),
    (["create", "new", "--size", "64K", *PBKDF2], "new", 2),
    (["create", "other", "--size", "64K", "--header", "new", *PBKDF2], "new", 2),
    (["decrypt", "v", "new"], "new", 1),
], ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None)
def test_what_appears_while_the_program_waits_is_not_overwritten(volume, command, made, answers):
    terminal = Terminal(*command, cwd=volume)
    terminal.expect("Enter ")
    (volume / made).write_bytes(b"precious")
    for number in range(answers):
        if number:
            terminal.expect("Repeat ")
        terminal.type("correct horse\n")
    status, out = terminal.end()
    assert status == 5, out
    assert (volume / made).read_bytes() == b"precious"
