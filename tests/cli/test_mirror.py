"""Mirrors of the archive: folders, and servers that lie, hang or are full."""

import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

import cli_tools
from cli_tools import PBKDF2, fails, ok, run, tree
from conftest import needs_mounts

LIST = "<ListBucketResult>{}</ListBucketResult>"
REMOTE = 7


@pytest.fixture
def kept(luks1, monkeypatch):
    """The volume v1 (k1) and an archive that is on, with one snapshot."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LUKSKEEP_ARCHIVE", str(luks1 / "store"))
    monkeypatch.setenv("LUKSKEEP_ARCHIVE_KEY", str(luks1 / "own.key"))
    monkeypatch.setenv("LUKSKEEP_S3_CREDENTIALS", str(luks1 / "credentials"))
    (luks1 / "credentials").write_text("aws_access_key_id=A\naws_secret_access_key=hidden\n")
    ok("archive", "add", "v1", cwd=luks1)
    return luks1



def rekey(folder, key="k1", wrap=()):
    return ok("key", "change", "v1", "--key", f"file:{key}", "--new-key", f"file:{key}", *PBKDF2,
              cwd=folder, wrap=wrap)


def snapshots(folder):
    return {name: data for name, data in tree(folder).items() if name.endswith(".snapshot")}


def unsynced(folder):
    result = run("archive", "status", "--json", cwd=folder)
    assert result.status == (1 if result.json["unsynced"] else 0), result
    return result.json["unsynced"]


# ---- folders -----------------------------------------------------------------------------------


def test_folder_gets_everything(kept):
    result = ok("archive", "mirror", kept / "m", "--json", cwd=kept)
    assert result.json["sent"] == 1 and result.json["mirrors"] == [str(kept / "m")]
    assert (kept / "m").stat().st_mode & 0o077 == 0
    rekey(kept)
    assert len(snapshots(kept / "m")) == 2 and snapshots(kept / "m") == snapshots(kept / "store")
    for path in (kept / "m").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert str(kept / "m") in ok("archive", "mirror", cwd=kept).text
    fails(5, "archive", "mirror", kept / "m", cwd=kept)  # it is one already
    assert ok("archive", "sync", "--json", cwd=kept).json["sent"] == 0
    assert not unsynced(kept)
    ok("archive", "mirror", "--remove", kept / "m", cwd=kept)
    fails(1, "archive", "mirror", "--remove", kept / "m", cwd=kept)
    rekey(kept)
    assert len(snapshots(kept / "m")) == 2


def test_recovery_from_a_folder(kept, monkeypatch):
    ok("archive", "mirror", kept / "m", cwd=kept)
    rekey(kept)
    good = (kept / "v1").read_bytes()
    shutil.rmtree(kept / "store")
    newest = max(snapshots(kept / "m")).rpartition("-")[2].partition(".")[0]
    before = tree(kept / "m")
    result = ok("archive", "sync", "--from", kept / "m", "--json", cwd=kept)
    assert result.json["fetched"] == 2 and result.json["problems"] == []
    (kept / "v1").write_bytes(bytes(len(good)))
    ok("header", "restore", "v1", f"archive:{newest}", cwd=kept)
    assert (kept / "v1").read_bytes()[:65536] == good[:65536]
    assert ok("archive", "sync", "--from", kept / "m", "--json", cwd=kept).json["fetched"] == 0
    # It goes on with the same mirror, where nothing comes twice.
    ok("archive", "mirror", kept / "m", cwd=kept)
    assert len(snapshots(kept / "m")) == 3  # the header as it is since it was restored
    assert tree(kept / "m").items() >= before.items()


@pytest.mark.parametrize("form", ["unmarked", "absent", "file", "foreign"])
def test_share_that_is_not_mounted(kept, form):
    ok("archive", "mirror", kept / "m", cwd=kept)
    (kept / "m").rename(kept / "share")
    if form in ("unmarked", "foreign"):
        (kept / "m").mkdir()
    if form == "foreign":
        (kept / "m" / "x").write_text("x")
    if form == "file":
        (kept / "m").write_text("x")
    before = tree(kept / "m") if form != "file" else {}
    result = rekey(kept)
    assert "is no mirror of an archive" in result.err and str(kept / "m") in result.err
    assert len(snapshots(kept / "store")) == 2
    assert unsynced(kept)
    failed = run("archive", "sync", "--json", cwd=kept, check=REMOTE)
    assert failed.json["sent"] == 0 and "is no mirror" in failed.json["problems"][0]
    assert not (kept / "m").is_dir() or tree(kept / "m") == before
    if form == "file":
        (kept / "m").unlink()
    elif form != "absent":
        shutil.rmtree(kept / "m")
    (kept / "share").rename(kept / "m")
    assert ok("archive", "sync", "--json", cwd=kept).json["sent"] == 1
    assert not unsynced(kept)
    assert snapshots(kept / "m") == snapshots(kept / "store")


@needs_mounts
def test_mirror_that_is_full(kept, mounted):
    """The archive takes the snapshot; the mirror gets it when there is room."""
    ok("archive", "mirror", kept / "m", cwd=kept)
    full = mounted(f"mount -t tmpfs -o size=64k none {kept}/m && touch {kept}/m/lukskeep-mirror && "
                   f"(head -c 1M /dev/zero > {kept}/m/ballast; true) 2>/dev/null")
    result = rekey(kept, wrap=full)
    assert "lacks the newest snapshots" in result.err
    assert "space" in result.err or "full" in result.err
    assert len(snapshots(kept / "store")) == 2 and len(snapshots(kept / "m")) == 1
    assert unsynced(kept)
    assert ok("archive", "sync", "--json", cwd=kept).json["sent"] == 1
    assert snapshots(kept / "m") == snapshots(kept / "store") and not unsynced(kept)


def test_one_of_two_mirrors_fails(kept):
    ok("archive", "mirror", kept / "gone", cwd=kept)
    ok("archive", "mirror", kept / "m", cwd=kept)
    shutil.rmtree(kept / "gone")
    result = rekey(kept)
    assert result.err.count("lacks the newest") == 1
    assert snapshots(kept / "m") == snapshots(kept / "store")
    ok("archive", "mirror", "--remove", kept / "gone", cwd=kept)
    ok("archive", "mirror", "--remove", kept / "m", cwd=kept)
    ok("archive", "sync", cwd=kept)
    assert not unsynced(kept)  # nobody is left behind any more


def test_snapshot_that_is_damaged_here(kept):
    """It reaches no mirror, and keeps no other from it."""
    bad = next(kept.glob("store/**/*.snapshot"))
    rekey(kept)
    bad.write_bytes(bad.read_bytes()[:100])
    result = run("archive", "mirror", kept / "m", "--json", cwd=kept, check=REMOTE)
    assert result.json["sent"] == 1 and len(result.json["problems"]) == 1
    assert bad.name in result.json["problems"][0]
    assert bad.name not in {name.rpartition("/")[2] for name in snapshots(kept / "m")}


def test_hostile_folder(kept):
    """What lies about in a mirror: told, and the sound snapshot comes in all the same."""
    ok("archive", "mirror", kept / "m", cwd=kept)
    shutil.rmtree(kept / "store")
    sound = next(kept.glob("m/snapshots/*/*.snapshot"))
    folder = sound.parent
    (folder / "1-aa.snapshot").write_bytes(b"")
    (folder / "2-bb.snapshot").write_bytes(os.urandom(1000))
    (folder / "3-cc.snapshot").mkdir()
    os.mkfifo(folder / "4-dd.snapshot")
    (folder / "5-ee.snapshot").symlink_to("/dev/zero")
    with open(folder / "6-ff.snapshot", "wb") as file:
        file.truncate(1 << 40)
    (folder / ".7-gg.snapshot").write_bytes(b"x")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "8-hh.snapshot").write_bytes(b"x")
    result = run("archive", "sync", "--from", kept / "m", "--json", cwd=kept, check=4)
    assert result.json["fetched"] == 1
    assert {re.search(r"(\d)-[a-z]{2}\.snapshot", text).group(1)
            for text in result.json["problems"]} == {"1", "2", "6"}
    assert list(snapshots(kept / "store").values()) == [sound.read_bytes()]


@pytest.mark.parametrize("uri", [
    "relative", "", "ftp://x/bucket", "s3+https://host", "s3+https:///bucket", "s3+http://h/B_UPPER",
    "s3+https://h/ab", "s3+https://user@host/bucket", "s3+https://host/bucket/a?b", "/a\nb",
    "s3+https://host/bucket/\x1b[2J", "s3+https://host/bucket/" + "x" * 600, "s3+https://h?x/bucket"])
def test_what_is_no_mirror(kept, uri):
    before = tree(kept)
    if uri:
        result = fails(1, "archive", "mirror", uri, cwd=kept)
        assert "\x1b" not in result.err and "\n/" not in result.err
    fails(1, "archive", "sync", "--from", uri or "./", cwd=kept)
    assert tree(kept) == before


def test_dry_run_writes_nothing(kept):
    before = tree(kept)
    ok("archive", "mirror", kept / "m", "--dry-run", cwd=kept)
    assert tree(kept) == before and not (kept / "m").exists()
    ok("archive", "mirror", kept / "m", cwd=kept)
    shutil.rmtree(kept / "m" / "snapshots")
    before = tree(kept)
    ok("archive", "sync", "--dry-run", cwd=kept)
    ok("archive", "mirror", "--remove", kept / "m", "--dry-run", cwd=kept)
    assert tree(kept) == before


# ---- servers -----------------------------------------------------------------------------------


class Bucket:
    """A server that holds objects, and answers with `lie(handler)` if that says True."""

    def __init__(self):
        self.objects = {}
        self.requests = []
        self.lie = lambda handler: False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=b"", headers=()):
                body = body.encode() if isinstance(body, str) else body
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle_any(self):
                size = int(self.headers.get("Content-Length", 0))
                self.body = self.rfile.read(size)
                outer.requests.append((self.command, self.path, dict(self.headers)))
                try:
                    if not outer.lie(self):
                        self.serve()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def serve(self):
                url = urlsplit(self.path)
                name = unquote(url.path).removeprefix("/bucket").removeprefix("/")
                if self.command == "PUT":
                    taken = self.headers["If-None-Match"] == "*" and name in outer.objects
                    if not taken:
                        outer.objects[name] = self.body
                    self.answer(412 if taken else 200)
                elif name:
                    self.answer(*((200, outer.objects[name]) if name in outer.objects else (404,)))
                else:
                    prefix = parse_qs(url.query).get("prefix", [""])[0]
                    self.answer(200, listing(n for n in outer.objects if n.startswith(prefix)))

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.uri = f"s3+http://127.0.0.1:{self.port}/bucket"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def listing(names, more=""):
    return LIST.format("".join(f"<Contents><Key>{name}</Key></Contents>" for name in names) + more)


@pytest.fixture
def bucket():
    made = Bucket()
    yield made
    made.server.shutdown()
    made.server.server_close()


def pour(handler, piece, count, status=200):
    """A body of count pieces, without a length."""
    handler.send_response(status)
    handler.send_header("Connection", "close")
    handler.end_headers()
    for _ in range(count):
        handler.wfile.write(piece)
    handler.close_connection = True
    return True


def say(status, body="", headers=()):
    def lie(handler):
        handler.answer(status, body, headers)
        return True
    return lie


def endless_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1 << 20):
        handler.wfile.write(b"X-%d: %s\r\n" % (number, b"x" * 500))
    return True


def endless_interim(handler):
    for _ in range(1 << 20):
        handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    return True


def no_http(handler):
    handler.wfile.write(b"\x00\xff nothing that anybody knows\r\n\r\n")
    handler.close_connection = True
    return True


def cut_off(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<ListBucketResult>")
    handler.close_connection = True
    return True


def bad_length(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n")
    handler.close_connection = True
    return True


def numbered_pages(handler):
    handler.answer(200, listing([], f"<NextContinuationToken>{time.monotonic_ns()}"
                                    "</NextContinuationToken>"))
    return True


LAUGHS = '<!DOCTYPE l [<!ENTITY a "' + "ha" * 50 + '">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12)) + "]>" + \
    LIST.format("<Contents><Key>&m;</Key></Contents>")
TOKEN = "<NextContinuationToken>{}</NextContinuationToken>"

LIES = {
    "huge answer": lambda h: pour(h, b"<a>" * 20000, 10000),
    "huge name": say(200, LIST.format("<Contents><Key>" + "x" * (1 << 20) + "</Key></Contents>")),
    "deep": say(200, "<a>" * 100000),
    "endless headers": endless_headers,
    "endless interim answers": endless_interim,
    "redirect": say(301, "", [("Location", "http://127.0.0.1:1/bucket")]),
    "redirect to a file": say(302, "", [("Location", "file:///etc/passwd")]),
    "garbage": say(200, os.urandom(5000)),
    "empty": say(200, ""),
    "no list": say(200, "<html><body>please log in</body></html>"),
    "cut xml": say(200, "<ListBucketResult><Contents>"),
    "laughs": say(200, LAUGHS),
    "outside entity": say(200, '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
                          + LIST.format("<Contents><Key>&e;</Key></Contents>")),
    "loop of one": say(200, listing([], TOKEN.format("again"))),
    "endless pages": numbered_pages,
    "no http": no_http,
    "cut off": cut_off,
    "bad length": bad_length,
    "403": say(403, "<Error><Code>AccessDenied</Code></Error>"),
    "404": say(404, "<Error><Code>NoSuchBucket</Code></Error>"),
    "500": say(500, "<Error><Code>\x1b[2J&#27;</Code></Error>"),
    "503": say(503),
    "507": say(507),
}


@pytest.mark.parametrize("name", LIES)
def test_server_that_lies(kept, bucket, name):
    """A clear message, soon, within bounds; nothing is lost, and all is well when it is honest."""
    ok("archive", "mirror", bucket.uri, cwd=kept)
    assert list(bucket.objects) == list(snapshots(kept / "store"))
    honest, bucket.lie = bucket.lie, LIES[name]
    before = tree(kept / "store")
    start = time.monotonic()
    result = run("archive", "sync", "--json", cwd=kept, check=REMOTE)
    assert time.monotonic() - start < 60
    assert len(result.json["problems"]) == 1 and bucket.uri in result.json["problems"][0]
    assert "\x1b" not in result.err and "passwd" not in result.err
    # The answer to a change: it is made, archived, and told of.
    result = rekey(kept)
    assert result.err.count("lacks the newest snapshots") == 1
    assert len(result.err) < 1500
    here = tree(kept / "store")
    assert {path: data for path, data in here.items() if path in snapshots(kept / "store")} \
        .items() >= snapshots(kept / "store").items()
    assert len(snapshots(kept / "store")) == 2
    assert {path for path in before if path.endswith(".snapshot")} <= set(here)
    assert unsynced(kept)
    # Who makes or reads a mirror is told by the status.
    expected = {"403": 2, "404": 1, "507": 4}.get(name, REMOTE)
    failed = run("archive", "sync", "--from", bucket.uri, cwd=kept)
    assert failed.status in (expected, REMOTE) and failed.err.startswith("lukskeep: error: ")
    bucket.lie = honest
    assert ok("archive", "sync", "--json", cwd=kept).json["sent"] == 1
    assert bucket.objects == snapshots(kept / "store") and not unsynced(kept)


@pytest.mark.parametrize("name", ["huge answer", "endless headers", "laughs", "deep", "huge name"])
def test_memory_is_bounded(kept, bucket, name):
    if cli_tools.SANITIZED:
        pytest.skip("the sanitizer's memory hides the program's")
    bucket.lie = LIES[name]
    limit = 300 << 20
    result = run("archive", "sync", "--from", bucket.uri, cwd=kept, check=REMOTE,
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert "memory" not in result.err


def test_passing_trouble_is_tried_again(kept, bucket):
    """500, 503, 429 and a connection that breaks pass by themselves, if they are few."""
    for lie in (LIES["500"], LIES["503"], LIES["cut off"], say(429)):
        left = [2]

        def sometimes(handler, lie=lie, left=left):
            left[0] -= 1
            return left[0] >= 0 and lie(handler)
        bucket.lie = sometimes
        assert ok("archive", "sync", "--from", bucket.uri, "--json", cwd=kept).json["fetched"] == 0
        assert left[0] < 0


@pytest.mark.parametrize("when", ["before the answer", "in the answer"])
def test_server_that_hangs(kept, bucket, when):
    """A change waits for seconds; and it can be stopped at once."""
    ok("archive", "mirror", bucket.uri, cwd=kept)
    released = threading.Event()

    def hang(handler):
        if when == "in the answer":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<List")
        released.wait(60)
        return True
    bucket.lie = hang
    start = time.monotonic()
    result = rekey(kept)
    assert time.monotonic() - start < 40
    assert "did not answer in time" in result.err and unsynced(kept)
    process = cli_tools.start("archive", "sync", cwd=kept)
    count = len(bucket.requests)
    cli_tools.wait_until(lambda: len(bucket.requests) > count, "the request")
    status, _, _ = cli_tools.interrupt(process)
    assert status == 130
    released.set()


def test_put_where_something_is(kept, bucket):
    """The same bytes are good; others stay, and are told of."""
    bucket.lie = lambda h: h.command == "GET" and "list-type" in h.path and say(200, listing([]))(h)
    name, data = next(iter(snapshots(kept / "store").items()))
    bucket.objects[name] = data
    ok("archive", "mirror", bucket.uri, cwd=kept)
    bucket.objects[name] = b"other"
    result = run("archive", "sync", "--json", cwd=kept, check=REMOTE)
    assert "is there with other bytes" in result.json["problems"][0]
    assert bucket.objects[name] == b"other"


def test_server_without_conditions(kept, bucket):
    """One that refuses If-None-Match as unknown gets the request without it."""
    bucket.lie = lambda h: "If-None-Match" in h.headers and say(501)(h)
    ok("archive", "mirror", bucket.uri, cwd=kept)
    assert bucket.objects == snapshots(kept / "store")


def test_names_from_a_server_lead_nowhere_else(kept, bucket):
    names = ["snapshots/../../x.snapshot", "../x.snapshot", "/etc/x.snapshot", "snapshots/x.snapshot",
             "snapshots/a/.x.snapshot", "snapshots/a/b/c.snapshot", "x.txt", "snapshots/a/x",
             "snapshots//x.snapshot"]
    bucket.lie = lambda h: "list-type" in h.path and say(200, listing(names))(h)
    before = tree(kept)
    result = ok("archive", "sync", "--from", bucket.uri, "--json", cwd=kept)
    assert result.json["fetched"] == 0 and result.json["problems"] == []
    assert {p: d for p, d in tree(kept).items()} == before
    assert len(bucket.requests) == 1


def test_secret_is_not_sent(kept, bucket):
    ok("archive", "mirror", bucket.uri, cwd=kept)
    for _, path, headers in bucket.requests:
        assert "hidden" not in path + str(headers)
        assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=A/")


@pytest.mark.parametrize("text", ["", "aws_access_key_id=A\n", "[other]\naws_access_key_id=A\n"
                                  "aws_secret_access_key=B\n", "x" * 100000])
def test_bad_credentials(kept, bucket, text):
    (kept / "credentials").write_text(text)
    result = fails(1, "archive", "mirror", bucket.uri, cwd=kept)
    assert "credentials" in result.err and bucket.requests == []


def test_certificate_that_nobody_knows(kept, bucket):
    if not shutil.which("openssl"):
        pytest.skip("no program 'openssl'")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", kept / "tls.key", "-out",
                    kept / "tls.crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kept / "tls.crt", kept / "tls.key")
    bucket.server.socket = context.wrap_socket(bucket.server.socket, server_side=True)
    result = fails(6, "archive", "mirror", bucket.uri.replace("http", "https"), cwd=kept)
    assert "certificate" in result.err and bucket.requests == []


def test_nobody_listens(kept):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = fails(REMOTE, "archive", "mirror", f"s3+http://127.0.0.1:{port}/bucket", cwd=kept)
    assert f"127.0.0.1:{port}" in result.err


def test_a_mirror_does_not_choose_where_is_written(kept):
    """Who can write to a share must not make root write elsewhere."""
    ok("archive", "mirror", kept / "m", cwd=kept)
    outside = kept / "outside"
    outside.mkdir()
    shutil.rmtree(kept / "m/snapshots")
    (kept / "m/snapshots").symlink_to(outside)
    failed = run("archive", "sync", "--json", cwd=kept, check=REMOTE)
    assert failed.json["sent"] == 0 and "no folder of its own" in failed.json["problems"][0]
    assert not list(outside.rglob("*.snapshot"))


def test_mirrors_added_at_the_same_time_are_all_kept(kept):
    folders = [kept / f"mirror-{number}" for number in range(8)]
    running = [cli_tools.start("archive", "mirror", folder, cwd=kept) for folder in folders]
    for process in running:
        assert process.wait(60) == 0
    assert set(ok("archive", "mirror", "--json", cwd=kept).json["mirrors"]) == set(map(str, folders))
