#!/usr/bin/python3
"""The first process inside User-Mode Linux: runs the cases it finds and powers off.

The root is the host's own, over hostfs, so every program of the host is here. The kernel passes on
as environment what uml.py put on its command line: WORK, a folder of the host, which is mounted as
/run/work, and MODULES, where the modules of this kernel are. /run/work/cases.json is a list of
{"name", "script"}; results.json gets {"name": {"status", "output", "errors", "seconds"}}.
"""

import ctypes
import json
import os
import subprocess
import time
import traceback
from pathlib import Path

WORK = Path("/run/work")
# In this order: what dm-crypt depends on allocates cbc(aes), hmac and sha256 when it is loaded.
MODULES = ("cbc", "hmac", "sha256_generic", "sha512_generic", "ecb", "ctr", "xts", "lrw", "essiv",
           "serpent_generic", "twofish_generic", "camellia_generic", "cast5_generic", "rmd160",
           "wp512", "af_alg", "algif_skcipher", "algif_hash", "loop", "dm-mod", "dm-crypt",
           "virtio_blk")
POWER_OFF = 0x4321FEDC


def mount(kind, what, where, options=None):
    where = Path(where)
    where.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", kind, *(["-o", options] if options else []), what, where],
                   check=True)


def set_up():
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    for kind, where in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")):
        mount(kind, kind, where)
    if not os.path.ismount("/dev"):
        mount("devtmpfs", "devtmpfs", "/dev")
    mount("tmpfs", "shm", "/dev/shm")
    # The host's folder by its own path: /dev and /run hide what the host has there.
    mount("hostfs", "none", WORK, os.environ["WORK"])
    for folder in ("/run/cryptsetup", "/run/lock", "/run/mnt", "/dev/mapper"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    Path("/proc/sys/kernel/printk").write_text("3\n")

    release = os.uname().release
    Path("/run/modules/lib/modules").mkdir(parents=True)
    Path("/run/modules/lib/modules", release).symlink_to(Path(os.environ["MODULES"], release))
    for module in MODULES:
        done = subprocess.run(["modprobe", "-d", "/run/modules", "-S", release, module],
                              capture_output=True, text=True)
        if done.returncode != 0:
            print(f"modprobe {module}: {done.stderr.strip()}", flush=True)


def clean_up():
    """What a case that failed half-way has left must not fail the next."""
    for command in (["umount", "-q", "/run/mnt"], ["dmsetup", "remove_all", "--force"],
                    ["losetup", "-D"]):
        subprocess.run(command, capture_output=True)


def run_cases():
    results = {}
    for case in json.loads((WORK / "cases.json").read_text()):
        started = time.monotonic()
        try:
            done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", case["script"]], cwd=WORK,
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=90,
                                  text=True, errors="replace")
            status, output, errors = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            status, output, errors = 124, "", "not done in time"
        if status != 0:
            clean_up()
        results[case["name"]] = {"status": status, "output": output, "errors": errors,
                                 "seconds": time.monotonic() - started}
        (WORK / "results.json").write_text(json.dumps(results, indent=1))
    return results


if __name__ == "__main__":
    try:
        set_up()
        run_cases()
        (WORK / "finished").touch()
    except Exception:
        traceback.print_exc()
    finally:
        os.sync()
        ctypes.CDLL(None).reboot(POWER_OFF)
