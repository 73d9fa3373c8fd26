"""The rows of bench/run about serving: clients of `lukskeep serve` against those of other servers on
the same image in memory."""

import contextlib
import json
import re
import statistics
import subprocess
import time

CLIENTS = 16
# Which CPUs the threads of client and server get makes two rates of one on a machine with two: many
# short rounds in turn see both.
RANDOM_SECONDS = 1
RANDOM_ROUNDS = 3  # for each run


class ServeRows:
    def __init__(self, bench, row):
        self.bench = bench
        self.row = row

    def run(self):
        self.copying()
        self.random_reads()
        self.memory()

    def ours(self, volume, command):
        return (lambda: None, self.bench.lukskeep("serve", volume, "--key", f"file:{self.bench.key}",
                                                  "--run", command))

    def copying(self):
        copy = 'nbdcopy "$uri" null:'
        cases = [("serve LUKS2, nbdcopy", "luks2", "nbdkit file", 0.85),
                 ("serve LUKS1, nbdcopy", "luks1", "nbdkit --filter=luks", 1.6),
                 ("serve LUKS1, nbdcopy", "luks1", "qemu-nbd driver=luks", 3.0)]
        for what, kind, peer, floor in cases:
            if not self.bench.wants(what, peer):
                continue
            volume = self.bench.volume(f"volume-{kind}", kind)
            if peer == "nbdkit file":
                argv = ["nbdkit", "-U", "-", "file", self.bench.image(), "--run", copy]
            elif peer == "nbdkit --filter=luks":
                argv = ["nbdkit", "-U", "-", "--filter=luks", "file", volume,
                        f"passphrase=+{self.bench.key}", "--run", copy]
            else:
                argv = ["sh", "-c", self.qemu_script(), "sh", self.bench.key, volume,
                        self.bench.path("qemu.sock")]
            self.bench.versus(what, self.ours(volume, copy), peer, (lambda: None, argv), floor)

    @staticmethod
    def qemu_script():
        return ('rm -f "$3"; qemu-nbd --read-only --shared=8 --object "secret,id=s,file=$1" '
                '--image-opts "driver=luks,key-secret=s,file.filename=$2" --socket "$3" --fork && '
                'nbdcopy "nbd+unix:///?socket=$3" null:')

    # ---- random reads ------------------------------------------------------------------------------

    def reads_per_second(self, argv, socket):
        """4 KiB at random places, 16 in flight on one connection."""
        socket.unlink(missing_ok=True)
        server = subprocess.Popen([str(word) for word in argv], stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                assert server.poll() is None, argv
                time.sleep(0.01)
            done = subprocess.run(
                ["fio", "--name=reads", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}",
                 "--rw=randread", "--bs=4k", "--iodepth=16", "--time_based",
                 f"--runtime={RANDOM_SECONDS}", f"--size={self.bench.size}", "--norandommap",
                 "--output-format=json"], check=True, capture_output=True, text=True,
                cwd=self.bench.folder)
            text = done.stdout[done.stdout.index("{"):]
            return json.loads(text)["jobs"][0]["read"]["iops"]
        finally:
            server.terminate()
            server.wait()
            socket.unlink(missing_ok=True)

    def random_reads(self):
        what, peer = "serve LUKS2, random reads of 4 KiB, 16 in flight", "nbdkit file"
        if not self.bench.wants(what, peer):
            return
        socket = self.bench.path("reads.sock")
        volume = self.bench.volume("volume-luks2", "luks2")
        ours = self.bench.lukskeep("serve", volume, "--key", f"file:{self.bench.key}", "--socket",
                                   socket)
        theirs = ["nbdkit", "-f", "-U", socket, "file", self.bench.image()]
        times = {"ours": [], "peer": []}
        for _ in range(RANDOM_ROUNDS * self.bench.runs):
            # What 100,000 reads take, so that less is better as in the other rows.
            times["ours"].append(1e5 / self.reads_per_second(ours, socket))
            times["peer"].append(1e5 / self.reads_per_second(theirs, socket))
        self.bench.add(self.row(f"{what}, 100,000 of them", statistics.median(times["ours"]), "s", peer,
                                statistics.median(times["peer"]), 0.8))

    # ---- memory ------------------------------------------------------------------------------------

    def memory(self):
        what = f"peak memory of serve, {CLIENTS} nbdcopy at a time"
        if not self.bench.wants(what):
            return
        volume = self.bench.volume("volume-luks2", "luks2")
        server = subprocess.Popen([str(w) for w in self.bench.lukskeep(
            "serve", volume, "--key", f"file:{self.bench.key}", "--json")], stdout=subprocess.PIPE)
        try:
            uri = json.loads(server.stdout.readline())["exports"][0]["uri"]
            clients = [subprocess.Popen(["nbdcopy", uri, "null:"]) for _ in range(CLIENTS)]
            assert all(client.wait() == 0 for client in clients)
            with open(f"/proc/{server.pid}/status") as status:
                peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) / 1024
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.terminate()
            server.wait()
        self.bench.add(self.row(what, peak, "MiB", limit=128.0))
