"""The rows of bench/run about the archive: on a real disk, since durability is what it is for.

What they need is made here in a folder of the disk that holds build/, and removed afterwards.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import statistics
import tempfile
from pathlib import Path

MIB = 1 << 20
SNAPSHOTS = 100_000
VOLUMES = 1_000  # that the snapshots are of
IMAGES = 10_000
IMAGES_PER_VOLUME = 10  # of these one is a LUKS volume


class ArchiveRows:
    def __init__(self, bench, row, folder):
        self.bench = bench
        self.row = row
        self.folder = folder
        self.store = folder / "archive"
        self.volume = folder / "volume"
        self.labels = 0

    # ---- measuring -----------------------------------------------------------------------------

    def limited(self, what, argv, limit, unit, prepare=lambda: None):
        """A row of ours alone, with a limit of its own. The first run warms the caches."""
        factor = {"ms": 1000, "s": 1}[unit]
        times = []
        for _ in range(2 * self.bench.runs + 1):
            prepare()
            times.append(self.bench.process(argv) * factor)
        self.bench.add(self.row(what, statistics.median(times[1:]), unit, limit=limit))

    def quietly(self, *arguments):
        self.bench.process(self.bench.lukskeep(*map(str, arguments)))

    def archive(self, *arguments):
        return self.bench.lukskeep("archive", *map(str, arguments), "--store", str(self.store))

    def run(self):
        self.adding()
        self.catalogue()
        self.scanning()

    # ---- archive add -----------------------------------------------------------------------------

    def make_volume(self):
        """With noise where no keyslot is, as cryptsetup leaves it: nothing that compression helps."""
        self.quietly("create", self.volume, "--type", "luks2", "--size", "1M", "--key",
                     f"file:{self.bench.key}", "--pbkdf", "pbkdf2", "--pbkdf-iterations", "1000")
        self.quietly("erase", self.volume, "--unused")
        self.quietly("archive", "init", "--store", self.store)

    def change_header(self):
        self.labels += 1
        self.quietly("config", self.volume, "--label", f"state {self.labels}")
        self.settle()

    def settle(self):
        """What was written before is not what is measured."""
        os.sync()

    def adding(self):
        changed, unchanged = "archive add, changed header of 16 MiB", "archive add, unchanged header"
        peer = "luksHeaderBackup and sync"
        if not (self.bench.wants(changed, peer) or self.bench.wants(unchanged)):
            return
        self.make_volume()
        add = self.archive("add", self.volume)
        backup = self.folder / "backup"

        def remove_backup():
            backup.unlink(missing_ok=True)
            self.settle()

        copy = ["sh", "-c", 'cryptsetup luksHeaderBackup --header-backup-file "$1" "$2" && '
                'sync "$1" "$(dirname "$1")"', "sh", str(backup), str(self.volume)]
        self.bench.versus(changed, (self.change_header, add), peer, (remove_backup, copy), 1 / 1.5)
        if self.bench.wants(unchanged):
            self.quietly(*add[1:])
            self.limited(unchanged, add, 5.0, "ms")

    # ---- a large catalogue -----------------------------------------------------------------------

    def fill_catalogue(self):
        """Rows beside the one of a true snapshot. Their files are not made: to seal so many takes
        minutes, and neither list nor show looks at files of others."""
        with contextlib.closing(sqlite3.connect(self.store / "catalogue.sqlite")) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(snapshots)")]
            pattern = dict(zip(columns, database.execute("SELECT * FROM snapshots").fetchone()))
            keys = [row[0] for row in database.execute("SELECT DISTINCT fingerprint FROM keys")]
            for number in range(1, SNAPSHOTS):
                volume = number % VOLUMES
                name = hashlib.sha256(str(number).encode()).hexdigest()
                uuid = f"00000000-0000-4000-8000-{volume:012x}"
                row = {**pattern, "number": pattern["number"] + number, "id": name, "uuid": uuid,
                       "device_path": f"/dev/mapper/disk-{volume}", "content_id": name,
                       "file": f"snapshots/{uuid}/{name}.lkh", "sequence_id": number,
                       "taken_ns": pattern["taken_ns"] - number * 10**9,
                       "reference": int(number < VOLUMES)}
                database.execute(f"INSERT INTO snapshots ({', '.join(columns)}) VALUES "
                                 f"({', '.join('?' * len(columns))})", [row[c] for c in columns])
                database.executemany("INSERT INTO keys VALUES (?, ?)",
                                     [(row["number"], key) for key in keys])
            database.commit()

    def catalogue(self):
        every = f"archive list, all of {SNAPSHOTS:,} snapshots"
        one = f"archive list --uuid, one volume of {VOLUMES:,}"
        show = f"archive show, by prefix among {SNAPSHOTS:,}"
        if not any(map(self.bench.wants, (every, one, show))):
            return
        shutil.rmtree(self.store, ignore_errors=True)
        self.volume.unlink(missing_ok=True)
        self.make_volume()
        self.quietly(*self.archive("add", self.volume)[1:])
        true_one = next(self.store.glob("snapshots/*/*"))
        with contextlib.closing(sqlite3.connect(self.store / "catalogue.sqlite")) as database:
            name, = database.execute("SELECT id FROM snapshots").fetchone()
        assert true_one.is_file()
        self.fill_catalogue()
        uuid = f"00000000-0000-4000-8000-{1:012x}"
        for what, argv in ((every, self.archive("list")), (one, self.archive("list", "--uuid", uuid)),
                           (show, self.archive("show", name[:16]))):
            if self.bench.wants(what):
                self.limited(what, argv, 0.2, "s")

    # ---- many images -----------------------------------------------------------------------------

    def make_images(self, images):
        """Sparse images of 32 MiB; one in ten a volume whose keyslot has real material."""
        images.mkdir()
        source = images / "image-0"
        self.quietly("create", source, "--type", "luks1", "--size", "1M", "--key",
                     f"file:{self.bench.key}", "--pbkdf", "pbkdf2", "--pbkdf-iterations", "1000")
        with open(source, "rb") as file:
            header = bytearray(file.read(MIB))
        for number in range(1, IMAGES):
            with open(images / f"image-{number}", "wb") as file:
                if number % IMAGES_PER_VOLUME == 0:
                    header[168:204] = f"00000000-0000-4000-8000-{number:012x}".encode()
                    file.write(header)
                else:
                    file.write(b"\xeb\x63\x90" + bytes(507) + b"\x55\xaa")  # an MBR
                file.truncate(32 * MIB)

    def scanning(self):
        what = f"archive scan of {IMAGES:,} image files, warm"
        if not self.bench.wants(what):
            return
        if not self.store.exists():
            self.quietly("archive", "init", "--store", self.store)
        images = self.folder / "images"
        self.make_images(images)
        self.limited(what, self.archive("scan", images), 10.0, "s")


@contextlib.contextmanager
def disk_folder(root):
    """A folder beside build/, and the archive's key within it instead of the user's."""
    base = root / "build"
    base.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-disk-", dir=base))
    os.environ["LUKSKEEP_ARCHIVE_KEY"] = str(folder / "archive-key")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
