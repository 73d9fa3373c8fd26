"""A real Linux kernel with dm-crypt, without root and without virtualisation: User-Mode Linux.

fetch() gets Debian's kernel as a package file, which is unpacked and not installed, into a folder
that outlives the build. run() boots it (two to three seconds) with the host's root as its own and
lets it run shell scripts as root; see guest.py for what they find there.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "user-mode-linux"


class Unavailable(Exception):
    """This machine cannot have the kernel; the text says why."""


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    try:
        folder = Path(base, "lukskeep")
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = HERE.parents[2] / "build" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def download(folder):
    """The package file. A second try refreshes the package lists, where that is allowed."""
    command = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root",
               "download", PACKAGE]
    for refresh in (False, True):
        if refresh and os.geteuid() == 0:
            subprocess.run(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"],
                           capture_output=True)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        files = sorted(folder.glob("*.deb"))
        if done.returncode == 0 and files:
            return files[-1]
    raise Unavailable(f"apt-get cannot download {PACKAGE}: {done.stderr.strip()[-300:]}")


def build(folder):
    """Fills `folder` with kernel/ and shim.so."""
    for tool in ("apt-get", "dpkg-deb", "cc", "modprobe"):
        if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            raise Unavailable(f"{tool} is not installed")
    package = download(folder)
    subprocess.run(["dpkg-deb", "-x", package, folder / "kernel"], check=True)
    package.unlink()
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", folder / "shim.so",
                    HERE / "xstate_shim.c"], check=True)


def fetch():
    """The folder with the kernel; made at the first call, by one process at a time."""
    shim = HERE / "xstate_shim.c"
    target = cache_folder() / "user-mode-linux"
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = target / "shim.so"
        if ready.exists() and ready.stat().st_mtime >= shim.stat().st_mtime:
            return target
        shutil.rmtree(target, ignore_errors=True)
        fresh = target.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            build(fresh)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"cannot unpack {PACKAGE}: {error}") from error
        fresh.rename(target)
    return target


def memory_folder(work):
    """UML keeps the guest's memory in an unlinked file, which it maps executable."""
    with contextlib.suppress(OSError):
        status = os.statvfs("/dev/shm")
        if status.f_bavail * status.f_frsize > 1 << 30 and not status.f_flag & os.ST_NOEXEC:
            return "/dev/shm"
    return str(work)


def die_with_parent():
    """UML leaves its process group; this way it still ends when the test run is killed.

    SIGTERM, because upon that it ends its helper processes too.
    """
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def boot(command, env, work, timeout_s):
    """Runs UML to its end, or to the end of its time."""
    with open(work / "console.log", "wb") as console:
        kernel = subprocess.Popen(command, cwd=work, env=env, stdin=subprocess.DEVNULL,
                                  stdout=console, stderr=subprocess.STDOUT,
                                  preexec_fn=die_with_parent)
    try:
        kernel.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        pass  # its results so far are judged by the caller
    finally:
        if kernel.poll() is None:
            kernel.terminate()
            kernel.wait()


def run(work, cases, timeout_s=400, disks=()):
    """Runs `cases` ({name: script}) in one boot, in order; {name: result}, see guest.py.

    `disks` are sockets of vhost-user-blk servers: /dev/vda, /dev/vdb and so on.

    Scripts start in `work`, a folder of the host, as root, with bash -eu -o pipefail.
    """
    folder = fetch()
    work = Path(work).resolve()
    listed = [{"name": name, "script": script} for name, script in cases.items()]
    (work / "cases.json").write_text(json.dumps(listed))
    command = [
        folder / "kernel" / "usr" / "bin" / "linux.uml", "mem=512M", "rootfstype=hostfs",
        "rootflags=/", "rw", f"init={HERE / 'guest.py'}", "con=null", "con0=fd:0,fd:1", "ssl=null",
        "quiet", *(f"virtio_uml.device={socket}:2" for socket in disks), f"WORK={work}",
        f"MODULES={folder / 'kernel' / 'usr' / 'lib' / 'uml' / 'modules'}"]
    env = {**os.environ, "LD_PRELOAD": str(folder / "shim.so"), "TMPDIR": memory_folder(work)}
    boot(command, env, work, timeout_s)
    text = (work / "console.log").read_text(errors="replace")[-3000:]
    if not (work / "finished").exists():
        raise RuntimeError(f"the guest did not finish; its console:\n{text}")
    return json.loads((work / "results.json").read_text())
