"""vm: monitors that are none or misbehave, options, and what is printed for libvirt."""

import json
import os
import signal
import socket
import subprocess
import threading
from xml.etree import ElementTree

import pytest

import nbd_tools
from cli_tools import PBKDF2, fails, interrupt, ok, start, wait_until

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}}}\r\n'


class FakeMonitor:
    """Greets with `greeting`, then answers each command with what `answer` makes of it."""

    def __init__(self, path, greeting=GREETING, answer=None):
        self.asked = []
        self.greeting, self.answer = greeting, answer or (lambda asked: {"return": {}})
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(1)
        self.path = path
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.socket.accept()
            with client, client.makefile("rwb") as file:
                try:
                    file.write(self.greeting)
                    file.flush()
                    for line in file:
                        asked = json.loads(line)
                        self.asked.append(asked)
                        said = self.answer(asked)
                        if said is None:
                            break
                        if isinstance(said, dict):
                            said = json.dumps({**said, "id": asked["id"]}).encode() + b"\r\n"
                        file.write(said)
                        file.flush()
                except OSError:
                    pass


def qemu(asked):
    """As much as is needed to get to the first node."""
    lists = {"query-commands": [{"name": "device_add"}, {"name": "add-fd"}],
             "query-named-block-nodes": [], "qom-list": []}
    return {"return": lists.get(asked["execute"], {})}


@pytest.fixture
def volume(tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"secret words")
    path = tmp_path / "v.luks"
    ok("create", path, "--size", "8M", "--type", "luks1", "--key", f"file:{key}", *PBKDF2)
    return ["--volume", path, "--key", f"file:{key}"]


@pytest.mark.parametrize("arguments, says", [
    (["vm", "list"], "--qmp is missing"),
    (["vm", "detach", "--qmp", "q"], "--id is missing"),
    (["vm", "attach", "--qmp", "q"], "--volume is missing"),
    (["vm", "attach", "--qmp", "q", "--volume", "v", "--id", "a.b"], "'a.b' is no name for a disk"),
    (["vm", "attach", "--qmp", "q", "--volume", "v", "--via", "ssh"], "--via"),
    (["vm", "detach", "--qmp", "q", "--id", "d", "--timeout", "100000"], "--timeout is at most"),
    (["vm", "list", "--qmp", "x" * 200], "no path for a socket"),
    (["vm", "xml"], "--volume is missing"),
    (["vm", "xml", "--volume", "v", "--rbd-user", "u"], "go together"),
    (["vm", "define"], "--volume is missing"),
])
def test_usage(arguments, says, tmp_path):
    assert says in fails(1, *arguments, cwd=tmp_path).err


@pytest.mark.parametrize("greeting, answer, says", [
    (b"SSH-2.0-OpenSSH_9.2\r\n", None, "does not speak QMP"),
    (b"{}\n", None, "no greeting"),
    (GREETING, lambda asked: b"[]\n", "no JSON object"),
    (GREETING, lambda asked: None, "has ended the connection"),
    (GREETING, lambda asked: {"error": {"class": "CommandNotFound", "desc": "no such thing"}},
     "refuses qmp_capabilities: no such thing"),
], ids=["ssh", "nothing", "list", "closes", "lacks-a-command"])
def test_monitors_that_are_none(tmp_path, greeting, answer, says):
    path = tmp_path / "q"
    FakeMonitor(path, greeting, answer)
    result = fails(4 if "no such thing" in says else 7, "vm", "list", "--qmp", path)
    assert says in result.err


def test_nobody_there(tmp_path):
    assert "no such file" in fails(1, "vm", "list", "--qmp", tmp_path / "none").err
    (tmp_path / "file").touch()
    result = fails(7, "vm", "list", "--qmp", tmp_path / "file", "--json")
    assert result.json["error"]["code"] == "remote" and "nobody listens" in result.err


def test_a_signal_ends_the_waiting(tmp_path):
    path = tmp_path / "q"
    monitor = FakeMonitor(path, GREETING, lambda asked: b"")
    process = start("vm", "list", "--qmp", path)
    wait_until(lambda: monitor.asked, "the first command")
    status, _, err = interrupt(process)
    assert status == 130 and "error" in err


def test_a_refused_step_is_undone_and_nothing_secret_is_said(tmp_path, volume):
    path = tmp_path / "q"

    def answer(asked):
        if asked["execute"] == "device_add":
            return {"error": {"class": "GenericError", "desc": "no room"}}
        if asked["execute"] == "add-fd":
            return {"return": {"fdset-id": 1, "fd": 9}}
        return qemu(asked)

    monitor = FakeMonitor(path, GREETING, answer)
    result = fails(7, "vm", "attach", "--qmp", path, *volume, "--id", "d")
    assert "refuses device_add: no room" in result.err
    made = [asked for asked in monitor.asked if asked["execute"] == "blockdev-add"]
    gone = [asked for asked in monitor.asked if asked["execute"] == "blockdev-del"]
    assert [one["arguments"]["node-name"] for one in made] == ["lk.d.payload", "lk.d.luks"]
    assert [one["arguments"]["node-name"] for one in gone] == ["lk.d.luks", "lk.d.payload"]
    assert "secret words" not in json.dumps(monitor.asked) + result.err


def test_an_interrupted_attach_is_undone(tmp_path, volume):
    path = tmp_path / "q"

    def answer(asked):
        if asked["execute"] == "device_add":
            return b""
        return {"return": {"fdset-id": 1, "fd": 9}} if asked["execute"] == "add-fd" else qemu(asked)

    monitor = FakeMonitor(path, GREETING, answer)
    process = start("vm", "attach", "--qmp", path, *volume, "--id", "d")
    wait_until(lambda: any(one["execute"] == "device_add" for one in monitor.asked), "device_add")
    status, _, _ = interrupt(process)
    assert status == 130
    assert [one["execute"] for one in monitor.asked][-3:] == ["device_del", "blockdev-del",
                                                             "blockdev-del"]


def test_what_qemu_cannot_open_is_refused_before_it_is_asked(tmp_path, volume):
    two = tmp_path / "two.luks"
    ok("create", two, "--size", "32M", "--type", "luks2", *volume[2:], *PBKDF2)
    result = fails(4, "vm", "attach", "--qmp", tmp_path / "q", "--volume", two, *volume[2:])
    assert "knows LUKS1 only" in result.err and "--via nbd" in result.err
    result = fails(4, "vm", "attach", "--qmp", tmp_path / "q", "--volume",
                   f"nbd+unix:///?socket={tmp_path}/s", "--header", volume[1], *volume[2:])
    assert "--via nbd" in result.err


def test_a_server_that_does_not_start_is_named(tmp_path, volume):
    monitor = FakeMonitor(tmp_path / "q", GREETING, qemu)
    # nbdkit cannot load a plugin with sanitizers.
    locker = subprocess.Popen([nbd_tools.PROGRAM, "serve", *map(str, volume[1:]), "--socket",
                               tmp_path / "s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        locker.stdout.readline()
        result = fails(5, "vm", "attach", "--qmp", tmp_path / "q", *volume, "--via", "nbd")
        assert "did not start" in result.err and "another program" in result.err
    finally:
        interrupt(locker)
    assert not any(one["execute"] == "blockdev-add" for one in monitor.asked)


def test_an_export_is_made_where_it_is_named_not_in_the_folder_of_the_daemon(tmp_path, volume):
    lists = {"query-commands": [{"name": "block-export-add"}], "query-named-block-nodes": [],
             "query-block-exports": []}
    monitor = FakeMonitor(tmp_path / "q", GREETING,
                          lambda asked: {"return": lists.get(asked["execute"], {})})
    ok("vm", "attach", "--qmp", tmp_path / "q", *volume, "--export-socket", "s", cwd=tmp_path)
    made = [one for one in monitor.asked if one["execute"] == "block-export-add"]
    assert made[0]["arguments"]["addr"]["path"] == str(tmp_path / "s")


def test_the_server_of_a_refused_attach_is_gone_and_its_lock_with_it(tmp_path, volume):
    nbd_tools.require()

    def answer(asked):
        if asked["execute"] == "blockdev-add":
            return {"error": {"class": "GenericError", "desc": "no room"}}
        return qemu(asked)

    FakeMonitor(tmp_path / "q", GREETING, answer)
    attach = [nbd_tools.PROGRAM, "vm", "attach", "--qmp", tmp_path / "q", *volume, "--via", "nbd"]
    done = subprocess.run(list(map(str, attach)), capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, start_new_session=True)
    assert done.returncode == 7 and "no room" in done.stderr
    (tmp_path / "new").write_text("new words")
    ok("key", "add", volume[1], *volume[2:], "--new-key", f"file:{tmp_path}/new", *PBKDF2)


def test_the_server_has_no_files_of_who_attached(tmp_path, volume):
    nbd_tools.require()
    FakeMonitor(tmp_path / "q", GREETING, qemu)
    kept = tmp_path / "kept"
    with open(kept, "w") as file:
        attach = [nbd_tools.PROGRAM, "vm", "attach", "--qmp", tmp_path / "q", *volume, "--via",
                  "nbd", "--json"]
        done = subprocess.run(list(map(str, attach)), capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, start_new_session=True,
                              pass_fds=[file.fileno()],
                              env={**os.environ, "XDG_RUNTIME_DIR": "/dev/shm"})
    assert done.returncode == 0, done.stderr
    server = json.loads(done.stdout)["server"]
    try:
        folder = f"/proc/{server['pid']}/fd"
        names = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
        assert str(volume[1]) in names and str(kept) not in names
        # Root's own folder, or that of who became root, is closed to QEMU's user.
        assert (os.geteuid() == 0) == server["socket"].startswith("/tmp/")
    finally:
        os.kill(server["pid"], signal.SIGTERM)
        wait_until(lambda: not os.path.exists(server["socket"]), "the end of the server")


def test_a_volume_by_descriptor_is_served(tmp_path, volume):
    nbd_tools.require()
    FakeMonitor(tmp_path / "q", GREETING, qemu)
    with open(volume[1], "r+b") as file:
        attach = [nbd_tools.PROGRAM, "vm", "attach", "--qmp", tmp_path / "q", "--volume",
                  f"/proc/self/fd/{file.fileno()}", *volume[2:], "--via", "nbd", "--json"]
        done = subprocess.run(list(map(str, attach)), capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, start_new_session=True,
                              pass_fds=[file.fileno()])
    assert done.returncode == 0, done.stderr
    server = json.loads(done.stdout)["server"]
    os.kill(server["pid"], signal.SIGTERM)
    wait_until(lambda: not os.path.exists(server["socket"]), "the end of the server")


def test_xml(tmp_path, volume):
    parts = ok("vm", "xml", *volume[:2], "--json").json
    uuid = ok("info", volume[1], "--json").json["uuid"]
    disk, secret = ElementTree.fromstring(parts["disk"]), ElementTree.fromstring(parts["secret"])
    assert disk.find("source").get("file") == str(volume[1])
    assert disk.find("source/encryption/secret").get("uuid") == uuid == secret.find("uuid").text
    assert secret.get("private") == "yes" and secret.get("ephemeral") == "yes"
    text = ok("vm", "xml", *volume[:2]).text
    assert text == parts["secret"] + parts["disk"]
    assert ok("vm", "xml", *volume[:2], "--part", "disk").text == parts["disk"]


def test_xml_keeps_symbolic_links(tmp_path, volume):
    """What /dev/disk/by-id/ID leads to is another disk after the next start, perhaps."""
    (tmp_path / "disks").mkdir()
    link = tmp_path / "disks" / "by-id"
    link.symlink_to(volume[1])
    for named in (link, "disks/by-id", "./disks/by-id"):
        parts = ok("vm", "xml", "--volume", named, "--json", cwd=tmp_path).json
        source = ElementTree.fromstring(parts["disk"]).find("source")
        assert source.get("file") == str(link)
        assert ElementTree.fromstring(parts["secret"]).find("usage/volume").text == str(link)
    header, payload = tmp_path / "h", tmp_path / "p"
    ok("create", payload, "--header", header, "--size", "8M", "--type", "luks1", *volume[2:],
       *PBKDF2)
    links = {}
    for name, target in (("p2", payload), ("h2", header), ("k2", volume[3].removeprefix("file:"))):
        links[name] = tmp_path / "disks" / name
        links[name].symlink_to(target)
    text = ok("vm", "xml", "--volume", links["p2"], "--header", links["h2"], "--secret-file",
              "disks/k2", cwd=tmp_path).text
    for link in links.values():
        assert f"&#34;{link}&#34;" in text
    assert f"{payload}&#34;" not in text
    served = ok("vm", "xml", "--volume", "v", "--nbd-socket", "disks/s", cwd=tmp_path).text
    assert ElementTree.fromstring(served).find("source/host").get("socket") == \
        str(tmp_path / "disks" / "s")


def test_xml_of_what_libvirt_has_no_words_for(tmp_path, volume):
    two = tmp_path / "two.luks"
    ok("create", two, "--size", "32M", "--type", "luks2", *volume[2:], *PBKDF2)
    assert "--nbd-socket" in fails(4, "vm", "xml", "--volume", two).err
    assert "rbd:POOL/IMAGE" in fails(1, "vm", "xml", "--volume", two, "--engine", "librbd").err
    served = ok("vm", "xml", "--volume", two, "--nbd-socket", tmp_path / "s").text
    assert ElementTree.fromstring(served).find("source/host").get("socket") == str(tmp_path / "s")
    header = tmp_path / "h"
    payload = tmp_path / "p"
    ok("create", payload, "--header", header, "--size", "8M", "--type", "luks1", *volume[2:],
       *PBKDF2)
    apart = ["vm", "xml", "--volume", payload, "--header", header]
    assert "--secret-file" in fails(1, *apart).err
    text = ok(*apart, "--secret-file", tmp_path / "k").text
    arguments = [json.loads(one.get("value")) for one in ElementTree.fromstring(text)
                 if one.get("value").startswith("{")]
    assert arguments[4]["header"] == "lk.lukskeep0.header"
    assert arguments[4]["key-secret"] == arguments[0]["id"]
    assert "no part 'disk'" in fails(1, *apart, "--secret-file", "k", "--part", "disk").err


@pytest.mark.parametrize("name", [b"v\x01", b"v\xff", b"v\xed\xa0\x80"])
def test_names_that_xml_cannot_hold(tmp_path, volume, name):
    path = os.fsencode(tmp_path) + b"/" + name
    os.rename(volume[1], path)
    assert "XML cannot hold" in fails(4, "vm", "xml", "--volume", os.fsdecode(path)).err


def test_define_without_virsh(tmp_path, volume):
    env = {**os.environ, "PATH": str(tmp_path)}
    assert "libvirt-clients" in fails(1, "vm", "define", *volume, env=env).err


def test_define_says_what_virsh_says_and_gives_the_value_on_standard_input(tmp_path, volume):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    virsh = bin_folder / "virsh"
    log = tmp_path / "log"
    virsh.write_text(f"""#!/bin/sh
echo "$*" >> {log}
case "$*" in
  *dumpxml*) exit 1;;
  *set-value*) cat >> {log}; [ -e {tmp_path}/good ] && exit 0; echo "error: it's full" >&2; exit 1;;
esac
cat > /dev/null
""")
    virsh.chmod(0o755)
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    assert "full" in fails(7, "vm", "define", *volume, "--connect", "test:x", env=env).err
    lines = log.read_text()
    assert "secret-undefine" in lines and "--connect test:x" in lines
    assert "c2VjcmV0IHdvcmRz" in lines and "secret words" not in lines
    (tmp_path / "good").touch()
    ok("vm", "define", *volume, "--secret-uuid", "0a81f5b2-8403-4b23-88d6-21ccc2f80d6f", env=env)
    assert "secret-set-value 0a81f5b2-8403-4b23-88d6-21ccc2f80d6f --file /dev/stdin" in \
        log.read_text()
    assert "no UUID" in fails(1, "vm", "define", *volume, "--secret-uuid", "-x", env=env).err


def test_an_interrupted_define_leaves_no_secret_without_a_value(tmp_path, volume):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    virsh = bin_folder / "virsh"
    log = tmp_path / "log"
    virsh.write_text(f"""#!/bin/sh
echo "$*" >> {log}
case "$*" in
  *dumpxml*) exit 1;;
  *set-value*) exec sleep 60;;
esac
cat > /dev/null
""")
    virsh.chmod(0o755)
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    process = start("vm", "define", *volume, env=env)
    wait_until(lambda: log.exists() and "set-value" in log.read_text(), "the value")
    status, _, _ = interrupt(process)
    assert status == 130
    assert "secret-undefine" in log.read_text().splitlines()[-1]
