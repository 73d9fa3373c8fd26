"""--json, --dry-run and --quiet in every command."""

import os
import shutil

import pytest

from cli_tools import ARGON2, IDENTITY, PBKDF2, RECIPIENT, ok, run, tree

NEW = ["--new-key", "file:k3", *ARGON2]
# What each changing command does to the volume v2 (k1, k2) with a token 0.
CHANGES = {
    "create": ["create", "new", "--size", "64K", "--key", "file:k1", *PBKDF2],
    "create over data": ["create", "v2", "--key", "file:k1", *PBKDF2, "--yes"],
    "create detached": ["create", "new", "--size", "64K", "--header", "new.h", "--key", "file:k1",
                        *PBKDF2],
    "encrypt": ["encrypt", "plain", "new", "--key", "file:k1", *PBKDF2],
    "decrypt": ["decrypt", "v2", "new", "--key", "file:k1"],
    "key add": ["key", "add", "v2", "--key", "file:k1", *NEW],
    "key remove": ["key", "remove", "v2", "--slot", "1"],
    "key change": ["key", "change", "v2", "--key", "file:k2", *NEW],
    "key convert": ["key", "convert", "v2", "--key", "file:k1", *ARGON2],
    "header backup": ["header", "backup", "v2", "new"],
    "header restore": ["header", "restore", "v2", "backup", "--allow", "older"],
    "header convert": ["header", "convert", "simple", "--type", "luks1"],
    "header resize": ["header", "resize", "v2", "--metadata-size", "32K"],
    "header detach": ["header", "detach", "v2", "new"],
    "header attach": ["header", "attach", "v2", "backup", "--allow", "older"],
    "header repair": ["header", "repair", "damaged"],
    "image encrypt": ["image", "encrypt", "plain", "new", "--key", "file:k1", *PBKDF2],
    "image decrypt": ["image", "decrypt", "v2", "new", "--key", "file:k1"],
    "image convert": ["image", "convert", "plain", "new", "--format", "qcow2"],
    "image rekey": ["image", "rekey", "v2", "new", "--key", "file:k1", "--new-key", "file:k3",
                    *PBKDF2],
    "token import": ["token", "import", "v2", "token"],
    "token remove": ["token", "remove", "v2", "0"],
    "config": ["config", "v2", "--label", "new"],
    "erase": ["erase", "v2", "--yes"],
    "archive init": ["archive", "init", "--store", "other", "--recipient", RECIPIENT],
    "archive add": ["archive", "add", "v2", "--store", "store"],
    "archive import": ["archive", "import", "backup2", "--store", "store"],
    "archive export": ["archive", "export", "ID", "new", "--store", "store", "--identity", "file:id"],
    "archive scan": ["archive", "scan", "v2", "--add", "--store", "store"],
    "archive prune": ["archive", "prune", "--keep", "1", "--store", "store"],
    "archive mirror": ["archive", "mirror", "MIRROR", "--store", "store"],
    "archive sync": ["archive", "sync", "--store", "store"],
}
READS = {
    "info": ["info", "v2"],
    "key list": ["key", "list", "v2"],
    "key test": ["key", "test", "v2", "--key", "file:k1"],
    "header check": ["header", "check", "v2"],
    "inspect": ["inspect", "v2"],
    "image volume-check": ["image", "volume-check", "v2", "--type-json", "type", "--back-end",
                           "brick"],
    "policy show": ["policy", "show"],
    "policy check": ["policy", "check", "v2"],
    "archive list": ["archive", "list", "--store", "store"],
    "archive show": ["archive", "show", "ID", "--store", "store"],
    "archive diff": ["archive", "diff", "ID", "ID", "--store", "store"],
    "archive drill": ["archive", "drill", "ID", "drilled", "--key", "file:k1", "--store", "store",
                      "--identity", "file:id"],
    "archive verify": ["archive", "verify", "--store", "store"],
    "archive status": ["archive", "status", "--store", "store"],
    "token list": ["token", "list", "v2"],
    "token export": ["token", "export", "v2", "0"],
    "config": ["config", "v2"],
    "bench kdf": ["bench", "kdf", "--iter-time", "1"],
    "bench ciphers": ["bench", "ciphers", "--cipher", "aes-xts-plain64", "--row-time", "1"],
    "completion": ["completion", "bash"],
    "help": ["help"],
    "version": ["version"],
}


@pytest.fixture
def volume(luks2):
    ok("header", "backup", "v2", "backup", cwd=luks2)
    (luks2 / "type").write_text('{"provider":"luks2","control_location":"front-end"}')
    (luks2 / "token").write_text('{"type":"t","keyslots":["0"]}')
    ok("archive", "init", "--store", "store", "--recipient", RECIPIENT, cwd=luks2)
    ok("archive", "add", "v2", "--store", "store", cwd=luks2)
    (luks2 / "id").write_text(IDENTITY + "\n")
    ok("token", "import", "v2", "token", cwd=luks2)
    ok("archive", "import", "backup", "--store", "store", cwd=luks2)
    ok("archive", "add", "v2", "--store", "store", cwd=luks2)
    ok("config", "v2", "--label", "old", cwd=luks2)
    ok("header", "backup", "v2", "backup2", cwd=luks2)
    ok("create", "simple", "--size", "64K", "--sector-size", "512", "--key", "file:k1", *PBKDF2,
       cwd=luks2)
    # The newest snapshot: of a volume with a partition table of the old kind inside.
    (luks2 / "mbr").write_bytes(bytes(510) + b"\x55\xaa" + bytes(3584))
    ok("encrypt", "mbr", "drilled", "--key", "file:k1", *PBKDF2, cwd=luks2)
    ok("archive", "add", "drilled", "--store", "store", cwd=luks2)
    ok("archive", "mirror", str(luks2 / "mirror"), "--store", "store", cwd=luks2)
    shutil.rmtree(luks2 / "mirror/snapshots")  # for sync
    damaged = bytearray((luks2 / "v2").read_bytes())
    damaged[5000] ^= 1
    (luks2 / "damaged").write_bytes(damaged)
    return luks2


def words(command, folder):
    """The command with the newest snapshot's ID in the place of ID, and a path in that of MIRROR."""
    command = [str(folder / "mirror2") if word == "MIRROR" else word for word in command]
    if "ID" not in command:
        return command
    listed = ok("archive", "list", "--store", "store", "--json", cwd=folder).json
    return [listed["snapshots"][0]["id"] if word == "ID" else word for word in command]


def test_every_command_is_here():
    commands = {command["name"] for command in ok("help", "--json").json["commands"]}
    # Those that do not end, and those that want servers, keys or key managers, have their own tests.
    elsewhere = {"archive watch", "serve", "seal", "unseal", "bind", "unbind", "rebind", "edit",
                 "top-up", "bindings", "report", "passphrase", "unlock"}
    elsewhere |= {"rekey"}
    elsewhere |= {f"image {verb}" for verb in ("properties", "export", "import", "upload", "download",
                                               "verify", "delete")}
    elsewhere |= {name for name in commands if name.startswith(("keystore ", "tang ", "recover ", "vm "))}
    assert commands - elsewhere == {name for name in [*CHANGES, *READS]
                                    if name not in ("create over data", "create detached")}


@pytest.mark.parametrize("name", CHANGES)
def test_a_dry_run_writes_nothing(volume, name):
    before = tree(volume)
    times = {path.name: path.stat().st_mtime_ns for path in volume.iterdir()}
    result = ok(*words(CHANGES[name], volume), "--dry-run", "--json", cwd=volume).json
    assert result["dry_run"] is True
    assert ok(*words(CHANGES[name], volume), "--dry-run", cwd=volume).text.startswith("dry run: would ")
    assert tree(volume) == before
    assert {path.name: path.stat().st_mtime_ns for path in volume.iterdir()} == times


@pytest.mark.parametrize("name", CHANGES)
def test_changes_print_json(volume, name):
    before = tree(volume)
    result = ok(*words(CHANGES[name], volume), "--json", cwd=volume).json
    assert isinstance(result, dict) and result["dry_run"] is False
    assert tree(volume) != before


@pytest.mark.parametrize("name", CHANGES)
def test_quiet_changes_say_nothing(volume, name):
    assert ok(*words(CHANGES[name], volume), "--quiet", cwd=volume).out == b""


@pytest.mark.parametrize("name", READS)
def test_reading_commands_print_json_and_write_nothing(volume, name):
    before = tree(volume)
    # The label was changed behind the archive's back: status says so by its status.
    # The volume is weak, as test volumes are: so does the check.
    status = {"archive status": 1, "header check": 1}.get(name, 0)
    assert run(*words(READS[name], volume), "--json", cwd=volume, check=status).json
    assert run(*words(READS[name], volume), cwd=volume, check=status).out
    assert tree(volume) == before


def test_a_dry_run_finds_what_would_fail(volume):
    assert run(*CHANGES["key add"], "--slot", "0", "--dry-run", cwd=volume).status == 5
    assert run("key", "add", "v2", "--key", "file:k3", *NEW, "--dry-run", cwd=volume).status == 2
    assert run("config", "v2", "--label", "x" * 99, "--dry-run", cwd=volume).status == 1
    last = ["key", "remove", "v2", "--slot", "0", "--dry-run"]
    ok("key", "remove", "v2", "--slot", "1", cwd=volume)
    result = run(*last, cwd=volume)
    assert result.status == 0 and "this would have to be confirmed" in result.err


def test_benchmarks_have_the_rows_that_are_promised():
    rows = ok("bench", "ciphers", "--cipher", "aes-xts-plain64", "--key-size", "512",
              "--sector-size", "512", "--row-time", "1", "--json").json
    assert {row["kernel"] for row in rows} >= {"openssl-per-sector"}
    for row in rows:
        assert (row["cipher"], row["key_bits"], row["sector_bytes"]) == \
            ("aes-xts-plain64", 512, 512)
        assert row["direction"] in ("encrypt", "decrypt") and row["bytes_per_second"] > 0
    kdfs = ok("bench", "kdf", "--iter-time", "1", "--json").json["rows"]
    assert {row["kdf"] for row in kdfs} == {"pbkdf2", "argon2i", "argon2id"}
    assert all(row["iterations_per_second"] > 0 for row in kdfs if row["kdf"] == "pbkdf2")


def test_json_survives_bytes_that_are_no_text(luks1):
    """A LUKS1 header may hold any bytes in its UUID field; JSON must stay JSON."""
    with open(luks1 / "v1", "r+b") as file:
        file.seek(168)
        file.write(b"\xff\xfe\x1b[31m" + b"x" * 20)
    result = run("info", "v1", "--json", cwd=luks1)
    assert result.status in (0, 4)
    assert isinstance(result.json, dict)
    text = run("info", "v1", cwd=luks1)
    assert b"\x1b" not in text.out and "\x1b" not in text.err


def test_results_do_not_depend_on_the_locale(luks2):
    for locale in ("C", "C.UTF-8"):
        env = {**os.environ, "LC_ALL": locale}
        assert ok("info", "v2", cwd=luks2, env=env).text.count("keyslots (2 of 32)") == 1
