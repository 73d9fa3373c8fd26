"""Wrong command lines: status 1, and a message that names what is wrong."""

import pytest

from cli_tools import fails, ok, run

WRONG = [
    ([], "no command is given"),
    (["frobnicate"], "there is no command 'frobnicate'"),
    (["key"], "'lukskeep key' wants a verb"),
    (["key", "--json"], "'lukskeep key' wants a verb"),
    (["key", "frob"], "there is no command 'key frob'"),
    (["--json", "info", "v"], "'--json' stands before the command"),
    (["-x"], "'-x' stands before the command"),
    (["info"], "VOLUME is missing"),
    (["info", "a", "b"], "unexpected argument 'b'"),
    (["info", "a", "--frob"], "unknown option '--frob'"),
    (["info", "a", "--frob=1"], "unknown option '--frob'"),
    (["info", "--frob"], "unknown option '--frob'"),
    (["info", "a", "-v"], "unknown option '-v'"),
    (["info", "a", "--yes"], "unknown option '--yes'"),
    (["info", "a", "--header"], "--header wants a value"),
    (["create", "a", "--size", "1M", "--size", "2M"], "--size is given twice"),
    (["create", "a", "--size", "1Q"], "--size: '1Q' is not a size"),
    (["create", "a", "--size="], "--size"),
    (["create", "a", "--size", "-5"], "--size: '-5' is not a size"),
    (["create", "a", "--key-size", "x"], "--key-size: 'x' is not a whole number"),
    (["create", "a", "--type", "luks3"], "--type: 'luks3' is none of luks1, luks2"),
    (["create", "a", "--size", "1M", "--total-size", "20M"], "contradict"),
    (["create", "a"], "no size is given"),
    (["create", "a", "--size", "1M", "--header", "a"], "are the same"),
    (["create", "a", "--size", "1M", "--key", "k"], "key source 'k' has no scheme"),
    (["create", "a", "--size", "1M", "--key", "volume-key:k1"], "is a volume key"),
    (["create", "a", "--size", "1M", "--volume-key", "prompt:"], "not typed"),
    (["create", "a", "--size", "1M", "--key", "file:k1", "--pbkdf", "pbkdf2", "--pbkdf-memory",
      "64"], "are for argon2"),
    (["create", "a", "--size", "1M", "--key", "file:k1", "--pbkdf-iterations", "5", "--iter-time",
      "5"], "contradict"),
    (["create", "a", "--size", "1M", "--key", "file:k1", "--iter-time", "0"], "above 0"),
    (["create", "a", "--size", "1M", "--key", "file:k1", "--key-size", "255"], "whole bytes"),
    (["create", "a", "--size", "1M", "--key", "file:k1", "--type", "luks1", "--pbkdf", "argon2id"],
     "LUKS1 keyslots know only pbkdf2"),
    (["create", "a", "--size", "1000", "--key", "file:k1", "--pbkdf", "pbkdf2",
      "--pbkdf-iterations", "1000"], "not whole sectors of 512"),
    (["create", "a", "--size", "6K", "--sector-size", "4096", "--key", "file:k1", "--pbkdf",
      "pbkdf2", "--pbkdf-iterations", "1000"], "not whole sectors of 4096"),
    (["create", "a", "--total-size", "1M", "--key", "file:k1", "--pbkdf", "pbkdf2",
      "--pbkdf-iterations", "1000"], "nothing is left for data"),
    (["encrypt", "plain"], "DST is missing"),
    (["encrypt", "plain", "plain"], "are the same"),
    (["encrypt", "-", "out", "--key", "file:-"], "cannot both come from standard input"),
    (["encrypt", "-", "out", "--key", "file:k1", "--volume-key", "fd:0"], "cannot both come"),
    (["encrypt", "plain", "-", "--key", "file:k1", "--json"], "both want standard output"),
    (["decrypt", "-", "out", "--key", "fd:0"], "cannot both come from standard input"),
    (["decrypt", "plain", "out", "--key", "file:k1", "--progress", "loud"], "is none of auto, json"),
    (["decrypt", "plain", "out", "--kdf-limit", "5m5"], "--kdf-limit: '5m5' is not a limit"),
    (["config", "plain", "--priority", "prefer"], "belong together"),
    (["config", "plain", "--slot", "1"], "belong together"),
    (["token", "remove", "plain"], "TOKEN is missing"),
    (["completion", "fish"], "no completion for 'fish'"),
    (["help", "frob"], "there is no command 'frob'"),
    (["bench", "kdf", "--iter-time", "0"], "above 0"),
    (["bench", "ciphers", "--key-size", "7"], "no cipher has that key size"),
]


@pytest.mark.parametrize("args,part", WRONG, ids=lambda value: " ".join(value)[:60]
                         if isinstance(value, list) else "")
def test_wrong_usage(place, args, part):
    before = sorted(path.name for path in place.iterdir())
    result = fails(1, *args, cwd=place)
    assert part in result.err
    assert sorted(path.name for path in place.iterdir()) == before


def test_an_error_is_an_object_too(place):
    result = fails(1, "info", "nowhere", "--json", cwd=place)
    error = result.json["error"]
    assert error["code"] == "not-found"
    assert "'nowhere'" in error["message"]
    assert f"lukskeep: error: {error['message']}" in result.err


def test_control_characters_in_names_do_not_reach_the_terminal(place):
    result = fails(1, "info", "a\x1b[31m\nb", cwd=place)
    assert "\x1b" not in result.err and "\\x1b" in result.err


def test_help_and_version():
    assert ok("--help").text == ok("help").text == ok("-h").text
    assert ok("key", "--help").text == ok("help", "key").text
    assert ok("key", "add", "--help").text == ok("help", "key", "add").text
    version = ok("--version").text
    assert version == ok("version").text
    assert ok("version", "--json").json["version"] in version


def test_help_wins_over_everything_else():
    assert ok("create", "--frob", "--help").text.startswith("Usage: lukskeep create")


def test_two_dashes_end_the_options(place):
    assert "'--json'" in fails(1, "info", "--", "--json", cwd=place).err


def test_a_failing_standard_output_is_an_error():
    with open("/dev/full", "wb") as full:
        result = run("help", stdout=full)
    assert result.status == 4
    assert "cannot write to standard output" in result.err
