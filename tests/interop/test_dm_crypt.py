"""The kernel's dm-crypt and lukskeep on the same volumes, with a file system inside.

Volumes of lukskeep are opened by cryptsetup, mounted, written to and closed in User-Mode Linux,
then decrypted here; volumes that cryptsetup formats there, with every cipher the kernel has, are
decrypted here as well. dm_crypt_cases.py lists them.
"""

import fcntl
import hashlib
import json
import pickle

import pytest

import uml
from dm_crypt_cases import CHANGES, FAR, FAR_OFFSETS, FORMS
from kit import MIB, lukskeep, need, run, same, sha256, without


@pytest.fixture(scope="session")
def guest(guest_folder):
    """The folder of the volumes, and what the guest said of each."""
    need("cryptsetup", "mke2fs", "e2fsck", "debugfs", "dmsetup", "modprobe")
    # Held by the process that works on it, from before the tests started until its end.
    with open(guest_folder.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
    done = guest_folder / "outcome"
    assert done.exists(), "the process that runs the guest died: see its messages above"
    outcome = pickle.loads(done.read_bytes())
    if isinstance(outcome, uml.Unavailable):
        without(f"no dm-crypt: {outcome}")
    if isinstance(outcome, Exception):
        pytest.fail(f"{type(outcome).__name__}: {outcome}")
    return guest_folder, outcome


def said(guest, case):
    """What the guest printed, as {first word: rest}; fails if the case failed there."""
    result = guest[1][case]
    if isinstance(result, str):
        pytest.fail(f"lukskeep did not make the volume: {result}")
    assert result["status"] == 0, json.dumps(result, indent=1)
    return dict(line.split(" ", 1) for line in result["output"].splitlines() if " " in line)


def decrypted(form, work, volume, out):
    header = ("--header", work / f"{volume}.header") if form.detached else ()
    lukskeep("decrypt", work / volume, out, *header, "--key", f"file:{work / 'key'}")
    return out


def file_inside(image, name, folder):
    """A file out of an ext4 image, which must be a sound one."""
    run(["e2fsck", "-fn", image])
    out = folder / "extracted"
    run(["debugfs", "-R", f"dump /{name} {out}", image])
    return out


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_kernel_mounts_and_writes_what_lukskeep_encrypted(form, guest, tmp_path):
    expect_mounted_and_written(form, guest, f"ours-{form.name}", tmp_path)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_the_kernel_mounts_and_writes_after_lukskeep_changed_the_header(change, guest, tmp_path):
    expect_mounted_and_written(change.result, guest, change.volume, tmp_path)


def expect_mounted_and_written(form, guest, volume, folder):
    """The guest found the image as it was and what it wrote is there: in a whole file system."""
    work, _ = guest
    words = said(guest, volume)
    assert words["before"] == sha256(work / "image")
    assert words["after"] != words["before"]
    out = decrypted(form, work, volume, folder / "out")
    assert sha256(out) == words["after"]
    assert same(file_inside(out, "written-by-guest", folder), work / "tree" / "written-by-guest")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_lukskeep_decrypts_what_the_kernel_wrote(form, guest, tmp_path):
    work, _ = guest
    words = said(guest, f"theirs-{form.name}")
    assert f" crypt {form.cipher} " in words["table"]
    assert ("sector_size:" in words["table"]) == (form.sector != 512)
    out = decrypted(form, work, f"theirs-{form.name}", tmp_path / "out")
    assert sha256(out) == words["after"]
    assert same(file_inside(out, "again", tmp_path), work / "tree" / "written-by-guest")


@pytest.mark.parametrize("form", FAR, ids=lambda form: form.name)
def test_the_kernel_reads_beyond_two_tebibytes(form, guest):
    words = said(guest, f"far-ours-{form.name}")
    for offset, byte in FAR_OFFSETS.items():
        block = hashlib.sha256(byte * MIB).hexdigest()
        assert words[f"{offset}:{byte[0]:03o}"] == block, hex(offset)


@pytest.mark.parametrize("form", FAR, ids=lambda form: form.name)
def test_lukskeep_reads_what_the_kernel_wrote_beyond_two_tebibytes(form, guest, tmp_path):
    said(guest, f"far-theirs-{form.name}")
    lukskeep("decrypt", guest[0] / f"far-theirs-{form.name}", tmp_path / "out", "--holes", "keep",
             "--key", f"file:{guest[0] / 'key'}")
    with open(tmp_path / "out", "rb") as file:
        for offset, byte in FAR_OFFSETS.items():
            file.seek(offset)
            assert file.read(MIB) == byte * MIB, hex(offset)


def test_a_luks1_volume_that_cryptsetup_has_given_a_new_key(guest, tmp_path):
    """LUKS1 re-encryption needs device-mapper, so it happens in the guest."""
    words = said(guest, "reencrypted")
    out = tmp_path / "out"
    lukskeep("decrypt", guest[0] / "reencrypted", out, "--key", f"file:{guest[0] / 'key'}")
    assert sha256(out) == words["after"] == sha256(guest[0] / "image")


@pytest.mark.parametrize("version", ("luks1", "luks2"))
def test_a_header_is_restored_while_the_volume_runs(version, guest):
    """Proven by the key that the running mapping has, where no passphrase is at hand."""
    words = said(guest, f"running-{version}")
    assert words["tested"] == "yes" and words["tested-other"] == "2"
    assert "in-use" in words["in-use"] and "restored" not in words["in-use"]
    assert "is not a volume key" in words["other"]
    assert words["before"] == words["after"]
    # cryptsetup keeps keys of LUKS2 in a keyring unless it is told not to.
    if version == "luks2":
        assert "keyring" in words["keyring"]
    assert "No such device or address" in words["absent"]


@pytest.mark.parametrize("version", ("luks1", "luks2"))
def test_keys_and_settings_change_while_the_volume_runs(version, guest):
    words = said(guest, f"changing-{version}")
    assert words["before"] == words["after"]
    done = ["add", "change", "convert", "test", "remove", "bind", "clevis-bind", "clevis-regen",
            "clevis-unbind", "unbind", "repair", "cryptsetup"]
    if version == "luks2":
        done += ["token", "token-remove", "config"]
    refused = ["erase", "create", "header"]
    statuses = {name: words[name].split()[0] for name in done + refused}
    assert statuses == {**dict.fromkeys(done, "0"), **dict.fromkeys(refused, "5")}, words
