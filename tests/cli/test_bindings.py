"""Commands about bindings, with the pin null: what needs no server. Clevis and Tang: tests/interop."""

import json

import pytest

from cli_tools import PBKDF2, fails, ok, run
from luksmeta_tools import CLEVIS_RECORD, add_record


@pytest.fixture(params=["luks1", "luks2"])
def volume(request, place):
    ok("create", "v", "--size", "64K", "--type", request.param, "--key", "file:k1", *PBKDF2,
       cwd=place)
    return place


def bind(place, *more):
    return ok("bind", "v", "{}", "--pin", "null", "--key", "file:k1", "--json", *more,
              cwd=place).json


def bindings(place):
    return ok("bindings", "v", "--json", cwd=place).json["bindings"]


def test_a_binding_opens_the_volume_in_every_command(volume):
    result = bind(volume)
    assert result["keyslot"] == 1 and result["pin"]["pin"] == "null"
    ok("key", "test", "v", "--key", "binding:", cwd=volume)
    ok("key", "test", "v", "--key", "binding:", "--slot", "1", cwd=volume)
    fails(1, "key", "test", "v", "--key", "binding:", "--slot", "0", cwd=volume)
    ok("key", "add", "v", "--key", "binding:", "--new-key", "file:k2", *PBKDF2, cwd=volume)
    ok("key", "test", "v", "--key", "file:k2", cwd=volume)
    ok("decrypt", "v", "out", "--key", "binding:", cwd=volume)


def test_a_binding_is_no_new_key(volume):
    bind(volume)
    result = fails(1, "key", "add", "v", "--key", "binding:", "--new-key", "binding:", cwd=volume)
    assert "lukskeep bind" in result.err
    fails(1, "create", "new", "--size", "64K", "--key", "binding:", cwd=volume)


def test_bindings_are_listed_rebound_and_removed(volume):
    bind(volume, "--slot", "3")
    listed, = bindings(volume)
    assert (listed["keyslot"], listed["state"]) == (3, "good")
    before = ok("passphrase", "v", "--quiet", cwd=volume).out
    ok("rebind", "v", cwd=volume)
    after = ok("passphrase", "v", cwd=volume)
    assert after.out != before and len(after.out) == 55 and "warning" in after.err
    assert [b["keyslot"] for b in bindings(volume)] == [3]
    ok("edit", "v", json.dumps({"t": 1, "pins": {"null": [{}, {}]}}), "--slot", "3", cwd=volume)
    assert bindings(volume)[0]["pin"]["threshold"] == 1
    ok("unbind", "v", "--slot", "3", cwd=volume)
    assert bindings(volume) == []
    fails(1, "unbind", "v", "--slot", "3", cwd=volume)
    fails(1, "unbind", "v", "--slot", "0", cwd=volume)
    fails(1, "rebind", "v", cwd=volume)
    fails(1, "passphrase", "v", cwd=volume)


def test_a_policy_that_a_stranger_put_there_is_not_followed(volume):
    """It opens what he sealed, and not the keyslot."""
    bind(volume)
    bind(volume)
    weaker = json.dumps({"t": 1, "pins": {"null": [{}, {}, {}]}})
    jwe = ok("seal", "--pin", "sss", weaker, stdin=b"of a stranger", cwd=volume).out.strip()
    if b"LUKSMETA" in (volume / "v").read_bytes():
        add_record(volume / "v", 1, CLEVIS_RECORD, jwe)
    else:
        names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
        token = {"type": "clevis", "keyslots": ["1"],
                 "jwe": dict(zip(names, jwe.decode().split(".")))}
        ok("token", "import", "v", "-", "--token", 0, "--replace",
           stdin=json.dumps(token).encode(), cwd=volume)
    before = (volume / "v").read_bytes()
    for more in ([], ["--key", "file:k1"], ["--key", "binding:"]):
        result = fails(6, "rebind", "v", "--slot", 1, *more, cwd=volume)
        assert "may be anybody's" in result.err
    assert (volume / "v").read_bytes() == before
    ok("edit", "v", "{}", "--pin", "null", "--slot", 1, cwd=volume)
    assert [one["pin"]["pin"] for one in bindings(volume)] == ["null", "null"]
    ok("rebind", "v", cwd=volume)


def test_the_last_keyslot_goes_only_when_it_is_said(volume):
    bind(volume)
    ok("key", "remove", "v", "--slot", "0", cwd=volume)
    fails(6, "unbind", "v", "--slot", "1", cwd=volume)
    ok("unlock", "v", cwd=volume)
    ok("unbind", "v", "--slot", "1", "--yes", cwd=volume)
    run("unlock", "v", check=1, cwd=volume)


@pytest.mark.parametrize("arguments,part", [
    (["bind", "v", "--key", "file:k1"], "nothing says whom to seal to"),
    (["bind", "v", "{}", "--policy", "{}", "--key", "file:k1"], "given twice"),
    (["bind", "v", "{}", "--pin", "null", "--tang", "http://a", "--key", "file:k1"], "exclude"),
    (["bind", "v", "{}", "--pin", "null", "--slot", "0", "--key", "file:k1"], "taken"),
    (["bind", "v", "{}", "--pin", "null", "--slot", "99", "--key", "file:k1"], "does not exist"),
    (["unbind", "v"], "--slot N"),
    (["unbind", "v", "--slot", "1", "--orphans"], "--orphans"),
    (["edit", "v", "{}", "--pin", "null"], "has no bindings"),
])
def test_what_makes_no_sense_is_refused_before_anything_is_written(volume, arguments, part):
    before = (volume / "v").read_bytes()
    result = run(*arguments, cwd=volume)
    assert result.status in (1, 5)
    assert part in result.err
    assert (volume / "v").read_bytes() == before


def test_the_archive_has_the_bindings_of_before(volume, monkeypatch):
    monkeypatch.setenv("LUKSKEEP_ARCHIVE", str(volume / "store"))
    monkeypatch.setenv("LUKSKEEP_ARCHIVE_KEY", str(volume / "identity"))
    bind(volume)
    ok("unbind", "v", "--slot", "1", cwd=volume)
    snapshots = ok("archive", "list", "--json", cwd=volume).json["snapshots"]
    assert len(snapshots) >= 3
    bound = [s for s in snapshots if s["keyslots"] == 2]
    ok("header", "restore", "v", f"archive:{bound[0]['id']}", "--allow", "older", "--no-archive",
       cwd=volume)
    ok("unlock", "v", cwd=volume)


def test_a_damaged_table_of_luks1_is_named_and_made_anew_when_it_is_said(place):
    ok("create", "v", "--size", "64K", "--type", "luks1", "--key", "file:k1", *PBKDF2, cwd=place)
    bind(place)
    data = bytearray((place / "v").read_bytes())
    table = data.index(b"LUKSMETA")
    data[table + 20] ^= 1
    (place / "v").write_bytes(data)
    result = fails(4, "bindings", "v", cwd=place)
    assert "checksum" in result.err
    fails(4, "bind", "v", "{}", "--pin", "null", "--key", "file:k1", cwd=place)
    bind(place, "--reset-luksmeta")
    assert [b["keyslot"] for b in bindings(place)] == [2]
    ok("unlock", "v", cwd=place)
