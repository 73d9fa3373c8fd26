"""Overlays of QEMU served by lukskeep: with their backing files, plain and encrypted, and written."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from kit import CHEAP, LUKSKEEP, MIB, lukskeep, need, run, same, write
from test_qcow2 import Chain, image_bytes, key  # noqa: F401
from test_serve import serving
from test_vm import daemon, has_ended, wait_for  # noqa: F401

PLUGIN = Path(LUKSKEEP).parent / "nbdkit-lukskeep-plugin.so"


def commands(pattern, at):
    """For qemu-io: some clusters that the overlay had, and some that its backing file had."""
    return [word for offset in (at, 1234567, 3 * MIB) for word in
            ("-c", f"write -P {pattern} {offset} 70000")] + ["-c", "write -z 2M 300k", "-c", "flush"]


def written(data, pattern, at):
    data = bytearray(data)
    for offset in (at, 1234567, 3 * MIB):
        data[offset:offset + 70000] = bytes([pattern]) * 70000
    data[2 * MIB:2 * MIB + 300 * 1024] = bytes(300 * 1024)
    return data


def check(chain):
    run(["qemu-img", "check", "-q", *chain.secrets, "--image-opts", chain.opts])


KEYS = [("a",), ("a", "b"), ("a", "b", None, "c")]


def names(keys):
    return "-".join(key or "plain" for key in keys)


@pytest.mark.usefixtures("either_qemu")
@pytest.mark.parametrize("keys", KEYS, ids=names)
def test_an_overlay_is_served_and_written(keys, tmp_path):
    need("qemu-img", "qemu-io", "nbdkit", "nbdcopy")
    chain = Chain(tmp_path, keys, image_bytes("served chain"))
    below = [(tmp_path / name).read_bytes()
             for name in ["base", *(f"layer{i}" for i in range(len(keys) - 1))]]
    expected = chain.disk().read_bytes()
    volume = (f"qcow2:{chain.path}", "--key", f"file:{chain.key(keys[-1])}")
    with serving(*volume, *chain.options()) as server:
        uri = server["exports"][0]["uri"]
        run(["nbdcopy", uri, tmp_path / "out"])
        assert (tmp_path / "out").read_bytes() == expected
        run(["qemu-io", "-f", "raw", *commands(0x5a, 777), uri])
        run(["nbdcopy", uri, tmp_path / "out"])
    expected = written(expected, 0x5a, 777)
    assert (tmp_path / "out").read_bytes() == expected
    check(chain)
    assert chain.disk().read_bytes() == expected
    assert below == [(tmp_path / name).read_bytes()
                     for name in ["base", *(f"layer{i}" for i in range(len(keys) - 1))]]


@pytest.mark.parametrize("keys", [("a", "b"), (None, "a")], ids=names)
def test_the_plugin_by_itself(keys, tmp_path):
    """In the background: it forks, has another directory, and forgets its secrets on the way."""
    need("qemu-img", "qemu-io", "nbdkit", "nbdcopy")
    chain = Chain(tmp_path, keys, image_bytes("plugin"))
    words = ["allow-backing=true", f"key=file:{chain.key(keys[-1])}",
             *(f"backing-key=file:{chain.key(name)}" for name in chain.backing_keys)]
    run(["nbdkit", "-U", "-", PLUGIN, f"qcow2:{chain.path.name}", *words, "--run",
         f'nbdcopy "$uri" {tmp_path / "out"}'], cwd=tmp_path)
    assert same(tmp_path / "out", chain.disk())
    run(["nbdkit", "-P", tmp_path / "pid", "-U", tmp_path / "s", PLUGIN,
         f"qcow2:{chain.path.name}", *words], cwd=tmp_path)
    try:
        uri = f"nbd+unix:///?socket={tmp_path / 's'}"
        run(["qemu-io", "-f", "raw", *commands(0x33, 4096), uri])
        run(["nbdcopy", uri, tmp_path / "seen"])
    finally:
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until_gone(pid)
    expected = written((tmp_path / "out").read_bytes(), 0x33, 4096)
    assert (tmp_path / "seen").read_bytes() == expected
    check(chain)
    assert chain.disk().read_bytes() == expected


def wait_until_gone(pid):
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("nbdkit does not end")


REFUSED = [([], "allow-backing"),
           (["backing-key=file:key-a"], "allow-backing=true allows that"),
           (["allow-backing=true"], "layer0"),
           (["allow-backing=true", "backing-key=file:key-b"], "no keyslot of"),
           (["allow-backing=true", "backing-key=volume-key:key-b"], "not a volume key of"),
           (["allow-backing=true", *["backing-key=file:key-a"] * 33], "more than 32 times")]


@pytest.mark.parametrize("words,says", REFUSED, ids=lambda value: str(value)[:40])
def test_the_plugin_reads_no_backing_file_without_leave_and_key(words, says, tmp_path):
    need("qemu-img", "qemu-io", "nbdkit")
    chain = Chain(tmp_path, ("a", "b"), image_bytes("refused"))
    chain.key("c")
    done = run(["nbdkit", "-f", "-U", "-", PLUGIN, f"qcow2:{chain.path}",
                f"key=file:{chain.key('b')}", *words, "--run", "true"], status=1, cwd=tmp_path)
    assert says.encode() in done.stderr


def test_a_volume_in_an_overlay_of_two_exports(key, tmp_path):  # noqa: F811
    """The disk of the image is the volume; the other export has keys of its own backing files."""
    need("qemu-img", "nbdkit", "nbdcopy")
    chain = Chain(tmp_path, ("a", "b"), image_bytes("two"))
    expected = chain.disk()  # not while it is served: it is locked then
    plain = write(tmp_path / "plain", image_bytes("luks below", 2 * MIB))
    lukskeep("encrypt", plain, tmp_path / "volume", "--key", f"file:{key}", *CHEAP["pbkdf2"])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "volume", "-F", "raw", tmp_path / "top"])
    with serving("--export", f"disk=qcow2:{tmp_path / 'top'},key=file:{key}", "--export",
                 f"chain=qcow2:{chain.path},key=file:{chain.key('b')}", *chain.options()) as server:
        uris = {one["name"]: one["uri"] for one in server["exports"]}
        run(["nbdcopy", uris["disk"], tmp_path / "out"])
        assert same(tmp_path / "out", plain)
        run(["nbdcopy", uris["chain"], tmp_path / "out"])
        assert same(tmp_path / "out", expected)
        other = write(tmp_path / "other", image_bytes("written", 2 * MIB))
        run(["nbdcopy", other, uris["disk"]])
    lukskeep("decrypt", f"qcow2:{tmp_path / 'top'}", tmp_path / "back", "--key", f"file:{key}",
             "--allow-backing")
    assert same(tmp_path / "back", other)
    run(["qemu-img", "check", "-q", tmp_path / "top"])


def test_an_external_data_file_is_served(key, tmp_path):  # noqa: F811
    need("qemu-img", "nbdkit", "nbdcopy")
    plain = write(tmp_path / "plain", image_bytes("data file", 2 * MIB))
    lukskeep("encrypt", plain, tmp_path / "volume", "--key", f"file:{key}", *CHEAP["pbkdf2"])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "data_file=data", "volume",
         "image"], cwd=tmp_path)
    volume = ("serve", f"qcow2:{tmp_path / 'image'}", "--key", f"file:{key}", "--read-only",
              "--run", f'nbdcopy "$uri" {tmp_path / "out"}')
    assert b"--allow-data-file" in lukskeep(*volume, status=6).stderr
    lukskeep(*volume, "--allow-data-file")
    assert same(tmp_path / "out", plain)


@pytest.mark.parametrize("apart", [False, True], ids=["attached", "detached"])
def test_a_machine_has_an_overlay_of_encrypted_files(apart, daemon, tmp_path):  # noqa: F811
    need("qemu-img", "nbdcopy")
    chain = Chain(tmp_path, ("a", "b"), image_bytes("of a machine"))
    expected = chain.disk().read_bytes()
    volume = ["--volume", f"qcow2:{chain.path}"]
    if apart:
        lukskeep("header", "backup", f"qcow2:{chain.path}", tmp_path / "header", *chain.options())
        volume += ["--header", tmp_path / "header"]
    attach = ["vm", "attach", "--qmp", daemon.qmp, *volume, "--key", f"file:{chain.key('b')}",
              "--via", "nbd", "--device", "nbd", "--export-socket", tmp_path / "n", "--id", "d"]
    said = json.loads(lukskeep(*attach, *chain.options(), "--json").stdout)
    uri = f"nbd+unix:///d?socket={tmp_path / 'n'}"
    run(["qemu-io", "-f", "raw", *commands(0x77, 512), uri])
    lukskeep("vm", "detach", "--qmp", daemon.qmp, "--id", "d")
    wait_for(lambda: has_ended(said["server"]["pid"]), "the end of the server")
    check(chain)
    assert chain.disk().read_bytes() == written(expected, 0x77, 512)
