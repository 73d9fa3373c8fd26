"""recover on the command line, with our own Tang server; tangd and Clevis: tests/interop."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess

import pytest

from cli_tools import PBKDF2, fails, ok, start


@contextlib.contextmanager
def tang(folder):
    process = start("tang", "serve", "--keys", folder, "--listen", "127.0.0.1:0")
    try:
        port = int(re.search(rb":(\d+)$", process.stdout.readline().strip())[1])
        keys = ok("tang", "keys", "--keys", folder, "--json").json["keys"]
        thumbprint = next(key["thumbprint"] for key in keys if key["purpose"] == "signing")
        yield f"http://127.0.0.1:{port}", thumbprint
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture
def bound(place):
    """A volume that was bound to a server, which is there no more."""
    ok("create", "v", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=place)
    ok("tang", "keygen", "--keys", place / "db")
    with tang(place / "db") as (url, thumbprint):
        ok("bind", "v", "--tang", f"{url},thp={thumbprint}", "--key", "file:k1", cwd=place)
        (place / "passphrase").write_bytes(ok("passphrase", "v", "--quiet", cwd=place).out.strip())
    return place


def request(place, *more):
    return ok("recover", "request", "v", "--state", "state", *more, cwd=place)


def test_a_request_has_what_is_needed_and_nothing_else(bound):
    result = request(bound, "--json").json
    assert result["code"] and result["uuid"]
    point, = result["request"]["points"]
    assert set(point) == {"url", "kid", "point"}
    assert "d" not in point["point"]
    state = bound / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    secret = json.loads(state.read_text())["secrets"]
    passphrase = (bound / "passphrase").read_text()
    token = json.loads(ok("token", "export", "v", "0", cwd=bound).out)
    for text in (json.dumps(result["request"]), result["text"], result["qr"]):
        assert secret not in text and passphrase not in text
        assert token["jwe"]["ciphertext"] not in text
    assert passphrase not in state.read_text()


def test_the_forms_are_one_request(bound):
    result = request(bound, "--out", "request", "--svg", "qr.svg", "--text")
    code = re.search(r"code of this request is (\S+):", result.err)[1]
    (bound / "lines").write_bytes(result.out)
    seen = {ok("recover", "answer", name, "--dry-run", "--json", cwd=bound).json["code"]
            for name in ("request", "lines")}
    assert seen == {code}
    assert (bound / "qr.svg").read_text().startswith("<svg")
    ok("recover", "answer", "-", "--dry-run", cwd=bound, stdin=result.out)


def test_an_answer_wants_to_be_allowed(bound):
    request(bound, "--out", "request")
    result = fails(6, "recover", "answer", "request", cwd=bound)
    assert "confirmed" in result.err and "--yes" in result.err


def test_a_state_is_never_overwritten_and_dry_runs_write_nothing(bound):
    request(bound, "--dry-run", "--out", "request", "--svg", "svg")
    assert not (bound / "state").exists() and not (bound / "request").exists()
    request(bound)
    before = (bound / "state").read_bytes()
    fails(5, "recover", "request", "v", "--state", "state", cwd=bound)
    assert (bound / "state").read_bytes() == before


def test_the_claim_of_a_request_is_shown_as_one(bound):
    request(bound, "--out", "request")
    text = ok("recover", "answer", "request", "--yes", "--dry-run", cwd=bound).text
    assert "says that it is" in text and "http://127.0.0.1" in text


@pytest.mark.parametrize("option", ["--out", "--svg"])
def test_the_state_has_a_place_of_its_own(bound, option):
    fails(1, "recover", "request", "v", "--state", "s", option, "./s", cwd=bound)
    assert not (bound / "s").exists()


def test_no_state_stays_of_a_request_that_could_not_be_given(bound):
    fails(1, "recover", "request", "v", "--state", "s", "--out", "nowhere/request", cwd=bound)
    assert not (bound / "s").exists()


def test_a_volume_whose_name_is_no_text_is_named_again(bound):
    name = os.fsdecode(b"\xff")
    os.rename(bound / "v", bound / name)
    ok("recover", "request", name, "--state", "s", "--out", "request", cwd=bound)
    assert json.loads((bound / "s").read_text())["volume"] == ""


def test_servers_that_are_gone_are_named(bound):
    request(bound, "--out", "request")
    result = fails(7, "recover", "answer", "request", "--yes", "--tries", "1", cwd=bound)
    assert "127.0.0.1" in result.err


@pytest.mark.parametrize("arguments,status,part", [
    (["recover", "request", "v"], 1, "--state"),
    (["recover", "request", "v", "--state", "s", "--slot", "7"], 1, "no binding"),
    (["recover", "request", "v", "--state", "s", "--slot", "x"], 1, "no binding"),
    (["recover", "request", "v", "--state", "nowhere/s"], 1, "nowhere"),
    (["recover", "answer", "missing", "--yes"], 1, "missing"),
    (["recover", "answer", "v", "--yes"], 1, ""),
    (["recover", "answer", "k1", "--yes"], 1, "line number"),
    (["recover", "finish", "k1"], 1, "--state"),
    (["recover", "finish", "k1", "--state", "k2"], 1, "line number"),
])
def test_what_makes_no_sense_is_refused(bound, arguments, status, part):
    result = fails(status, *arguments, cwd=bound)
    assert part in result.err


def test_a_volume_without_servers_has_no_request(place):
    ok("create", "v", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=place)
    fails(1, "recover", "request", "v", "--state", "state", cwd=place)
    ok("bind", "v", "{}", "--pin", "null", "--key", "file:k1", cwd=place)
    fails(1, "recover", "request", "v", "--state", "state", cwd=place)
    assert not (place / "state").exists()


@pytest.fixture
def answered(place):
    """A volume, its state and an answer; the server is gone."""
    ok("create", "v", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=place)
    ok("tang", "keygen", "--keys", place / "db")
    with tang(place / "db") as (url, thumbprint):
        ok("bind", "v", "--tang", f"{url},thp={thumbprint}", "--key", "file:k1", cwd=place)
        (place / "passphrase").write_bytes(ok("passphrase", "v", "--quiet", cwd=place).out.strip())
        request(place, "--out", "request")
        ok("recover", "answer", "request", "--yes", "--out", "answer", cwd=place)
        ok("recover", "request", "v", "--state", "state2", "--out", "request2", cwd=place)
        ok("recover", "answer", "request2", "--yes", "--out", "answer2", cwd=place)
    return place


def test_an_answer_opens_the_volume_once(answered):
    result = ok("recover", "finish", "answer", "--state", "state", cwd=answered)
    passphrase = (answered / "passphrase").read_bytes()
    assert result.out.strip() == passphrase
    assert "rebind" in result.err
    assert not (answered / "state").exists()
    fails(1, "recover", "finish", "answer", "--state", "state", cwd=answered)


def test_the_passphrase_goes_to_a_file(answered):
    result = ok("recover", "finish", "answer", "--state", "state", "--out", "key", "--keep-state",
                "--json", cwd=answered)
    assert result.json["keyslot"] == 1 and "passphrase" not in result.json
    key = answered / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes() == (answered / "passphrase").read_bytes()
    ok("key", "test", "v", "--key", "file:key", cwd=answered)
    assert (answered / "state").exists()
    # An old file is not overwritten, and the state stays.
    fails(5, "recover", "finish", "answer", "--state", "state", "--out", "key", cwd=answered)
    assert (answered / "state").exists()


def test_the_state_stays_when_the_passphrase_could_not_be_written(answered):
    with open("/dev/full", "wb") as full:
        result = fails(4, "recover", "finish", "answer", "--state", "state", cwd=answered,
                       stdout=full)
    assert "no space" in result.err.lower()
    assert (answered / "state").exists()


def test_only_its_own_answer_opens(answered):
    result = fails(5, "recover", "finish", "answer2", "--state", "state", cwd=answered)
    assert "request" in result.err
    assert (answered / "state").exists()
    text = json.loads((answered / "answer").read_text())
    text["points"][0]["x"] = text["points"][0]["y"]
    (answered / "bad").write_text(json.dumps(text))
    result = fails(1, "recover", "finish", "bad", "--state", "state", cwd=answered)
    assert "curve" in result.err


def test_another_volume_is_told_and_a_renamed_one_opens(answered):
    os.rename(answered / "v", answered / "w")
    ok("create", "v", "--size", "64K", "--key", "file:k1", *PBKDF2, cwd=answered)
    result = fails(5, "recover", "finish", "answer", "--state", "state", cwd=answered)
    assert "--volume" in result.err
    ok("recover", "finish", "answer", "--state", "state", "--volume", "w", cwd=answered)


def test_a_binding_that_changed_since_is_told(answered):
    ok("unbind", "v", "--slot", "1", cwd=answered)
    fails(1, "recover", "finish", "answer", "--state", "state", cwd=answered)
    assert (answered / "state").exists()


def modules(text):
    """Dark modules of what is printed on a terminal, two rows a line."""
    rows = []
    for line in text.splitlines():
        rows.append([c in " ▄" for c in line])
        rows.append([c in " ▀" for c in line])
    return rows


def read_qr(rows, folder):
    zbar = shutil.which("zbarimg")
    if not zbar:
        pytest.skip("no program 'zbarimg'")
    scale = 4
    lines = ["".join(("0 " if dark else "1 ") * scale for dark in row) for row in rows]
    # PBM has 1 for black.
    body = "\n".join(line.translate(str.maketrans("01", "10")) for line in lines
                     for _ in range(scale))
    image = folder / "qr.pbm"
    image.write_text(f"P1\n{len(rows[0]) * scale} {len(rows) * scale}\n{body}\n")
    return subprocess.run([zbar, "-q", "--raw", image], check=True, capture_output=True).stdout


def test_the_qr_code_holds_the_request(bound):
    result = request(bound, "--qr")
    read = read_qr(modules(result.text), bound)
    (bound / "scanned").write_bytes(read)
    code = re.search(r"code of this request is (\S+):", result.err)[1]
    assert ok("recover", "answer", "scanned", "--dry-run", "--json",
              cwd=bound).json["code"] == code


def test_the_drawn_qr_code_is_the_printed_one(bound):
    result = request(bound, "--qr", "--svg", "qr.svg")
    svg = (bound / "qr.svg").read_text()
    drawn = {tuple(map(int, pair)) for pair in re.findall(r"M(\d+) (\d+)h1v1h-1z", svg)}
    rows = modules(result.text)
    width = len(rows[0])
    assert drawn == {(x, y) for y, row in enumerate(rows[:width]) for x, dark in enumerate(row)
                     if dark}
