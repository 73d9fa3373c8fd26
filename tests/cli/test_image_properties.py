"""`image properties`: sets of every generation, for real files."""

import json
import shlex

import pytest

from cli_tools import fails, ok, run
from image_tools import encrypted, forget_services

ID = "6ea6b0a8-de50-45b8-90b7-9470c4dd201a"


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    return encrypted(tmp_path_factory.mktemp("properties"))


@pytest.fixture(autouse=True)
def no_services(monkeypatch):
    forget_services(monkeypatch)


def problems(result):
    return {problem["name"] for problem in result.json["problems"] if problem["error"]}


def test_newest_set(disk):
    size = len((disk.parent / "plain").read_bytes())
    wanted = {"disk_format": "luks", "container_format": "bare", "os_encrypt_format": "LUKSv1",
              "os_encrypt_key_id": ID, "os_decrypt_size": str(size)}
    result = ok("image", "properties", disk, "--key-id", ID, "--json").json
    assert result["properties"] == wanted and result["good"] and result["problems"] == []
    text = ok("image", "properties", disk, "--key-id", ID).text
    assert dict(line.split("=", 1) for line in text.splitlines()) == wanted
    words = shlex.split(ok("image", "properties", disk, "--key-id", ID, "--key-deletion", "delete",
                           "--openstack").text)
    assert words[:4] == ["--disk-format", "luks", "--container-format", "bare"]
    assert "os_encrypt_key_deletion_policy=True" in words


def test_compressed_later(disk):
    result = ok("image", "properties", disk, "--key-id", ID, "--compressed", "--json").json
    assert result["good"] and result["properties"]["container_format"] == "compressed"
    assert result["properties"]["os_decrypt_container_format"] == "bare"


@pytest.mark.parametrize("style, wanted", [
    ("cinder", {"disk_format": "raw", "container_format": "bare", "cinder_encryption_key_id": ID,
                "cinder_encryption_key_deletion_policy": "do_not_delete"}),
    ("nova", {"disk_format": "raw", "container_format": "bare", "hw_ephemeral_encryption": "True",
              "hw_ephemeral_encryption_format": "luks",
              "hw_ephemeral_encryption_secret_uuid": ID})])
def test_other_styles(disk, style, wanted):
    result = ok("image", "properties", disk, "--key-id", ID, "--style", style, "--key-deletion", "keep",
                "--json")
    assert result.json["properties"] == wanted


def test_a_set_is_compared_mended_and_translated(disk, tmp_path):
    show = {"id": ID, "name": "x", "disk_format": "raw", "container_format": "bare", "size": 5,
            "properties": {"cinder_encryption_key_id": ID, "os_decrypt_size": "17",
                           "cinder_encryption_key_deletion_policy": "on_image_deletion"}}
    (tmp_path / "set.json").write_text(json.dumps(show))
    result = run("image", "properties", disk, "--properties", tmp_path / "set.json", "--json", check=1)
    assert problems(result) == {"decrypt-size-wrong"}
    mended = result.json["properties"]
    assert mended["os_encrypt_key_id"] == ID and mended["os_encrypt_key_deletion_policy"] == "True"
    again = ok("image", "properties", disk, "--properties", "-", "--json",
               stdin=json.dumps(mended).encode())
    assert again.json["properties"] == mended and again.json["problems"] == []
    # Without a file it is translated only.
    nova = ok("image", "properties", "--properties", "-", "--style", "nova", "--json",
              stdin=json.dumps(mended).encode()).json["properties"]
    assert nova["hw_ephemeral_encryption_secret_uuid"] == ID


def test_what_is_missing_is_said(disk, tmp_path):
    result = run("image", "properties", disk, check=1)
    assert "key-id-missing" in result.err and "os_encrypt_format=LUKSv1" in result.text
    plain = ok("image", "properties", disk.parent / "plain", "--properties", "-", "--json",
               stdin=b'{"disk_format": "raw", "container_format": "bare"}')
    assert plain.json["properties"] == {}
    wrong = run("image", "properties", disk.parent / "plain", "--properties", "-", "--json",
                stdin=b'{"disk_format": "luks", "os_encrypt_format": "LUKSv1"}', check=1)
    assert {"not-encrypted", "disk-format-wrong"} <= problems(wrong)


def test_refusals(disk, tmp_path):
    fails(1, "image", "properties")
    fails(1, "image", "properties", disk.parent / "plain")
    fails(1, "image", "properties", disk, "--style", "glance")
    fails(4, "image", "properties", "--properties", "-", stdin=b"{")
    fails(4, "image", "properties", "--properties", "-", stdin=b"[]")
    fails(1, "image", "properties", "--properties", "-", stdin=b" " * (2 << 20))
    qcow2 = b'{"disk_format": "qcow2", "os_encrypt_format": "LUKSv1", "os_encrypt_key_id": "k"}'
    assert "raw" in fails(1, "image", "properties", "--properties", "-", "--style", "cinder",
                          stdin=qcow2).err
