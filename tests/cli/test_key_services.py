"""Key managers over HTTP that lie, hang, forget who we are or break in the middle."""

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli_tools import PBKDF2, fails, interrupt, ok, run, start

UUID = "6ea6b0a8-de50-45b8-90b7-9470c4dd201a"
OTHER = "11111111-2222-4333-8444-555555555555"
PASSWORD = "keep this quiet"


class Cloud(ThreadingHTTPServer):
    """Keystone and Barbican in one; `say[(method, path)]` overrides an answer once or for ever."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.secrets = {}
        self.logins = 0
        self.good_tokens = set()
        self.lifetime = 3600
        self.say = {}
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        pass  # clients that went away


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
        if length is not None:
            self.close_connection = True

    def handle_any(self):
        cloud = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        cloud.asked.append((self.command, self.path))
        override = cloud.say.get((self.command, path))
        if override:
            if isinstance(override, list):
                override.pop(0)(self)
                if not override:
                    del cloud.say[(self.command, path)]
                return
            return override(self)
        if path == "/v3/auth/tokens":
            return self.login()
        if self.headers.get("X-Auth-Token") not in cloud.good_tokens:
            return self.answer(401, {"error": {"code": 401, "message": "who are you"}})
        self.barbican(path, json.loads(body) if body else None)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def login(self):
        cloud = self.server
        cloud.logins += 1
        token = f"token-{cloud.logins}"
        cloud.good_tokens = {token}
        now = int(time.time())
        stamp = lambda t: time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(t))
        self.answer(201, {"token": {
            "issued_at": stamp(now), "expires_at": stamp(now + cloud.lifetime),
            "catalog": [{"type": "key-manager", "endpoints": [
                {"interface": "public", "region_id": "R", "url": cloud.url}]}]}},
            [("X-Subject-Token", token)])

    def describe(self, name):
        one = self.server.secrets[name]
        return {"secret_ref": f"{self.server.url}/v1/secrets/{name}", "name": one["name"],
                "secret_type": one["secret_type"], "created": "2026-01-01T00:00:00",
                "content_types": {"default": "text/plain"}, "status": "ACTIVE",
                "algorithm": None, "bit_length": None, "mode": None, "expiration": None}

    def barbican(self, path, body):
        secrets = self.server.secrets
        parts = path.removeprefix("/v1/").split("/")
        if parts == ["secrets"] and self.command == "POST":
            name = UUID if UUID not in secrets else OTHER
            secrets[name] = {**body, "metadata": {}, "consumers": []}
            return self.answer(201, {"secret_ref": f"{self.server.url}/v1/secrets/{name}"})
        if parts == ["secrets"]:
            first = "offset=0" in self.path
            return self.answer(200, {"secrets": [self.describe(n) for n in secrets] if first else []})
        one = secrets.get(parts[1])
        if one is None:
            return self.answer(404, {"code": 404, "description": "Not Found."})
        if len(parts) == 2 and self.command == "DELETE":
            del secrets[parts[1]]
            return self.answer(204)
        if len(parts) == 2:
            return self.answer(200, self.describe(parts[1]))
        if parts[2] == "payload":
            return self.answer(200, one["payload"].encode())
        if parts[2] == "metadata" and self.command == "PUT":
            one["metadata"] = body["metadata"]
            return self.answer(201, {})
        if parts[2] == "metadata":
            return self.answer(200, {"metadata": one["metadata"]})
        if self.command == "POST":
            one["consumers"].append(body)
            return self.answer(200, {})
        self.answer(200, {"consumers": one["consumers"], "total": len(one["consumers"])})


def status(number, body=b""):
    return lambda handler: handler.answer(number, body)


def half(handler):
    handler.answer(200, b'{"secret', length=1000)


def hang(handler):
    time.sleep(300)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("OS_", "VAULT_", "LUKSKEEP_KEY", "LUKSKEEP_CRED")):
            monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Cloud() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        (tmp_path / "openrc").write_text(
            f"# as a dashboard writes it\nexport OS_AUTH_URL={server.url}\nexport OS_USERNAME=u\n"
            f"export OS_PASSWORD='{PASSWORD}'\nexport OS_PROJECT_NAME=p\nunset OS_TENANT_NAME\n")
        os.chmod(tmp_path / "openrc", 0o600)
        monkeypatch.setenv("LUKSKEEP_CREDENTIALS", str(tmp_path / "openrc"))
        monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", "barbican:")
        server.folder = tmp_path
        yield server
        server.shutdown()


def put(*options):
    return ok("keystore", "store", "--name", "n", *options, stdin=b"secret").text.strip()


def quiet(result):
    assert PASSWORD not in result.err and "secret\n" not in result.err
    return result


def test_token_that_dies_in_the_middle(cloud):
    name = put()
    cloud.say[("GET", f"/v1/secrets/{UUID}/payload")] = [
        lambda handler: (cloud.good_tokens.clear(), handler.answer(401, b"<html>who</html>"))]
    before = cloud.logins
    assert ok("keystore", "get", name).out == b"secret"
    assert cloud.logins == before + 2


def test_token_that_is_never_good(cloud):
    cloud.say[("GET", "/v1/secrets")] = status(401, b"{}")
    before = cloud.logins
    result = quiet(fails(2, "keystore", "list"))
    assert "does not accept the credentials" in result.err and cloud.logins == before + 2


def test_token_that_expires_soon_is_renewed_in_time(cloud):
    name = put()
    cloud.lifetime = 5
    before = cloud.logins
    assert ok("keystore", "get", name).out == b"secret"
    assert cloud.logins > before + 1
    assert not any(method == "GET" and "401" in path for method, path in cloud.asked)


@pytest.mark.parametrize("number, exit_status, words", [
    (403, 2, "does not allow access"), (404, 1, "has no"), (409, 5, "conflict"),
    (413, 1, "too large"), (500, 7, "failed with"), (503, 7, "failed with"), (302, 7, "failed with"),
    (429, 7, "asked too often")])
def test_statuses(cloud, number, exit_status, words):
    name = put()
    cloud.say[("GET", f"/v1/secrets/{UUID}")] = status(
        number, {"description": "because \x1b[31m of\nthat."})
    result = quiet(fails(exit_status, "keystore", "get", name))
    assert words in result.err and str(number) in result.err
    assert "\x1b" not in result.err and "because" in result.err
    # The same of storing: it is tried once, and nothing is left.
    cloud.say = {("POST", "/v1/secrets"): status(number)}
    cloud.asked.clear()
    result = quiet(fails(exit_status, "keystore", "store", "--name", "two", stdin=b"secret"))
    assert [method for method, path in cloud.asked if path == "/v1/secrets"] == ["POST"]
    if exit_status == 7:
        assert "keystore list --name two" in result.err
    assert list(cloud.secrets) == [UUID]


@pytest.mark.parametrize("body", [
    b"", b"<html>", b"[]", b"{", b'{"secret_ref": 5}', b'{"secret_ref": "http://x/v1/secrets/../x"}',
    b'{"a":1,"a":2}', b"[" * 100000, b"\xff\xfe", b"x" * (2 << 20)],
    ids=["empty", "html", "list", "cut", "number", "path", "twice", "deep", "utf", "large"])
def test_garbage(cloud, body):
    name = put()
    for command, where in ((("get", name), ("GET", f"/v1/secrets/{UUID}")),
                           (("list",), ("POST", "/v3/auth/tokens"))):
        cloud.say = {where: status(200, body)}
        quiet(fails(7, "keystore", *command))
    cloud.say = {("POST", "/v1/secrets"): status(201, body)}
    result = quiet(fails(7, "keystore", "store", "--name", "n", stdin=b"x"))
    assert "whether it was stored is not known" in result.err


def test_lists_that_lie(cloud):
    cloud.say = {("GET", "/v1/secrets"): lambda handler: handler.answer(200, {"secrets": [
        {"secret_ref": f"/{UUID}", "name": "n", "secret_type": "odd"}] * 100})}
    assert "repeats itself" in fails(7, "keystore", "list").err
    for page in ([5], [{}], {}, "x"):
        cloud.say = {("GET", "/v1/secrets"): lambda handler: handler.answer(200, {"secrets": page})}
        run("keystore", "list", check=7)


def test_answers_that_break(cloud):
    name = put()
    for way in (half, hang_up):
        cloud.say = {("GET", f"/v1/secrets/{UUID}"): [way]}
        assert ok("keystore", "get", name).out == b"secret"  # the second time it comes whole
        cloud.say = {("GET", f"/v1/secrets/{UUID}"): way}
        quiet(fails(7, "keystore", "get", name, "--to", cloud.folder / "out"))
        assert not (cloud.folder / "out").exists()


def test_interrupted_while_it_hangs(cloud):
    name = put()
    cloud.say = {("GET", f"/v1/secrets/{UUID}"): hang}
    process = start("keystore", "get", name)
    while not any(path == f"/v1/secrets/{UUID}" for _, path in cloud.asked):
        assert process.poll() is None
        time.sleep(0.01)
    code, out, err = interrupt(process)
    assert code == 130 and out == b""


def test_what_is_half_made_is_undone(cloud):
    cloud.say = {("PUT", f"/v1/secrets/{UUID}/metadata"): status(403)}
    fails(2, "keystore", "store", "--metadata", "a=b", stdin=b"x")
    assert cloud.secrets == {}
    cloud.say = {("POST", f"/v1/secrets/{UUID}/consumers"): status(500)}
    fails(7, "keystore", "store", "--consumer", "a/b/c", stdin=b"x")
    assert cloud.secrets == {}
    cloud.say = {("PUT", f"/v1/secrets/{UUID}/metadata"): status(403),
                 ("DELETE", f"/v1/secrets/{UUID}"): status(403)}
    result = fails(2, "keystore", "store", "--metadata", "a=b", stdin=b"x")
    assert UUID in result.err and "could not be removed again" in result.err


def test_deletion_looks_at_the_consumers_first(cloud):
    name = put("--consumer", "image/image/i")
    fails(6, "keystore", "delete", name)
    assert not any(method == "DELETE" for method, _ in cloud.asked)
    # Whoever cannot say who uses it does not get it deleted.
    cloud.say = {("GET", f"/v1/secrets/{UUID}/consumers"): status(500)}
    fails(7, "keystore", "delete", name)
    assert name in cloud.secrets


def test_a_barbican_of_before_consumers(cloud):
    def old(then):
        return lambda handler: status(406, b"<html>")(handler) if handler.headers.get(
            "OpenStack-API-Version") else then(handler)

    name = put()
    consumers = f"/v1/secrets/{UUID}/consumers"
    cloud.say = {("GET", f"/v1/secrets/{UUID}"): old(lambda h: h.answer(200, h.describe(UUID))),
                 ("GET", consumers): old(status(404)), ("POST", consumers): old(status(404))}
    assert json.loads(ok("keystore", "show", name, "--json").out)["consumers"] == []
    assert "no consumers" in fails(4, "keystore", "consumers", name, "--add", "a/b/c").err


def test_certificates(cloud, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                    "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem",
                    "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with Cloud() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = server.url.replace("http:", "https:")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        openrc = tmp_path / "openrc"
        openrc.write_text(openrc.read_text().replace(cloud.url, server.url))
        result = quiet(fails(6, "keystore", "list"))
        assert "certificate" in result.err.lower()
        insecure = ok("keystore", "list", "--insecure")
        assert "not verified" in insecure.err
        openrc.write_text(openrc.read_text() + f"OS_CACERT={tmp_path}/cert.pem\n")
        assert ok("keystore", "list").err == ""
        server.shutdown()


def test_credentials_file(cloud, monkeypatch):
    openrc = cloud.folder / "openrc"
    text = openrc.read_text()
    os.chmod(openrc, 0o644)
    assert "others may read" in ok("keystore", "list").err
    os.chmod(openrc, 0o600)
    openrc.write_text(text.replace(f"'{PASSWORD}'", "$OS_PASSWORD_INPUT"))
    result = fails(1, "keystore", "list")
    assert "line 4" in result.err and "shell code" in result.err and "INPUT" not in result.err
    openrc.write_text("x")
    assert "OS_AUTH_URL" in fails(1, "keystore", "list").err
    monkeypatch.setenv("LUKSKEEP_CREDENTIALS", str(cloud.folder / "absent"))
    fails(1, "keystore", "list")
    fails(1, "keystore", "list", "--key-manager", f"vault:{cloud.url}/secret")


def test_nobody_is_there(cloud):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    quiet(fails(7, "keystore", "list", "--key-manager", f"barbican:http://127.0.0.1:{port}?project=p"))


def test_interrupted_image_leaves_no_key(cloud):
    (cloud.folder / "raw").write_bytes(os.urandom(3 << 20))
    process = start("image", "encrypt", cloud.folder / "raw", cloud.folder / "new", "--make-key", "passphrase",
                    *PBKDF2, "--limit-rate", "64K", "--progress", "json")
    assert b"progress" in process.stderr.readline() and cloud.secrets
    code, _, err = interrupt(process)
    assert code == 130 and "could not be removed" not in err and cloud.secrets == {}
    assert not (cloud.folder / "new").exists()
