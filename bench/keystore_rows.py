"""The rows of bench/run about the keystore: on a real disk, since durability is what it is for."""

import os
import sqlite3
import statistics
import time

SECRETS = 10_000


class KeystoreRows:
    def __init__(self, bench, row, folder):
        self.bench = bench
        self.row = row
        self.folder = folder

    def keystore(self, name, *arguments):
        return self.bench.lukskeep("keystore", *arguments, "--key-manager",
                                   f"file:{self.folder / name}")

    def init(self, name):
        self.bench.process(self.keystore(name, "init", "--wrapping-key", f"file:{self.bench.key}"))

    def one(self, name, count, begin):
        """Rows of secrets that the program stored itself, one process for all: keystore copy."""
        self.init(name)
        started = time.monotonic()
        self.bench.process(self.bench.lukskeep(
            "keystore", "copy", f"file:{self.folder / name}", *begin, "--key-manager",
            f"file:{self.folder / 'source'}"))
        return (time.monotonic() - started) * 1000 / count

    def run(self):
        store = f"keystore store, each of {SECRETS:,}, durable (copy --all)"
        get = f"keystore get, each of {SECRETS:,} (copy --all --dry-run)"
        process = f"keystore get, one process, among {SECRETS:,}"
        if not any(map(self.bench.wants, (store, get, process))):
            return
        self.fill_source()
        ids = self.ids("source")
        first = self.one("tenth", SECRETS // 10, ids[: SECRETS // 10])
        whole = self.one("whole", SECRETS, ["--all"])
        self.bench.add(self.row(store, whole, "ms", limit=5.0))
        # Linear: each of ten times as many takes no longer than twice as long.
        self.bench.add(self.row("… against each of a tenth as many", whole / first, "times", limit=2.0))
        argv = self.bench.lukskeep("keystore", "copy", f"file:{self.folder / 'tenth'}", "--all",
                                   "--dry-run", "--key-manager", f"file:{self.folder / 'whole'}")
        times = [self.bench.process(argv) * 1000 / SECRETS for _ in range(self.bench.runs)]
        self.bench.add(self.row(get, statistics.median(times), "ms", limit=1.0))
        argv = self.keystore("whole", "get", self.ids("whole")[SECRETS // 2])
        times = [self.bench.process(argv) * 1000 for _ in range(2 * self.bench.runs + 1)]
        self.bench.add(self.row(process, statistics.median(times[1:]), "ms", limit=15.0))

    def ids(self, name):
        with sqlite3.connect(self.folder / name) as database:
            return [row[0] for row in database.execute("SELECT id FROM secrets ORDER BY number")]

    def fill_source(self):
        """By doubling: copies into itself would be refused, so through a second keystore."""
        self.init("source")
        key = self.folder / "secret"
        key.write_bytes(os.urandom(64))
        for number in range(10):
            self.bench.process(self.keystore("source", "store", "--name", f"n{number}", "--secret",
                                             f"file:{key}"))
        self.init("other")
        while len(self.ids("source")) < SECRETS:
            for here, there in (("source", "other"), ("other", "source")):
                missing = SECRETS - len(self.ids(there))
                self.bench.process(self.bench.lukskeep(
                    "keystore", "copy", f"file:{self.folder / there}",
                    *self.ids(here)[:missing], "--key-manager", f"file:{self.folder / here}"))
        for suffix in ("", "-wal", "-shm"):
            (self.folder / f"other{suffix}").unlink(missing_ok=True)
