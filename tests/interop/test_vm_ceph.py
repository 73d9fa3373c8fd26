"""What `vm xml` prints for volumes in Ceph: libvirt starts a QEMU with it, which opens them.

A real cluster of one node (radosgw.py) and a libvirtd of our own (test_libvirt.py). With the engine
"librbd" Ceph's library decrypts, and LUKS2 is possible; with "qemu" QEMU does.
"""

import json
import re
import uuid
from pathlib import Path

import pytest

from kit import CHEAP, MIB, bytes_of, lukskeep, run, without, write
from test_libvirt import libvirtd, nodes, start, undefine_all, xml  # noqa: F401
from test_rbd import image, pool  # noqa: F401

SIZE = 4 * MIB
CEPH_SECRET = """<secret ephemeral='yes' private='yes'>
  <uuid>{uuid}</uuid>
  <usage type='ceph'><name>client.admin</name></usage>
</secret>
"""


@pytest.fixture
def block_rbd():
    """QEMU's driver for Ceph is a module in a package of its own."""
    if not list(Path("/usr/lib").glob("*/qemu/block-rbd.so")):
        without("qemu-block-extra is not installed")


@pytest.fixture
def access(libvirtd, pool):  # noqa: F811
    """The options that say how libvirt gets to the cluster; its key is in libvirtd."""
    name = str(uuid.uuid4())
    libvirtd.virsh("secret-define", write(libvirtd.folder / "ceph.xml",
                                          CEPH_SECRET.format(uuid=name).encode()))
    key = run(["ceph", "auth", "get-key", "client.admin"], env=pool.env).stdout.decode().strip()
    libvirtd.virsh("secret-set-value", name, key)
    host = re.search(r"v1:(\S+:\d+)\]", pool.conf.read_text()).group(1)
    yield ["--rbd-host", host, "--rbd-user", "admin", "--rbd-secret", name]
    libvirtd.virsh("destroy", "ceph", status=None)
    undefine_all(libvirtd)


def io(libvirtd, command):  # noqa: F811
    """What the guest would do with its disk. QEMU prints the result to its own log."""
    said = json.loads(libvirtd.virsh("qemu-monitor-command", "ceph", '{"execute":"query-block"}'))
    device = said["return"][0]["qdev"]
    said = libvirtd.virsh("qemu-monitor-command", "--hmp", "ceph",
                          f'qemu-io -d {device} "{command}"')
    assert said.strip() == "", said


@pytest.mark.parametrize("kind, engine", [("luks1", "librbd"), ("luks2", "librbd"),
                                          ("luks1", "qemu")])
def test_a_domain_opens_a_volume_in_ceph(kind, engine, libvirtd, block_rbd, pool, image,  # noqa: F811
                                         access, keys, tmp_path):
    plain = write(tmp_path / "plain", bytes_of(kind, SIZE))
    uri, key = pool.uri(image), f"file:{keys[0]}"
    lukskeep("encrypt", plain, uri, "--type", kind, "--payload-offset", "16MiB", "--key", key,
             *CHEAP["pbkdf2"])
    lukskeep("vm", "define", "--volume", uri, "--key", key, "--connect", libvirtd.uri)
    disk = xml("--volume", uri, "--engine", engine, *access, part="disk")
    start(libvirtd, "ceph", disk)
    found = nodes(libvirtd, "ceph")
    assert any(node["drv"] == "rbd" for node in found.values())
    assert any(node["drv"] == "luks" for node in found.values()) == (engine == "qemu")
    io(libvirtd, "read -v 0 512")
    io(libvirtd, "write -P 0x5a 1M 64k")
    io(libvirtd, "flush")
    log = next(libvirtd.folder.rglob("ceph.log")).read_text(errors="replace")
    assert f"00000000:  {plain.read_bytes()[:16].hex(' ')}" in log, log
    libvirtd.virsh("destroy", "ceph")
    now = lukskeep("decrypt", uri, "-", "--key", key).stdout
    want = bytearray(plain.read_bytes())
    want[MIB:MIB + 65536] = b"\x5a" * 65536
    assert now[:SIZE] == want
