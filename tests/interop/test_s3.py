"""Mirrors of the archive in a bucket of a real object store, the gateway of Ceph."""

import contextlib
import json
import re
import selectors
import shutil
import socket
import threading
import uuid
from pathlib import Path

import pytest

import kit
import radosgw
from conftest import shared_folder

PBKDF2 = kit.CHEAP["pbkdf2"]


@pytest.fixture(scope="session")
def gateway(request):
    with radosgw.cluster(shared_folder(request.config) / "radosgw") as found:
        yield found


class Machine:
    """A user's machine: an archive, its key, credentials for the bucket and two volumes."""

    def __init__(self, folder, secret=radosgw.SECRET_KEY, key=None):
        self.folder = folder
        folder.mkdir()
        self.store = folder / "store"
        self.key = folder / "archive-key"
        if key:
            shutil.copy(key, self.key)
        credentials = folder / "credentials"
        credentials.write_text(f"[other]\naws_access_key_id = WRONG\n[default]\n# a remark\n"
                               f"aws_access_key_id = {radosgw.ACCESS_KEY}\n"
                               f"aws_secret_access_key={secret}\n")
        self.env = {"LUKSKEEP_ARCHIVE": str(self.store), "LUKSKEEP_ARCHIVE_KEY": str(self.key),
                    "LUKSKEEP_S3_CREDENTIALS": str(credentials), "no_proxy": "*"}
        kit.write(folder / "k", b"passphrase")

    def run(self, *words, status=0):
        return kit.lukskeep(*words, status=status, env=self.env, cwd=self.folder)

    def json(self, *words, status=0):
        return json.loads(self.run(*words, "--json", status=status).stdout)

    def volume(self, name="v", *more):
        self.run("create", name, "--size", "64K", "--type", "luks1", "--key", "file:k", *PBKDF2,
                 *more)
        return self.folder / name

    def change(self, name="v"):
        self.run("key", "change", name, "--key", "file:k", "--new-key", "file:k", *PBKDF2)

    def snapshots(self):
        """Names below the archive, with bytes."""
        return {str(path.relative_to(self.store)): path.read_bytes()
                for path in self.store.rglob("*.snapshot")}

    def status(self):
        done = self.run("archive", "status", "--json", status=None)
        return done.returncode, json.loads(done.stdout)["unsynced"]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "one")


@pytest.fixture(params=["plain", "versioned", "locked"])
def kind(request):
    return request.param


@pytest.fixture
def bucket(gateway):
    return gateway.make_bucket(f"b-{uuid.uuid4()}")


def uri(port, bucket, prefix="/archives/a b"):
    return f"s3+http://127.0.0.1:{port}/{bucket}{prefix}"


class Link:
    """A way to the gateway that can be cut, and be made again on the same port."""

    def __init__(self, port):
        self.target = port
        self.port = radosgw.free_ports(1)[0]
        self.server = None
        self.lock = threading.Lock()
        self.open = set()

    def up(self):
        self.server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, args=(self.server,), daemon=True).start()
        return self

    def down(self):
        if self.server:
            self.server.shutdown(socket.SHUT_RDWR)
            self.server.close()
            self.server = None
        with self.lock:
            for end in self.open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def accept(self, server):
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        with contextlib.suppress(OSError), near, \
                socket.create_connection(("127.0.0.1", self.target)) as far, \
                selectors.DefaultSelector() as ready:
            with self.lock:
                self.open |= {near, far}
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    key.data.sendall(data)


@pytest.fixture
def link(gateway):
    made = Link(gateway.port).up()
    yield made
    made.down()


def test_what_is_archived_arrives(gateway, machine, kind):
    """As it is, under its own name, once, whatever kind of bucket it is."""
    bucket = gateway.make_bucket(f"b-{uuid.uuid4()}", versioned=kind != "plain",
                                 locked=kind == "locked")
    machine.volume()
    assert len(machine.snapshots()) == 1
    done = machine.json("archive", "mirror", uri(gateway.port, bucket))
    assert (done["sent"], done["problems"]) == (1, [])
    for _ in range(2):
        machine.change()
    machine.volume("w")
    there = gateway.objects(bucket)
    here = machine.snapshots()
    assert len(here) == 4
    assert there == {f"archives/a b/{name}": data for name, data in here.items()}
    assert machine.status() == (0, False)
    assert machine.json("archive", "sync")["sent"] == 0
    if kind != "plain":
        assert gateway.versions(bucket) == sorted(there)  # one of each
    if kind == "locked":
        version = re.search(rb"<VersionId>([^<]+)</VersionId>",
                            gateway.call("GET", f"/{bucket}?versions=")).group(1).decode()
        name = gateway.versions(bucket)[0].replace(" ", "%20")
        gateway.call("DELETE", f"/{bucket}/{name}?versionId={version}", status=403)
    # Pruning here takes nothing away there.
    machine.run("archive", "prune", "--keep", "1")
    assert len(machine.snapshots()) < 4
    assert len(gateway.names(bucket)) == 4


def test_whole_bucket_without_a_prefix(gateway, machine, bucket):
    machine.volume()
    gateway.call("PUT", f"/{bucket}/something-else", body=b"x")
    gateway.call("PUT", f"/{bucket}/snapshots/readme.txt", body=b"x")
    machine.run("archive", "mirror", uri(gateway.port, bucket, ""))
    assert set(gateway.names(bucket)) == \
        {"something-else", "snapshots/readme.txt", *machine.snapshots()}


def test_another_machine_recovers_with_bucket_and_key(gateway, machine, bucket, tmp_path):
    payload = kit.bytes_of(1, 65536)
    kit.write(machine.folder / "payload", payload)
    machine.run("encrypt", "payload", "v", "--type", "luks1", "--key", "file:k", *PBKDF2)
    volume = machine.folder / "v"
    machine.run("archive", "mirror", uri(gateway.port, bucket))
    machine.change()
    kit.write(machine.folder / "k2", b"another")
    machine.run("key", "add", "v", "--key", "file:k", "--new-key", "file:k2", *PBKDF2)
    newest = machine.json("archive", "list")["snapshots"][0]["id"]
    # The machine is lost but for a copy of its key, and the disk comes back without a header.
    other = Machine(tmp_path / "two", key=machine.key)
    header = volume.read_bytes()
    ruined = bytearray(header)
    ruined[:65536] = bytes(65536)
    kit.write(other.folder / "v", ruined)
    before = gateway.versions(bucket)
    other.run("archive", "sync", "--from", uri(gateway.port, bucket), "--dry-run")
    assert not other.store.exists()
    done = other.json("archive", "sync", "--from", uri(gateway.port, bucket))
    assert (done["fetched"], done["problems"]) == (len(machine.snapshots()), [])
    assert sorted(other.snapshots().values()) == sorted(machine.snapshots().values())
    other.run("header", "restore", "v", f"archive:{newest}", "--yes")
    kit.write(other.folder / "k2", b"another")
    other.run("decrypt", "v", "out", "--key", "file:k2")
    assert (other.folder / "out").read_bytes() == payload
    # Once more takes in nothing, and what came from there does not go back under other names.
    assert other.json("archive", "sync", "--from", uri(gateway.port, bucket))["fetched"] == 0
    other.run("archive", "mirror", uri(gateway.port, bucket))
    # But what was left of the header, and the header as it is since it was restored.
    assert set(before) < set(gateway.versions(bucket))
    assert len(gateway.versions(bucket)) == len(before) + 2
    # A file that is lost here comes back from there.
    lost = next(other.store.rglob("*.snapshot"))
    bytes_of_lost = lost.read_bytes()
    lost.unlink()
    assert other.json("archive", "sync", "--from", uri(gateway.port, bucket))["fetched"] == 1
    assert lost.read_bytes() == bytes_of_lost


def test_nothing_is_overwritten(gateway, machine, bucket, link):
    """A name that somebody else's bytes have there stays theirs; who recovers is told."""
    machine.volume()
    machine.run("archive", "mirror", uri(link.port, bucket, ""))
    link.down()
    machine.run("key", "change", "v", "--key", "file:k", "--new-key", "file:k", *PBKDF2)
    name = sorted(machine.snapshots())[-1]
    assert name not in gateway.names(bucket)
    gateway.call("PUT", f"/{bucket}/{name}", body=b"planted")
    link.up()
    assert machine.json("archive", "sync")["sent"] == 0
    assert gateway.call("GET", f"/{bucket}/{name}") == b"planted"
    other = Machine(machine.folder.parent / "two", key=machine.key)
    done = other.json("archive", "sync", "--from", uri(link.port, bucket, ""), status=4)
    assert done["fetched"] == 1 and len(done["problems"]) == 1 and name in done["problems"][0]
    # The machine that has it sound loses nothing to what was planted.
    before = machine.snapshots()
    machine.run("archive", "sync", "--from", uri(link.port, bucket, ""))
    assert machine.snapshots() == before


@pytest.mark.parametrize("what", ["secret", "user", "bucket", "credentials"])
def test_refused(gateway, machine, bucket, what):
    machine.volume()
    credentials = Path(machine.env["LUKSKEEP_S3_CREDENTIALS"])
    text = credentials.read_text()
    target = uri(gateway.port, bucket)
    status, message = {
        "secret": (2, "403 (SignatureDoesNotMatch)"), "user": (2, "403 (InvalidAccessKeyId)"),
        "bucket": (1, "404 (NoSuchBucket)"), "credentials": (1, "no credentials")}[what]
    if what == "secret":
        credentials.write_text(text + "aws_secret_access_key = wrong\n")
    if what == "user":
        credentials.write_text(text + "aws_access_key_id = wrong\n")
    if what == "credentials":
        credentials.unlink()
    if what == "bucket":
        target = uri(gateway.port, f"no-{bucket}")
    done = machine.run("archive", "mirror", target, status=None)
    assert message in done.stderr.decode(), done
    assert b"lukskeep: hint: " in done.stderr
    assert b"se/cret" not in done.stderr
    assert done.returncode == status, done
    assert machine.json("archive", "mirror")["mirrors"] == []
    # A mirror that was good once: the change is made and archived, and what lacks is told.
    credentials.write_text(text)
    machine.run("archive", "mirror", uri(gateway.port, bucket))
    if what == "bucket":
        for name in gateway.names(bucket):
            gateway.call("DELETE", f"/{bucket}/" + name.replace(" ", "%20"), status=204)
        gateway.call("DELETE", f"/{bucket}", status=204)
    elif what == "credentials":
        credentials.unlink()
    else:
        credentials.write_text(text + ("aws_secret_access_key" if what == "secret" else
                                       "aws_access_key_id") + " = wrong\n")
    done = machine.run("key", "change", "v", "--key", "file:k", "--new-key", "file:k", *PBKDF2)
    assert b"lacks the newest snapshots" in done.stderr and message.encode() in done.stderr
    assert len(machine.snapshots()) == 2
    assert machine.status() == (1, True)
    if what != "bucket":
        credentials.write_text(text)
        assert machine.json("archive", "sync")["sent"] == 1
        assert machine.status() == (0, False)


def test_server_that_was_away_catches_up(gateway, machine, bucket, link):
    machine.volume()
    machine.run("archive", "mirror", uri(link.port, bucket))
    link.down()
    done = machine.run("key", "change", "v", "--key", "file:k", "--new-key", "file:k", *PBKDF2)
    assert b"lacks the newest snapshots" in done.stderr
    assert len(machine.snapshots()) == 2 and len(gateway.names(bucket)) == 1
    assert machine.status() == (1, True)
    failed = machine.run("archive", "sync", "--json", status=7)
    assert json.loads(failed.stdout)["sent"] == 0 and json.loads(failed.stdout)["problems"]
    # The first change that finds it again brings all that was missed.
    link.up()
    machine.change()
    assert len(gateway.names(bucket)) == 3
    assert machine.status() == (0, False)
    link.down()
    machine.run("key", "change", "v", "--key", "file:k", "--new-key", "file:k", *PBKDF2)
    link.up()
    assert machine.json("archive", "sync")["sent"] == 1
    assert machine.status() == (0, False)
    assert len(gateway.names(bucket)) == 4


def test_more_than_a_page(gateway, machine, bucket):
    """A list of more than a thousand names comes in pages, with keys that have to be escaped."""
    machine.volume()
    name, data = next(iter(machine.snapshots().items()))
    folder = name.rpartition("/")[0]
    names = [f"{folder}/{1000 + number}-{number:012x}.snapshot" for number in range(1001)]
    # One connection for all: curl reads the list of them.
    gateway.put_all(bucket, {f"p&q=+/{each}": b"x" for each in names})
    assert len(gateway.names(bucket)) == 1000
    done = machine.run("archive", "sync", "--dry-run", "--from",
                       uri(gateway.port, bucket, "/p&q=+"))
    assert b"the 1001 snapshots" in done.stdout
    # None of them is sound: told up to a bound, and the sound one comes in all the same.
    machine.run("archive", "mirror", uri(gateway.port, bucket, "/p&q=+"))
    other = Machine(machine.folder.parent / "two", key=machine.key)
    done = other.run("archive", "sync", "--from", uri(gateway.port, bucket, "/p&q=+"), "--json",
                     status=4)
    answer = json.loads(done.stdout)
    assert answer["fetched"] == 1 and len(answer["problems"]) == 101
    assert answer["problems"][-1] == "and 901 more of that kind"
    assert list(other.snapshots().values()) == [data]
