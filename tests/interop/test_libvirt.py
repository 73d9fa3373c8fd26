"""What `vm xml` prints and `vm define` gives, in a libvirtd of our own: it runs as nobody, in a folder."""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

import qemu10
import uml
from kit import CHEAP, MIB, bytes_of, lukskeep, need, run, search_path, without, write

NOBODY = 65534
DOMAIN = """<domain type='qemu'{space}>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices><emulator>{emulator}</emulator>{disk}<memballoon model='none'/></devices>
  {more}
</domain>
"""


class Libvirtd:
    def __init__(self, folder):
        self.folder = folder
        env = {**os.environ, "PATH": search_path(), "HOME": str(folder)}
        for name in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME"):
            env[f"XDG_{name}"] = str(folder / name.lower())
            (folder / name.lower()).mkdir(mode=0o700)
        self.user = []
        if os.geteuid() == 0:
            self.user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            self.give(folder)
        self.socket = folder / "runtime_dir" / "libvirt" / "libvirt-sock"
        with open(folder / "libvirtd.log", "wb") as log:
            self.process = subprocess.Popen([*self.user, "libvirtd"], env=env, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL,
                                            preexec_fn=uml.die_with_parent)
        deadline = time.monotonic() + 60
        while not self.socket.exists():
            assert time.monotonic() < deadline and self.process.poll() is None, \
                (folder / "libvirtd.log").read_text()
            time.sleep(0.05)
        self.uri = f"qemu:///session?socket={self.socket}"

    def give(self, path):
        """To the user that the domains run as."""
        if self.user:
            for one in (path, *path.rglob("*")):
                os.chown(one, NOBODY, NOBODY)

    def virsh(self, *arguments, status=0, **options):
        return run(["virsh", "-q", "-c", self.uri, *arguments], status, **options).stdout.decode()

    def stop(self):
        for name in self.virsh("list", "--name", "--all", status=None).split():
            self.virsh("destroy", name, status=None)
        qemu10.stop(self.process)


@pytest.fixture(scope="module")
def libvirtd():
    need("libvirtd", "virsh", "qemu-system-x86_64")
    # Short, for the sockets in it, and open to whom the domains run as.
    folder = Path(tempfile.mkdtemp(prefix="lkv-", dir="/tmp"))
    folder.chmod(0o755)
    with qemu10.running(Libvirtd(folder)) as daemon:
        yield daemon
    shutil.rmtree(folder)


@pytest.fixture
def volume(libvirtd, keys, request):
    """The options that name a volume whose name needs escaping."""
    folder = libvirtd.folder / f"v{abs(hash(request.node.name)) % 10**8}"
    folder.mkdir()
    plain = write(folder / "plain", bytes_of("libvirt", MIB))
    detached = "detached" in request.node.name
    payload = folder / "it's <a> \"volume\" & more.luks"
    header = ["--header", folder / "h&h"] if detached else []
    lukskeep("encrypt", plain, payload, *header, "--type", "luks1", "--key", f"file:{keys[0]}",
             *CHEAP["pbkdf2"])
    libvirtd.give(folder)
    return ["--volume", payload, *header]


def xml(*arguments, part, status=0):
    done = lukskeep("vm", "xml", *arguments, "--part", part, status=status)
    return done.stdout.decode()


def valid(schema, text, folder):
    path = write(folder / "checked.xml", text.encode())
    run(["virt-xml-validate", path, schema])


def domain_file(libvirtd, name, disk="", more="", space="",
                emulator="/usr/bin/qemu-system-x86_64"):
    return write(libvirtd.folder / f"{name}.xml",
                 DOMAIN.format(name=name, disk=disk, more=more, space=space,
                               emulator=emulator).encode())


def start(libvirtd, name, disk="", **more):
    libvirtd.virsh("create", "--paused", domain_file(libvirtd, name, disk, **more))


def nodes(libvirtd, name):
    said = json.loads(libvirtd.virsh("qemu-monitor-command", name,
                                     '{"execute":"query-named-block-nodes"}'))["return"]
    return {node["node-name"]: node for node in said}


def undefine_all(libvirtd):
    for line in libvirtd.virsh("secret-list").splitlines():
        libvirtd.virsh("secret-undefine", line.split()[0])


def test_a_domain_opens_the_volume_with_the_secret(libvirtd, volume, keys, tmp_path):
    need("virt-xml-validate", "xmllint")
    disk = xml(*volume, "--serial", "s-1", part="disk")
    secret = xml(*volume, part="secret")
    valid("secret", secret, tmp_path)
    whole = DOMAIN.format(name="d", disk=disk, more="", space="", emulator="/bin/true")
    valid("domain", whole, tmp_path)
    assert ElementTree.fromstring(disk).find("source").get("file") == str(volume[1])

    # Without a value it does not start.
    libvirtd.virsh("secret-define", write(libvirtd.folder / "s.xml", secret.encode()))
    early = run(["virsh", "-c", libvirtd.uri, "create", domain_file(libvirtd, "early", disk)], 1)
    assert b"secret" in early.stderr
    said = json.loads(lukskeep("vm", "define", *volume, "--key", f"file:{keys[0]}", "--connect",
                               libvirtd.uri, "--json").stdout)
    assert said["secret_uuid"] in libvirtd.virsh("secret-list") and said["usage"] == str(volume[1])
    assert b"private" in run(["virsh", "-c", libvirtd.uri, "secret-get-value",
                              said["secret_uuid"]], 1).stderr
    start(libvirtd, "works", disk)
    assert any(node["drv"] == "luks" for node in nodes(libvirtd, "works").values())
    libvirtd.virsh("destroy", "works")
    undefine_all(libvirtd)


def test_a_volume_is_plugged_into_a_running_domain(libvirtd, volume, keys):
    start(libvirtd, "hot")
    lukskeep("vm", "define", *volume, "--key", f"file:{keys[0]}", "--connect", libvirtd.uri)
    disk = write(libvirtd.folder / "hot-disk.xml",
                 xml(*volume, "--target", "vdq", "--read-only", part="disk").encode())
    libvirtd.virsh("attach-device", "hot", disk)
    assert "vdq" in libvirtd.virsh("domblklist", "hot")
    luks = [node for node in nodes(libvirtd, "hot").values() if node["drv"] == "luks"]
    assert len(luks) == 1 and luks[0]["ro"]
    libvirtd.virsh("destroy", "hot")
    undefine_all(libvirtd)


def test_a_detached_header_comes_on_the_command_line(libvirtd, volume, keys, tmp_path):
    """libvirtd hands our arguments on as they are, and QEMU 10 opens the volume with them."""
    space = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
    part = xml(*volume, "--secret-file", keys[0], "--id", "data", part="commandline")
    arguments = [one.get("value") for one in ElementTree.fromstring(part)]
    whole = domain_file(libvirtd, "apart", space=f" {space}", more=part.replace(f" {space}", ""))
    valid("domain", whole.read_text(), tmp_path)
    words = shlex.split(libvirtd.virsh("domxml-to-native", "qemu-argv", whole).replace("\\\n", ""))
    assert any(words[at:at + len(arguments)] == arguments for at in range(len(words))), words
    try:
        machine = qemu10.Machine(tmp_path, arguments=arguments)
    except qemu10.Unavailable as error:
        without(str(error))
    with qemu10.running(machine), qemu10.Monitor(machine.qmp) as monitor:
        found = {one["node-name"]: one for one in monitor.ask("query-named-block-nodes")}
        data = found["lk.data.luks"]["image"]["format-specific"]["data"]
        assert data["detached-header"] is True
        assert "data" in [one["name"] for one in monitor.ask("qom-list", path="/machine/peripheral")]


def test_what_libvirt_refuses_leaves_nothing(libvirtd, volume, keys, tmp_path):
    define = ["vm", "define", *volume, "--connect", libvirtd.uri]
    # Longer than virsh reads.
    long = write(tmp_path / "long", b"x" * 2000)
    lukskeep("key", "add", volume[1], "--key", f"file:{keys[0]}", "--new-key", f"file:{long}",
             *CHEAP["pbkdf2"])
    done = lukskeep(*define, "--key", f"file:{long}", status=7)
    assert b"does not take the value" in done.stderr
    assert libvirtd.virsh("secret-list").strip() == ""
    lukskeep(*define, "--key", f"file:{keys[1]}", status=2)
    done = lukskeep("vm", "define", *volume, "--key", f"file:{keys[0]}", "--connect",
                    f"qemu:///session?socket={tmp_path}/none", status=7)
    assert b"does not define secret" in done.stderr
