"""A real Linux kernel as the client of volumes that we serve, and of disks that we attach.

`lukskeep serve` is read and written by qemu-storage-daemon, which is the disk (vhost-user-blk) of a
kernel in User-Mode Linux: a file system there, and fio that verifies what it wrote. The kernel's
own dm-crypt then reads the volume that the server wrote.
"""

import contextlib
import json
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import qemu10
from kit import CHEAP, LUKSKEEP, MIB, bytes_of, lukskeep, need, run, sha256, write, without

import uml

DISK_BYTES = 20 * MIB


@pytest.fixture
def work(keys):
    """A folder with a short path: sockets are in it. "tree" is for the guest's file system."""
    need("nbdkit", "qemu-storage-daemon", "fio", "mkfs.ext4", "e2fsck", "cryptsetup", "modprobe")
    with tempfile.TemporaryDirectory(prefix="lkk-") as name:
        folder = Path(name)
        shutil.copy(keys[0], folder / "key")
        (folder / "tree").mkdir()
        for index, size in enumerate((0, 1, 4095, 70_000, 3 * MIB)):
            write(folder / "tree" / f"file-{index}", bytes_of(f"tree {index}", size))
        yield folder


@dataclass(frozen=True)
class Disk:
    """A volume, who gives it to the guest, and what fio may do with it."""

    name: str
    kind: str = "luks2"
    sector: int = 512
    detached: bool = False
    discard: str = "off"
    block: int = 512   # what the guest sees as the size of a sector
    attach: str = ""   # by `vm attach`: --via

    def volume(self, work):
        return [work / self.name] + (["--header", work / f"{self.name}.h"] if self.detached else [])

    def socket(self, work):
        return work / f"{self.name}.vu"

    def make(self, work):
        plain = write(work / "plain", bytes_of(self.name, DISK_BYTES))
        options = ("--sector-size", self.sector) if self.kind == "luks2" else ()
        lukskeep("encrypt", plain, *self.volume(work), "--type", self.kind, "--key",
                 f"file:{work / 'key'}", *options, *CHEAP["pbkdf2"])


DISKS = [Disk("luks2-512", discard="zeroes"), Disk("luks2-4096", sector=4096),
         Disk("luks2-4096-whole", sector=4096, block=4096, discard="on"), Disk("luks1", kind="luks1"),
         Disk("luks2-detached", sector=4096, detached=True, discard="zeroes"),
         Disk("attached-luks1", kind="luks1", detached=True, attach="qemu"),
         Disk("attached-luks2", attach="nbd")]

# Also the sizes that are no whole encrypted sectors, where the disk allows them.
FIO = """
fio --name={name} --filename=$disk --size=8m --direct=1 --ioengine=libaio --iodepth=8 \
  --rw=randwrite --bssplit={sizes} --verify=crc32c --verify_fatal=1 --randseed=7 \
  --minimal > fio-{name}
"""

TRIM = """
fio --name=trim --filename=$disk --size=4m --direct=1 --ioengine=libaio --iodepth=4 \
  --rw=trimwrite --bs=20k --verify=crc32c --verify_fatal=1 --minimal > fio-trim-{name}
blkdiscard --offset 1M --length 4M $disk
"""
ZEROES = """
dd if=$disk bs=1M skip=1 count=4 iflag=direct status=none | cmp -n 4194304 - /dev/zero
"""

FILE_SYSTEM = """
echo "size $(blockdev --getsize64 $disk)"
echo "block $(blockdev --getss $disk)"
mkfs.ext4 -q -F $disk
mount $disk /run/mnt
cp -r tree /run/mnt/
(cd tree && sha256sum *) > {name}.sums
sync
{fstrim}
rm /run/mnt/tree/file-0
umount /run/mnt
e2fsck -fn $disk > /dev/null 2>&1
mount -o ro $disk /run/mnt
(cd /run/mnt/tree && grep -v file-0 /run/work/{name}.sums | sha256sum --quiet -c)
umount /run/mnt
echo 3 > /proc/sys/vm/drop_caches
echo "seen $(sha256sum < $disk | cut -d' ' -f1)"
cryptsetup open --readonly --key-file key {header} {name} inside
echo "decrypted $(sha256sum < /dev/mapper/inside | cut -d' ' -f1)"
cryptsetup close inside
"""


def device(disk, disks):
    """What the guest calls one of `disks`: they all have the same serial number."""
    return f"disk=/dev/vd{'abcdefgh'[disks.index(disk)]}\n"


def script(disk):
    smallest = "512/25:1536/10:" if disk.block == 512 else ""
    trim = {"off": "", "on": TRIM, "zeroes": TRIM + ZEROES}[disk.discard]
    return device(disk, DISKS) + (FIO + trim + FILE_SYSTEM).format(
        name=disk.name, sizes=smallest + "4k/30:20k/15:64k",
        fstrim="fstrim /run/mnt" if disk.discard != "off" else "",
        header=f"--header {disk.name}.h" if disk.detached else "")


@contextlib.contextmanager
def program(argv, ready):
    """Runs a program until the end of the block; begins when it has made the file `ready`."""
    log = tempfile.TemporaryFile()
    process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=log,
                               stderr=subprocess.STDOUT, preexec_fn=uml.die_with_parent)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                pytest.fail(f"{argv[0]}: {log.read()[-1000:]}")
            time.sleep(0.02)
        yield process
    finally:
        qemu10.stop(process)
        log.close()


def serve_words(work, disk, *more):
    return [LUKSKEEP, "serve", *disk.volume(work), "--key", f"file:{work / 'key'}", "--socket",
            work / f"{disk.name}.nbd", "--discard", disk.discard, *more]


def daemon_words(work, disks, more=""):
    """qemu-storage-daemon as client of our servers and as server of the guest's disks."""
    words = ["qemu-storage-daemon"]
    for disk in disks:
        words += ["--blockdev", f"driver=nbd,node-name={disk.name},server.type=unix,"
                  f"server.path={work / disk.name}.nbd,discard=unmap{more}",
                  "--export", f"type=vhost-user-blk,id={disk.name},node-name={disk.name},"
                  f"addr.type=unix,addr.path={disk.socket(work)},writable=on,"
                  f"logical-block-size={disk.block}"]
    return words


def attach(daemon, work, disk):
    lukskeep("vm", "attach", "--qmp", daemon.qmp, "--volume", *disk.volume(work), "--key",
             f"file:{work / 'key'}", "--id", disk.name, "--via", disk.attach, "--export-socket",
             disk.socket(work))


def detach(daemon, disk):
    lukskeep("vm", "detach", "--qmp", daemon.qmp, "--id", disk.name)


@contextlib.contextmanager
def storage_daemon(work):
    try:
        daemon = qemu10.StorageDaemon(work)
    except qemu10.Unavailable as error:
        without(str(error))
    with qemu10.running(daemon):
        yield daemon


def boot(work, cases, disks):
    try:
        return uml.run(work, cases, disks=[disk.socket(work) for disk in disks])
    except uml.Unavailable as error:
        without(f"no kernel to boot: {error}")


def words_of(result):
    assert result["status"] == 0, json.dumps(result, indent=1)
    return dict(line.split(" ", 1) for line in result["output"].splitlines() if " " in line)


def check(work, disk, said):
    """What the guest saw is in the volume, for us, the kernel's dm-crypt, and QEMU."""
    holes = "keep" if disk.discard == "zeroes" else "fill"
    assert said["size"] == str(DISK_BYTES) and said["block"] == str(disk.block)
    if disk.discard != "zeroes":  # which dm-crypt does not see
        assert said["seen"] == said["decrypted"], "dm-crypt decrypts something else"
    lukskeep("decrypt", *disk.volume(work), work / "out", "--key", f"file:{work / 'key'}",
             "--holes", holes, "--yes")
    assert sha256(work / "out") == said["seen"]
    if disk.kind == "luks1" and not disk.detached:
        run(["qemu-img", "convert", "--object", f"secret,id=s,file={work / 'key'}", "--image-opts",
             f"driver=luks,key-secret=s,file.filename={work / disk.name}", "-O", "raw",
             work / "theirs"])
        assert sha256(work / "theirs") == said["seen"]


def test_a_kernel_uses_disks_that_are_served_and_attached(work):
    served = [disk for disk in DISKS if not disk.attach]
    for disk in DISKS:
        disk.make(work)
    with contextlib.ExitStack() as stack:
        for disk in served:
            stack.enter_context(program(serve_words(work, disk), work / f"{disk.name}.nbd"))
        stack.enter_context(program(daemon_words(work, served), served[-1].socket(work)))
        daemon = stack.enter_context(storage_daemon(work))
        for disk in DISKS:
            if disk.attach:
                attach(daemon, work, disk)
        results = boot(work, {disk.name: script(disk) for disk in DISKS}, DISKS)
        for disk in DISKS:
            if disk.attach:
                detach(daemon, disk)
        with qemu10.Monitor(daemon.qmp) as monitor:
            assert monitor.ask("query-named-block-nodes", flat=True) == []
    for disk in DISKS:
        check(work, disk, words_of(results[disk.name]))


PULLED = """
{ yes written || true; } | head -c 65536 > $disk
sync $disk
touch written
for n in $(seq 200); do [ -e $disk ] || exit 0; sleep 0.1; done
exit 1
"""


def test_a_disk_that_is_detached_under_a_running_kernel_is_gone_there(work):
    """A storage daemon does not ask the guest. What that has flushed is in the volume."""
    disk = Disk("pulled", kind="luks1", attach="qemu")
    disk.make(work)
    results = {}
    cases = {disk.name: device(disk, [disk]) + PULLED}
    guest = threading.Thread(target=lambda: results.update(boot(work, cases, [disk])))
    with storage_daemon(work) as daemon:
        attach(daemon, work, disk)
        guest.start()
        try:
            while guest.is_alive() and not (work / "written").exists():
                time.sleep(0.05)
            detach(daemon, disk)
        finally:
            guest.join()
    words_of(results[disk.name])
    lukskeep("decrypt", work / disk.name, work / "out", "--key", f"file:{work / 'key'}", "--yes")
    now, plain = (work / "out").read_bytes(), bytes_of(disk.name, DISK_BYTES)
    assert now == b"written\n" * 8192 + plain[65536:]


# ---- a server that is killed -------------------------------------------------------------------

IN_ORDER_BYTES, AT_RANDOM_BYTES = 12 * MIB, 8 * MIB
BLOCK = 4096
# Each block is on the disk before the next one is written; then many at a time.
WRITES_IN_ORDER = """
fio --name=order --filename=$disk --size=12m --direct=1 --ioengine=psync --bs=4k --rw=write \
  --fsync=1 --verify=pattern --verify_pattern=0x6c756b73%o --verify_fatal=1 --minimal > fio-order
"""
WRITES_AT_RANDOM = """
fio --name=random --filename=$disk --offset=12m --size=8m --direct=1 --ioengine=libaio \
  --iodepth=8 --bssplit=512/30:4k/50:32k --rw=randwrite --fsync=4 --verify=crc32c \
  --verify_fatal=1 --minimal > fio-random
echo "seen $(sha256sum < $disk | cut -d' ' -f1)"
"""


class MortalServer:
    """`lukskeep serve` that is killed and started again, as QEMU's reconnect-delay is made for."""

    def __init__(self, work, disk):
        self.work, self.disk = work, disk
        self.volume = work / disk.name
        self.payload_offset = self.volume.stat().st_size - DISK_BYTES
        self.before = self.payload()
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [str(word) for word in serve_words(self.work, self.disk, "--json")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=uml.die_with_parent)
        assert json.loads(self.process.stdout.readline())["event"] == "ready"

    def payload(self):
        return self.volume.read_bytes()[self.payload_offset:]

    def written(self, first, size):
        """Which share of these bytes the guest has written."""
        now = self.payload()
        starts = range(first, first + size, BLOCK)
        return sum(now[at:at + 16] != self.before[at:at + 16] for at in starts) / len(starts)

    def kill(self):
        """Leaves the plain contents of that moment."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.copy(self.volume, self.work / "dead")
        lukskeep("decrypt", self.work / "dead", self.work / "dead.out", "--key",
                 f"file:{self.work / 'key'}", "--yes")
        self.start()
        return (self.work / "dead.out").read_bytes()

    def stop(self):
        qemu10.stop(self.process)
        self.process.stdout.close()


def pattern(block):
    """What fio writes there: the text and the place, again and again."""
    one = b"luks" + (block * BLOCK).to_bytes(8, "little")
    return (one * (BLOCK // len(one) + 1))[:BLOCK]


def check_order(now, before, sector):
    """Nothing of what was flushed lacks, nothing but the one block under way is half there, and
    that has whole sectors only."""
    blocks = range(IN_ORDER_BYTES // BLOCK)
    fresh = [now[n * BLOCK:(n + 1) * BLOCK] == pattern(n) for n in blocks]
    count = fresh.index(False) if False in fresh else len(fresh)
    assert count > 0
    for at in range(count * BLOCK, (count + 1) * BLOCK, sector):
        new = pattern(count)[at - count * BLOCK:][:sector]
        assert now[at:at + sector] in (new, before[at:at + sector]), f"{at} is torn"
    end = (count + 1) * BLOCK
    assert now[end:IN_ORDER_BYTES] == before[end:IN_ORDER_BYTES], "written before what is lost"


MORTAL = [Disk("killed-512"), Disk("killed-4096", sector=4096)]


def kill_again_and_again(work, server, guest):
    """At several places of both regions; how often."""
    plain = bytes_of(server.disk.name, DISK_BYTES)
    kills = 0
    for first, size in ((0, IN_ORDER_BYTES), (IN_ORDER_BYTES, AT_RANDOM_BYTES)):
        for share in (0.1, 0.4, 0.7):
            while guest.is_alive() and server.written(first, size) < share:
                time.sleep(0.02)
            if not guest.is_alive():
                return kills
            now = server.kill()
            kills += 1
            if first == 0:
                check_order(now, plain, server.disk.sector)
    return kills


def test_a_kernel_loses_nothing_when_the_server_is_killed(work):
    for disk in MORTAL:
        disk.make(work)
    cases = {disk.name: device(disk, MORTAL) + WRITES_IN_ORDER + WRITES_AT_RANDOM
             for disk in MORTAL}
    results = {}
    guest = threading.Thread(target=lambda: results.update(boot(work, cases, MORTAL)))
    with contextlib.ExitStack() as stack:
        servers = []
        for disk in MORTAL:
            servers.append(MortalServer(work, disk))
            stack.callback(servers[-1].stop)
        words = daemon_words(work, MORTAL, more=",reconnect-delay=120")
        stack.enter_context(program(words, MORTAL[-1].socket(work)))
        guest.start()
        try:
            kills = [kill_again_and_again(work, server, guest) for server in servers]
        finally:
            guest.join()
    for disk in MORTAL:
        said = words_of(results[disk.name])
        lukskeep("decrypt", work / disk.name, work / "out", "--key", f"file:{work / 'key'}", "--yes")
        assert sha256(work / "out") == said["seen"]
    assert kills == [6, 6], "the guest was done before the server was killed"
