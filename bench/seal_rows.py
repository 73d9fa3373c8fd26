"""The row of bench/run about sealing: three servers, of which one takes connections and says nothing.

The servers are tangd behind socat, made here and stopped afterwards.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import time

TANG = "/usr/libexec/tangd"
WHAT = "unseal sss 2 of 3, one server hangs"
PEER = "the two live ones alone"


class SealRows:
    def __init__(self, bench):
        self.bench = bench
        self.keys = bench.path("tang")

    def run(self):
        if not self.bench.wants(WHAT, PEER) or not shutil.which("socat"):
            return
        self.keys.mkdir()
        subprocess.run([f"{TANG}-keygen", self.keys], check=True)
        with contextlib.ExitStack() as stack:
            hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
            live = [stack.enter_context(server(self.keys)) for _ in range(2)]
            advertisement = json.loads(subprocess.run(
                ["curl", "-sf", f"{live[0]}/adv"], check=True, stdout=subprocess.PIPE).stdout)
            urls = [f"http://127.0.0.1:{hanging.getsockname()[1]}", *live]
            pins = [{"url": url, "adv": advertisement} for url in urls]
            self.seal("three", {"t": 2, "pins": {"tang": pins}})
            self.seal("two", {"t": 2, "pins": {"tang": pins[1:]}})
            self.bench.versus(WHAT, self.unseal("three"), PEER, self.unseal("two"), 0.7)

    def seal(self, name, policy):
        sealed = subprocess.run(self.bench.lukskeep("seal", json.dumps(policy)), input=b"a secret",
                                check=True, stdout=subprocess.PIPE).stdout
        self.bench.path(name).write_bytes(sealed)

    def unseal(self, name):
        # Limits of minutes: who waited for the server that hangs would be seen.
        return (lambda: None, ["sh", "-c", '"$0" unseal --timeout 600 --try-timeout 600 < "$1"',
                               self.bench.program, self.bench.path(name)])


@contextlib.contextmanager
def server(keys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", f"EXEC:{TANG} {keys}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
