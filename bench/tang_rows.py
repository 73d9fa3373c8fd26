"""The rows of bench/run about the Tang server: wrk against ours and against tangd behind socat.

Server and load share the machine's cores, on loopback; both sides are given the same number of
connections, and tangd new ones for each request, since it does no better with old ones.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path

TANGD = Path("/usr/libexec/tangd")
KEYGEN = Path("/usr/libexec/tangd-keygen")
SECONDS = 3
HALF_OPEN = 200


class TangRows:
    def __init__(self, bench, row, folder):
        self.bench = bench
        self.row = row
        self.folder = folder / "tang"
        self.keys = self.folder / "db"

    # ---- servers -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def ours(self):
        process = subprocess.Popen([self.bench.program, "tang", "serve", "--keys", self.keys,
                                    "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE)
        try:
            port = re.search(rb":(\d+)$", process.stdout.readline().strip())[1].decode()
            yield int(port), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    @contextlib.contextmanager
    def tangd(self):
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork",
                                    f"EXEC:{TANGD} {self.keys}"], stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        try:
            time.sleep(0.3)
            yield port, process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # ---- load ----------------------------------------------------------------------------------

    def script(self, method, body=""):
        path = self.folder / f"{method}.lua"
        path.write_text(f"wrk.method = '{method}'\nwrk.body = '{body}'\n")
        return path

    def load(self, port, path, script, connections, seconds=SECONDS, close=False):
        """Answers a second; fails if there is one that is not 2xx."""
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script]
        argv += ["-H", "Connection: close"] if close else []
        text = subprocess.run([*argv, f"http://127.0.0.1:{port}{path}"], check=True,
                              capture_output=True, text=True).stdout
        if "Non-2xx" in text:
            raise SystemExit(f"bench: wrk of {path}: {text}")
        return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])

    def exchange(self):
        """Path and body of /rec, of the exchange key."""
        def unpadded(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        listed = json.loads(subprocess.run(
            [self.bench.program, "tang", "keys", "--keys", self.keys, "--json"], check=True,
            capture_output=True).stdout)["keys"]
        key = next(each for each in listed if each["purpose"] == "exchange")
        # Any point will do: the exchange key's own.
        jwk = json.loads((self.keys / key["file"]).read_text())
        jwk = {name: jwk[name] for name in ("alg", "crv", "kty", "x", "y")}
        return f"/rec/{key['thumbprint']}", json.dumps(jwk, separators=(",", ":"))

    def p521_rate(self):
        """Exchanges a second of OpenSSL's own loop, on all cores."""
        text = subprocess.run(["openssl", "speed", "-seconds", str(SECONDS), "-multi",
                               str(os.cpu_count()), "ecdhp521"], check=True, capture_output=True,
                              text=True).stdout
        return float(re.search(r"nistp521\)\s+\S+\s+([\d.]+)", text)[1])

    # ---- rows ----------------------------------------------------------------------------------

    def median(self, measure):
        return statistics.median(measure() for _ in range(max(1, self.bench.runs // 2)))

    def add(self, what, ours, peer_name, peer, floor):
        self.bench.add(self.row(what, ours, "1/s", peer_name, peer, floor))

    def run(self):
        rec = "Tang /rec a second, load on the same cores"
        adv = "Tang /adv a second, load on the same cores"
        half = f"Tang /adv a second beside {HALF_OPEN} half-open clients"
        if not any(map(self.bench.wants, (rec, adv, half))):
            return
        if not TANGD.exists() or not shutil.which("wrk"):
            raise SystemExit("bench: tangd or wrk is not installed")
        self.keys.mkdir(parents=True)
        subprocess.run([KEYGEN, self.keys], check=True)
        path, body = self.exchange()
        post, get = self.script("POST", body), self.script("GET")
        with self.ours() as (port, process):
            rates = {"rec": self.median(lambda: self.load(port, path, post, 32)),
                     "adv": self.median(lambda: self.load(port, "/adv", get, 32))}
            self.half_open(half, port, process, get, rates["adv"])
        with self.tangd() as (port, _):
            peers = {"rec": self.median(lambda: self.load(port, path, post, 4, close=True)),
                     "adv": self.median(lambda: self.load(port, "/adv", get, 4, close=True))}
        self.add(rec, rates["rec"], "tangd", peers["rec"], 5.0)
        self.add(rec, rates["rec"], "openssl speed ecdhp521", self.median(self.p521_rate), 0.7)
        self.add(adv, rates["adv"], "tangd", peers["adv"], 50.0)

    def half_open(self, what, port, process, get, alone):
        """The rate while 200 clients hold connections on which they say nothing, or half."""
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(HALF_OPEN)]
        for client in held[::2]:
            client.sendall(b"POST /rec/x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        rate = self.median(lambda: self.load(port, "/adv", get, 32))
        for client in held:
            client.close()
        self.add(what, rate, "without them", alone, 0.8)
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        self.bench.add(self.row("peak memory of tang serve", peak, "MiB", limit=64.0))
