"""A stand-in for Vault, as there is none to be had here: the key-value engine, versions 1 and 2, and
AppRole, as developer.hashicorp.com/vault/api-docs says of them. castellan's driver uses it as well."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

ROLE, SECRET = "role-1", "secret-1"


class Vault(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.tokens = {"root": None}  # token: when it expires
        self.lease_seconds = 3600
        self.logins = 0
        self.one = {}  # mount "kv1": path: data
        self.two = {}  # mount "secret": path: list of versions, None where deleted
        self.lock = threading.Lock()
        self.before_write = None  # called once before the next write
        self.lose_answer = False  # of the next write, once: the connection ends without one
        self.requests = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=None):
        if self.server.lose_answer and self.command in ("POST", "PUT"):
            self.server.lose_answer = False
            self.close_connection = True
            return
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self):
        vault = self.server
        size = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(size)
        body = json.loads(text) if text else {}
        url = urlsplit(self.path)
        vault.requests.append((self.command, url.path, dict(self.headers)))
        parts = unquote(url.path).lstrip("/").split("/", 2)
        if parts[0] != "v1":
            return self.answer(404, {"errors": []})
        if url.path == "/v1/auth/approle/login":
            return self.login(body)
        if self.command in ("POST", "PUT") and vault.before_write:
            callback, vault.before_write = vault.before_write, None
            callback()
        token = self.headers.get("X-Vault-Token", "")
        expires = vault.tokens.get(token, 0)
        if expires is not None and expires < time.monotonic():
            return self.answer(403, {"errors": ["permission denied"]})
        listing = self.command == "LIST" or parse_qs(url.query).get("list") == ["true"]
        rest = parts[2] if len(parts) > 2 else ""
        with vault.lock:
            if parts[1] == "kv1":
                return self.version_one(rest, body, listing)
            if parts[1] == "secret":
                return self.version_two(rest, body, listing)
        return self.answer(404, {"errors": [f'no handler for route "{parts[1]}/"']})

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = handle_any

    def login(self, body):
        if (body.get("role_id"), body.get("secret_id")) != (ROLE, SECRET):
            return self.answer(400, {"errors": ["invalid role or secret ID"]})
        self.server.logins += 1
        token = f"hvs.{self.server.logins}"
        self.server.tokens[token] = time.monotonic() + self.server.lease_seconds
        return self.answer(200, {"auth": {"client_token": token, "renewable": True,
                                          "lease_duration": self.server.lease_seconds}})

    def list(self, names, prefix):
        prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        keys = set()
        for name in names:
            if name.startswith(prefix):
                first, slash, _ = name[len(prefix):].partition("/")
                keys.add(first + slash)
        if not keys:
            return self.answer(404, {"errors": []})
        return self.answer(200, {"data": {"keys": sorted(keys)}})

    def version_one(self, path, body, listing):
        store = self.server.one
        if listing:
            return self.list(store, path)
        if self.command in ("POST", "PUT"):
            store[path] = body
            return self.answer(204)
        if self.command == "DELETE":
            store.pop(path, None)
            return self.answer(204)
        if path not in store:
            return self.answer(404, {"errors": []})
        return self.answer(200, {"data": store[path], "lease_duration": 2764800})

    def version_two(self, rest, body, listing):
        kind, _, path = rest.partition("/")
        store = self.server.two
        if listing:
            return self.list(store, path) if kind == "metadata" else self.answer(405)
        versions = store.get(path, [])
        if kind == "metadata" and self.command == "DELETE":
            store.pop(path, None)
            return self.answer(204)
        if kind != "data":
            return self.answer(404, {"errors": []})
        if self.command in ("POST", "PUT"):
            if "data" not in body:
                return self.answer(400, {"errors": ["no data provided"]})
            cas = body.get("options", {}).get("cas")
            if cas is not None and cas != len(versions):
                return self.answer(400, {"errors": [
                    "check-and-set parameter did not match the current version"]})
            store.setdefault(path, []).append(body["data"])
            return self.answer(200, {"data": {"version": len(store[path])}})
        if self.command == "DELETE":
            if versions:
                versions[-1] = None
            return self.answer(204)
        if not versions:
            return self.answer(404, {"errors": []})
        metadata = {"version": len(versions), "destroyed": False,
                    "deletion_time": "" if versions[-1] is not None else "2026-01-01T00:00:00Z"}
        return self.answer(200 if versions[-1] is not None else 404,
                           {"data": {"data": versions[-1], "metadata": metadata}})


@contextlib.contextmanager
def running():
    vault = Vault()
    thread = threading.Thread(target=vault.serve_forever, daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        vault.shutdown()
        vault.server_close()
