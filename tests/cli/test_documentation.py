"""--help, the manual pages and the completion say the same."""

import re
import shutil
import subprocess

import pytest

from cli_tools import ROOT, ok

MANUALS = ROOT / "docs" / "man"
COMMANDS = {command["name"]: command for command in ok("help", "--json").json["commands"]}
# Explained in lukskeep(1) itself.
WITHOUT_PAGE = {"help", "version"}


def page_of(command):
    return MANUALS / f"lukskeep-{command.split()[0]}.1.scd"


def whole(page):
    """The source with its parts put in, as CMake does it."""
    text = page.read_text()
    for part in (MANUALS / "parts").glob("*.scd"):
        text = text.replace(f"@{part.stem.upper().replace('-', '_')}@", part.read_text())
    return text


def options_of_help(command):
    return set(re.findall(r"^  (--[a-z0-9-]+)", ok(*command.split(), "--help").text, re.M))


def options_of_page(page):
    return set(re.findall(r"^\*(--[a-z0-9-]+)\*", whole(page), re.M))


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - WITHOUT_PAGE))
def test_every_option_is_in_the_manual(command):
    page = page_of(command)
    assert page.exists()
    assert options_of_help(command) - options_of_page(page) == set()
    assert f"*lukskeep {command}*" in page.read_text()


@pytest.mark.parametrize("page", sorted(MANUALS.glob("lukskeep-*.1.scd")), ids=lambda p: p.stem)
def test_every_option_in_the_manual_exists(page):
    commands = [command for command in COMMANDS if page_of(command) == page]
    assert commands, "a page of no command"
    known = set().union(*(options_of_help(command) for command in commands))
    assert options_of_page(page) - known == set()


def test_the_general_page_lists_every_command_and_no_unknown_option():
    page = MANUALS / "lukskeep.1.scd"
    text = page.read_text()
    for command in COMMANDS:
        assert f"*{command}*" in text, command
    known = set().union(*(options_of_help(command) for command in COMMANDS))
    assert options_of_page(page) - known == set()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_is_what_json_says(command):
    options = {option["name"] for option in COMMANDS[command]["options"]} | {"--help"}
    assert options_of_help(command) == options
    text = ok(*command.split(), "--help").text
    usage = text.splitlines()[0]
    for argument in COMMANDS[command]["arguments"]:
        word = argument["name"] if argument["required"] else f"[{argument['name']}]"
        assert word in usage
    assert COMMANDS[command]["summary"] in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_exit_statuses_of_the_manual_are_those_of_the_program():
    table = (MANUALS / "parts" / "exit-status.scd").read_text()
    listed = set(map(int, re.findall(r"^\|  (\d+)$", table, re.M)))
    source = (ROOT / "src" / "base" / "error.cpp").read_text()
    used = set(map(int, re.findall(r'CodeRow\{Code::k\w+, "[a-z-]+", (\d+),', source)))
    assert used and listed == used | {0}
    for page in MANUALS.glob("lukskeep*.1.scd"):
        assert "@EXIT_STATUS@" in page.read_text(), page


@pytest.mark.skipif(not shutil.which("scdoc"), reason="no program 'scdoc'")
@pytest.mark.parametrize("page", sorted(MANUALS.glob("*.[17].scd")), ids=lambda p: p.stem)
def test_every_page_is_well_formed(page):
    done = subprocess.run(["scdoc"], input=whole(page), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"@[A-Z_]+@", done.stdout)
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"):
        assert re.search(rf'^\.SH "?{section}"?$', done.stdout, re.M), section


# ---- completion --------------------------------------------------------------------------------


def complete(*words):
    """What bash offers for the last of `words`."""
    script = ok("completion", "bash").text
    program = script + """
compopt() { :; }
COMP_WORDS=(lukskeep "$@")
COMP_CWORD=$#
_lukskeep
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", program, "bash", *words], capture_output=True, text=True,
                          check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_packaged_completion_is_the_programs():
    packaged = ROOT / "packaging" / "completion" / "lukskeep.bash"
    assert packaged.read_text() == ok("completion", "bash").text, \
        f"run: lukskeep completion bash > {packaged.relative_to(ROOT)}"


def test_completion_of_commands():
    words = {command.split()[0] for command in COMMANDS}
    assert complete("") == words | {"--help", "--version"}
    assert complete("cr") == {"create"}
    verbs = {command.split()[1] for command in COMMANDS if command.startswith("key ")}
    assert complete("key", "") == verbs
    assert complete("key", "ch") == {"change"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_completion_of_options(command):
    assert complete(*command.split(), "--") == options_of_help(command)


def test_completion_of_values():
    assert complete("create", "v", "--type", "") == {"luks1", "luks2"}
    assert complete("encrypt", "a", "b", "--holes", "k") == {"keep"}
    assert complete("key", "test", "v", "--key", "f") == {"file:", "fd:"}
    assert complete("info", "v", "--policy", "") == {"untrusted"}
    assert complete("create", "v", "--label", "") == set()  # bash goes on with file names
    assert complete("info", "") == set()
