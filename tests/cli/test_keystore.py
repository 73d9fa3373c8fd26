"""The keystore commands with a keystore in a file, and volumes whose keys are in it."""

import os
import re
import sqlite3
import stat
import subprocess

import pytest

import cli_tools
from cli_tools import IDENTITY, PBKDF2, fails, ok, run, start, tree

CHEAP = ["--pbkdf-iterations", "1", "--pbkdf-memory", "32", "--pbkdf-parallel", "1"]
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def store(place, monkeypatch):
    """A keystore under the key in file w, and the environment that names it."""
    for name in list(os.environ):
        if name.startswith(("OS_", "VAULT_", "LUKSKEEP_KEY", "LUKSKEEP_CRED")):
            monkeypatch.delenv(name)
    (place / "w").write_bytes(b"w" * 32)
    monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", f"file:{place}/keystore")
    ok("keystore", "init", "--wrapping-key", "file:w", cwd=place)
    return place


def put(secret, *options, cwd=None):
    return ok("keystore", "store", *options, stdin=secret, cwd=cwd).text.strip()


def get(name, *options, cwd=None):
    return ok("keystore", "get", name, *options, cwd=cwd).out


# ---- storing and getting -----------------------------------------------------------------------


def test_fixed_spelling(store):
    secret = b"two lines\nand bytes \x00\xff\n"
    name = put(secret, "--type", "passphrase", "--name", "db-disk")
    assert UUID.fullmatch(name)
    assert get(name) == secret
    listed = ok("keystore", "list", "--json").json["secrets"]
    assert [(one["id"], one["name"], one["type"]) for one in listed] == [
        (name, "db-disk", "passphrase")]
    assert "db-disk" in ok("keystore", "list").text
    assert ok("keystore", "list", "--name", "other").text == "no secrets\n"


def test_everything_said_of_a_secret_is_kept(store):
    result = ok("keystore", "store", "--type", "symmetric", "--name", "k", "--algorithm", "aes",
                "--bits", "256", "--mode", "xts", "--expires", "2030-01-02T03:04:05Z",
                "--metadata", "luks-uuid=u,a=b=c", "--consumer", "image/image/i", "--json",
                stdin=b"x" * 32)
    shown = ok("keystore", "show", result.json["id"], "--json").json
    assert shown.pop("created").endswith("Z")
    assert shown == {
        "id": result.json["id"], "name": "k", "type": "symmetric", "algorithm": "aes",
        "bit_length": 256, "mode": "xts", "content_type": "application/octet-stream",
        "expires": "2030-01-02T03:04:05Z", "metadata": {"a": "b=c", "luks-uuid": "u"},
        "consumers": [{"service": "image", "resource_type": "image", "resource_id": "i"}]}
    text = ok("keystore", "show", result.json["id"]).text
    assert "consumer      image/image/i" in text and "metadata      luks-uuid=u" in text


def test_generated_key(store):
    name = put(b"", "--generate", "512", "--name", "made")
    assert len(get(name)) == 64
    assert ok("keystore", "show", name, "--json").json["bit_length"] == 512
    fails(1, "keystore", "store", "--generate", "7")
    fails(1, "keystore", "store", "--generate", "256", "--secret", "file:k1", cwd=store)


@pytest.mark.parametrize("arguments, secret", [
    ([], b""),
    (["--type", "key"], b"x"),
    (["--expires", "tomorrow"], b"x"),
    (["--metadata", "Upper=1"], b"x"),
    (["--metadata", "novalue"], b"x"),
    (["--consumer", "image"], b"x"),
    (["--name", "n" * 256], b"x"),
    ([], b"x" * 65537),
], ids=str)
def test_refused_secrets(store, arguments, secret):
    fails(1, "keystore", "store", *arguments, stdin=secret)
    assert ok("keystore", "list").text == "no secrets\n"


def test_dry_run_changes_nothing(store):
    name = put(b"s")
    before = tree(store)
    ok("keystore", "store", "--dry-run", stdin=b"x")
    ok("keystore", "delete", name, "--dry-run")
    ok("keystore", "metadata", name, "a=b", "--dry-run")
    ok("keystore", "consumers", name, "--add", "a/b/c", "--dry-run")
    ok("keystore", "rewrap", "--wrapping-key", "file:w", "--dry-run", cwd=store)
    ok("keystore", "init", "--key-manager", "file:other", "--wrapping-key", "file:w", "--dry-run",
       cwd=store)
    after = tree(store)
    assert {k for k in after if not k.endswith(("-wal", "-shm"))} == set(before)
    assert ok("keystore", "show", name, "--json").json["metadata"] == {}


def test_get_into_a_file(store):
    name = put(b"secret")
    result = ok("keystore", "get", name, "--to", "out", "--json", cwd=store).json
    assert (result["to"], result["size"]) == ("out", 6)
    assert (store / "out").read_bytes() == b"secret"
    assert stat.S_IMODE((store / "out").stat().st_mode) == 0o600
    fails(5, "keystore", "get", name, "--to", "out", cwd=store)
    fails(1, "keystore", "get", name, "--json")
    assert get(name, "--encoding", "hex") == b"736563726574"
    assert get(name, "--encoding", "base64") == b"c2VjcmV0"
    fails(1, "keystore", "get", name, "--encoding", "from-hex")
    fails(1, "keystore", "get", "nothing")


def test_no_secret_on_a_terminal(store):
    name = put(b"secret")
    done = subprocess.run(["script", "-qec", f"{cli_tools.PROGRAM} keystore get {name}", "/dev/null"],
                          capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert b"refusing to write a secret to the terminal" in done.stdout
    assert b"secret\r" not in done.stdout.replace(b"a secret to", b"")


# ---- the file ----------------------------------------------------------------------------------


def test_file_is_private_and_sealed(store):
    put(b"very secret bytes", "--name", "n")
    for path in store.glob("keystore*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert b"very secret" not in path.read_bytes()
    os.chmod(store / "keystore", 0o644)
    assert "chmod 600" in fails(6, "keystore", "list").err


def test_init_makes_a_key(public_place, as_nobody, monkeypatch):
    for name in ("LUKSKEEP_KEY_MANAGER", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(public_place))
    ok("keystore", "init", wrap=as_nobody)
    name = ok("keystore", "store", stdin=b"s", wrap=as_nobody).text.strip()
    assert ok("keystore", "get", name, wrap=as_nobody).out == b"s"
    for path in (".config/lukskeep/keystore-key", ".local/share/lukskeep/keystore"):
        assert stat.S_IMODE((public_place / path).stat().st_mode) == 0o600
    if as_nobody:
        # Who opens another's keystore might store what that other can read.
        monkeypatch.setenv("LUKSKEEP_KEY_MANAGER",
                           f"file:{public_place}/.local/share/lukskeep/keystore")
        assert "another user" in fails(6, "keystore", "list").err
    monkeypatch.setenv("HOME", "/nonexistent")
    if as_nobody:
        monkeypatch.delenv("LUKSKEEP_KEY_MANAGER")
        assert "no home directory" in fails(1, "keystore", "list", wrap=as_nobody).err


def test_init_refuses(store, monkeypatch):
    fails(5, "keystore", "init", "--wrapping-key", "file:w", cwd=store)
    monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", f"file:{store}/new")
    (store / "short").write_bytes(b"x" * 15)
    for source in ("file:short", "file:absent", "fd:9", "manager:x", "keyring:lukskeep-no-such-key"):
        result = run("keystore", "init", "--wrapping-key", source, cwd=store)
        assert result.status in (1, 2), result
    assert not list(store.glob("new*")) and not list(store.glob(".*"))
    fails(1, "keystore", "init", "--key-manager", "barbican:", "--wrapping-key", "file:w", cwd=store)


def test_passphrase(store, monkeypatch):
    monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", f"file:{store}/pass")
    (store / "p").write_bytes(b"words")
    ok("keystore", "init", "--wrapping-key", "file:p", "--passphrase", *CHEAP, cwd=store)
    name = put(b"s")
    (store / "p").write_bytes(b"other words")
    assert "does not open" in fails(2, "keystore", "get", name).err
    piped = run("keystore", "init", "--wrapping-key", "file:-", "--passphrase", *CHEAP, "--key-manager",
                f"file:{store}/piped", stdin=b"words\n", cwd=store)
    assert piped.status == 1 and "newline" in piped.err and not (store / "piped").exists()
    (store / "p2").write_bytes(b"words")
    monkeypatch.setenv("LUKSKEEP_KEYSTORE_KEY", f"file:{store}/p2")
    assert get(name) == b"s"


def test_rewrap(store):
    names = [put(b"secret %d" % i) for i in range(5)]
    (store / "w2").write_bytes(b"2" * 16)
    old = (store / "keystore").read_bytes()
    assert ok("keystore", "rewrap", "--wrapping-key", "file:w2", "--json", cwd=store).json[
        "secrets"] == 5
    (store / "w").unlink()
    assert [get(name) for name in names] == [b"secret %d" % i for i in range(5)]
    assert old != (store / "keystore").read_bytes()
    fails(1, "keystore", "rewrap", cwd=store)


def test_damage_is_named(store):
    name = put(b"s", "--name", "n")
    with sqlite3.connect(store / "keystore") as database:
        database.execute("UPDATE secrets SET metadata = '{}' || ' '")
    assert name in fails(4, "keystore", "get", name).err
    fails(4, "keystore", "list")
    (store / "keystore").write_bytes(b"garbage" * 1000)
    fails(4, "keystore", "list")
    (store / "keystore").unlink()
    assert "keystore init" in fails(1, "keystore", "list").err


def test_many_at_once(store):
    processes = [start("keystore", "store", "--secret", f"file:{store}/k1") for _ in range(12)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 12, outputs
    names = {out.decode().strip() for out, _ in outputs}
    assert {one["id"] for one in ok("keystore", "list", "--json").json["secrets"]} == names


def test_killed_at_any_time_it_opens(store):
    for delay in (0.0, 0.01, 0.02, 0.04, 0.08):
        process = start("keystore", "store", "--secret", f"file:{store}/k1")
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        for one in ok("keystore", "list", "--json").json["secrets"]:
            assert get(one["id"]) == (store / "k1").read_bytes()


# ---- consumers ---------------------------------------------------------------------------------


def test_used_secrets_are_not_deleted(store):
    name = put(b"s", "--name", "db")
    ok("keystore", "consumers", name, "--add", "volume/volumes/v1")
    ok("keystore", "consumers", name, "--add", "volume/volumes/v1")
    assert len(ok("keystore", "consumers", name, "--json").json["consumers"]) == 1
    result = fails(6, "keystore", "delete", name)
    assert "volume/volumes/v1" in result.err and "--used-too" in result.err
    fails(6, "keystore", "delete", name, "--dry-run")
    assert "--yes" in fails(6, "keystore", "delete", name, "--used-too").err
    assert get(name) == b"s"
    ok("keystore", "consumers", name, "--remove", "volume/volumes/v1")
    assert ok("keystore", "consumers", name).text == "nothing uses it\n"
    ok("keystore", "delete", name)
    fails(1, "keystore", "delete", name)
    other = put(b"s", "--consumer", "a/b/c")
    ok("keystore", "delete", other, "--used-too", "--yes")
    assert ok("keystore", "list").text == "no secrets\n"


def test_reconcile(store):
    used, leaked, stale, unregistered = (put(b"s", "--name", n) for n in "abcd")
    gone = "11111111-2222-3333-4444-555555555555"
    ok("keystore", "consumers", used, "--add", "image/image/i")
    ok("keystore", "consumers", stale, "--add", "volume/volumes/old")
    references = store / "refs"
    references.write_text(f"# from the cloud\n{used} image/image/i\n\n{gone} volume/volumes/x\r\n"
                          f"{unregistered}\tserver/disk/d\n")
    result = run("keystore", "reconcile", references, "--json", check=1)
    found = {(one["kind"], one["id"]) for one in result.json["findings"]}
    assert found == {("dangling", gone), ("leaked", leaked), ("stale", stale),
                     ("unregistered", unregistered)}
    assert {(one["kind"], one["id"]) for one in run(
        "keystore", "reconcile", "--json", check=1).json["findings"]} == {
            ("leaked", leaked), ("leaked", unregistered)}
    run("keystore", "reconcile", references, "--register", "--forget", check=1)
    again = run("keystore", "reconcile", references, "--json", check=1).json["findings"]
    assert {(one["kind"], one["id"]) for one in again} == {
        ("dangling", gone), ("leaked", leaked), ("leaked", stale)}
    for name in (leaked, stale):
        ok("keystore", "delete", name)
    references.write_text(f"https://keys.example:9311/v1/secrets/{used}\n"
                          f"{unregistered.replace('-', '').upper()}\n")
    assert "agree" in ok("keystore", "reconcile", references).text
    references.write_text("x image\n")
    assert "line 1" in fails(1, "keystore", "reconcile", references).err
    fails(1, "keystore", "reconcile", "--register")


def test_metadata(store):
    name = put(b"s")
    ok("keystore", "metadata", name, "a=1", "b=2")
    assert ok("keystore", "metadata", name).text == "a=1\nb=2\n"
    assert ok("keystore", "metadata", name, "a=", "b=3", "--json").json["metadata"] == {"b": "3"}
    fails(1, "keystore", "metadata", name, "novalue")
    fails(1, "keystore", "metadata", name, "A=1")
    assert "no access lists" in fails(4, "keystore", "access", name).err


def test_copy(store, monkeypatch):
    names = [put(b"secret %d" % i, "--name", f"n{i}", "--metadata", f"i={i}") for i in range(3)]
    monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", f"file:{store}/two")
    ok("keystore", "init", "--wrapping-key", "file:w", cwd=store)
    here = f"file:{store}/keystore"
    copied = ok("keystore", "copy", f"file:{store}/two", "--all", "--key-manager", here,
                "--json").json["copied"]
    assert [one["from"] for one in copied] == names
    for i, one in enumerate(copied):
        assert get(one["to"]) == b"secret %d" % i
        assert ok("keystore", "metadata", one["to"]).text == f"i={i}\n"
    fails(1, "keystore", "copy", here)
    fails(1, "keystore", "copy", here, "x", "--key-manager", here)
    result = fails(1, "keystore", "copy", f"file:{store}/two", names[0], "nothing",
                   "--key-manager", here)
    assert names[0] in result.text and "1 of 2" in result.err


# ---- volumes -----------------------------------------------------------------------------------


def make(volume, key, cwd):
    return ok("create", volume, "--size", "64K", "--key", key, *PBKDF2, cwd=cwd)


def test_volume_with_a_stored_passphrase(store):
    name = put(b"the passphrase", "--name", "v")
    make("v", f"manager:{name}", store)
    (store / "k").write_bytes(b"the passphrase")
    ok("key", "test", "v", "--key", "file:k", cwd=store)
    result = ok("key", "test", "v", "--key", f"manager:{name}", cwd=store)
    assert result.err == ""
    other = put(b"\x01" * 32, "--type", "symmetric")
    ok("key", "add", "v", "--key", f"manager:{name}", "--new-key", f"manager:{other}", *PBKDF2,
       cwd=store)
    (store / "k").write_bytes(b"01" * 32)
    ok("key", "test", "v", "--key", "file:k", cwd=store)
    ok("decrypt", "v", "out", "--key", f"manager:{other}", cwd=store)


# What the writer of the secret stored, and the passphrase that it used.
WRITERS = {
    "cinder": ("symmetric", bytes(range(32)), bytes(range(32)).hex().encode(), "hex"),
    "nova": ("passphrase", b"AAECAwQ=", b"AAECAwQ=", "plain"),
    "nova-attach": ("passphrase", b"words", b"words".hex().encode(), "hex"),
    "echo": ("passphrase", b"words\n", b"words", "no-newline"),
    "base64": ("opaque", b"d29yZHM=", b"words", "from-base64"),
    "vaultlocker": ("opaque", b"c2VjcmV0" * 80, b"c2VjcmV0" * 80, "plain"),
    "raw": ("symmetric", b"raw key bytes 01", b"raw key bytes 01", "plain"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writers_passphrase(store, writer):
    kind, stored, passphrase, encoding = WRITERS[writer]
    name = put(stored, "--type", kind)
    (store / "k").write_bytes(passphrase)
    make("v", "file:k", store)
    first = ok("key", "test", "v", "--key", f"manager:{name}", cwd=store)
    result = ok("keystore", "resolve", name, "v", "--save", "--json", cwd=store).json
    assert result["encoding"] == encoding and result["saved"]
    assert ok("keystore", "metadata", name).text == f"lukskeep-encoding={encoding}\n"
    again = ok("key", "test", "v", "--key", f"manager:{name}", cwd=store)
    assert again.err == ""  # it is the first to be tried now
    assert first.err == "" or encoding in first.err
    # And what is made with it from now on is made the same way.
    make("v2", f"manager:{name}", store)
    ok("key", "test", "v2", "--key", "file:k", cwd=store)


def test_never_guesses_when_it_creates(store):
    name = put(b"bytes", "--type", "opaque")
    result = fails(1, "create", "v", "--size", "64K", "--key", f"manager:{name}", *PBKDF2, cwd=store)
    assert "lukskeep-encoding" in result.err and not (store / "v").exists()
    ok("keystore", "metadata", name, "lukskeep-encoding=hex")
    make("v", f"manager:{name}", store)
    (store / "k").write_bytes(b"bytes".hex().encode())
    ok("key", "test", "v", "--key", "file:k", cwd=store)
    fails(1, "create", "v2", "--size", "64K", "--volume-key", f"manager:{name}", "--key", "file:k1",
          *PBKDF2, cwd=store)


def test_secret_that_does_not_open(store):
    name = put(b"other\n")
    make("v", "file:k1", store)
    for command in (("key", "test", "v", "--key", f"manager:{name}"),
                    ("keystore", "resolve", name, "v")):
        assert "plain, no-newline, hex" in fails(2, *command, cwd=store).err
    assert ok("keystore", "metadata", name).text == ""
    fails(1, "key", "test", "v", "--key", "manager:", cwd=store)
    fails(1, "key", "test", "v", "--key", "manager:nothing", cwd=store)


def test_key_manager_that_makes_no_sense(store):
    for uri in ("", "x", "x:y", "file:", "barbican:host", "vault:https://h", "vault:h/m",
                "barbican:?project=p", "barbican:http://h?x=1", "vault:http://h/m?kv=3"):
        if uri:
            fails(1, "keystore", "list", "--key-manager", uri)


def test_archive_with_a_stored_identity(store, monkeypatch):
    monkeypatch.setenv("LUKSKEEP_ARCHIVE", str(store / "archive"))
    name = put(f"{IDENTITY}\n".encode(), "--type", "opaque", "--name", "archive")
    ok("archive", "init", "--recipient", f"manager:{name}", cwd=store)
    make("v", "file:k1", store)
    ok("archive", "add", "v", cwd=store)
    snapshot = ok("archive", "list", "--json", cwd=store).json["snapshots"][0]["id"]
    ok("archive", "export", snapshot, "out", "--identity", f"manager:{name}", cwd=store)
    assert (store / "out").read_bytes()[:6] == b"LUKS\xba\xbe"
    (store / "plain-identity").write_text(IDENTITY)
    ok("archive", "export", snapshot, "out2", "--identity", "file:plain-identity", cwd=store)
