"""Tang servers for tests, ours and tangd behind socat, and raw HTTP to talk to them."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import kit

TANGD = "/usr/libexec/tangd"
KEYGEN = "/usr/libexec/tangd-keygen"
SEPARATOR = b"\r\n\r\n"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, process, port, scheme="http"):
        self.process = process
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, method, path, body=None, headers=""):
        """Status, headers in lower case, body."""
        with self.connect() as client:
            client.sendall(request(method, path, body, f"Connection: close\r\n{headers}"))
            return read_reply(client.makefile("rb"))

    def adv(self, thumbprint=""):
        status, _, body = self.ask("GET", f"/adv/{thumbprint}" if thumbprint else "/adv")
        assert status == 200, body
        return json.loads(body)


def request(method, path, body=None, headers=""):
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    body = (body or "").encode() if not isinstance(body, bytes) else body
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n".encode() + body


def read_reply(stream):
    line = stream.readline()
    assert line.startswith(b"HTTP/1.1 "), line
    headers = {}
    while (row := stream.readline().strip()):
        name, _, value = row.decode().partition(":")
        headers[name.lower()] = value.strip()
    return int(line.split()[1]), headers, stream.read(int(headers.get("content-length", 0)))


@contextlib.contextmanager
def ours(folder, *options, scheme="http", **more):
    """Our server; checks that it ends well when told to."""
    process = subprocess.Popen([kit.LUKSKEEP, "tang", "serve", "--keys", folder, "--listen",
                                "127.0.0.1:0", *options], stdout=subprocess.PIPE,
                               stderr=more.pop("stderr", subprocess.DEVNULL), **more)
    try:
        line = process.stdout.readline().decode()
        port = re.search(r":(\d+)$", line.strip())
        assert port, line
        yield Server(process, int(port[1]), scheme)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def tangd(folder):
    kit.need("socat")
    if not Path(TANGD).exists():
        kit.without("tangd is not installed")
    port = free_port()
    process = subprocess.Popen(["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork",
                                f"EXEC:{TANGD} {folder}"], stderr=subprocess.DEVNULL,
                               start_new_session=True)
    try:
        server = Server(process, port)
        for _ in range(200):
            with contextlib.suppress(OSError):
                server.connect().close()
                break
            time.sleep(0.02)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tangd_folder(path):
    if not Path(KEYGEN).exists():
        kit.without("tangd is not installed")
    path.mkdir()
    kit.run([KEYGEN, path])
    return path


def jose(*arguments, stdin=b"", status=0):
    kit.need("jose")
    return kit.run(["jose", *arguments], status, stdin=stdin).stdout.decode().strip()


def payload(adv):
    return json.loads(unb64(adv["payload"]))


def clevis_encrypt(config, data=b"a secret"):
    kit.need("clevis")
    return kit.run(["clevis", "encrypt", "tang", json.dumps(config), "-y"], stdin=data).stdout


def clevis_decrypt(sealed, status=0):
    return kit.run(["clevis", "decrypt"], status, stdin=sealed, timeout=60).stdout
