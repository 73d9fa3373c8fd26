"""--json, --dry-run and --quiet in every command."""

import os

import pytest

from cli_tools import ARGON2, PBKDF2, ok, run, tree

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
    "header restore": ["header", "restore", "v2", "backup", "--yes"],
    "token import": ["token", "import", "v2", "token"],
    "token remove": ["token", "remove", "v2", "0"],
    "config": ["config", "v2", "--label", "new"],
    "erase": ["erase", "v2", "--yes"],
}
READS = {
    "info": ["info", "v2"],
    "key list": ["key", "list", "v2"],
    "key test": ["key", "test", "v2", "--key", "file:k1"],
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
    (luks2 / "token").write_text('{"type":"t","keyslots":["0"]}')
    ok("token", "import", "v2", "token", cwd=luks2)
    return luks2


def test_every_command_is_here():
    commands = {command["name"] for command in ok("help", "--json").json["commands"]}
    assert commands == {name for name in [*CHANGES, *READS]
                        if name not in ("create over data", "create detached")}


@pytest.mark.parametrize("name", CHANGES)
def test_a_dry_run_writes_nothing(volume, name):
    before = tree(volume)
    times = {path.name: path.stat().st_mtime_ns for path in volume.iterdir()}
    result = ok(*CHANGES[name], "--dry-run", "--json", cwd=volume).json
    assert result["dry_run"] is True
    assert ok(*CHANGES[name], "--dry-run", cwd=volume).text.startswith("dry run: would ")
    assert tree(volume) == before
    assert {path.name: path.stat().st_mtime_ns for path in volume.iterdir()} == times


@pytest.mark.parametrize("name", CHANGES)
def test_changes_print_json(volume, name):
    before = tree(volume)
    result = ok(*CHANGES[name], "--json", cwd=volume).json
    assert isinstance(result, dict) and result["dry_run"] is False
    assert tree(volume) != before


@pytest.mark.parametrize("name", CHANGES)
def test_quiet_changes_say_nothing(volume, name):
    assert ok(*CHANGES[name], "--quiet", cwd=volume).out == b""


@pytest.mark.parametrize("name", READS)
def test_reading_commands_print_json_and_write_nothing(volume, name):
    before = tree(volume)
    assert ok(*READS[name], "--json", cwd=volume).json
    assert ok(*READS[name], cwd=volume).out
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
