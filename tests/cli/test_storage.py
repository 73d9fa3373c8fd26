"""Storage that is missing, forbidden, full, read-only, busy or too short."""

import fcntl
import os
import shutil
import stat
import struct
import subprocess

import pytest

from cli_tools import PBKDF2, fails, ok, run
from conftest import needs_mounts

KEY = ["--key", "file:k1"]
NEW = [*KEY, *PBKDF2]

READERS = [["info"], ["key", "list"], ["key", "test", *KEY], ["token", "list"], ["config"]]
WRITERS = [
    ["key", "add", *KEY, "--new-key", "file:k3", *PBKDF2],
    ["key", "remove", "--slot", "1"],
    ["key", "change", *KEY, "--new-key", "file:k3", *PBKDF2],
    ["config", "--label", "x"],
    ["erase", "--yes"],
]


def with_volume(words, volume):
    """The volume behind the command's one or two words."""
    count = 2 if words[0] in ("key", "token", "header") else 1
    return [*words[:count], volume, *words[count:]]


def name(words):
    return " ".join(words[:2])


@pytest.mark.parametrize("words", [*READERS, *WRITERS], ids=name)
def test_a_missing_file(place, words):
    result = fails(1, *with_volume(words, "nowhere"), cwd=place)
    assert "'nowhere'" in result.err and not (place / "nowhere").exists()


@pytest.mark.parametrize("words", [*READERS, *WRITERS], ids=name)
def test_a_directory(place, words):
    (place / "folder").mkdir()
    result = fails(4, *with_volume(words, "folder"), cwd=place)
    assert "directory" in result.err


def test_directories_and_odd_files_as_images(place):
    (place / "folder").mkdir()
    os.mkfifo(place / "fifo")
    for odd in ("folder", "fifo", "/dev/null"):
        fails(4, "encrypt", odd, "v", *NEW, cwd=place)
        fails(4, "encrypt", "plain", odd, *NEW, cwd=place)
        fails(4, "create", odd, *NEW, cwd=place)
        fails(4, "decrypt", odd, "out", *KEY, cwd=place)
    fails(1, "encrypt", "plain", "nowhere/v", *NEW, cwd=place)
    assert sorted(path.name for path in place.iterdir()) == ["fifo", "folder", "k1", "k2", "k3",
                                                             "plain"]


# ---- permissions -------------------------------------------------------------------------------


@pytest.fixture
def forbidden(public_place):
    """v is a volume that nobody else may read, r one that they may only read; k1 its key."""
    (public_place / "k1").write_bytes(b"secret")
    (public_place / "k3").write_bytes(b"other")
    ok("create", "v", "--size", "64K", *NEW, cwd=public_place)
    ok("key", "add", "v", *KEY, "--new-key", "file:k3", *PBKDF2, cwd=public_place)
    shutil.copy(public_place / "v", public_place / "r")
    (public_place / "unreadable").write_bytes(b"secret")
    os.chmod(public_place / "v", 0)
    os.chmod(public_place / "unreadable", 0)
    os.chmod(public_place / "r", 0o444)
    for key in ("k1", "k3"):
        os.chmod(public_place / key, 0o444)
    return public_place


@pytest.mark.parametrize("words", [*READERS, *WRITERS], ids=name)
def test_an_unreadable_volume(forbidden, as_nobody, words):
    result = fails(2, *with_volume(words, "v"), cwd=forbidden, wrap=as_nobody)
    assert "'v'" in result.err


def test_an_unreadable_key_file(forbidden, as_nobody):
    result = fails(2, "key", "test", "r", "--key", "file:unreadable", cwd=forbidden,
                   wrap=as_nobody)
    assert "cannot open key file 'unreadable'" in result.err


@pytest.mark.parametrize("words", WRITERS, ids=name)
def test_a_volume_that_may_only_be_read(forbidden, as_nobody, words):
    before = (forbidden / "r").read_bytes()
    fails(2, *with_volume(words, "r"), cwd=forbidden, wrap=as_nobody)
    assert (forbidden / "r").read_bytes() == before
    ok("key", "test", "r", *KEY, cwd=forbidden, wrap=as_nobody)


def test_a_folder_that_may_not_be_written(forbidden, as_nobody):
    before = sorted(os.listdir(forbidden))
    os.chmod(forbidden, 0o555)
    try:
        for words in (["create", "new", "--size", "64K", *NEW], ["decrypt", "r", "new", *KEY],
                      ["header", "backup", "r", "new"]):
            fails(2, *words, cwd=forbidden, wrap=as_nobody)
    finally:
        os.chmod(forbidden, 0o777)
    assert sorted(os.listdir(forbidden)) == before


def test_without_root_everything_works(public_place, as_nobody):
    """The promise of the project, under a user id that has no rights at all."""
    wrapped = {"cwd": public_place, "wrap": as_nobody}
    (public_place / "k1").write_bytes(b"secret")
    os.chmod(public_place / "k1", 0o444)
    (public_place / "plain").write_bytes(b"x" * 8192)
    os.chmod(public_place / "plain", 0o444)
    ok("encrypt", "plain", "v", *NEW, **wrapped)
    ok("key", "change", "v", *KEY, "--new-key", "file:k1", *PBKDF2, **wrapped)
    assert ok("decrypt", "v", "-", *KEY, **wrapped).out == b"x" * 8192


# ---- full, read-only, busy, short --------------------------------------------------------------


@needs_mounts
@pytest.mark.parametrize("words", [
    ["encrypt", "plain", "disk/v", *NEW],
    ["encrypt", "-", "disk/v", *NEW],
    ["decrypt", "big.luks", "disk/out", *KEY],
    ["create", "disk/v", "--size", "64K", *NEW],
    ["header", "backup", "big.luks", "disk/h"],
], ids=lambda words: " ".join(words[:3]))
def test_a_full_disk(place, mounted, words):
    (place / "plain").write_bytes(os.urandom(4 << 20))
    ok("encrypt", "plain", "big.luks", *NEW, cwd=place)
    (place / "disk").mkdir()
    # What is left on the disk afterwards is listed behind the program's own messages.
    wrap = mounted("mount -t tmpfs -o size=2m tmpfs disk")
    wrap = [*wrap[:-2], wrap[-2].replace('exec "$@"', '"$@"; s=$?; ls -A disk >&2; exit $s'), "sh"]
    result = run(*words, cwd=place, wrap=wrap, stdin=os.urandom(4 << 20))
    assert result.status == 4, result
    assert "lukskeep: error: " in result.err and "no space" in result.err.lower()
    assert "disk/" in result.err
    leftover = [line for line in result.err.splitlines() if not line.startswith("lukskeep:")]
    assert leftover == []


@needs_mounts
@pytest.mark.parametrize("words", WRITERS, ids=name)
def test_a_read_only_file_system(luks2, mounted, words):
    (luks2 / "disk").mkdir()
    shutil.move(luks2 / "v2", luks2 / "disk" / "v2")
    before = (luks2 / "disk" / "v2").read_bytes()
    wrap = mounted("mount --bind disk disk && mount -o remount,bind,ro disk")
    result = fails(4, *with_volume(words, "disk/v2"), cwd=luks2, wrap=wrap)
    assert "'disk/v2'" in result.err and "read-only" in result.err
    assert (luks2 / "disk" / "v2").read_bytes() == before
    ok("key", "test", "disk/v2", *KEY, cwd=luks2, wrap=wrap)


def test_a_volume_that_somebody_else_changes(luks2):
    """An open file description lock, as another lukskeep holds it while it writes."""
    with open(luks2 / "v2", "r+b") as file:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        for words in (*READERS, *WRITERS):
            fails(5, *with_volume(words, "v2"), cwd=luks2)
    ok("info", "v2", cwd=luks2)


@pytest.mark.parametrize("fixture,volume", [("luks1", "v1"), ("luks2", "v2")])
def test_a_truncated_volume(request, fixture, volume):
    folder = request.getfixturevalue(fixture)
    whole = (folder / volume).read_bytes()
    offset = ok("info", volume, "--json", cwd=folder).json["payload_offset"]
    for size in (0, 100, 592, 4000, 4096, 20000, offset // 2, offset):
        (folder / volume).write_bytes(whole[:size])
        result = run("decrypt", volume, "out", *KEY, cwd=folder)
        assert result.status == 4 and result.err.startswith("lukskeep: error: "), (size, result)
        assert not (folder / "out").exists()
        assert run("info", volume, cwd=folder).status in (0, 4)
        assert (folder / volume).read_bytes() == whole[:size]


# ---- block devices -----------------------------------------------------------------------------


@pytest.fixture
def loop_device(place):
    """make(size) gives a block device of that size over the file 'disk'."""
    made = []

    def make(size):
        with open(place / "disk", "wb") as file:
            file.truncate(size)
        done = subprocess.run(["losetup", "-f", "--show", place / "disk"], capture_output=True,
                              text=True)
        if done.returncode != 0:
            pytest.skip(f"no loop devices here: {done.stderr.strip()}")
        path = done.stdout.strip()
        assert stat.S_ISBLK(os.stat(path).st_mode)
        made.append(path)
        return path

    yield make
    for path in made:
        subprocess.run(["losetup", "-d", path], check=True)


@pytest.fixture
def block_device(loop_device):
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    return loop_device


def test_a_block_device_is_used_whole(place, block_device):
    device = block_device(20 << 20)
    fails(1, "create", device, "--size", "1M", *NEW, cwd=place)
    ok("create", device, *NEW, cwd=place)
    assert ok("info", device, "--json", cwd=place).json["payload_size"] == 4 << 20
    ok("key", "add", device, *KEY, "--new-key", "file:k2", *PBKDF2, cwd=place)
    fails(5, "create", device, *NEW, cwd=place)
    ok("decrypt", device, "out", *KEY, cwd=place)
    assert (place / "out").stat().st_size == 4 << 20


def test_encrypting_onto_a_block_device_and_back(place, block_device):
    plain = (place / "plain").read_bytes() + bytes(509)
    device = block_device(20 << 20)
    ok("encrypt", "plain", device, *NEW, cwd=place)
    out = ok("decrypt", device, "-", *KEY, cwd=place).out
    assert out[:len(plain)] == plain
    # The same device again: it holds data now.
    fails(5, "encrypt", "plain", device, *NEW, cwd=place)
    ok("encrypt", "plain", device, "--yes", "--holes", "keep", *NEW, cwd=place)
    assert ok("decrypt", device, "-", *KEY, cwd=place).out[:len(plain)] == plain


def test_keys_and_bindings_change_while_a_device_is_in_use(place, block_device):
    device = block_device(20 << 20)
    ok("create", device, *NEW, cwd=place)
    # As dm-crypt has it: nobody else may have it whole.
    held = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        ok("bind", device, "{}", "--pin", "null", *KEY, cwd=place)
        ok("rebind", device, cwd=place)
        assert ok("rekey", device, "--journal", "journal", cwd=place).status == 0
        ok("top-up", device, cwd=place)
        ok("unbind", device, "--slot", "1", cwd=place)
        ok("config", device, "--label", "x", cwd=place)
        ok("token", "import", device, "-", stdin=b'{"type":"note","keyslots":["0"]}', cwd=place)
        ok("key", "add", device, *KEY, "--new-key", "file:k2", "--slot", "3", *PBKDF2, cwd=place)
        ok("key", "change", device, "--key", "file:k2", "--new-key", "file:k3", *PBKDF2, cwd=place)
        ok("key", "remove", device, "--slot", "3", cwd=place)
        ok("header", "repair", device, cwd=place)
        fails(5, "erase", device, "--yes", cwd=place)
        fails(5, "create", device, "--yes", *NEW, cwd=place)
    finally:
        os.close(held)
    ok("key", "test", device, *KEY, cwd=place)


def test_a_member_of_a_raid_that_is_not_assembled_is_left(place, block_device):
    size = 20 << 20
    device = block_device(size)
    ok("create", device, *NEW, cwd=place)

    def left():
        done = run("rekey", "--this-machine", "--dry-run", "--journal", "journal", "--json",
                   cwd=place)
        row, = [row for row in done.json["volumes"] if row["volume"] == device]
        return [one["message"] for one in row["left"]]

    assert left() == []
    # The superblock 1.0 of mdadm, behind the data: its magic, version, and place in sectors.
    at = size - 8192
    with open(device, "r+b") as file:
        file.seek(at)
        file.write(struct.pack("<II", 0xa92b4efc, 1) + bytes(136) + struct.pack("<Q", at // 512))
    assert "member of a RAID" in left()[0]


def test_decrypting_onto_a_block_device(place, block_device):
    ok("encrypt", "plain", "v", *NEW, cwd=place)
    device = block_device(2 << 20)
    ok("decrypt", "v", device, *KEY, cwd=place)
    plain = (place / "plain").read_bytes()
    assert (place / "disk").read_bytes()[:len(plain)] == plain


def test_a_block_device_that_is_too_small(place, block_device):
    device = block_device(1 << 20)
    ok("encrypt", "plain", "v", *NEW, cwd=place)
    result = fails(4, "decrypt", "v", device, *KEY, cwd=place)
    assert "has 1048576 bytes" in result.err
    fails(4, "encrypt", "plain", device, *NEW, cwd=place)
    fails(4, "create", device, *NEW, cwd=place)
    assert (place / "disk").read_bytes() == bytes(1 << 20)
