"""The DaemonSet of packaging/kubernetes: its manifest, and its script. What it does on volumes that are
bound to a Tang server is in tests/interop/test_rekey.py."""

import os
import shutil
import subprocess
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


def test_without_its_settings_it_does_nothing(node):
    defaults = {one["name"]: one["value"] for one in container()["env"]}
    done = subprocess.run(["sh", "rekey.sh"], cwd=node, capture_output=True, timeout=120,
                          env={"PATH": f"{node}/bin:{os.environ['PATH']}", **defaults,
                               "STATE": "state", "READY": "ready"})
    assert done.returncode != 0 and b"TANG_KEYS" in done.stderr
    assert not (node / "state").exists() and not (node / "ready").exists()
