"""Tang servers, a TPM, and servers that do all that a server should not."""

import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import kit

LIBEXEC = "/usr/libexec"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the server does not listen")


def jose(*arguments, stdin=b""):
    return kit.run(["jose", *arguments], stdin=stdin).stdout.decode().strip()


class Tang:
    """tangd behind socat, as peers on a real network see it."""

    def __init__(self, folder, curve=None):
        kit.need("socat", "jose")
        if not Path(LIBEXEC, "tangd").exists():
            kit.without("tangd is not installed")
        self.keys = Path(folder)
        self.keys.mkdir()
        if curve is None:
            kit.run([f"{LIBEXEC}/tangd-keygen", self.keys])
        else:
            for number, algorithm in enumerate((f"ES{curve[2:].replace('521', '512')}", "ECMR")):
                jose("jwk", "gen", "-i", f'{{"alg":"{algorithm}","crv":"{curve}"}}', "-o",
                     str(self.keys / f"{number}.jwk"))
                key = self.keys / f"{number}.jwk"
                key.rename(self.keys / (jose("jwk", "thp", "-i", str(key)) + ".jwk"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            ["socat", f"TCP-LISTEN:{self.port},bind=127.0.0.1,reuseaddr,fork",
             f"EXEC:{LIBEXEC}/tangd {self.keys}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port, self.process)
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    @property
    def thumbprint(self):
        for key in self.keys.glob("*.jwk"):
            if '"verify"' in key.read_text():
                return jose("jwk", "thp", "-i", str(key))
        raise RuntimeError("no signing key")

    def advertisement(self):
        return kit.run(["curl", "-sf", f"{self.url}/adv"]).stdout


class Impostor:
    """Answers every connection with `behave(connection, request)`, or never if that is None."""

    def __init__(self, behave=None, port=0):
        self.behave = behave
        self.listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.open = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(connection)
            if self.behave:
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        try:
            request = connection.recv(65536)
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            self.behave(connection, request)
        except OSError:
            pass
        finally:
            connection.close()

    def stop(self):
        self.listener.close()
        for connection in self.open:
            connection.close()


def respond(body, status="200 OK", headers=""):
    return lambda connection, _: connection.sendall(
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
        .encode() + body)


def endless(connection, _):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b'{"' + b"a" * 65536)


def drip(connection, _):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    for _ in range(10000):
        connection.sendall(b" ")
        time.sleep(0.05)


@contextmanager
def software_tpm(folder):
    kit.need("swtpm", "swtpm_setup", "tpm2_pcrextend")
    folder = Path(folder)
    folder.mkdir()
    kit.run(["swtpm_setup", "--tpm2", "--tpmstate", folder, "--overwrite"])
    # The control port is the next one: the library asks for nothing else.
    for _ in range(20):
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
                break
            except OSError:
                continue
    process = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}",
         "--server", f"type=tcp,port={port},bindaddr=127.0.0.1",
         "--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1",
         "--flags", "not-need-init,startup-clear"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # It serves one connection and waits for the next only if there was a command: look at the
    # control port instead.
    wait_for(port + 1, process)
    try:
        yield {"TPM2TOOLS_TCTI": f"swtpm:host=127.0.0.1,port={port}"}
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
