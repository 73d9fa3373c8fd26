"""The rows of bench/run about bindings: one that opens, and a thousand that are rekeyed.

The server is tangd behind socat for the first, ours for the second, both made here.
"""

import contextlib
import json
import re
import shutil
import signal
import statistics
import subprocess

from seal_rows import TANG, server

UNLOCK = "unlock by tang"
PASS = "clevis luks pass"
REKEY = "rekey of 1 000 LUKS2 files"
FEW = 250
MANY = 1000


class NbdeRows:
    def __init__(self, bench, row):
        self.bench = bench
        self.row = row
        self.keys = bench.path("nbde-db")

    def run(self):
        if not any(map(self.bench.wants, (f"{UNLOCK} against {PASS}", REKEY))):
            return
        if not shutil.which("socat") or not shutil.which("clevis"):
            raise SystemExit("bench: socat or clevis-luks is not installed")
        self.keys.mkdir()
        subprocess.run([f"{TANG}-keygen", self.keys], check=True)
        self.unlock()
        self.rekey()

    def make(self, name, url):
        """A LUKS2 volume as Clevis binds it."""
        path = self.bench.path(name)
        key = self.bench.path("nbde-key")
        key.write_bytes(b"a passphrase")
        quiet = {"check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([self.bench.program, "create", path, "--size", "64K", "--keyslots-size", "1M",
                        "--key", f"file:{key}", "--pbkdf", "pbkdf2", "--pbkdf-iterations", "1000"],
                       **quiet)
        subprocess.run(["clevis", "luks", "bind", "-d", path, "-y", "-k", key, "tang",
                        json.dumps({"url": url})], **quiet)
        return path

    def unlock(self):
        with server(self.keys) as url:
            volume = self.make("nbde-volume", url)
            self.bench.versus(UNLOCK, (lambda: None, self.bench.lukskeep("unlock", volume)), PASS,
                              (lambda: None, ["clevis", "luks", "pass", "-d", volume, "-s", "1"]),
                              10.0)

    @contextlib.contextmanager
    def ours(self):
        process = subprocess.Popen([self.bench.program, "tang", "serve", "--keys", self.keys,
                                    "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE)
        try:
            port = re.search(rb":(\d+)$", process.stdout.readline().strip())[1].decode()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def rate(self, folder, count):
        """Volumes a second; each run has a journal of its own, so that it does all of them."""
        def once(number):
            journal = self.bench.path(f"nbde-journal-{number}")
            try:
                return count / self.bench.process(self.bench.lukskeep(
                    "rekey", "--directory", folder, "--journal", journal, "--quiet"))
            finally:
                journal.unlink()
        return statistics.median(once(number) for number in range(max(1, self.bench.runs // 2)))

    def rekey(self):
        if not self.bench.wants(REKEY):
            return
        rates = {}
        with self.ours() as url:
            volume = self.make("nbde-template", url)
            for count in (FEW, MANY):
                folder = self.bench.path(f"nbde-{count}")
                folder.mkdir()
                for number in range(count):
                    path = folder / f"{number:04}"
                    subprocess.run(["cp", "--sparse=always", volume, path], check=True)
                rates[count] = self.rate(folder, count)
                shutil.rmtree(folder)
        self.bench.add(self.row(REKEY, rates[MANY], "1/s", f"rekey of {FEW}", rates[FEW], 0.8))
