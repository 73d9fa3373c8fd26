"""Ctrl-C and its like in every phase: status 130, soon, and nothing left behind."""

import os
import signal
import subprocess

import pytest

from cli_tools import ENDLESS, PBKDF2, PROGRAM, interrupt, ok, start, wait_until

KEY = ["--key", "file:k1"]
NEW = [*KEY, *PBKDF2]
SLOW = ["--limit-rate", "256K", "--progress", "json"]


def check_interrupted(process, number=signal.SIGINT):
    status, _, err = interrupt(process, number)
    assert status == 130, err
    assert err.splitlines()[-1].startswith("lukskeep: error: "), err
    assert "Sanitizer" not in err
    return err


def wait_for_cpu(process, seconds=0.3):
    """Until the process has worked for a while: it is in its KDF then."""
    ticks = os.sysconf("SC_CLK_TCK")

    def used():
        with open(f"/proc/{process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks
    wait_until(lambda: used() > seconds, "the KDF")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_in_the_kdf_of_a_new_volume(place, number):
    before = sorted(os.listdir(place))
    process = start("create", "v", "--size", "1M", *KEY, *ENDLESS, cwd=place)
    wait_for_cpu(process)
    check_interrupted(process, number)
    assert sorted(os.listdir(place)) == before


def test_in_the_kdf_of_a_new_keyslot(luks2):
    before = (luks2 / "v2").read_bytes()
    process = start("key", "add", "v2", *KEY, "--new-key", "file:k3", *ENDLESS, cwd=luks2)
    wait_for_cpu(process)
    check_interrupted(process)
    assert (luks2 / "v2").read_bytes() == before


def test_a_second_signal_ends_it_at_once(place):
    """Argon2 cannot be stopped in the middle; whoever insists need not wait."""
    before = sorted(os.listdir(place))
    process = start("create", "v", "--size", "1M", *KEY, "--pbkdf", "argon2id",
                    "--pbkdf-iterations", "10000", "--pbkdf-memory", "64M", "--pbkdf-parallel",
                    "1", cwd=place)
    wait_for_cpu(process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: signal_was_handled(process, signal.SIGINT), "the first signal")
    status, _, _ = interrupt(process)
    assert status == 130
    assert sorted(os.listdir(place)) == before


def signal_was_handled(process, number):
    with open(f"/proc/{process.pid}/status") as file:
        pending = [int(line.split()[1], 16) for line in file if line.startswith(("ShdPnd", "SigPnd"))]
    return not any(mask >> (number - 1) & 1 for mask in pending)


def test_while_measuring(place):
    process = start("create", "v", "--size", "1M", *KEY, "--pbkdf", "pbkdf2", "--iter-time",
                    "4000000", cwd=place)
    wait_for_cpu(process)
    check_interrupted(process)
    assert not (place / "v").exists()


def copying(process):
    """Waits for the second line of progress: the copy is under way."""
    for _ in range(2):
        line = process.stderr.readline()
        assert line.startswith(b'{"progress"'), line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_encrypting(place, number):
    (place / "big").write_bytes(os.urandom(16 << 20))
    before = sorted(os.listdir(place))
    process = start("encrypt", "big", "v", "--header", "h", *SLOW, *NEW, cwd=place)
    copying(process)
    check_interrupted(process, number)
    assert sorted(os.listdir(place)) == before


def test_while_decrypting(place):
    (place / "big").write_bytes(os.urandom(16 << 20))
    ok("encrypt", "big", "v", *NEW, cwd=place)
    before = sorted(os.listdir(place))
    process = start("decrypt", "v", "out", *SLOW, *KEY, cwd=place)
    copying(process)
    check_interrupted(process)
    assert sorted(os.listdir(place)) == before


def test_a_file_that_was_there_survives(place):
    (place / "big").write_bytes(os.urandom(16 << 20))
    (place / "v").write_bytes(b"what was there")
    process = start("encrypt", "big", "v", "--yes", *SLOW, *NEW, cwd=place)
    copying(process)
    check_interrupted(process)
    assert (place / "v").read_bytes() == b"what was there"


@pytest.mark.parametrize("words", [
    ["encrypt", "-", "v", *NEW], ["decrypt", "-", "out", *KEY],
    ["key", "test", "v", "--key", "fd:0"],
], ids=lambda words: " ".join(words[:2]))
def test_while_waiting_for_a_pipe(place, words):
    ok("create", "v0", "--size", "64K", *NEW, cwd=place)
    os.rename(place / "v0", place / "v" if words[0] == "key" else place / "other")
    before = sorted(os.listdir(place))
    process = start(*words, cwd=place, stdin=subprocess.PIPE)
    process.stdin.write(b"a few bytes")
    process.stdin.flush()
    # Asleep in poll or read: there is nothing else to tell it by.
    wait_until(lambda: "S" in process_state(process), "the pipe to be waited for")
    check_interrupted(process)
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize("words", [["encrypt", "-", "v", *NEW], ["decrypt", "-", "out", *KEY]],
                         ids=lambda words: words[0])
def test_in_a_pipeline(place, words):
    """Ctrl-C ends the writer too: what came through the pipe is not all and must not be kept."""
    ok("encrypt", "plain", "whole", *NEW, cwd=place)
    before = sorted(os.listdir(place))
    process = start(*words, cwd=place, stdin=subprocess.PIPE)
    process.stdin.write((place / "whole").read_bytes())
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    process.stdin.close()
    process.wait(timeout=30)
    err = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert process.returncode == 130, err
    assert sorted(os.listdir(place)) == before


def test_while_a_reader_is_slow(place):
    (place / "big").write_bytes(os.urandom(16 << 20))
    ok("encrypt", "big", "v", *NEW, cwd=place)
    process = start("decrypt", "v", "-", *KEY, cwd=place)
    assert process.stdout.read(4096)  # and no more: the pipe fills up
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()
    assert process.stderr.read().startswith(b"lukskeep: error: ")
    process.stderr.close()


def process_state(process):
    with open(f"/proc/{process.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_killed_outright(place):
    """Not even SIGKILL leaves a file under the final name."""
    (place / "big").write_bytes(os.urandom(16 << 20))
    process = start("encrypt", "big", "v", *SLOW, *NEW, cwd=place)
    copying(process)
    process.kill()
    process.communicate()
    assert not (place / "v").exists()


def test_ignored_signals_stay_ignored(place):
    """As nohup does it."""
    (place / "big").write_bytes(os.urandom(1 << 20))
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", PROGRAM, "encrypt", "big", "v",
         "--limit-rate", "2M", "--progress", "json", *NEW], cwd=place, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    ok("key", "test", "v", *KEY, cwd=place)


def test_no_core_is_dumped(luks2):
    process = start("key", "test", "v2", "--key", "fd:0", cwd=luks2, stdin=subprocess.PIPE)
    wait_until(lambda: "S" in process_state(process), "the key to be waited for")
    with open(f"/proc/{process.pid}/limits") as file:
        core = next(line for line in file if line.startswith("Max core file size"))
    interrupt(process)
    assert core.split()[4:6] == ["0", "0"]
