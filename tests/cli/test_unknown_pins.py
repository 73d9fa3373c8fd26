"""Bindings and records of other programs: named, never changed, and in nobody's way."""

import base64
import json
import os
import subprocess

import pytest

import cli_tools
from cli_tools import PBKDF2, fails, ok, run
from luksmeta_tools import CLEVIS_RECORD, add_record, records

FOREIGN_RECORD = bytes.fromhex("0123456789abcdef0123456789abcdef")
FOREIGN_UUID = "01234567-89ab-cdef-0123-456789abcdef"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(pin, config):
    """A JWE as Clevis makes them, sealed by nobody."""
    header = {"alg": "dir", "enc": "A256GCM", "clevis": {"pin": pin, pin: config}}
    parts = [json.dumps(header).encode(), b"", os.urandom(12), os.urandom(54), os.urandom(16)]
    return ".".join(b64(part) for part in parts)


def pkcs11():
    return compact("pkcs11", {"uri": "pkcs11:token=a?module-path=/b", "mechanism": "RSA-PKCS"})


def mixed():
    """A threshold with a pin that is known and one that is not."""
    key = {"kty": "oct", "k": b64(bytes(32))}
    shares = [compact("null", {"jwk": key}), compact("yubikey", {"slot": 2})]
    return compact("sss", {"t": 1, "p": b64(b"\xff" * 31 + b"\x43"), "jwe": shares})


def flattened(jwe):
    names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    return dict(zip(names, jwe.split(".")))


def bind(place, slot):
    ok("bind", "v", "{}", "--pin", "null", "--key", "file:k1", "--slot", slot, cwd=place)


@pytest.fixture(params=["luks1", "luks2"])
def volume(request, place):
    """Keyslots 1 and 2 are ours, 3 is bound by pkcs11, 4 by a threshold with a yubikey in it, and
    beside 5 there is what only its program knows. kept() is all of the latter three."""
    ok("create", "v", "--size", "64K", "--type", request.param, "--key", "file:k1", *PBKDF2,
       cwd=place)
    bind(place, 1)
    bind(place, 2)
    for slot in (3, 4, 5):
        (place / "other").write_bytes(b"passphrase of %d" % slot)
        ok("key", "add", "v", "--key", "file:k1", "--new-key", "file:other", "--slot", slot,
           *PBKDF2, cwd=place)
    if request.param == "luks1":
        add_record(place / "v", 3, CLEVIS_RECORD, pkcs11().encode())
        add_record(place / "v", 4, CLEVIS_RECORD, mixed().encode())
        add_record(place / "v", 5, FOREIGN_RECORD, b"what another program keeps")
        return request.param, place, lambda *only: records(place / "v", only or (3, 4, 5))
    # With spaces and members that nobody else would write.
    tokens = [{"type": "clevis", "keyslots": ["3"], "jwe": flattened(pkcs11()), "z": [1, {"y": 2}]},
              {"jwe": flattened(mixed()), "keyslots": ["4"], "type": "clevis"},
              {"type": "systemd-fido2", "keyslots": ["5"], "fido2-credential": "abcd"}]
    for token in tokens:
        ok("token", "import", "v", "-", stdin=json.dumps(token).encode(), cwd=place)
    return request.param, place, lambda *only: [
        ok("token", "export", "v", slot - 1, cwd=place).out for slot in only or (3, 4, 5)]


def test_they_are_named(volume):
    version, place, _ = volume
    listed = ok("bindings", "v", "--json", cwd=place).json
    states = {one["keyslot"]: one["state"] for one in listed["bindings"]}
    assert states == {1: "good", 2: "good", 3: "unknown", 4: "good"}
    other, = listed["others"]
    assert other["keyslots"] == [5]
    assert other["type"] == (FOREIGN_UUID if version == "luks1" else "systemd-fido2")
    text = ok("bindings", "v", cwd=place).text
    assert "pkcs11: a pin that is not known" in text and "yubikey: a pin that is not known" in text
    assert f"{other['type']}, of another program" in text
    found = run("report", "v", "--json", check=1, cwd=place).json["volumes"][0]["findings"]
    unknown = {(one["keyslot"], one["problem"].split("'")[1])
               for one in found if one["code"] == "unknown-pin"}
    assert unknown == {(3, "pkcs11"), (4, "yubikey")}
    # Once, not once more for each way in which it does not open.
    assert [one["code"] for one in found if one["keyslot"] == 3] == ["unknown-pin"]


@pytest.mark.parametrize("commands", [
    [["bind", "v", "{}", "--pin", "null", "--key", "file:k1", "--slot", 7]],
    [["unbind", "v", "--slot", 2], ["unbind", "v", "--orphans"]],
    [["rebind", "v", "--slot", 1]],
    [["rekey", "v", "--journal", "journal"]],
    [["edit", "v", "{}", "--pin", "null", "--slot", 1]],
    [["top-up", "v", "--slot", 1]],
    [["key", "remove", "v", "--slot", 0, "--yes"]],
    [["key", "change", "v", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2]],
    [["header", "backup", "v", "b"], ["header", "restore", "v", "b", "--yes"]],
], ids=lambda commands: commands[0][0])
def test_they_stay_byte_for_byte(volume, commands):
    _, place, kept = volume
    before = kept()
    for command in commands:
        ok(*command, cwd=place)
    assert kept() == before
    (place / "other").write_bytes(b"passphrase of 3")
    ok("key", "test", "v", "--key", "file:other", "--slot", 3, cwd=place)


def test_rebind_of_all_leaves_them(volume):
    _, place, kept = volume
    before = kept()
    result = run("rebind", "v", "--json", check=1, cwd=place)
    assert (result.json["keyslots"], result.json["left"]) == ([1, 2], [3, 4])
    assert "pkcs11" in result.err and "yubikey" in result.err
    for slot, name in ((3, "pkcs11"), (4, "yubikey")):
        result = fails(4, "rebind", "v", "--slot", slot, "--key", "file:k1", cwd=place)
        assert name in result.err and "stays as it is" in result.err
    assert kept() == before
    ok("unlock", "v", cwd=place)


def test_rekey_says_which_bindings_it_cannot_judge(volume):
    _, place, _ = volume
    result = ok("rekey", "v", "--journal", "journal", "--json", cwd=place).json
    assert [(one["keyslot"], one["pin"]) for one in result["volumes"][0]["unknown_pins"]] == [
        (3, "pkcs11"), (4, "yubikey")]
    assert "'yubikey', which is not known" in ok("rekey", "v", "--journal", "j", cwd=place).text


def test_a_policy_takes_their_place_only_if_it_is_said(volume):
    _, place, kept = volume
    for slot in (1, 2, 4):
        ok("unbind", "v", "--slot", slot, "--yes", cwd=place)
    before = kept(3)
    result = fails(1, "edit", "v", "{}", "--pin", "null", "--key", "file:k1", cwd=place)
    assert "pkcs11" in result.err and kept(3) == before
    ok("edit", "v", "{}", "--pin", "null", "--key", "file:k1", "--slot", 3, cwd=place)
    assert ok("unlock", "v", "--json", cwd=place).json["volumes"][0]["keyslot"] == 3


def test_a_header_is_not_converted_past_them(volume):
    version, place, kept = volume
    before = (place / "v").read_bytes()
    target = "luks2" if version == "luks1" else "luks1"
    result = fails(4, "header", "convert", "v", "--type", target, cwd=place)
    assert ("luksmeta records" if version == "luks1" else "tokens") in result.err
    assert (place / "v").read_bytes() == before


def test_a_number_beside_which_another_program_keeps_a_record_is_not_taken(volume):
    version, place, kept = volume
    ok("key", "remove", "v", "--slot", 5, cwd=place)
    if version == "luks2":
        return
    before = kept()
    result = fails(5, "bind", "v", "{}", "--pin", "null", "--key", "file:k1", "--slot", 5,
                   cwd=place)
    assert "another program" in result.err
    ok("bind", "v", "{}", "--pin", "null", "--key", "file:k1", cwd=place)
    assert kept() == before


def test_clevis_names_them_too(volume):
    version, place, kept = volume
    before = kept()
    listed = clevis(place, "list", "-d", "v").stdout.splitlines()
    assert listed[2:] == ["3: unknown pin 'pkcs11'",
                          """4: sss '{"t":1,"pins":{"null":[{}],"yubikey":[{}]}}'"""]
    pins = clevis(place, "list", "-d", "v", "-p").stdout.split()
    assert pins == ["null", "pkcs11", "sss", "yubikey"]
    for slot in ("3", "4"):
        done = clevis(place, "regen", "-q", "-d", "v", "-s", slot, status=1)
        assert "not known here" in done.stderr
    clevis(place, "regen", "-q", "-d", "v", "-s", "2")
    clevis(place, "unbind", "-f", "-d", "v", "-s", "2")
    clevis(place, "bind", "-f", "-k", "k1", "-d", "v", "null", "{}")
    assert kept() == before
    clevis(place, "unbind", "-f", "-d", "v", "-s", "3")
    left = [one["keyslot"] for one in ok("bindings", "v", "--json", cwd=place).json["bindings"]]
    assert left == [1, 2, 4]


def clevis(place, name, *arguments, status=0):
    program = f"clevis-luks-{name}"
    done = subprocess.run([program, *arguments], executable=cli_tools.PROGRAM, cwd=place, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode == status, done
    return done
