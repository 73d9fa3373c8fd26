"""Bindings to a TPM (swtpm): made by Clevis' pin and opened here, and the other way round."""

import json

import pytest

import kit
from compat_tools import SIDES, call, header
from tang import Tang, software_tpm

CONFIGS = {
    "no PCR": {},
    "PCR 7": {"pcr_bank": "sha256", "pcr_ids": "7"},
    "two PCRs, rsa": {"hash": "sha256", "key": "rsa", "pcr_bank": "sha256", "pcr_ids": "7,16"},
}


@pytest.fixture
def tpm(tmp_path):
    with software_tpm(tmp_path / "tpm") as env:
        yield env


@pytest.fixture(params=["luks1", "luks2"])
def volume(request, tmp_path):
    kit.need("clevis", "luksmeta", "jq")
    kit.write(tmp_path / "k", b"first passphrase")
    path = kit.sparse(tmp_path / "volume", 20 << 20)
    kit.cryptsetup("luksFormat", "--type", request.param, *kit.THEIR_CHEAP["pbkdf2"],
                   "--key-file", tmp_path / "k", path)
    return path


def luks(side, tpm, verb, volume, *words, status=0):
    done = call(side, ["clevis", "luks", verb, "-d", volume, *words], env=tpm)
    assert done.returncode == status, done.stderr
    if side == "theirs" and tpm["TPM2TOOLS_TCTI"].startswith("swtpm:"):
        # Each policy of theirs leaves a session behind, which the kernel's resource manager would end.
        kit.run(["tpm2_flushcontext", "-l"], env=tpm)
    return done.stdout.decode()


def bind(side, tpm, volume, pin, config):
    luks(side, tpm, "bind", volume, "-y", "-k", volume.parent / "k", pin, json.dumps(config))


def pins(volume):
    bound = json.loads(kit.lukskeep("bindings", volume, "--json").stdout)["bindings"]
    return [one["pin"] for one in bound if one["state"] == "good"]


@pytest.mark.parametrize("name", CONFIGS)
def test_each_opens_and_regenerates_what_the_other_bound(volume, tpm, name):
    config = CONFIGS[name]
    bind("theirs", tpm, volume, "tpm2", config)
    bind("ours", tpm, volume, "tpm2", config)
    kit.lukskeep("bind", volume, json.dumps(config), "--pin", "tpm2", "--key",
                 f"file:{volume.parent / 'k'}", env=tpm)
    first, *others = pins(volume)
    assert others == [first, first]
    listed = [luks(side, tpm, "list", volume) for side in SIDES]
    assert listed[0] == listed[1] and len(listed[0].splitlines()) == 3
    for slot in ("1", "2", "3"):
        opened = {luks(side, tpm, "pass", volume, "-s", slot) for side in SIDES}
        opened.add(kit.lukskeep("passphrase", volume, "--slot", slot, env=tpm).stdout.decode().strip())
        assert len(opened) == 1
    luks("theirs", tpm, "regen", volume, "-q", "-s", "2")
    luks("ours", tpm, "regen", volume, "-q", "-s", "1")
    kit.lukskeep("rebind", volume, "--slot", "3", env=tpm)
    assert pins(volume) == [first] * 3
    for slot in ("1", "2", "3"):
        for side in SIDES:
            luks(side, tpm, "unlock", volume, "-t", slot)
    assert [slot[0] for slot in header(volume)[0]] == [0, 1, 2, 3]


def test_a_changed_pcr_is_reported_and_opens_nothing(volume, tpm):
    config = CONFIGS["PCR 7"]
    bind("theirs", tpm, volume, "tpm2", config)
    bind("ours", tpm, volume, "tpm2", config)
    kit.lukskeep("report", volume, env=tpm)
    kit.run(["tpm2_pcrextend", f"7:sha256={'ab' * 32}"], env=tpm)
    for slot in ("1", "2"):
        for side in SIDES:
            luks(side, tpm, "unlock", volume, "-t", slot, status=1)
    told = json.loads(kit.lukskeep("report", volume, "--json", status=1, env=tpm).stdout)
    codes = [finding["code"] for finding in told["volumes"][0]["findings"]]
    assert codes.count("fails") >= 2
    # With a passphrase both are bound to what the PCRs are now.
    key = ("--key", f"file:{volume.parent / 'k'}")
    kit.lukskeep("edit", volume, "--slot", "1", json.dumps(config), "--pin", "tpm2", *key, env=tpm)
    for side in SIDES:
        luks(side, tpm, "unlock", volume, "-t", "1")


@pytest.mark.parametrize("side", SIDES)
def test_tpm_and_server(volume, tpm, tmp_path, side):
    server = Tang(tmp_path / "db").start()
    try:
        policy = {"t": 2, "pins": {"tpm2": {"pcr_bank": "sha256", "pcr_ids": "7"},
                                   "tang": {"url": server.url}}}
        bind(side, tpm, volume, "sss", policy)
        for opener in SIDES:
            luks(opener, tpm, "unlock", volume, "-t", "1")
        elsewhere = {"TPM2TOOLS_TCTI": "device:/dev/no-tpm"}
        for opener in SIDES:
            luks(opener, elsewhere, "unlock", volume, "-t", "1", status=1)
        server.stop()
        for opener in SIDES:
            luks(opener, tpm, "unlock", volume, "-t", "1", status=1)
    finally:
        server.stop()
