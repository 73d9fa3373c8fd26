"""archive watch: what changes is archived, whoever changed it, and whatever happens to the archive."""

import json
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import needs_mounts
from cli_tools import (PBKDF2, PROGRAM, ROOT, fails, ok, run,
                       wait_until)

CHANGE = ["--key", "file:k1", "--new-key", "file:k3", *PBKDF2]


@pytest.fixture
def kept(luks2, monkeypatch):
    """The volume v2 in the folder `volumes`, and an archive beside it."""
    (luks2 / "volumes").mkdir()
    os.rename(luks2 / "v2", luks2 / "volumes" / "v2")
    monkeypatch.setenv("LUKSKEEP_ARCHIVE_KEY", str(luks2 / "own.key"))
    return luks2


class Daemon:
    """A watch that runs; its events as they come."""

    def __init__(self, folder, *args, wrap=(), program=PROGRAM):
        self.process = subprocess.Popen(
            [*wrap, program, "archive", "watch", "--json", "--store", "store", *args], cwd=folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
        self.events = []
        self.errors = []
        self.threads = [threading.Thread(target=self.read, args=pair, daemon=True) for pair in
                        ((self.process.stdout, lambda line: self.events.append(json.loads(line))),
                         (self.process.stderr, lambda line: self.errors.append(line.decode())))]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def read(stream, take):
        for line in stream:
            take(line)

    def of(self, kind):
        return [event for event in self.events if event["event"] == kind]

    def wait_for(self, kind, count=1):
        wait_until(lambda: len(self.of(kind)) >= count or self.process.poll() is not None,
                   f"{count} events '{kind}': {self.events} {self.errors}")
        assert self.process.poll() is None, self.errors
        return self.of(kind)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        for thread in self.threads:
            thread.join(timeout=30)
        assert "Sanitizer" not in "".join(self.errors), self.errors
        return status


@pytest.fixture
def watching(kept):
    daemons = []

    def watch(*args, **more):
        daemons.append(Daemon(kept, *args, **more))
        return daemons[-1]
    yield watch
    for daemon in daemons:
        daemon.process.kill()
        daemon.process.wait()


def snapshots(folder, store="store"):
    return ok("archive", "list", "--json", "--store", store, cwd=folder).json["snapshots"]


def change(folder, label, volume="volumes/v2"):
    """By the real program, which does not archive it: LUKSKEEP_ARCHIVE is off here."""
    assert os.environ["LUKSKEEP_ARCHIVE"] == "off"
    ok("config", volume, "--label", label, cwd=folder)


def test_a_change_is_archived_when_it_happens(kept, watching):
    daemon = watching("volumes", "--interval", "86400")
    first = daemon.wait_for("archived")[0]
    assert first["path"] == str(kept / "volumes/v2")
    ok("key", "add", "volumes/v2", *CHANGE, cwd=kept)
    second = daemon.wait_for("archived", 2)[1]
    newest, old = snapshots(kept)
    assert [newest["id"], old["id"]] == [second["id"], first["id"]]
    assert (newest["reason"], newest["keyslots"], old["keyslots"]) == ("watch", 3, 2)
    ok("archive", "export", newest["id"], "header", "--store", "store", cwd=kept)
    assert (kept / "volumes/v2").read_bytes().startswith((kept / "header").read_bytes())
    assert daemon.end() == 0
    assert ok("archive", "status", "--store", "store", cwd=kept)


@pytest.mark.parametrize("named", ["volumes/v2", "link"])
def test_a_named_file_is_watched_through_what_editors_do(kept, watching, named):
    os.symlink("volumes/v2", kept / "link")
    daemon = watching(named, "--interval", "86400")
    daemon.wait_for("archived")
    change(kept, "one")
    daemon.wait_for("archived", 2)
    # A copy that is changed and renamed over it.
    shutil.copy(kept / "volumes/v2", kept / "volumes/copy")
    change(kept, "two", "volumes/copy")
    os.replace(kept / "volumes/copy", kept / "volumes/v2")
    daemon.wait_for("archived", 3)
    # Others in the folder are not meant.
    ok("create", "volumes/other", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=kept)
    change(kept, "three")
    events = daemon.wait_for("archived", 4)
    assert {event["path"] for event in events} == {str(kept / "volumes/v2")}


def test_several_paths(kept, watching):
    ok("create", "one", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=kept)
    ok("create", "two", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=kept)
    daemon = watching("volumes", "one", "--interval", "86400")
    daemon.wait_for("archived", 2)
    change(kept, "x", "two")
    change(kept, "x", "one")
    change(kept, "x")
    paths = [event["path"] for event in daemon.wait_for("archived", 4)]
    assert sorted(paths) == sorted(2 * [str(kept / "one"), str(kept / "volumes/v2")])


def test_new_volumes_and_folders_are_seen(kept, watching):
    daemon = watching("volumes", "--interval", "86400")
    daemon.wait_for("archived")
    (kept / "volumes/a/b/c").mkdir(parents=True)
    ok("create", "volumes/a/b/c/v", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=kept)
    daemon.wait_for("archived", 2)
    # A whole folder comes from elsewhere, and is renamed then.
    (kept / "else/where").mkdir(parents=True)
    ok("create", "else/where/v1", "--size", "64K", "--type", "luks1", "--key", "file:k1", *PBKDF2,
       cwd=kept)
    os.rename(kept / "else", kept / "volumes/came")
    assert daemon.wait_for("archived", 3)[2]["path"] == str(kept / "volumes/came/where/v1")
    os.rename(kept / "volumes/came", kept / "volumes/moved")
    daemon.wait_for("archived", 4)
    change(kept, "new", "volumes/a/b/c/v")
    paths = [event["path"] for event in daemon.wait_for("archived", 5)]
    assert paths[3:] == [str(kept / "volumes/moved/where/v1"), str(kept / "volumes/a/b/c/v")]
    # What is no volume is not named, and nothing that is gone either.
    (kept / "volumes/text").write_text("LUKS")
    shutil.rmtree(kept / "volumes/moved")
    change(kept, "newer", "volumes/a/b/c/v")
    daemon.wait_for("archived", 6)
    assert daemon.end(signal.SIGINT) == 0
    assert daemon.errors and all("which is new" in line for line in daemon.errors), daemon.errors


def test_a_writer_that_keeps_its_file_open_is_found_by_looking(kept, watching):
    """Mapped memory, as no event tells of it: the bytes of a state of the same volume."""
    before = (kept / "volumes/v2").read_bytes()
    change(kept, "later")
    later = (kept / "volumes/v2").read_bytes()
    (kept / "volumes/v2").write_bytes(before)
    daemon = watching("volumes", "--interval", "1")
    daemon.wait_for("archived")
    with open(kept / "volumes/v2", "r+b") as file, mmap.mmap(file.fileno(), 32768) as memory:
        memory[:] = later[:32768]
        daemon.wait_for("archived", 2)
    assert [s["sequence_id"] for s in snapshots(kept)] == [3, 2]


def test_killed_and_started_again_it_catches_up(kept, watching):
    daemon = watching("volumes")
    daemon.wait_for("archived")
    daemon.process.kill()
    daemon.process.wait()
    change(kept, "meanwhile")
    daemon = watching("volumes", "--interval", "86400")
    daemon.wait_for("archived")
    change(kept, "again")
    daemon.wait_for("archived", 2)
    assert len(snapshots(kept)) == 3
    assert ok("archive", "verify", "--open", "--store", "store", "--json", cwd=kept).json["problems"] == []


def test_an_unchanged_header_adds_nothing(kept, watching):
    run("archive", "watch", "volumes", "--once", "--store", "store", cwd=kept, check=0)
    daemon = watching("volumes", "--interval", "1")
    os.utime(kept / "volumes/v2")
    with open(kept / "volumes/v2", "r+b") as file:  # the payload
        file.seek(-4096, os.SEEK_END)
        file.write(os.urandom(4096))
    change(kept, "x")
    daemon.wait_for("archived")
    assert len(snapshots(kept)) == 2 and len(daemon.events) == 1


def test_a_header_in_the_middle_of_a_change_is_taken_when_it_is_whole(kept, watching):
    """cryptsetup writes one copy, then the other, under a lock on the file."""
    old = (kept / "volumes/v2").read_bytes()
    change(kept, "new")
    new = (kept / "volumes/v2").read_bytes()
    (kept / "volumes/v2").write_bytes(old)
    daemon = watching("volumes", "--interval", "86400")
    daemon.wait_for("archived")
    with open(kept / "volumes/v2", "r+b") as file:
        file.write(new[:16384])
    with open(kept / "volumes/v2", "r+b") as file:
        file.seek(16384)
        file.write(new[16384:32768])
    daemon.wait_for("archived", 2)
    assert len(snapshots(kept)) == 2
    shown = ok("archive", "show", snapshots(kept)[0]["id"], "--store", "store", "--json", cwd=kept).json
    assert shown["manifest"]["problems"] == [] and shown["sequence_id"] == 3


def test_a_locked_header_is_left_alone_for_a_while(kept, watching):
    daemon = watching("volumes", "--interval", "86400")
    daemon.wait_for("archived")
    program = ("import fcntl, sys\nf = open(sys.argv[1], 'r+b')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
               "f.seek(int(sys.argv[2])); f.write(bytes.fromhex(sys.argv[3])); f.flush()\n"
               "print('locked', flush=True); sys.stdin.read()\n")
    change(kept, "x")
    daemon.wait_for("archived", 2)
    # Key material of keyslot 0: no copy differs in sequence id, only the lock tells.
    with subprocess.Popen(["/usr/bin/python3", "-c", program, "volumes/v2", "40000", "00" * 16],
                          cwd=kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"locked\n"
        os.close(os.open(kept / "volumes/v2", os.O_WRONLY))  # an event
        time.sleep(1)
        assert len(daemon.of("archived")) == 2
        writer.stdin.close()
        daemon.wait_for("archived", 3)


def test_a_header_that_is_lost_is_reported_with_its_snapshot(kept, watching):
    daemon = watching("volumes", "--interval", "86400")
    newest = daemon.wait_for("archived")[0]["id"]
    whole = (kept / "volumes/v2").read_bytes()
    (kept / "volumes/v2").write_bytes(bytes(100_000) + whole[100_000:])
    gone = daemon.wait_for("gone")[0]
    assert gone["id"] == newest and gone["path"] == str(kept / "volumes/v2")
    ok("header", "restore", "volumes/v2", f"archive:{newest}", "--store", "store", "--yes", cwd=kept)
    change(kept, "saved")
    daemon.wait_for("archived", 2)
    assert len(daemon.of("gone")) == 1


def test_a_store_that_is_away_and_comes_back(kept, watching):
    daemon = watching("volumes", "--interval", "86400")
    daemon.wait_for("archived")
    os.rename(kept / "store", kept / "away")
    change(kept, "one")
    assert "archive" in daemon.wait_for("trouble")[0]["message"] or daemon.of("trouble")
    change(kept, "two")
    assert not (kept / "store").exists()  # no second archive, sealed to who knows whom
    os.rename(kept / "away", kept / "store")
    daemon.wait_for("recovered")
    daemon.wait_for("archived", 2)
    assert ok("info", "volumes/v2", "--json", cwd=kept).json["label"] == "two"
    assert len(snapshots(kept)) == 2
    assert daemon.end() == 0
    assert sum("tried again" in line for line in daemon.errors) <= 3, daemon.errors


@needs_mounts
@pytest.mark.parametrize("break_it,mend_it", [
    ("mount -o remount,ro store", "mount -o remount,rw store"),
    ("dd if=/dev/zero of=store/fill bs=64K status=none || true", "rm store/fill")])
def test_a_store_that_is_read_only_or_full_for_a_while(kept, watching, break_it, mend_it):
    (kept / "store").mkdir()
    daemon = watching("volumes", "--interval", "86400",
                      wrap=["unshare", "-m", "sh", "-c",
                            'mount -t tmpfs -o size=60M,mode=700 none store && exec "$@"', "sh"])
    daemon.wait_for("archived")

    def inside(text):
        # The daemon closes the archive a moment after it told of the snapshot.
        words = ["nsenter", "-t", str(daemon.process.pid), "-m", "sh", "-c", f"cd '{kept}' && {text}"]
        wait_until(lambda: subprocess.run(words, capture_output=True).returncode == 0, text)
    inside(break_it)
    change(kept, "one")
    daemon.wait_for("trouble")
    assert daemon.process.poll() is None
    inside(mend_it)
    daemon.wait_for("recovered")
    assert len(daemon.wait_for("archived", 2)) == 2
    assert daemon.end() == 0


def test_a_header_that_changes_without_end_does_not_fill_the_archive(kept, watching):
    ok("create", "guest", "--size", "64K", "--type", "luks1", "--key", "file:k1", *PBKDF2, cwd=kept)
    daemon = watching("guest", "--interval", "86400")
    for number in range(30):
        daemon.wait_for("archived", number + 1)
        with open(kept / "guest", "r+b") as file:
            file.seek(5000)  # the material of keyslot 0
            file.write(os.urandom(16))
    assert "30 times" in daemon.wait_for("trouble")[0]["message"]
    os.close(os.open(kept / "guest", os.O_WRONLY))
    time.sleep(0.5)
    assert len(snapshots(kept)) == 30 and len(daemon.of("trouble")) == 1
    # Others are archived as ever.
    assert daemon.end() == 0


def test_a_file_that_goes_and_comes_has_spent_what_it_has_spent(kept, watching):
    ok("create", "guest", "--size", "64K", "--type", "luks1", "--key", "file:k1", *PBKDF2, cwd=kept)
    whole = (kept / "guest").read_bytes()
    daemon = watching("volumes", "--interval", "86400")
    daemon.wait_for("archived")

    def replaced():
        """Another state under the name that was removed; the daemon has time to see that it is not there."""
        (kept / "volumes/guest").unlink(missing_ok=True)
        time.sleep(0.25)
        (kept / "guest").write_bytes(whole[:5000] + os.urandom(16) + whole[5016:])
        os.rename(kept / "guest", kept / "volumes/guest")
    for number in range(30):
        replaced()
        daemon.wait_for("archived", number + 2)
    for _ in range(4):
        replaced()
    assert "30 times" in daemon.wait_for("trouble")[0]["message"]
    # Others are archived as ever, and after what came before.
    change(kept, "x")
    assert daemon.wait_for("archived", 32)[31]["path"] == str(kept / "volumes/v2")
    assert len(daemon.of("trouble")) == 1
    assert daemon.end() == 0
    assert len(snapshots(kept)) == 32


def test_links_in_a_watched_folder_are_not_followed(kept, watching):
    ok("create", "secret", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=kept)
    (kept / "volumes/a").mkdir()
    shutil.copy(kept / "secret", kept / "volumes/a/secret")
    shutil.copy(kept / "secret", kept / "volumes/b")
    daemon = watching("volumes", "--interval", "1")
    daemon.wait_for("archived", 3)
    change(kept, "elsewhere", "secret")
    # A new link; one in the place of a known file; and one on the way to a known file.
    os.symlink("../secret", kept / "volumes/link")
    os.symlink("../secret", kept / "volumes/other")
    os.replace(kept / "volumes/other", kept / "volumes/b")
    os.rename(kept / "volumes/a", kept / "gone")
    os.symlink("..", kept / "volumes/a")
    time.sleep(2.5)  # looked at twice
    change(kept, "x")
    events = daemon.wait_for("archived", 4)
    assert [event["path"] for event in events[3:]] == [str(kept / "volumes/v2")]
    # It is archived where it is a file.
    os.unlink(kept / "volumes/b")
    os.link(kept / "secret", kept / "volumes/b")
    assert daemon.wait_for("archived", 5)[4]["path"] == str(kept / "volumes/b")
    assert daemon.end() == 0


def test_once(kept):
    args = ["archive", "watch", "volumes", "--once", "--store", "store"]
    assert "archived" in ok(*args, cwd=kept).text
    assert ok(*args, cwd=kept).text == ""
    change(kept, "x")
    assert len(ok(*args, cwd=kept).text.splitlines()) == 1
    # A copy that is damaged for good is archived as it is, after a while.
    with open(kept / "volumes/v2", "r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 16)
    assert len(ok(*args, "--quiet", "--json", cwd=kept).text.splitlines()) == 1
    assert ok("archive", "show", snapshots(kept)[0]["id"], "--store", "store", "--json",
              cwd=kept).json["manifest"]["problems"]
    shutil.rmtree(kept / "store")
    (kept / "store").write_text("in the way")
    assert run(*args, cwd=kept).status != 0


def test_what_is_wrong_is_said_at_the_start(kept):
    fails(1, "archive", "watch", "nowhere", "--store", "store", cwd=kept)
    fails(1, "archive", "watch", "volumes", "--interval", "0", "--store", "store", cwd=kept)
    fails(1, "archive", "watch", "volumes", "--interval", "86401", "--store", "store", cwd=kept)
    fails(1, "archive", "watch", "volumes", cwd=kept)  # LUKSKEEP_ARCHIVE=off


def test_the_block_devices_of_this_machine(kept):
    ok("archive", "watch", "--once", "--store", "store", cwd=kept)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
                    reason="loop devices need root")
def test_a_block_device_is_polled(kept, watching):
    attached = subprocess.run(["losetup", "--find", "--show", "volumes/v2"], cwd=kept,
                              capture_output=True, text=True)
    if attached.returncode != 0:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        daemon = watching(device, "--interval", "1")
        daemon.wait_for("archived")
        change(kept, "x", device)
        assert daemon.wait_for("archived", 2)[1]["path"] == device
        assert daemon.end() == 0
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(kept, monkeypatch, watching, abstract):
    name = f"\0lukskeep-{os.getpid()}" if abstract else str(kept / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        daemon = watching("volumes")
        assert listener.recv(100) == b"READY=1"
        assert daemon.end() == 0
        assert listener.recv(100) == b"STOPPING=1"


def test_a_flood_of_events_loses_no_header(kept, watching):
    """More files than the queue of events holds, while the daemon is stopped."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"the queue holds {limit} events")
    daemon = watching("volumes", "--interval", "86400")
    daemon.wait_for("archived")
    daemon.process.send_signal(signal.SIGSTOP)
    names = [kept / "volumes" / f"f{number}" for number in range(4)]
    for round_number in range(limit // 2 // 4 + 100):
        for name in names:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600))
        os.unlink(names[round_number % 4])
    change(kept, "late")
    daemon.process.send_signal(signal.SIGCONT)
    daemon.wait_for("archived", 2)
    assert daemon.end() == 0


def test_the_packaged_service_starts_what_there_is():
    text = (ROOT / "packaging/systemd/lukskeep-archive-watch.service").read_text()
    command = next(line for line in text.splitlines() if line.startswith("ExecStart=")).split("=", 1)[1]
    words = command.split()
    assert words[0] == "lukskeep"
    ok(*words[1:], "--help")
    known = ok(*words[1:3], "--help").text
    assert all(word in known for word in words[3:] if word.startswith("--"))


def test_a_device_with_a_superblock_of_a_raid_is_archived(kept):
    """md's may be left from before the volume."""
    volume = kept / "volumes" / "v2"
    sectors = (volume.stat().st_size // 4096 + 32) * 8
    os.truncate(volume, sectors * 512)
    at = (sectors - 16) // 8 * 8
    with open(volume, "r+b") as file:
        file.seek(at * 512)
        file.write(struct.pack("<II136xQ", 0xa92b4efc, 1, at))
    done = subprocess.run(["losetup", "--find", "--show", volume], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("there are no loop devices: " + done.stderr.strip())
    device = done.stdout.strip()
    try:
        scan = run("archive", "scan", "--json", "--store", "store", cwd=kept).json
        assert device in scan["members"]
        result = run("archive", "watch", "--once", "--json", "--store", "store", cwd=kept)
        events = [json.loads(line) for line in result.text.splitlines()]
        assert device in [one.get("path") for one in events if one["event"] == "archived"]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
