"""QEMU 10 and a guest for it, without installing either.

Debian 12 has QEMU 7.2, which knows no detached LUKS headers. fetch() gets the one of
bookworm-backports as package files, which are unpacked into a folder that outlives the build, as
installing them would replace the qemu-utils that other tests run; its libraries are those of the
installed qemu-system-x86. guest_kernel() does the same with Debian's kernel for clouds.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "uml"))

import uml  # noqa: E402

PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils", "seabios")
KERNEL = "linux-image-cloud-amd64"
SOURCE = ("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
          "http://deb.debian.org/debian bookworm-backports main\n")
MODULE_FOLDER = "usr/lib/x86_64-linux-gnu/qemu"
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
APT = ("apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root")
# Talks over the first serial port: a shell command a line, its output, and "=STATUS".
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules.order); do insmod /modules/$module; done
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty -F /dev/ttyS0 raw -echo
echo =up
while read -r line; do
  eval "$line"
  echo "=$?"
done
"""


class Unavailable(Exception):
    """This machine cannot have it; the text says why."""


def run(argv, **options):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Unavailable(f"{argv[0]} {argv[-1]}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def kept(name, build):
    """The folder `name` of the cache; filled by build() at the first call, one process at a time."""
    target = uml.cache_folder() / name
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        fresh = target.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        build(fresh)
        fresh.rename(target)
    return target


def unpack(folder):
    for package in sorted(folder.glob("*.deb")):
        run(["dpkg-deb", "-x", package, folder])
        package.unlink()


def fetch_qemu(folder):
    apt = folder / "apt"
    (apt / "lists" / "partial").mkdir(parents=True)
    (apt / "sources.list").write_text(SOURCE)
    own = [*APT, "-o", f"Dir::Etc::SourceList={apt}/sources.list", "-o",
           "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={apt}/lists", "-o",
           f"Dir::Cache={apt}"]
    run([*own, "update"])
    run([*own, "download", *PACKAGES], cwd=folder)
    unpack(folder)
    # Where QEMU looks for them, beside its own place.
    shutil.copytree(folder / "usr/share/seabios", folder / "usr/share/qemu", dirs_exist_ok=True)
    shutil.rmtree(apt)


def fetch():
    """The folder with usr/bin/qemu-system-x86_64 and its like."""
    if not shutil.which("apt-get") or os.uname().machine != "x86_64":
        raise Unavailable("QEMU 10 is fetched from Debian, for amd64")
    folder = kept("qemu-10", fetch_qemu)
    run([folder / "usr/bin/qemu-system-x86_64", "--version"])  # its libraries are there
    return folder


def pack_initramfs(folder, modules, version):
    root = folder / "root"
    for name in ("bin", "proc", "sys", "dev", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin" / "busybox")
    order = []
    for name in MODULES:
        listed = run(["/sbin/modprobe", "-d", modules, "-S", version, "--show-depends", name])
        for path in re.findall(r"^insmod (\S+)", listed, re.M):
            if Path(path).name not in order:
                order.append(Path(path).name)
                shutil.copy(path, root / "modules")
    (root / "modules.order").write_text("\n".join(order) + "\n")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\0".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    packed = subprocess.run(["cpio", "-0", "-o", "-H", "newc", "--quiet"], input=names.encode(),
                            cwd=root, capture_output=True, check=True)
    (folder / "initrd").write_bytes(packed.stdout)


def build_guest(folder):
    listed = run(["apt-cache", "depends", KERNEL])
    package = re.search(r"Depends: (linux-image-\S+)", listed)
    if not package:
        raise Unavailable(f"apt knows no {KERNEL}")
    run([*APT, "download", package.group(1)], cwd=folder)
    unpack(folder)
    version = next((folder / "lib" / "modules").iterdir()).name
    run(["/sbin/depmod", "-b", folder, version])
    pack_initramfs(folder, folder, version)
    next((folder / "boot").glob("vmlinuz-*")).rename(folder / "vmlinuz")
    shutil.rmtree(folder / "lib")


def guest_kernel():
    """The folder with vmlinuz and initrd."""
    for tool in ("cpio", "busybox"):
        if not shutil.which(tool):
            raise Unavailable(f"{tool} is not installed")
    return kept("qemu-guest", build_guest)


class Monitor:
    """A client of QMP, for what the program under test does not do."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw")
        assert "QMP" in json.loads(self.file.readline())
        self.ask("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def try_to(self, command, **arguments):
        arguments = {name.replace("_", "-"): value
                     for name, value in arguments.items()}
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            said = json.loads(self.file.readline())
            if "event" not in said:
                return said

    def ask(self, command, **arguments):
        said = self.try_to(command, **arguments)
        assert "return" in said, (command, arguments, said)
        return said["return"]

    def finish_job(self, job):
        deadline = time.monotonic() + 60
        while True:
            state = next(one for one in self.ask("query-jobs") if one["id"] == job)
            if state["status"] == "concluded":
                assert "error" not in state, state
                return self.ask("job-dismiss", id=job)
            assert time.monotonic() < deadline, state
            time.sleep(0.02)


def start(argv, sockets, log):
    """Runs a program that makes `sockets`; it ends with the test run."""
    env = dict(os.environ)
    if str(argv[0]).startswith("/"):  # not the one that is installed, which has modules of its own
        env["QEMU_MODULE_DIR"] = str(Path(argv[0]).parents[2] / MODULE_FOLDER)
    with open(log, "wb") as out:
        process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.STDOUT, env=env,
                                   preexec_fn=uml.die_with_parent)
    deadline = time.monotonic() + 60
    while not all(Path(path).exists() for path in sockets):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            raise Unavailable(f"{argv[0]}: {Path(log).read_text(errors='replace')[-500:]}")
        time.sleep(0.02)
    return process


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Machine:
    """A running QEMU, its monitor `qmp`, and if it has a guest, that."""

    def __init__(self, folder, program=None, guest=False, arguments=(), uid=None,
                 kind="pc"):
        self.folder = Path(folder)
        self.qmp = self.folder / "qmp.sock"
        self.serial = self.folder / "serial.sock"
        argv = [program or fetch() / "usr/bin/qemu-system-x86_64", "-machine", kind, "-accel",
                "tcg", "-m", "256", "-display", "none", "-nodefaults", "-qmp",
                f"unix:{self.qmp},server=on,wait=off", *arguments]
        if guest:
            kernel = guest_kernel()
            argv += ["-kernel", kernel / "vmlinuz", "-initrd", kernel / "initrd", "-append",
                     "quiet loglevel=0 mitigations=off panic=-1", "-no-reboot", "-chardev",
                     f"socket,id=s,path={self.serial},server=on,wait=off", "-serial", "chardev:s"]
        if uid is not None:
            os.chown(self.folder, uid, uid)
            argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *argv]
        self.process = start(argv, [self.qmp], self.folder / "qemu.log")
        self.shell = None
        if guest:
            self.shell = socket.socket(socket.AF_UNIX)
            self.shell.settimeout(180)
            self.shell.connect(str(self.serial))
            self.text = b""
            self.read_until(rb"=up\r?\n")

    def read_until(self, pattern):
        while not (found := re.search(pattern, self.text)):
            got = self.shell.recv(65536)
            assert got, (self.folder / "qemu.log").read_text(errors="replace")
            self.text += got
        before, self.text = self.text[:found.start()], self.text[found.end():]
        return before.replace(b"\r\n", b"\n").decode(errors="replace"), found

    def guest(self, command, status=0):
        """Runs a shell command in the guest; its output."""
        self.shell.sendall(command.encode() + b"\n")
        out, found = self.read_until(rb"(?:^|\n)=(\d+)\r?\n")
        assert int(found.group(1)) == status, (command, out)
        return out

    def io(self, node, command):
        """A command of qemu-io on a node; what it prints."""
        with Monitor(self.qmp) as monitor:
            return monitor.ask("human-monitor-command",
                               command_line=f'qemu-io {node} "{command}"')

    def stop(self):
        if self.shell:
            self.shell.close()
        stop(self.process)


class StorageDaemon:
    def __init__(self, folder):
        self.qmp = Path(folder) / "daemon.sock"
        self.process = start([fetch() / "usr/bin/qemu-storage-daemon", "--chardev",
                              f"socket,id=c,path={self.qmp},server=on,wait=off", "--monitor",
                              "chardev=c"], [self.qmp], Path(folder) / "daemon.log")

    def stop(self):
        stop(self.process)


@contextlib.contextmanager
def running(thing):
    try:
        yield thing
    finally:
        thing.stop()
