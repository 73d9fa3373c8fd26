"""Drop-in programs: the same calls of Clevis' and Tang's own and of ours, side by side."""

import base64
import json
import re
import shutil
import stat

import pytest

import kit
from compat_tools import SIDES, Terminal, call, header
from tang import Tang

SECRET = b"a secret\x00\xff\n"


@pytest.fixture
def tangs(tmp_path):
    started = []

    def start(count=1):
        servers = [Tang(tmp_path / f"db{len(started) + n}").start() for n in range(count)]
        started.extend(servers)
        return servers
    yield start
    for server in started:
        server.stop()


@pytest.fixture(params=["luks1", "luks2"])
def pair(request, tmp_path):
    """The same volume twice, as theirs/volume and ours/volume; the file k opens both."""
    kit.need("clevis", "luksmeta", "jq")
    kit.write(tmp_path / "k", b"first passphrase")
    made = kit.sparse(tmp_path / "volume", 20 << 20)
    kit.cryptsetup("luksFormat", "--type", request.param, *kit.THEIR_CHEAP["pbkdf2"],
                   "--key-file", tmp_path / "k", made)
    for side in SIDES:
        (tmp_path / side).mkdir()
        shutil.copy(made, tmp_path / side / "volume")
        kit.write(tmp_path / side / "plain", b"no volume")
    return Pair(tmp_path, request.param)


class Pair:
    def __init__(self, folder, kind):
        self.folder = folder
        self.kind = kind

    def volume(self, side):
        return self.folder / side / "volume"

    def luks(self, verb, *words, status, stdin=b"", stdout=True):
        """Runs `clevis luks VERB` on both; status and output are the same, and so are the headers
        afterwards."""
        done = [call(side, ["clevis", "luks", verb, *words], stdin, cwd=self.folder / side)
                for side in SIDES]
        told = [(one.stdout, one.stderr) for one in done]
        assert [one.returncode for one in done] == [status, status], told
        if stdout:
            assert done[0].stdout == done[1].stdout, told
        assert header(self.volume("theirs")) == header(self.volume("ours"))
        return done[1].stdout.decode()


def tang_config(server, **more):
    return json.dumps({"url": server.url, **more})


# ---- clevis luks --------------------------------------------------------------------------------


def test_wrong_calls(pair):
    k = ("-k", "../k")
    luks1 = pair.kind == "luks1"
    for verb, words, status in [
            ("bind", [], 2), ("bind", ["-d", "volume"], 2), ("bind", ["-x"], 2), ("bind", ["-d"], 2),
            ("bind", ["-d", "volume", "nopin", "{}"], 2), ("bind", ["-d", "volume", "tang"], 2),
            ("bind", ["-d", "volume", "tang", "{"], 1), ("bind", ["-d", "volume", "tang", "[]"], 1),
            ("bind", ["-d", "plain", "null", "{}"], 1), ("bind", ["-d", "none", "null", "{}"], 1),
            ("bind", ["-f", "-d", "volume", "-k", "none", "null", "{}"], 1),
            ("bind", ["-d", "volume", "-k-", "null", "{}"], 2 if luks1 else 1),
            ("bind", ["-f", "-d", "volume", *k, "tang", "{}"], 1),
            ("list", [], 1), ("list", ["-x"], 1), ("list", ["-d", "plain"], 1),
            ("list", ["-d", "volume", "-s", "1"], 1), ("list", ["-d", "volume", "-s", "x"], 1),
            ("pass", [], 1), ("pass", ["-d", "volume"], 1), ("pass", ["-d", "volume", "-s", "1"], 1),
            ("regen", [], 1), ("regen", ["-d", "volume"], 1), ("regen", ["-h"], 0),
            ("regen", ["-d", "volume", "-s", "1"], 1), ("edit", [], 1),
            ("edit", ["-d", "volume", "-s", "1", "-c", "{}"], 1), ("report", [], 1),
            ("report", ["-d", "volume", "-s", "1"], 1), ("unbind", [], 2),
            ("unbind", ["-d", "volume"], 2), ("unbind", ["-d", "plain", "-s", "1"], 1),
            ("unbind", ["-f", "-d", "volume", "-s", "1"], 1), ("unlock", [], 2),
            ("unlock", ["-d", "plain"], 1), ("unlock", ["-d", "volume"], 1),
            ("unlock", ["-d", "volume", "-t", "1"], 1)]:
        pair.luks(verb, *words, status=status)


def test_what_is_bound_is_listed_opened_and_removed(pair, tangs):
    server, other = tangs(2)
    bind = ("-y", "-d", "volume", "-k", "../k")
    pair.luks("bind", *bind, "tang", tang_config(server), status=0)
    listed = pair.luks("list", "-d", "volume", status=0)
    assert listed == f"1: tang '{{\"url\":\"{server.url}\"}}'\n"
    pair.luks("bind", *bind, "-s", "1", "tang", tang_config(server), status=1)
    pair.luks("bind", *bind, "-s", "5", "tang", tang_config(other, thp=other.thumbprint), status=0)
    pair.luks("bind", *bind, "tang", tang_config(other, thp=server.thumbprint), status=1)
    # Saved advertisements, as roles fetch them once for many machines; nobody is asked.
    kit.write(pair.folder / "adv", server.advertisement())
    for adv in ("../adv", json.loads(server.advertisement())):
        pair.luks("bind", "-f", "-d", "volume", "-k", "../k", "tang", tang_config(server, adv=adv),
                  status=0)
        pair.luks("unbind", "-f", "-d", "volume", "-s", "2", status=0)
    pair.luks("bind", *bind, "tang", tang_config(server, adv="../none"), status=1)
    pair.luks("bind", *bind, "tang", tang_config(server, adv="../k"), status=1)
    token = ("-t", "9") if pair.kind == "luks2" else ()
    sss = json.dumps({"t": 1, "pins": {"tang": [{"url": server.url}, {"url": other.url}]}})
    pair.luks("bind", *bind, *token, "sss", sss, status=0)
    listed = pair.luks("list", "-d", "volume", status=0)
    assert len(listed.splitlines()) == 3 and '"pins":{"tang":[' in listed
    pair.luks("list", "-d", "volume", "-s", "5", status=0)
    for slot in ("1", "2", "5"):
        pair.luks("unlock", "-d", "volume", "-t", slot, status=0)
        pair.luks("pass", "-d", "volume", "-s", slot, status=0, stdout=False)
    pair.luks("unlock", "-d", "volume", "-t", "0", status=1)
    server.stop()
    pair.luks("unlock", "-d", "volume", "-t", "2", status=0)
    server.start()
    pair.luks("unbind", "-f", "-d", "volume", "-s", "5", status=0)
    pair.luks("unbind", "-f", "-d", "volume", "-s", "5", status=1)
    pair.luks("list", "-d", "volume", status=0)


def test_each_opens_what_the_other_bound(pair, tangs):
    server, = tangs()
    pair.luks("bind", "-y", "-d", "volume", "-k", "../k", "tang", tang_config(server), status=0)
    for opener, side in (SIDES, SIDES[::-1]):
        volume = pair.volume(side)
        done = call(opener, ["clevis-luks-pass", "-d", volume, "-s", "1"])
        assert done.returncode == 0, done.stderr
        kit.run(["cryptsetup", "open", "--test-passphrase", "--key-file", "-", "-S", "1", volume],
                stdin=done.stdout)
        done = call(opener, ["clevis-luks-regen", "-q", "-d", volume, "-s", "1"])
        assert done.returncode == 0, done.stderr
        done = call(side, ["clevis-luks-unlock", "-d", volume, "-t", "1"])
        assert done.returncode == 0, done.stderr


def test_where_the_passphrase_comes_from(pair, tangs):
    server, = tangs()
    config = tang_config(server)
    right, wrong = b"first passphrase\n", b"wrong\n"
    if pair.kind == "luks1":
        # The table of records is made when that was answered.
        pair.luks("bind", "-d", "volume", "null", "{}", stdin=right + b"n\n", status=77)
    pair.luks("bind", "-f", "-y", "-d", "volume", "tang", config, stdin=wrong, status=1)
    pair.luks("bind", "-y", "-d", "volume", "tang", config, stdin=right, status=0)
    pair.luks("bind", "-y", "-d", "volume", "-k", "-", "tang", config, stdin=right[:-1], status=0)
    # A binding that is there helps who gave a wrong passphrase.
    pair.luks("bind", "-y", "-d", "volume", "-k-", "tang", config, stdin=wrong, status=0)
    server.stop()
    # Without it, the passphrase is asked for again.
    pair.luks("bind", "-y", "-d", "volume", "-k-", "null", "{}", stdin=wrong + right, status=0)
    pair.luks("bind", "-y", "-d", "volume", "-k-", "null", "{}", stdin=wrong + wrong, status=0)


def test_rotated_keys(pair, tangs):
    server, = tangs()
    pair.luks("bind", "-y", "-d", "volume", "-k", "../k", "tang", tang_config(server), status=0)
    pair.luks("report", "-d", "volume", "-s", "1", status=0)
    kit.run(["/usr/libexec/tangd-rotate-keys", "-d", server.keys])
    told = pair.luks("report", "-q", "-d", "volume", "-s", "1", status=1)
    assert len(re.findall(r"^  [\w-]{43}$", told, re.M)) == 2
    pair.luks("report", "-d", "volume", "-s", "1", stdin=b"n\n", status=1)
    pair.luks("unlock", "-d", "volume", "-t", "1", status=0)
    pair.luks("regen", "-d", "volume", "-s", "1", stdin=b"n\n", status=0)
    pair.luks("report", "-r", "-d", "volume", "-s", "1", status=0)
    pair.luks("report", "-d", "volume", "-s", "1", status=0)
    pair.luks("regen", "-q", "-d", "volume", "-s", "1", status=0)
    server.stop()
    pair.luks("report", "-q", "-d", "volume", "-s", "1", status=1)
    pair.luks("unlock", "-d", "volume", "-t", "1", status=1)
    pair.luks("regen", "-q", "-d", "volume", "-s", "1", stdin=b"first passphrase\n", status=1)


def test_edited_policies(pair, tangs):
    server, other = tangs(2)
    pair.luks("bind", "-y", "-d", "volume", "-k", "../k", "tang", tang_config(server), status=0)
    edit = ("-d", "volume", "-s", "1", "-c")
    pair.luks("edit", *edit, tang_config(server), status=1)
    pair.luks("edit", *edit, "{", status=1)
    pair.luks("edit", "-f", *edit, tang_config(server), status=0)
    pair.luks("edit", *edit, tang_config(other, thp=other.thumbprint), status=0)
    assert other.url in pair.luks("list", "-d", "volume", status=0)
    pair.luks("unlock", "-d", "volume", "-t", "1", status=0)


def test_what_is_safer_here(pair, tangs):
    """Where ours does otherwise: what lukskeep-compat(7) says."""
    server, other = tangs(2)
    ours = pair.volume("ours")

    def luks(verb, *words, stdin=b""):
        return call("ours", ["clevis", "luks", verb, "-d", ours, *words], stdin)

    nested = json.dumps({"t": 2, "pins": {"sss": [
        {"t": 1, "pins": {"tang": [{"url": one.url}]}} for one in (server, other)]}})
    assert luks("bind", "-y", "-k", pair.folder / "k", "sss", nested).returncode == 0
    before = header(ours)
    listed = luks("list").stdout.decode()
    assert server.url in listed and other.url in listed
    # A policy stays what it was.
    assert luks("regen", "-q", "-s", "1").returncode == 0
    assert header(ours) == before
    # Who has other keys now is believed by nobody, also not by edit without a thumbprint.
    for key in server.keys.iterdir():
        key.unlink()
    kit.run(["/usr/libexec/tangd-keygen", server.keys])
    bytes_before = ours.read_bytes()
    passphrase = b"first passphrase\n"
    assert luks("regen", "-q", "-s", "1", stdin=passphrase).returncode == 1
    failed = luks("edit", "-s", "1", "-c", json.dumps({"t": 1, "pins": {"tang": {"url": server.url}}}),
                  stdin=passphrase)
    assert failed.returncode == 1 and b"thp" in failed.stderr
    assert luks("bind", "-k", pair.folder / "k", "tang", tang_config(server)).returncode == 1
    # -y takes keys that nothing vouches for, but none that a thumbprint speaks against.
    failed = luks("bind", "-y", "-k", pair.folder / "k", "tang",
                  tang_config(server, thp=other.thumbprint))
    assert failed.returncode == 1
    assert ours.read_bytes() == bytes_before


def test_a_token_that_is_there_gives_the_passphrase(pair, tangs):
    """-e, which of Clevis needs a plugin of cryptsetup that Debian does not have."""
    server, other = tangs(2)

    def bind(*words):
        return call("ours", ["clevis", "luks", "bind", "-y", "-d", pair.volume("ours"), *words])

    assert bind("-k", pair.folder / "k", "tang", tang_config(server)).returncode == 0
    before = header(pair.volume("ours"))
    for words in (["-e", "7", "tang"], ["-e", "x", "tang"], ["-e", "0", "-k", pair.folder / "k", "tang"]):
        assert bind(*words, tang_config(other)).returncode == 1
        assert header(pair.volume("ours")) == before
    done = bind("-e", "0", "tang", tang_config(other))
    if pair.kind == "luks1":
        assert done.returncode == 1 and b"no token 0" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert len(header(pair.volume("ours"))[1]) == 2


def test_the_archive_has_the_headers_of_before(pair, tangs, tmp_path):
    server, = tangs()
    env = {"LUKSKEEP_ARCHIVE": str(tmp_path / "archive"), "LUKSKEEP_ARCHIVE_KEY": str(tmp_path / "key")}
    volume = pair.volume("ours")
    for words in (["bind", "-y", "-d", volume, "-k", pair.folder / "k", "tang", tang_config(server)],
                  ["unbind", "-f", "-d", volume, "-s", "1"]):
        assert call("ours", ["clevis", "luks", *words], env=env).returncode == 0
    listed = kit.lukskeep("archive", "list", "--store", tmp_path / "archive", "--json").stdout
    assert len(json.loads(listed)["snapshots"]) >= 2
    assert b"clevis luks bind" in listed and b"clevis luks unbind" in listed


def test_without_device_mapper_it_says_so(pair, tangs):
    server, = tangs()
    if "device-mapper" in open("/proc/misc").read():
        pytest.skip("this kernel has device-mapper")
    pair.luks("bind", "-y", "-d", "volume", "-k", "../k", "tang", tang_config(server), status=0)
    done = call("ours", ["clevis", "luks", "unlock", "-d", pair.volume("ours")])
    assert done.returncode == call("theirs", ["clevis", "luks", "unlock", "-d",
                                              pair.volume("theirs")]).returncode
    assert b"no device-mapper" in done.stderr and b"lukskeep serve" in done.stderr


# ---- clevis encrypt, decrypt --------------------------------------------------------------------


def test_sealing_and_opening(tangs):
    server, other = tangs(2)
    pins = [("tang", tang_config(server)), ("null", "{}"), ("sss", '{"pins":{"null":{}}}'),
            ("sss", json.dumps({"t": 2, "pins": {"tang": [{"url": server.url}, {"url": other.url}]}}))]
    for pin, config in pins:
        for data in (SECRET, b""):
            for sealer, opener in (SIDES, SIDES[::-1], ("ours", "ours")):
                sealed = call(sealer, ["clevis", "encrypt", pin, config, "-y"], data)
                assert sealed.returncode == 0, sealed.stderr
                for name in (["clevis", "decrypt"], [f"clevis-decrypt-{pin}"],
                             ["clevis", "decrypt", pin]):
                    opened = call(opener, name, sealed.stdout)
                    assert (opened.returncode, opened.stdout) == (0, data), opened.stderr


@pytest.mark.parametrize("argv, stdin, status", [
    (["clevis"], b"", 2), (["clevis", "--help"], b"", 2), (["clevis", "encrypt"], b"", 2),
    (["clevis", "encrypt", "nopin", "{}"], b"", 2), (["clevis", "luks"], b"", 2),
    (["clevis", "encrypt", "tang", "{"], b"x", 1), (["clevis", "encrypt", "tang", "{}"], b"x", 1),
    (["clevis", "encrypt", "tang", "-y", "{}"], b"x", 1),
    (["clevis", "encrypt", "null", "[]"], b"x", 1), (["clevis", "encrypt", "sss", "{}"], b"x", 1),
    (["clevis", "encrypt", "tang", '{"url":"http://127.0.0.1:9"}', "-y"], b"x", 1),
    (["clevis", "decrypt"], b"", 1), (["clevis", "decrypt"], b"a.b.c.d.e", 1),
    (["clevis-decrypt-null"], b"e30.b.c.d.e", 1),
    (["clevis-decrypt", "--summary"], b"", 0), (["clevis-encrypt-tang", "--summary"], b"", 0),
    (["clevis-encrypt-sss", "--summary"], b"", 0), (["clevis-encrypt-null", "--summary"], b"", 2),
    (["clevis-luks-bind", "--summary"], b"", 0), (["clevis-luks-list", "--summary"], b"", 0),
    (["clevis-luks-report", "--summary"], b"", 0), (["clevis-luks-unlock", "--summary"], b"", 0),
    (["tangd"], b"", 1), (["tangd", "none"], b"", 1), (["tangd", "/dev/null"], b"", 1),
    (["tangd-keygen"], b"", 1), (["tangd-keygen", "none"], b"", 1),
    (["tangd-keygen", ".", "a"], b"", 1), (["tangd-rotate-keys"], b"", 1),
    (["tangd-rotate-keys", "-h"], b"", 0), (["tangd-rotate-keys", "-d", "none"], b"", 1),
    (["tang-show-keys", "9"], b"", 7), (["tang-show-keys", "1", "2", "3"], b"", 1),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_calls_without_a_volume(argv, stdin, status):
    done = [call(side, argv, stdin) for side in SIDES]
    assert [one.returncode for one in done] == [status] * 2, [one.stderr for one in done]
    assert done[0].stdout == done[1].stdout


# ---- questions on a terminal --------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("answer, status", [("y", 0), ("n", 1), ("", 1)])
def test_a_server_that_is_not_known_is_asked_about(side, answer, status, tangs, tmp_path):
    kit.need("clevis")
    server, = tangs()
    line = f"clevis encrypt tang '{tang_config(server)}' < k > sealed"
    kit.write(tmp_path / "k", SECRET)
    terminal = Terminal(side, line, tmp_path)
    terminal.expect(server.thumbprint).expect("Do you wish to trust these keys? [ynYN] ")
    assert terminal.type(answer).end() == status
    if status == 0:
        assert call(side, ["clevis", "decrypt"], (tmp_path / "sealed").read_bytes()).stdout == SECRET


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("answers, status", [("yy", 0), ("yn", 1)])
def test_two_servers_are_two_questions(side, answers, status, tangs, tmp_path):
    kit.need("clevis")
    servers = tangs(2)
    policy = json.dumps({"t": 2, "pins": {"tang": [{"url": server.url} for server in servers]}})
    kit.write(tmp_path / "k", SECRET)
    terminal = Terminal(side, f"clevis encrypt sss '{policy}' < k > sealed", tmp_path)
    for answer in answers:
        terminal.expect("Do you wish to trust these keys? [ynYN] ").type(answer)
    assert terminal.end() == status


@pytest.mark.parametrize("side", SIDES)
def test_bind_and_unbind_ask(side, pair, tangs):
    server, = tangs()
    folder = pair.folder / side
    line = f"clevis luks bind -f -d volume tang '{tang_config(server)}'"
    terminal = Terminal(side, line, folder)
    terminal.expect("Enter existing LUKS password: ").type("first passphrase")
    terminal.expect("Do you wish to trust these keys? [ynYN] ")
    assert terminal.type("y").end() == 0
    slots = header(folder / "volume")
    assert [slot[0] for slot in slots[0]] == [0, 1]
    question = f"Do you wish to erase LUKS slot 1 on volume? [ynYN] "
    assert Terminal(side, "clevis luks unbind -d volume -s 1", folder).expect(question).type(
        "n").end() == 0
    assert header(folder / "volume") == slots
    wrong = Terminal(side, "clevis luks unbind -d volume -s 1", folder).expect(question).type("y")
    assert wrong.expect("Enter any remaining passphrase: ").type("wrong").end() == 1
    assert header(folder / "volume") == slots
    right = Terminal(side, "clevis luks unbind -d volume -s 1", folder).expect(question).type("Y")
    assert right.expect("Enter any remaining passphrase: ").type("first passphrase").end() == 0
    assert [slot[0] for slot in header(folder / "volume")[0]] == [0]


@pytest.mark.parametrize("side", SIDES)
def test_an_editor_changes_the_policy(side, pair, tangs):
    server, other = tangs(2)
    folder = pair.folder / side
    bind = ["clevis", "luks", "bind", "-y", "-k", pair.folder / "k", "-d", "volume", "tang"]
    assert call(side, [*bind, tang_config(server)], cwd=folder).returncode == 0
    editor = kit.write(folder / "editor", f"#!/bin/sh\nsed -i 's#{server.url}#{other.url}\",\"thp\":\""
                       f"{other.thumbprint}#' \"$1\"\n".encode())
    editor.chmod(0o755)
    edit = ["clevis", "luks", "edit", "-d", "volume", "-s", "1"]
    env = {"EDITOR": str(editor)}
    done = call(side, edit, b"n\n", cwd=folder, env=env)
    assert done.returncode == 0 and b"Pin: tang\nNew config:\n{\n" in done.stdout, done.stderr
    assert header(folder / "volume")[1][0][3][1] == server.url
    assert call(side, edit, b"y\n", cwd=folder, env=env).returncode == 0
    assert header(folder / "volume")[1][0][3][1] == other.url


# ---- Tang ---------------------------------------------------------------------------------------


def keys_of(folder):
    names = sorted(path.name for path in folder.iterdir() if path.suffix == ".jwk")
    return names, {stat.S_IMODE((folder / name).stat().st_mode) for name in names}


def test_keys_are_made_and_rotated(tmp_path):
    states = []
    for side in SIDES:
        folder = tmp_path / side
        folder.mkdir()
        assert call(side, ["tangd-keygen", folder, "sig", "exc"]).returncode == 0
        assert keys_of(folder) == (["exc.jwk", "sig.jwk"], {0o440})
        assert call(side, ["tangd-keygen", folder]).returncode == 0
        assert len(keys_of(folder)[0]) == 4
        assert call(side, ["tangd-rotate-keys", "-d", folder]).returncode == 0
        assert call(side, ["tangd-rotate-keys", "-v", "-d", folder]).returncode == 0
        names, modes = keys_of(folder)
        assert modes == {0o440}
        states.append(sorted((name[0] == ".", len(name) > 40) for name in names))
        # Either's are read by the other.
        for reader in SIDES:
            answer = call(reader, ["tangd", folder], b"GET /adv HTTP/1.1\r\n\r\n")
            assert answer.stdout.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    assert states[0] == states[1]


@pytest.mark.parametrize("request_text, status", [
    (b"GET /adv HTTP/1.1\r\n\r\n", 200), (b"GET /adv/ HTTP/1.1\r\n\r\n", 200),
    (b"GET /adv/nothing HTTP/1.1\r\n\r\n", 404), (b"GET / HTTP/1.1\r\n\r\n", 404),
    (b"POST /adv HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
    (b"GET /rec/nothing HTTP/1.1\r\n\r\n", 405),
    (b"POST /rec/nothing HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", None),
])
def test_tangd_answers_one_connection(tmp_path, request_text, status):
    folder = tmp_path / "keys"
    folder.mkdir()
    call("theirs", ["tangd-keygen", folder])
    seen = []
    for side in SIDES:
        done = call(side, ["tangd", folder], request_text)
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        if status == 200:
            body = base64.urlsafe_b64decode(json.loads(body)["payload"] + "==")
            body = sorted(json.dumps(key, sort_keys=True) for key in json.loads(body)["keys"])
        seen.append((int(head.split()[1]), body))
    assert seen[0] == seen[1] and status in (None, seen[0][0])


def test_tangd_listens_and_shows_its_keys(tmp_path, tangs):
    """With the options of newer versions, which the packaged one does not have."""
    import subprocess
    import tang
    server, = tangs()
    expected = call("theirs", ["tang-show-keys", str(server.port)]).stdout
    assert expected and expected == call("ours", ["tang-show-keys", str(server.port)]).stdout
    port = tang.free_port()
    from compat_tools import COMPAT
    process = subprocess.Popen([COMPAT / "tangd", "-l", "-p", str(port), "-e", "here", server.keys],
                               stderr=subprocess.PIPE)
    try:
        tang.wait_for(port, process)
        shown = call("ours", ["tang-show-keys", str(port), "here"])
        assert shown.stdout == expected, shown.stderr
    finally:
        process.terminate()
        log = process.communicate(timeout=20)[1]
    assert process.returncode == 0 and b"GET /here/adv" in log
