"""Volumes as disks of a running QEMU 10: a guest reads and writes them, also with the header apart."""

import base64
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import qemu10
from kit import CHEAP, MIB, bytes_of, lukskeep, need, run, without, write

SIZE = 4 * MIB


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """One guest for all: it boots once."""
    try:
        machine = qemu10.Machine(tmp_path_factory.mktemp("machine"), guest=True)
    except qemu10.Unavailable as error:
        without(str(error))
    with qemu10.running(machine):
        yield machine


@pytest.fixture
def quiet_machine(tmp_path):
    """Without a guest."""
    try:
        machine = qemu10.Machine(tmp_path)
    except qemu10.Unavailable as error:
        without(str(error))
    with qemu10.running(machine):
        yield machine


@pytest.fixture
def daemon(tmp_path):
    try:
        daemon = qemu10.StorageDaemon(tmp_path)
    except qemu10.Unavailable as error:
        without(str(error))
    with qemu10.running(daemon):
        yield daemon


class Volume:
    def __init__(self, folder, key, *options, detached=True, kind="luks1"):
        self.plain = bytes_of(f"vm {options}", SIZE)
        write(folder / "plain", self.plain)
        self.key, self.payload, self.header = key, folder / "payload", folder / "header"
        self.where = ["--volume", self.payload] + (["--header", self.header] if detached else [])
        self.volume = [self.payload] + self.where[2:]
        lukskeep("encrypt", folder / "plain", *self.volume, "--type", kind, "--key", f"file:{key}",
                 *CHEAP["pbkdf2"], *options)

    def contents(self):
        out = self.payload.with_name("out")
        lukskeep("decrypt", *self.volume, out, "--key", f"file:{self.key}", "--holes", "keep",
                 "--yes")
        return out.read_bytes()


def attach(machine, volume, *options, status=0):
    done = lukskeep("vm", "attach", "--qmp", machine.qmp, *volume.where, "--key",
                    f"file:{volume.key}", "--json", *options, status=status)
    return json.loads(done.stdout)


def detach(machine, name, status=0):
    return lukskeep("vm", "detach", "--qmp", machine.qmp, "--id", name, "--timeout", "60",
                    status=status)


def disks(machine):
    return json.loads(lukskeep("vm", "list", "--qmp", machine.qmp, "--json").stdout)["disks"]


def nothing_left(machine):
    with qemu10.Monitor(machine.qmp) as monitor:
        nodes = monitor.ask("query-named-block-nodes", flat=True)
        objects = monitor.ask("qom-list", path="/objects")
    assert [node["node-name"] for node in nodes if node["node-name"].startswith("lk.")] == []
    assert [one["name"] for one in objects if one["name"].startswith("lk.")] == []


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def has_ended(pid):
    """Gone, or waiting for a parent that does not care."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def guest_disk(machine, name):
    """The block device in the guest whose serial number is `name`."""
    found = []

    def there():
        found[:] = machine.guest(
            "for d in /sys/block/*; do "
            "if [ \"$(cat $d/serial 2>/dev/null)\" = %s ] || "
            "tail -c +5 $d/device/vpd_pg80 2>/dev/null | grep -q %s; "
            "then basename $d; fi; done" % (name, name)).split()
        return bool(found)

    wait_for(there, f"{name} in the guest")
    return f"/dev/{found[0]}"


def guest_reads_and_writes(machine, volume, name):
    """The guest sees the contents, and what it writes is there when the disk is gone."""
    disk = guest_disk(machine, name)
    assert machine.guest(f"blockdev --getsize64 {disk}").strip() == str(SIZE)
    want = subprocess.run(["md5sum"], input=volume.plain, capture_output=True).stdout.split()[0]
    assert machine.guest(f"md5sum {disk}").split()[0] == want.decode()
    machine.guest(f"yes written | head -c 65536 | dd of={disk} bs=4096 seek=9 conv=fsync")
    detach(machine, name)
    wait_for(lambda: machine.guest(f"[ -e {disk} ] || echo gone").strip() == "gone", "disk gone")
    nothing_left(machine)
    changed = (b"written\n" * 8192)
    assert volume.contents() == volume.plain[:9 * 4096] + changed + volume.plain[9 * 4096 + 65536:]


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize("device", ["virtio-blk-pci", "virtio-scsi"])
def test_a_guest_uses_a_volume(machine, keys, tmp_path, device, detached):
    volume = Volume(tmp_path, keys[0], detached=detached)
    name = f"d{int(detached)}{device[7:10]}"
    said = attach(machine, volume, "--id", name, "--device", device)
    assert said["id"] == name and said["key_transfer"] == "sealed"
    listed = [disk for disk in disks(machine) if disk["id"] == name]
    assert listed[0]["volume"] == str(volume.payload)
    assert listed[0].get("header") == (str(volume.header) if detached else None)
    guest_reads_and_writes(machine, volume, name)


def test_a_machine_of_type_q35_has_ports_to_plug_into(keys, tmp_path):
    """PCI Express: nothing is plugged into its root bus, and a root port takes one device."""
    ports = [word for n in (1, 2)
             for word in ("-device", f"pcie-root-port,id=port{n},chassis={n},slot={n}")]
    try:
        machine = qemu10.Machine(tmp_path, guest=True, kind="q35", arguments=ports)
    except qemu10.Unavailable as error:
        without(str(error))
    with qemu10.running(machine):
        volume = Volume(tmp_path, keys[0])
        other = tmp_path / "other"
        other.mkdir()
        second = Volume(other, keys[0], detached=False)
        assert "hotplugging" in attach(machine, volume, status=7)["error"]["message"]
        nothing_left(machine)
        attach(machine, volume, "--device", "virtio-blk-pci", "--bus", "port1", "--id", "one")
        taken = attach(machine, second, "--bus", "port1", status=7)["error"]
        assert "refuses device_add" in taken["message"] and len(disks(machine)) == 1
        guest_reads_and_writes(machine, volume, "one")
        # The port that was given up takes another.
        attach(machine, second, "--device", "virtio-scsi", "--bus", "port1", "--id", "two")
        guest_reads_and_writes(machine, second, "two")


@pytest.mark.parametrize("options", [
    ("--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"),
    ("--cipher", "serpent-xts-plain64", "--key-size", "512"),
    ("--cipher", "twofish-cbc-plain64", "--key-size", "256"),
], ids=lambda options: options[1])
def test_ciphers_of_qemu(machine, keys, tmp_path, options):
    volume = Volume(tmp_path, keys[0], *options)
    name = attach(machine, volume)["id"]
    guest_reads_and_writes(machine, volume, name)


@pytest.mark.parametrize("kind, options", [
    ("luks2", ("--sector-size", "4096")),
    ("luks1", ("--cipher", "camellia-xts-plain64", "--key-size", "512")),
], ids=["luks2", "camellia"])
@pytest.mark.parametrize("detached", [True, False], ids=["detached", "attached"])
def test_what_qemu_cannot_open_comes_through_our_server(machine, keys, tmp_path, kind, options,
                                                       detached):
    volume = Volume(tmp_path, keys[1], *options, kind=kind, detached=detached)
    refused = attach(machine, volume, status=4)["error"]
    assert refused["code"] == "unsupported" and "--via nbd" in refused["hint"]
    nothing_left(machine)
    said = attach(machine, volume, "--via", "nbd", "--id", "served")
    server, socket = said["server"]["pid"], Path(said["server"]["socket"])
    assert disks(machine)[0]["via"] == "nbd" and disks(machine)[0]["volume"] == str(volume.payload)
    guest_reads_and_writes(machine, volume, "served")
    wait_for(lambda: has_ended(server), "the end of the server")
    assert not socket.parent.exists()


def test_the_server_ends_with_its_machine(keys, tmp_path, quiet_machine):
    volume = Volume(tmp_path, keys[0], kind="luks2")
    server = attach(quiet_machine, volume, "--via", "nbd")["server"]["pid"]
    arguments = Path(f"/proc/{server}/cmdline").read_bytes()
    assert b"volume-key-fd=" in arguments and b"first passphrase" not in arguments
    quiet_machine.process.kill()
    wait_for(lambda: has_ended(server), "the end of the server")


def test_a_read_only_disk(machine, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    before = volume.payload.read_bytes(), volume.header.read_bytes()
    for path in (volume.payload, volume.header):
        path.chmod(0o444)
    attach(machine, volume, "--id", "fixed", "--read-only")
    disk = guest_disk(machine, "fixed")
    assert machine.guest(f"cat /sys/block/{Path(disk).name}/ro").strip() == "1"
    machine.guest(f"dd if=/dev/zero of={disk} bs=4096 count=1 conv=fsync 2>/dev/null", status=1)
    detach(machine, "fixed")
    assert (volume.payload.read_bytes(), volume.header.read_bytes()) == before


def test_no_secret_stays(quiet_machine, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    attach(quiet_machine, volume, "--id", "d")
    with qemu10.Monitor(quiet_machine.qmp) as monitor:
        assert [one["name"] for one in monitor.ask("qom-list", path="/objects")
                if one["name"].startswith("lk.")] == []
    arguments = Path(f"/proc/{quiet_machine.process.pid}/cmdline").read_bytes()
    assert b"passphrase" not in arguments


def test_keys_stay_as_they_are_while_qemu_writes(quiet_machine, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    attach(quiet_machine, volume, "--id", "d")
    add = ["key", "add", *volume.volume, "--key", f"file:{keys[0]}", "--new-key", f"file:{keys[1]}",
           *CHEAP["pbkdf2"]]
    assert b"another program" in lukskeep(*add, status=5).stderr


def test_a_refused_step_undoes_the_others(quiet_machine, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    for options in (["--device", "no-such-device"], ["--bus", "no-such-bus"],
                    ["--device", "virtio-scsi", "--bus", "nowhere"]):
        error = attach(quiet_machine, volume, *options, status=7)["error"]
        assert "refuses device_add" in error["message"] and "undoing" not in error["message"]
        nothing_left(quiet_machine)
    volume.payload.rename(tmp_path / "elsewhere")
    assert attach(quiet_machine, volume, status=7)["error"]["message"].count("blockdev-add") == 1
    nothing_left(quiet_machine)
    # Nothing holds the volume.
    (tmp_path / "elsewhere").rename(volume.payload)
    assert volume.contents() == volume.plain


def test_wrong_passphrases_reach_no_qemu(quiet_machine, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    volume.key = keys[1]
    assert attach(quiet_machine, volume, status=2)["error"]["code"] == "wrong-passphrase"
    nothing_left(quiet_machine)


def test_a_guest_that_is_not_up_is_said(quiet_machine, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    attach(quiet_machine, volume, "--id", "d")
    done = lukskeep("vm", "detach", "--qmp", quiet_machine.qmp, "--id", "d", "--timeout", "1",
                    status=7)
    assert b"has not given up 'd' within 1 s" in done.stderr
    assert disks(quiet_machine)[0]["device"] == "virtio-blk-pci"
    # A machine that starts anew has let go of it.
    with qemu10.Monitor(quiet_machine.qmp) as monitor:
        monitor.ask("system_reset")
    wait_for(lambda: disks(quiet_machine)[0]["device"] is None, "the reset")
    detach(quiet_machine, "d")
    nothing_left(quiet_machine)


def test_older_qemu_is_told_what_it_lacks(keys, tmp_path):
    need("qemu-system-x86_64")
    version = run(["qemu-system-x86_64", "--version"]).stdout
    if int(re.search(rb"version (\d+)", version).group(1)) >= 9:
        pytest.skip("the QEMU that is installed knows detached headers")
    with qemu10.running(qemu10.Machine(tmp_path, program="qemu-system-x86_64")) as machine:
        volume = Volume(tmp_path, keys[0])
        error = attach(machine, volume, status=4)["error"]
        assert "knows no detached headers" in error["message"] and "--via nbd" in error["hint"]
        nothing_left(machine)
        attach(machine, volume, "--via", "nbd", "--id", "served")
        # This old one prints to its own standard output.
        said = machine.io("lk.served.nbd", "read -v 0 512")
        said += (tmp_path / "qemu.log").read_text(errors="replace")
        assert f"{volume.plain[0]:02x} {volume.plain[1]:02x}" in said
        apart = tmp_path / "apart"
        apart.mkdir()
        attach(machine, Volume(apart, keys[0], detached=False), "--id", "own")
        assert [disk["via"] for disk in disks(machine)] == ["qemu", "nbd"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_qemu_may_be_another_user(keys, tmp_path):
    """As under libvirt: the descriptor of the key and the socket of the server are for it too."""
    need("qemu-system-x86_64", "setpriv")
    nobody = 65534
    with tempfile.TemporaryDirectory(prefix="lkv-", dir="/tmp") as name:
        folder = Path(name)
        machine = qemu10.Machine(folder, program="qemu-system-x86_64", uid=nobody)
        with qemu10.running(machine):
            volume = Volume(folder, keys[0], detached=False)
            os.chown(volume.payload, nobody, nobody)
            assert attach(machine, volume, "--id", "own")["key_transfer"] == "sealed"
            served = Volume(tmp_path, keys[0], kind="luks2")
            server = attach(machine, served, "--via", "nbd", "--id", "served")["server"]
            assert os.stat(server["socket"]).st_uid == nobody
            said = machine.io("lk.own.luks", "read -v 0 512") + \
                machine.io("lk.served.nbd", "read -v 0 512")
            said += (folder / "qemu.log").read_text(errors="replace")
            assert said.count(f"{volume.plain[0]:02x} {volume.plain[1]:02x}") == 2


# ---- the storage daemon ------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["qemu", "nbd"])
def test_a_storage_daemon_serves_a_volume(daemon, keys, tmp_path, via):
    need("nbdcopy")
    volume = Volume(tmp_path, keys[0])
    socket = tmp_path / "n.sock"
    said = attach(daemon, volume, "--device", "nbd", "--export-socket", socket, "--id", "d",
                  "--via", via)
    assert said.get("key_transfer") == ("plain" if via == "qemu" else None)
    assert disks(daemon)[0]["device"] == "nbd"
    uri = f"nbd+unix:///d?socket={socket}"
    run(["nbdcopy", uri, tmp_path / "copy"])
    assert (tmp_path / "copy").read_bytes() == volume.plain
    changed = bytes_of("other", SIZE)
    run(["nbdcopy", write(tmp_path / "changed", changed), uri])
    detach(daemon, "d")
    nothing_left(daemon)
    assert not socket.exists()
    if via == "nbd":
        wait_for(lambda: has_ended(said["server"]["pid"]), "the end of the server")
    assert volume.contents() == changed


def test_a_detach_that_got_no_further_than_the_export_is_finished(daemon, keys, tmp_path):
    """As when it was killed, or its time was over: the NBD server goes with the second one."""
    try:
        import nbd
    except ImportError:
        without("python3-libnbd is not installed")
    volume, socket = Volume(tmp_path, keys[0]), tmp_path / "n.sock"
    attach(daemon, volume, "--device", "nbd", "--export-socket", socket, "--id", "d")
    client = nbd.NBD()
    client.connect_uri(f"nbd+unix:///d?socket={socket}")
    assert b"block-export-del" in detach(daemon, "d", status=7).stderr
    assert disks(daemon)[0]["device"] == "nbd"
    client.shutdown()
    with qemu10.Monitor(daemon.qmp) as monitor:
        monitor.ask("block-export-del", id="d")
    assert disks(daemon)[0]["device"] is None and socket.exists()
    detach(daemon, "d")
    nothing_left(daemon)
    assert not socket.exists()
    attach(daemon, volume, "--device", "nbd", "--export-socket", socket, "--id", "again")


def test_a_storage_daemon_exports_a_disk_for_a_guest(daemon, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    attach(daemon, volume, "--export-socket", tmp_path / "vu.sock", "--id", "d")
    assert disks(daemon)[0]["device"] == "vhost-user-blk" and (tmp_path / "vu.sock").exists()
    detach(daemon, "d")
    nothing_left(daemon)
    error = attach(daemon, volume, status=1)["error"]
    assert "--export-socket" in error["hint"]


# ---- headers and keys of either side -----------------------------------------------------------


def secret(path):
    return ["--object", f"secret,id=s,file={path}"]


def qemu_made(daemon, folder, key):
    """A volume whose detached header QEMU made over QMP."""
    payload, header = folder / "payload", folder / "header"
    payload.write_bytes(b"")
    os.truncate(payload, SIZE)
    with qemu10.Monitor(daemon.qmp) as monitor:
        monitor.ask("object-add", qom_type="secret", id="s", format="base64",
                    data=base64.b64encode(key.read_bytes()).decode())
        monitor.ask("blockdev-add", node_name="pay", driver="file", filename=str(payload))
        monitor.ask("blockdev-create", job_id="j0",
                    options={"driver": "file", "filename": str(header), "size": 0})
        monitor.finish_job("j0")
        monitor.ask("blockdev-add", node_name="hdr", driver="file", filename=str(header))
        monitor.ask("blockdev-create", job_id="j1",
                    options={"driver": "luks", "header": "hdr", "file": "pay", "size": SIZE,
                             "key-secret": "s", "iter-time": 10})
        monitor.finish_job("j1")
    daemon.stop()  # QEMU 10.0 keeps the nodes in use after the job
    volume = Volume.__new__(Volume)
    volume.key, volume.payload, volume.header = key, payload, header
    volume.where = ["--volume", payload, "--header", header]
    volume.volume = [payload, "--header", header]
    return volume


def test_detached_headers_made_by_qemu_open_in_ours(daemon, machine, keys, tmp_path):
    volume = qemu_made(daemon, tmp_path, keys[0])
    info = json.loads(lukskeep("info", *volume.volume, "--json").stdout)
    assert info["type"] == "luks1"
    volume.plain = bytes_of("made by qemu", SIZE)
    lukskeep("key", "test", *volume.volume, "--key", f"file:{keys[0]}")
    # Ours writes through the header, QEMU's guest reads and writes, ours reads again.
    need("nbdcopy")
    plain = write(tmp_path / "new", volume.plain)
    lukskeep("serve", *volume.volume, "--key", f"file:{keys[0]}", "--run",
             f'nbdcopy {plain} "$uri"')
    attach(machine, volume, "--id", "theirs")
    guest_reads_and_writes(machine, volume, "theirs")


def test_key_changes_of_either_side_are_seen_by_the_other(machine, keys, tmp_path):
    volume = Volume(tmp_path, keys[0])
    second = write(tmp_path / "second", b"another passphrase")
    third = write(tmp_path / "third", b"and a third")
    lukskeep("key", "add", *volume.volume, "--key", f"file:{keys[0]}", "--new-key",
             f"file:{second}", *CHEAP["pbkdf2"])
    lukskeep("key", "remove", *volume.volume, "--key", f"file:{keys[0]}")
    volume.key = second
    name = attach(machine, volume)["id"]
    guest_reads_and_writes(machine, volume, name)
    # QEMU's side: it changes the keys of a header that is apart.
    amend = [qemu10.fetch() / "usr/bin/qemu-img", "amend", *secret(second), "--object",
             f"secret,id=n,file={third}"]
    image = ["--image-opts", f"driver=luks,key-secret=s,file.filename={volume.payload},"
                             f"header.driver=file,header.filename={volume.header}"]
    run([*amend, "-o", "state=active,new-secret=n,iter-time=10", *image])
    lukskeep("key", "test", *volume.volume, "--key", f"file:{third}")
    run([*amend, "-o", "state=inactive,old-secret=s", *image])
    lukskeep("key", "test", *volume.volume, "--key", f"file:{second}", status=2)
    lukskeep("key", "test", *volume.volume, "--key", f"file:{third}")
