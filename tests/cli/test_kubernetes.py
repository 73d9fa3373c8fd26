"""The DaemonSet of packaging/kubernetes: its manifest, and its script. What it does on volumes that are
bound to a Tang server is in tests/interop/test_rekey.py."""

import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from cli_tools import PROGRAM, ROOT

yaml = pytest.importorskip("yaml")

FOLDER = ROOT / "packaging" / "kubernetes"


def objects():
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "tang-rekey.yaml").read_text())}


def container():
    return objects()["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]


def test_the_manifest_holds_together():
    found = objects()
    assert set(found) == {"Namespace", "ServiceAccount", "RoleBinding", "ConfigMap", "DaemonSet"}
    namespace = found["Namespace"]["metadata"]["name"]
    assert all(one["metadata"]["namespace"] == namespace for kind, one in found.items()
               if kind != "Namespace")
    spec = found["DaemonSet"]["spec"]
    pod = spec["template"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    assert found["RoleBinding"]["subjects"][0]["name"] == pod["serviceAccountName"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    config = next(volume for volume in pod["volumes"] if "configMap" in volume)
    assert config["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    # What the container is told to run and read is what the map has, where it is mounted.
    data = found["ConfigMap"]["data"]
    env = {one["name"]: one["value"] for one in container()["env"]}
    script = Path(container()["command"][1])
    assert script.parent == Path(mounts["config"])
    assert {script.name} == set(data)
    assert container()["readinessProbe"]["exec"]["command"][-1] == env["READY"]
    # What is done outlives the pod, and so do the snapshots and the key that opens them.
    assert Path(env["STATE"]).is_relative_to(mounts["state"])
    assert mounts["archive-key"] == "/etc/lukskeep"
    assert all(isinstance(value, str) for value in env.values())
    assert container()["securityContext"]["privileged"] is True


@pytest.fixture
def node(place):
    (place / "bin").mkdir()
    (place / "bin" / "lukskeep").symlink_to(PROGRAM)
    (place / "rekey.sh").write_text(objects()["ConfigMap"]["data"]["rekey.sh"])
    return place


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_is_a_script(node, shell):
    subprocess.run([shell, "-n", "rekey.sh"], cwd=node, check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "rekey.sh"], cwd=node, check=True)


class TangServer:
    def __init__(self, folder):
        self.folder = folder
        ok("tang", "keygen", "--keys", folder)
        self.process = subprocess.Popen(
            [PROGRAM, "tang", "serve", "--keys", folder, "--listen", "127.0.0.1:0", "--usage", "none"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.url = "http://" + self.process.stdout.readline().decode().split()[-1]

    def advertisement(self):
        with urllib.request.urlopen(f"{self.url}/adv", timeout=20) as reply:
            return reply.read()

    def rotate(self):
        before = self.advertisement()
        ok("tang", "rotate", "--keys", self.folder)
        end = time.monotonic() + 60
        while self.advertisement() == before:
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def tang(node):
    """A server that both volumes are bound to."""
    (node / "db").mkdir()
    server = TangServer(node / "db")
    for name in ("v1", "v2"):
        ok("edit", name, "--tang", server.url, "--trust-on-first-use", cwd=node)
    yield server
    server.stop()


def test_what_depends_on_old_keys_is_rekeyed_whatever_was_done_before(node, tang):
    rekey(node)
    first = volumes(node)
    shutil.copy(node / "v2", node / "restored")
    rekey(node)
    assert volumes(node) == first
    tang.rotate()
    # Somebody forgot to change the ID.
    rekey(node)
    assert all(one != other for one, other in zip(first, volumes(node)))
    # A header from before.
    second = volumes(node)
    shutil.copy(node / "restored", node / "v2")
    rekey(node)
    assert volumes(node)[0] == second[0]
    assert ok("report", "v2", cwd=node).text.count("no problems") == 1


def test_another_binding_that_needs_the_old_keys_keeps_the_node_waiting(node, tang):
    ok("bind", "v1", "--tang", tang.url, "--trust-on-first-use", "--slot", "5", "--key", "file:k1",
       cwd=node)
    tang.rotate()
    done = rekey(node, 1, VOLUMES="v1", SLOT="1")
    assert b"keyslot 5" in done.stderr and b"needed yet by: v1" in done.stderr
    once = (node / "v1").read_bytes()
    # The pod that starts again does not rekey what is done.
    rekey(node, 1, VOLUMES="v1", SLOT="1")
    assert (node / "v1").read_bytes() == once
    ok("rebind", "v1", "--slot", "5", cwd=node)
    rekey(node, VOLUMES="v1", SLOT="1")


def test_a_server_that_is_down_proves_nothing(node, tang):
    rekey(node)
    ok("bind", "v1", "{}", "--pin", "null", "--slot", "6", "--key", "file:k1", cwd=node)
    tang.stop()
    assert b"v1" in rekey(node, 1, VOLUMES="v1", SLOT="6").stderr


def test_each_volume_has_its_own_record(node):
    (node / "a").mkdir()
    shutil.copy(node / "v1", node / "a" / "b")
    shutil.copy(node / "v2", node / "a_b")
    before = (node / "a_b").read_bytes()
    rekey(node, VOLUMES="a/b a_b")
    assert (node / "a_b").read_bytes() != before


def test_without_its_settings_it_does_nothing(node):
    defaults = {one["name"]: one["value"] for one in container()["env"]}
    done = subprocess.run(["sh", "rekey.sh"], cwd=node, capture_output=True, timeout=120,
                          env={"PATH": f"{node}/bin:{os.environ['PATH']}", **defaults,
                               "STATE": "state", "READY": "ready"})
    assert done.returncode != 0 and b"TANG_KEYS" in done.stderr
    assert not (node / "state").exists() and not (node / "ready").exists()
