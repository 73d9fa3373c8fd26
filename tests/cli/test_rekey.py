"""rekey without servers: what is chosen and refused. With tangd: tests/interop/test_rekey.py."""

import json
import os

import pytest

from cli_tools import PBKDF2, fails, ok, run

KEY = "A" * 43


@pytest.fixture
def volumes(place):
    """Two volumes, of which b has a binding, without any server."""
    for name in ("a", "b"):
        ok("create", name, "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=place)
    ok("bind", "b", "{}", "--pin", "null", "--key", "file:k1", cwd=place)
    return place


def rekey(place, *arguments, check=0, **more):
    return run("rekey", *arguments, "--tang-key", KEY, "--json", check=check, cwd=place,
               **more).json


@pytest.mark.parametrize("arguments,part", [
    (["a"], "--journal"),
    (["--tang-key", KEY], "which volumes"),
    (["a", "--tang-key", "nothing"], "thumbprint"),
    (["a", "--tang-key", "../" + KEY], "thumbprint"),
    (["a", "--tang-key", KEY, "--jobs", "0"], "--jobs"),
    (["a", "--tang-key", KEY, "--jobs", "33"], "--jobs"),
    (["--list", "missing", "--tang-key", KEY], "missing"),
    (["--directory", "missing", "--tang-key", KEY], "missing"),
    (["a", "--journal", "plain"], "journal"),
    (["a", "--journal", "j", "--report", "./j"], "same file"),
    (["a", "--journal", "j", "--tang-key", KEY], "no use"),
    (["a", "--tang-key", KEY, "--new-key", "nothing"], "thumbprint"),
    (["--directory", "empty", "--tang-key", KEY], "no volumes"),
    (["--list", "empty/../none", "--tang-key", KEY], "no volumes"),
    (["a", "--journal", "j", "--key", "file:k1"], "--new-key"),
    (["a", "--journal", "j", "--key", "prompt:", "--new-key", KEY], "once"),
    (["a", "--journal", "j", "--key", "fd:0", "--new-key", KEY], "once"),
    (["a", "--journal", "j", "--key", "file:-", "--new-key", KEY], "once"),
])
def test_what_makes_no_sense_is_refused(volumes, arguments, part):
    (volumes / "empty").mkdir()
    (volumes / "none").write_text("# nothing\n")
    before = {name: (volumes / name).read_bytes() for name in ("a", "b", "plain")}
    result = fails(1, "rekey", *arguments, cwd=volumes)
    assert part in result.err
    assert before == {name: (volumes / name).read_bytes() for name in before}


def test_volumes_come_from_everywhere_and_count_once(volumes):
    (volumes / "list").write_text("# a remark\n\na\nb\r\n./a\n")
    os.symlink("b", volumes / "link")
    result = rekey(volumes, "a", "link", "--list", "list", "--directory", volumes)
    names = [row["volume"] for row in result["volumes"]]
    assert sorted(os.path.realpath(volumes / name) for name in names) == [
        str(volumes / "a"), str(volumes / "b")]
    assert rekey(volumes, "--list", "-", stdin=b"a\n")["volumes"][0]["volume"] == "a"


def test_volumes_without_servers_stay_as_they_are(volumes):
    before = (volumes / "b").read_bytes()
    result = rekey(volumes, "a", "b")
    assert result["good"] and result["in_use"] == []
    assert {row["state"] for row in result["volumes"]} == {"unchanged"}
    assert (volumes / "b").read_bytes() == before
    assert ok("rekey", "a", "--journal", "j", cwd=volumes).text.startswith("1 volumes: 0 bindings")


def test_what_cannot_be_read_is_left_and_reported(volumes):
    result = rekey(volumes, "a", "plain", "missing", "--report", "report", check=1)
    states = {row["volume"]: row["state"] for row in result["volumes"]}
    assert states == {"a": "unchanged", "plain": "left", "missing": "left"}
    report = json.loads((volumes / "report").read_text())
    assert not report["good"] and report["left"] == 2
    text = run("rekey", "plain", "--tang-key", KEY, check=1, cwd=volumes).text
    assert "plain: LEFT: " in text and "1 left" in text


def test_a_folder_with_a_volume_that_cannot_be_read_is_left(volumes):
    (volumes / "fleet").mkdir()
    whole = (volumes / "a").read_bytes()
    # The metadata of both copies.
    (volumes / "fleet" / "v").write_bytes(
        whole[:4096] + bytes(12288) + whole[16384:20480] + bytes(12288) + whole[32768:])
    result = rekey(volumes, "--directory", "fleet", "--report", "report", check=1)
    assert not result["good"] and result["left"] == 1
    row, = result["volumes"]
    assert row["volume"] == "fleet" and "could not be read" in row["left"][0]["message"]


def test_the_report_of_an_earlier_run_does_not_speak_for_this_one(volumes):
    (volumes / "report").write_text("{}")
    rekey(volumes, "a", "--report", "report", "--dry-run")
    assert (volumes / "report").read_text() == "{}"
    fails(1, "rekey", "a", "--report", "report", "--journal", "plain", cwd=volumes)
    assert not (volumes / "report").exists()
    rekey(volumes, "a", "--report", "report")
    assert json.loads((volumes / "report").read_text())["good"]


def test_the_report_is_not_written_by_a_dry_run(volumes):
    result = rekey(volumes, "a", "--report", "report", "--dry-run")
    assert result["dry_run"]
    ok("rekey", "a", "--journal", "journal", "--dry-run", cwd=volumes)
    assert not (volumes / "report").exists() and not (volumes / "journal").exists()


def delete(place, key, *arguments):
    # A thumbprint may start with a hyphen.
    return ["tang", "delete", *arguments, "--keys", place / "db", "--usage", "none", "--yes",
            "--allow", "unrecorded", "--", key]


@pytest.fixture
def hidden(volumes):
    """Thumbprint of a hidden key."""
    ok("tang", "keygen", "--keys", volumes / "db")
    return ok("tang", "rotate", "--keys", volumes / "db", "--json").json["hidden"][0]


@pytest.mark.parametrize("report,part", [
    (None, "is not there"),
    ({"left": 1, "in_use": []}, "are left"),
    ({"left": 0, "in_use": ["KEY"]}, "need the key"),
    ({"left": 0, "in_use": [], "volumes": []}, "of no volume"),
    ({"left": 0, "in_use": [], "keys": ["A" * 43]}, "of other keys"),
    ({"left": 0}, "what is left"),
])
def test_a_key_waits_for_its_report(volumes, hidden, report, part):
    if report is not None:
        report = json.loads(json.dumps(report).replace("KEY", hidden))
        (volumes / "report").write_text(json.dumps(
            {"type": "lukskeep-rekey-report", "version": 1, "keys": [], "volumes": [{}],
             **report}))
    result = fails(6, *delete(volumes, hidden, "--wait-for", "report", "--wait-limit", "0"),
                   cwd=volumes)
    assert part in result.err
    assert list((volumes / "db").glob(f".{hidden}.jwk"))
    assert run(*delete(volumes, hidden, "--wait-for", "report", "--dry-run"), cwd=volumes,
               check=6).status == 6


def test_a_key_goes_when_all_reports_allow_it(volumes, hidden):
    def rekey(*arguments, check=0):
        run("rekey", *arguments, f"--tang-key={hidden}", check=check, cwd=volumes)

    rekey("a", "b", "--report", "one")
    rekey("plain", "--report", "two", check=1)
    both = ["--wait-for", "one", "--wait-for", "two", "--wait-limit", "0"]
    assert "'two'" in fails(6, *delete(volumes, hidden, *both), cwd=volumes).err
    rekey("a", "--report", "two")
    ok(*delete(volumes, hidden, *both), cwd=volumes)
    assert not list((volumes / "db").glob(f".{hidden}.jwk"))


# It may just be being copied.
@pytest.mark.parametrize("text", ["{}", "", '{"type": "lukskeep-rek'])
def test_a_report_that_is_not_whole_is_waited_for(volumes, hidden, text):
    (volumes / "report").write_text(text)
    fails(6, *delete(volumes, hidden, "--wait-for", "report", "--wait-limit", "0"), cwd=volumes)
