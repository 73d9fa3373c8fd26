"""A private Ceph of one node with an object gateway, on loopback and in memory.

    python3 radosgw.py FOLDER    runs it until nobody holds FOLDER.users locked

All test processes of a run share one: see cluster().
"""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import quote

import kit
import shared_peer
from shared_peer import die_with_parent, free_ports

PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool", "radosgw",
            "radosgw-admin", "curl")
ACCESS_KEY = "AKLUKSKEEPTEST"
# With what has to be escaped somewhere.
SECRET_KEY = "se/cret+key=of&no%value"
START_SECONDS = 180

CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket =
log_file = {folder}/log/$name.log
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
auth_allow_insecure_global_id_reclaim = false
[mon.a]
mon_data = {folder}/mon
[osd.0]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
[client.rgw.a]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{rgw}
rgw_enable_usage_log = false
rgw_thread_pool_size = 16
"""


# ---- the process that keeps it ---------------------------------------------------------------


class Keeper(shared_peer.Keeper):
    def __init__(self, folder):
        super().__init__(folder)
        self.env = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf"),
                    "PATH": kit.search_path(), "LC_ALL": "C.UTF-8"}

    def call(self, *argv):
        done = subprocess.run([str(word) for word in argv], env=self.env, capture_output=True,
                              timeout=START_SECONDS, preexec_fn=die_with_parent)
        if done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stderr[-2000:]!r}")
        return done.stdout

    def daemon(self, *argv):
        log = open(self.folder / "log" / f"{argv[0]}.err", "wb")
        self.daemons.append(subprocess.Popen([*argv, "-f", "-c", self.folder / "ceph.conf"],
                                             env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, preexec_fn=die_with_parent))

    def wait_for(self, what, ready):
        end = time.monotonic() + START_SECONDS
        while not ready():
            for daemon in self.daemons:
                if daemon.poll() is not None:
                    raise RuntimeError(f"{daemon.args[0]} ended with {daemon.returncode}")
            if time.monotonic() > end:
                raise RuntimeError(f"waited {START_SECONDS} s for {what}")
            time.sleep(0.1)

    def keys(self):
        keyring = self.folder / "keyring"
        self.call("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.",
                  "--cap", "mon", "allow *")
        for name, caps in (("client.admin", {"mon": "allow *", "osd": "allow *"}),
                           ("osd.0", {"mon": "allow profile osd", "osd": "allow *"}),
                           ("client.rgw.a", {"mon": "allow rw", "osd": "allow rwx"})):
            words = [word for kind, cap in caps.items() for word in ("--cap", kind, cap)]
            self.call("ceph-authtool", keyring, "--gen-key", "-n", name, *words)
        return keyring

    def start(self):
        folder = self.folder
        for name in ("mon", "osd", "run", "log", "rgw"):
            (folder / name).mkdir(parents=True)
        mon, mon_v1, rgw = free_ports(3)
        fsid = str(uuid.uuid4())
        (folder / "ceph.conf").write_text(CONFIGURATION.format(
            fsid=fsid, folder=folder, mon=mon, mon_v1=mon_v1, rgw=rgw))
        keyring = self.keys()
        self.call("monmaptool", "--create", "--fsid", fsid, "--addv", "a",
                  f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]", folder / "monmap")
        self.call("ceph-mon", "-i", "a", "--mkfs", "--monmap", folder / "monmap", "--keyring",
                  keyring)
        self.daemon("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self.call("ceph", "osd", "new", osd)
        self.call("ceph", "auth", "import", "-i", keyring)
        self.call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.daemon("ceph-osd", "-i", "0")
        self.wait_for("the OSD", lambda: b"1 up" in self.call("ceph", "osd", "stat"))
        self.daemon("radosgw", "-n", "client.rgw.a")
        self.call("radosgw-admin", "user", "create", "--uid=u", "--display-name=u",
                  f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")

        def answers():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", rgw)):
                return True

        self.wait_for("the gateway", answers)
        return {"port": rgw}


# ---- for the tests -----------------------------------------------------------------------------


@contextlib.contextmanager
def cluster(folder):
    """The Gateway of a run of tests, started by whoever is first; `folder` is the same for all."""
    kit.need(*PROGRAMS)
    with shared_peer.running(folder, [sys.executable, __file__, folder], START_SECONDS) as state:
        yield Gateway(state["port"])


class Gateway:
    """Talks to it with curl, which is the second implementation here."""

    def __init__(self, port):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def call(self, method, path, status=200, body=b"", headers=()):
        words = [word for header in headers for word in ("-H", header)]
        digest = hashlib.sha256(body).hexdigest()
        done = subprocess.run(
            ["curl", "-q", "-sS", "--noproxy", "*", "--aws-sigv4", "aws:amz:us-east-1:s3",
             "--user", f"{ACCESS_KEY}:{SECRET_KEY}", "-H", f"x-amz-content-sha256: {digest}",
             *words, "-X", method, "-w", "\n%{http_code}", *(["--data-binary", "@-"] if body else []),
             self.url + path], input=body, capture_output=True, timeout=60, check=True)
        answer, _, code = done.stdout.rpartition(b"\n")
        assert int(code) == status, (method, path, code, answer)
        return answer

    def make_bucket(self, name, versioned=False, locked=False):
        self.call("PUT", f"/{name}",
                  headers=["x-amz-bucket-object-lock-enabled: true"] if locked else [])
        if versioned:
            self.call("PUT", f"/{name}?versioning=", body=b"<VersioningConfiguration>"
                      b"<Status>Enabled</Status></VersioningConfiguration>")
        if locked:
            self.call("PUT", f"/{name}?object-lock=", body=b"<ObjectLockConfiguration>"
                      b"<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
                      b"<Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule>"
                      b"</ObjectLockConfiguration>")
        return name

    def names(self, bucket, what="Contents", query="list-type=2&max-keys=1000"):
        root = ElementTree.fromstring(self.call("GET", f"/{bucket}?{query}"))
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        return [item.find(f"{space}Key").text for item in root.findall(f"{space}{what}")]

    def objects(self, bucket):
        """Every object with its bytes."""
        return {name: self.call("GET", f"/{bucket}/{quote(name)}") for name in self.names(bucket)}

    def put_all(self, bucket, objects):
        """Many small ones, over one connection."""
        lines = []
        for name, data in objects.items():
            lines.append("\n".join([
                f'url = "{self.url}/{bucket}/{quote(name)}"', "request = PUT", "silent", "fail",
                "show-error", 'aws-sigv4 = "aws:amz:us-east-1:s3"', 'noproxy = "*"',
                f'user = "{ACCESS_KEY}:{SECRET_KEY}"',
                f'header = "x-amz-content-sha256: {hashlib.sha256(data).hexdigest()}"',
                f'data-binary = "{data.decode()}"']))
        subprocess.run(["curl", "-q", "-K", "-"], input="\nnext\n".join(lines).encode(),
                       capture_output=True, timeout=120, check=True)

    def versions(self, bucket):
        return sorted(self.names(bucket, "Version", "versions="))


if __name__ == "__main__":
    shared_peer.keep(Keeper(Path(sys.argv[1])))
