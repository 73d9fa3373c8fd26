"""policy show and check, and --policy on every command that opens a header."""

import base64
import hashlib
import json

import pytest

from cli_tools import ARGON2, IDENTITY, PBKDF2, RECIPIENT, fails, ok, run, tree

LUKS1_ONLY = "versions = [1]\n"
NOT_LUKS2 = "header: LUKS2 is not allowed"


@pytest.fixture
def null(place):
    """Two things wrong: a null cipher for the payload, and for keyslot 0."""
    ok("create", "null", "--size", "64K", "--cipher", "cipher_null-ecb", "--key-size", "256",
       "--allow-insecure", "--key", "file:k1", *PBKDF2, cwd=place)
    return place


# ---- show --------------------------------------------------------------------------------------


def test_show_lists_what_is_built_in():
    assert [policy["name"] for policy in ok("policy", "show", "--json").json["policies"]] == \
        ["untrusted"]
    assert ok("policy", "show").text.startswith("untrusted ")


def test_what_show_prints_is_a_policy_file(place):
    (place / "copy.toml").write_bytes(ok("policy", "show", "untrusted").out)
    shown = ok("policy", "show", "untrusted", "--json").json
    copied = ok("policy", "show", "copy.toml", "--json", cwd=place).json
    assert shown["name"] == "untrusted" and copied["name"] == "copy.toml"
    assert shown["policy"] == copied["policy"]
    assert shown["policy"]["requirements"] == [] and "token_types" not in shown["policy"]
    (place / "again.toml").write_bytes(ok("policy", "show", "copy.toml", cwd=place).out)
    assert ok("policy", "show", "again.toml", "--json", cwd=place).json["policy"] == \
        shown["policy"]


@pytest.mark.parametrize("text, where, member", [
    ("versions = [1]\nsegment_type = []\n", "line 2", "'segment_type' is not a member"),
    ("\n\n[kdf.pbkdf2]\niterations = 1000\n", "line 4", "'kdf.pbkdf2.iterations' is not a table"),
    ("versions = [\n1,\ntrue\n]\n", "line 3", "'versions' is not a whole number"),
    ("versions = [1\n", "line 1", ""),
    ("versions = [1]\nversions = [2]\n", "line 2", "versions"),
])
def test_a_wrong_file_is_refused_with_its_line(luks2, text, where, member):
    (luks2 / "wrong.toml").write_text(text)
    before = tree(luks2)
    for command in (["policy", "show", "wrong.toml"],
                    ["policy", "check", "v2", "--policy", "wrong.toml"],
                    ["key", "remove", "v2", "--slot", "1", "--policy", "wrong.toml"]):
        err = fails(1, *command, cwd=luks2).err
        assert f"policy 'wrong.toml', {where}: " in err and member in err
    assert tree(luks2) == before


def test_a_file_that_is_too_large_or_not_there(luks2):
    (luks2 / "large").write_bytes(b"\n" * 65537)
    assert "has 65537 bytes, more than 65536" in \
        fails(1, "policy", "show", "large", cwd=luks2).err
    result = fails(1, "info", "v2", "--policy", "strict", cwd=luks2)
    assert "policy 'strict' is neither built in nor a file" in result.err
    assert "untrusted" in result.err
    fails(4, "policy", "show", ".", cwd=luks2)


# ---- check -------------------------------------------------------------------------------------


def test_check_of_what_is_allowed(luks2):
    before = tree(luks2)
    result = ok("policy", "check", "v2", "--json", cwd=luks2).json
    backup = luks2 / "backup"
    ok("header", "backup", "v2", "backup", cwd=luks2)
    digest = ok("info", "v2", "--json", cwd=luks2).json["digests"][0]
    assert result == {
        "volume": "v2", "policy": "untrusted", "allowed": True, "violations": [],
        "fingerprint": hashlib.sha256(backup.read_bytes()).hexdigest(),
        "volume_key_digests": result["volume_key_digests"]}
    assert result["volume_key_digests"] == [base64.b64decode(digest["value"]).hex()]
    text = ok("policy", "check", "v2", cwd=luks2).text
    assert text.startswith("policy 'untrusted' allows the header of 'v2'\n")
    assert result["fingerprint"] in text
    backup.unlink()
    assert tree(luks2) == before


def test_check_lists_every_violation(null):
    (null / "p.toml").write_text(
        'extends = "untrusted"\nversions = [1]\nkeyslots = { min = 2 }\n'
        "[keyslot_ciphers]\nserpent-xts-plain64 = [512]\n")
    result = run("policy", "check", "null", "--policy", "p.toml", "--json", cwd=null, check=6)
    assert result.err == ""
    found = result.json
    assert found["allowed"] is False and found["policy"] == "p.toml"
    assert [(one["rule"], one["object"]) for one in found["violations"]] == [
        ("versions", "header"), ("keyslots", "header"), ("ciphers", "segment 0"),
        ("keyslot_ciphers", "keyslot 0")]
    assert found["violations"][2] == {
        "rule": "ciphers", "object": "segment 0", "found": "cipher_null-ecb",
        "message": "segment 0: cipher 'cipher_null-ecb' is not allowed: it encrypts nothing"}
    text = run("policy", "check", "null", "--policy", "p.toml", cwd=null, check=6).text
    assert text.startswith("policy 'p.toml' does not allow the header of 'null'\n")
    for one in found["violations"]:
        assert f"  {one['message']}\n" in text


def test_check_with_a_header_apart(place):
    ok("create", "data", "--header", "head", "--size", "64K", "--type", "luks1", "--cipher",
       "aes-cbc-plain64", "--key-size", "256", "--key", "file:k1", *PBKDF2, cwd=place)
    for volume in (["data", "--header", "head"], ["head"]):
        found = run("policy", "check", *volume, "--json", cwd=place, check=6).json
        assert [one["object"] for one in found["violations"]] == ["segment 0", "keyslot 0"]
        assert "its IVs can be predicted" in found["violations"][0]["message"]


def test_check_of_what_is_no_header_is_an_error(place):
    assert "no LUKS header" in fails(4, "policy", "check", "plain", cwd=place).err


# ---- --policy ----------------------------------------------------------------------------------

# Commands that open the header of `v2`, and what else they need.
OPENING = [
    ["info", "v2"],
    ["decrypt", "v2", "out", "--key", "file:k1"],
    ["key", "list", "v2"],
    ["key", "test", "v2", "--key", "file:k1"],
    ["key", "add", "v2", "--key", "file:k1", "--new-key", "file:k3", *PBKDF2],
    ["key", "add", "v2", "--key", "file:k1", "--new-key", "file:k3", *PBKDF2, "--dry-run"],
    ["key", "remove", "v2", "--slot", "1"],
    ["key", "change", "v2", "--key", "file:k1", "--new-key", "file:k3", *PBKDF2],
    ["key", "convert", "v2", "--key", "file:k1", *ARGON2],
    ["header", "backup", "v2", "out"],
    ["header", "restore", "v2", "backup"],
    ["header", "restore", "v2", "backup", "--dry-run"],
    ["header", "repair", "v2"],
    ["header", "resize", "v2", "--metadata-size", "32K"],
    ["header", "detach", "v2", "apart"],
    ["header", "attach", "v2", "backup"],
    ["archive", "add", "v2", "--store", "store"],
    ["archive", "drill", "@", "v2", "--key", "file:k1", "--store", "store", "--identity",
     "file:identity"],
    ["token", "list", "v2"],
    ["token", "import", "v2", "token"],
    ["token", "export", "v2", "0"],
    ["token", "remove", "v2", "0"],
    ["config", "v2"],
    ["config", "v2", "--label", "new"],
    ["erase", "v2", "--yes"],
]
TAKES_POLICY = {" ".join(command[:2]) for command in OPENING} | \
    {command[0] for command in OPENING} | {"policy check", "header check", "header convert"}
# Commands about bindings; those of several volumes say for each what is wrong.
BINDING = [
    ["bind", "v2", "{}", "--pin", "null", "--key", "file:k1"],
    ["edit", "v2", "{}", "--pin", "null"],
    ["rebind", "v2"],
    ["unbind", "v2", "--slot", "2"],
    ["bindings", "v2"],
    ["top-up", "v2"],
    ["passphrase", "v2"],
    ["report", "v2"],
    ["unlock", "v2"],
]
TAKES_POLICY |= {command[0] for command in BINDING}
# They need nbdkit or a key manager as well; their headers are opened by the same functions.
TAKES_POLICY |= {"serve", "keystore resolve"}
# They judge before they ask a virtual machine, libvirt or a server of Tang.
ELSEWHERE = [
    ["recover", "request", "v2", "--state", "state"],
    ["vm", "attach", "--qmp", "none", "--volume", "v2", "--key", "file:k1"],
    ["vm", "xml", "--volume", "v2"],
    ["vm", "define", "--volume", "v2", "--key", "file:k1"],
]
# rekey says for each volume what is wrong; recover finish opens as recover request does.
TAKES_POLICY |= {" ".join(command[:2]) for command in ELSEWHERE} | {"rekey", "recover finish"}
# There --policy is whom to seal to.
HEADER_POLICY = {"bind", "edit"}


@pytest.fixture
def opened(luks2):
    """v2 with a token, a backup of it, and an archive with one snapshot of another label."""
    (luks2 / "token").write_text(json.dumps({"type": "test", "keyslots": []}))
    (luks2 / "identity").write_text(IDENTITY + "\n")
    ok("archive", "init", "--store", "store", "--recipient", RECIPIENT, cwd=luks2)
    added = ok("archive", "add", "v2", "--store", "store", "--json", cwd=luks2).json
    ok("token", "import", "v2", "token", cwd=luks2)
    ok("header", "backup", "v2", "backup", cwd=luks2)
    return luks2, added["id"]


@pytest.mark.parametrize("command", OPENING, ids=" ".join)
def test_every_command_that_opens_a_header_judges_it_first(opened, command):
    place, snapshot = opened
    (place / "p.toml").write_text(LUKS1_ONLY)
    command = [snapshot if word == "@" else word for word in command]
    before = tree(place)
    result = fails(6, *command, "--policy", "p.toml", "--json", cwd=place)
    assert NOT_LUKS2 in result.err
    assert result.json["error"]["code"] == "unsafe"
    assert NOT_LUKS2 in result.json["error"]["message"]
    assert tree(place) == before
    # --yes is for other dangers.
    if command[0] in ("erase", "header") and "--yes" not in command:
        assert NOT_LUKS2 in fails(6, *command, "--yes", "--policy", "p.toml", cwd=place).err
        assert tree(place) == before


@pytest.mark.parametrize("command", OPENING, ids=" ".join)
def test_what_the_policy_allows_is_done(opened, command):
    place, snapshot = opened
    command = [snapshot if word == "@" else word for word in command]
    status = run(*command, "--policy", "untrusted", cwd=place).status
    # The payload is noise to `archive drill`.
    assert status == (6 if command[:2] == ["archive", "drill"] else 0)


@pytest.mark.parametrize("command", BINDING, ids=" ".join)
def test_commands_about_bindings_judge_the_header_first(luks2, command):
    ok("bind", "v2", "{}", "--pin", "null", "--key", "file:k1", cwd=luks2)
    (luks2 / "p.toml").write_text(LUKS1_ONLY)
    before = tree(luks2)
    option = "--header-policy" if command[0] in HEADER_POLICY else "--policy"
    result = run(*command, option, "p.toml", cwd=luks2)
    assert result.status == (1 if command[0] == "report" else 6)
    assert NOT_LUKS2 in result.err + result.text
    assert tree(luks2) == before
    status = run(*command, option, "untrusted", cwd=luks2).status
    # The pin null is no protection, which a report says.
    assert status == (1 if command[0] == "report" else 0)


@pytest.mark.parametrize("command", ELSEWHERE, ids=" ".join)
def test_commands_that_reach_elsewhere_judge_the_header_first(luks2, command):
    (luks2 / "p.toml").write_text(LUKS1_ONLY)
    before = tree(luks2)
    assert NOT_LUKS2 in fails(6, *command, "--policy", "p.toml", cwd=luks2).err
    assert tree(luks2) == before


def test_rekey_leaves_what_the_policy_refuses(luks2):
    (luks2 / "p.toml").write_text(LUKS1_ONLY)
    before = (luks2 / "v2").read_bytes()
    result = run("rekey", "v2", "--journal", "j", "--policy", "p.toml", cwd=luks2)
    assert result.status == 1 and NOT_LUKS2 in result.text + result.err
    assert (luks2 / "v2").read_bytes() == before


def test_no_command_with_a_volume_is_without_policy():
    for command in ok("help", "--json").json["commands"]:
        options = {option["name"] for option in command["options"]}
        volume = "--volume" in options and command["name"].startswith("vm ")
        volume |= any(argument["name"] == "VOLUME" for argument in command["arguments"])
        if command["name"] != "create":
            opens = volume or command["name"] in ("decrypt", "recover finish")
            assert ("--policy" in options) == opens, command
        if "--policy" in options:
            assert command["name"] in TAKES_POLICY, command


def test_decrypt_with_a_header_apart_judges_that(null):
    ok("header", "backup", "null", "head", cwd=null)
    (null / "data").write_bytes(bytes(1 << 16))
    err = fails(6, "decrypt", "data", "out", "--header", "head", "--key", "file:k1",
                "--allow-insecure", "--policy", "untrusted", cwd=null).err
    assert "it encrypts nothing" in err
    assert not (null / "out").exists()


def test_allow_insecure_does_not_override_a_policy(null):
    ok("key", "test", "null", "--key", "file:k1", "--allow-insecure", cwd=null)
    assert "segment 0: cipher 'cipher_null-ecb' is not allowed" in \
        fails(6, "key", "test", "null", "--key", "file:k1", "--allow-insecure", "--policy",
              "untrusted", cwd=null).err


def test_restore_judges_what_comes_not_what_is_there(null):
    """A policy does not stand in the way of putting a good header over a bad one."""
    ok("header", "backup", "null", "bad", cwd=null)
    ok("create", "good", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=null)
    ok("header", "backup", "good", "good.backup", cwd=null)
    fails(6, "header", "restore", "good", "bad", "--yes", "--policy", "untrusted", cwd=null)
    ok("policy", "check", "good", cwd=null)
    ok("header", "restore", "null", "good.backup", "--allow", "uuid,cipher,volume-key,older",
       "--policy", "untrusted", cwd=null)
    ok("policy", "check", "null", cwd=null)
    assert (null / "null").read_bytes()[:16 << 20] == (null / "good.backup").read_bytes()


def test_restore_and_repair_from_the_archive_judge_the_snapshot(opened):
    place, snapshot = opened
    (place / "p.toml").write_text(LUKS1_ONLY)
    archive = ["--store", "store", "--identity", "file:identity"]
    with open(place / "v2", "r+b") as volume:
        volume.write(bytes(16 << 20))
    before = tree(place)
    for command in (["header", "restore", "v2", f"archive:{snapshot}", "--yes"],
                    ["header", "repair", "v2", "--yes"]):
        assert NOT_LUKS2 in fails(6, *command, *archive, "--policy", "p.toml", cwd=place).err
        assert tree(place) == before
    ok("header", "repair", "v2", "--yes", *archive, "--policy", "untrusted", cwd=place)
    ok("key", "test", "v2", "--key", "file:k1", cwd=place)


# ---- pins --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_pins(place, kind):
    create = ["--size", "64K", "--type", kind, "--key", "file:k1", *PBKDF2]
    ok("create", "mine", *create, cwd=place)
    ok("create", "other", *create, cwd=place)
    pins = ok("policy", "check", "mine", "--json", cwd=place).json
    (place / "header.toml").write_text(
        f'[pin]\nfingerprints = ["{pins["fingerprint"].upper()}"]\n')
    (place / "key.toml").write_text(
        f'[pin]\nvolume_key_digests = ["{pins["volume_key_digests"][0]}"]\n')
    test = ["--key", "file:k1", "--policy"]
    for policy in ("header.toml", "key.toml"):
        ok("key", "test", "mine", *test, policy, cwd=place)
        assert "pinned" in fails(6, "key", "test", "other", *test, policy, cwd=place).err
    # Another passphrase is another header, and the same volume key.
    ok("key", "add", "mine", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2, "--policy",
       "header.toml", cwd=place)
    assert "its fingerprint" in fails(6, "info", "mine", "--policy", "header.toml", cwd=place).err
    ok("info", "mine", "--policy", "key.toml", cwd=place)


def test_a_header_that_is_cut_has_no_fingerprint(luks2):
    (luks2 / "cut").write_bytes((luks2 / "v2").read_bytes()[:1 << 16])
    assert ok("policy", "check", "cut", "--json", cwd=luks2).json["fingerprint"] is None
    (luks2 / "p.toml").write_text('[pin]\nfingerprints = ["%064d"]\n' % 0)
    found = run("policy", "check", "cut", "--policy", "p.toml", "--json", cwd=luks2, check=6).json
    assert found["violations"][0]["rule"] == "pin.fingerprints"
