"""The rows of bench/run about inspection: a stream against `cat` of the same file to nowhere."""

import re
import statistics
import subprocess

MIB = 1 << 20


class InspectRows:
    def __init__(self, bench, row):
        self.bench = bench
        self.row = row

    def run(self):
        self.stream()
        self.small()
        self.memory()

    def from_stdin(self, *argv):
        """The image is opened by a shell, which the program then replaces."""
        return ["sh", "-c", 'image=$1; shift; exec "$@" < "$image"', "sh",
                str(self.bench.path("image")), *map(str, argv)]

    def stream(self):
        what, peer = "inspect of a stream, all formats at once", "cat to nowhere"
        if not self.bench.wants(what, peer):
            return
        image = self.bench.path("image")
        with open(image, "wb") as file, open("/dev/urandom", "rb") as source:
            for _ in range(self.bench.size // MIB):
                file.write(source.read(MIB))
        ours = self.from_stdin(self.bench.program, "inspect", "-")
        self.bench.versus(what, (lambda: None, ours), peer,
                          (lambda: None, self.from_stdin("cat")), 0.8)
        image.unlink()

    def small(self):
        what = "inspect of a small file, whole process"
        if not self.bench.wants(what):
            return
        image = self.bench.path("small.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1G"], check=True)
        argv = self.bench.lukskeep("inspect", image)
        times = [self.bench.process(argv) for _ in range(10 * self.bench.runs)]
        self.bench.add(self.row(what, statistics.median(times) * 1000, "ms", limit=15.0))

    def memory(self):
        """The process itself, not what it inherits: as the kernel has it while it waits for more."""
        what = "inspect, largest resident set of a stream"
        if not self.bench.wants(what):
            return
        process = subprocess.Popen([self.bench.program, "inspect", "-"], stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL)
        for _ in range(256):
            process.stdin.write(bytes(MIB))
        process.stdin.flush()
        with open(f"/proc/{process.pid}/status") as status:
            kib = int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1))
        process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"bench: inspect ended with {process.returncode}")
        self.bench.add(self.row(what, kib / 1024, "MiB", limit=16.0))
