"""Snapshots and age: what is sealed here opens with age, and the other way round."""

import hashlib
import shutil
import subprocess

import pytest

import kit

PBKDF2 = ("--pbkdf", "pbkdf2", "--pbkdf-iterations", "1000")


@pytest.fixture
def identity(tmp_path):
    kit.need("age-keygen")
    made = subprocess.run(["age-keygen", "-o", tmp_path / "id"], capture_output=True, text=True,
                          check=True)
    return tmp_path / "id", made.stderr.split()[-1]


@pytest.mark.parametrize("form", [(), ("--type", "luks1")])
def test_age_opens_a_snapshot(form, identity, keys, tmp_path):
    path, recipient = identity
    second = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    other = [line.split()[-1] for line in second.splitlines() if "public key" in line][0]
    kit.lukskeep("create", "v", "--size", "1M", "--key", f"file:{keys[0]}", *form, *PBKDF2)
    kit.lukskeep("archive", "init", "--store", "s", "--recipient", f"{other},{recipient}")
    kit.lukskeep("archive", "add", "v", "--store", "s")
    snapshot = next((tmp_path / "s" / "snapshots").rglob("*.snapshot")).read_bytes()
    magic, manifest, sealed = snapshot.split(b"\n", 2)
    assert magic == b"lukskeep-snapshot 1"
    plain = subprocess.run(["age", "-d", "-i", path], input=sealed, capture_output=True,
                           check=True).stdout
    assert plain[:32] == hashlib.sha256(manifest).digest()
    if shutil.which("zstd"):
        header = subprocess.run(["zstd", "-dc"], input=plain[32:], capture_output=True,
                                check=True).stdout
        assert (tmp_path / "v").read_bytes()[:1 << 16] == header[:1 << 16]


@pytest.mark.parametrize("form", [(), ("--type", "luks1")])
def test_what_age_sealed_again_restores_with_cryptsetup(form, identity, keys, tmp_path):
    """A snapshot opened and sealed anew by age, to a key of age's, is a snapshot like any other."""
    path, recipient = identity
    kit.lukskeep("create", "v", "--size", "1M", "--key", f"file:{keys[0]}", *form, *PBKDF2)
    kit.lukskeep("archive", "init", "--store", "s", "--recipient", recipient)
    kit.lukskeep("archive", "add", "v", "--store", "s")
    file = next((tmp_path / "s" / "snapshots").rglob("*.snapshot"))
    magic, manifest, sealed = file.read_bytes().split(b"\n", 2)
    plain = subprocess.run(["age", "-d", "-i", path], input=sealed, capture_output=True,
                           check=True).stdout
    again = subprocess.run(["age", "-r", recipient], input=plain, capture_output=True,
                           check=True).stdout
    assert again != sealed
    (tmp_path / "again").write_bytes(b"\n".join([magic, manifest, again]))
    kit.lukskeep("archive", "init", "--store", "s2", "--recipient", recipient)
    kit.lukskeep("archive", "import", "again", "--store", "s2")
    name = file.name.split("-")[-1].split(".")[0]
    kit.lukskeep("archive", "export", name, "header", "--store", "s2", "--identity", f"file:{path}")
    volume = tmp_path / "v"
    with open(volume, "r+b") as damaged:
        damaged.write(bytes(1 << 16))
    kit.cryptsetup("luksHeaderRestore", volume, "--header-backup-file", "header", "-q")
    kit.cryptsetup("open", "--test-passphrase", volume, "--key-file", keys[0])
    kit.lukskeep("key", "test", volume, "--key", f"file:{keys[0]}")
