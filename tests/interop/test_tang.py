"""Our Tang server against tangd, Clevis and jose; and against clients that mean harm."""

import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import kit
from kit import lukskeep
from tang_tools import (SEPARATOR, clevis_decrypt, clevis_encrypt, jose, ours, payload, read_reply,
                        request, tangd, tangd_folder)

GEN = '{"alg":"ECMR","kty":"EC","crv":"%s"}'


@pytest.fixture
def folder(tmp_path):
    return tangd_folder(tmp_path / "db")


def keys(folder):
    return json.loads(lukskeep("tang", "keys", "--keys", folder, "--json").stdout)["keys"]


def exchange_thumbprint(folder, state="advertised"):
    return next(key["thumbprint"] for key in keys(folder)
                if key["purpose"] == "exchange" and key["state"] == state)


def a_request(curve="P-521"):
    key = json.loads(jose("jwk", "gen", "-i", GEN % curve))
    key.pop("d")
    return key


# ---- the protocol, beside tangd ------------------------------------------------------------------


def test_answers_are_those_of_tangd(folder):
    """The same request gives the same status, and the same bytes where they are determined."""
    exc = exchange_thumbprint(folder)
    sig = next(key["thumbprint"] for key in keys(folder) if key["purpose"] == "signing")
    good = a_request()
    x = good["x"]
    rows = [
        ("GET", "/adv", None), ("GET", "/adv/", None), ("GET", "//adv//", None),
        ("GET", f"/adv/{sig}", None), ("GET", f"/adv//{sig}", None), ("GET", f"/adv/{exc}", None),
        ("GET", "/adv/unknown", None), ("GET", "/adv/a/b", None), ("GET", "/adv/a.b", None),
        ("GET", "/advx", None), ("GET", "/adv?x", None), ("GET", "/", None), ("GET", "/rec", None),
        ("POST", "/adv", good), ("GET", f"/rec/{exc}", None), ("PUT", f"/rec/{exc}", good),
        ("DELETE", "/adv", None), ("POST", "/rec/", good), ("POST", f"/rec/{exc}", good),
        ("POST", f"//rec//{exc}", good), ("POST", f"/rec/{exc}/", good),
        ("POST", "/rec/unknown", good), ("POST", f"/rec/{sig}", good), ("POST", f"/rec/{exc}", ""),
        ("POST", f"/rec/{exc}", "{"), ("POST", f"/rec/{exc}", []), ("POST", f"/rec/{exc}", {}),
        ("POST", f"/rec/{exc}", {**good, "kty": "RSA"}),
        ("POST", f"/rec/{exc}", {**good, "alg": "ES512"}),
        ("POST", f"/rec/{exc}", {k: v for k, v in good.items() if k not in ("alg", "key_ops")}),
        ("POST", f"/rec/{exc}", {**good, "key_ops": ["verify"]}),
        ("POST", f"/rec/{exc}", {**good, "key_ops": []}),
        ("POST", f"/rec/{exc}", {**good, "use": "sig"}),
        ("POST", f"/rec/{exc}", {**good, "x": x[:-1] + ("A" if x[-1] != "A" else "E")}),
        ("POST", f"/rec/{exc}", {**good, "x": good["y"], "y": x}),
        ("POST", f"/rec/{exc}", a_request("P-256")),
        ("POST", f"/rec/{exc}", {**good, "kid": "me"}),
    ]
    with tangd(folder) as theirs, ours(folder) as mine:
        for method, path, body in rows:
            their_status, their_headers, their_body = theirs.ask(method, path, body)
            status, headers, answer = mine.ask(method, path, body)
            what = f"{method} {path} {body}"
            assert status == their_status, what
            assert headers.get("content-type") == their_headers.get("content-type"), what
            if path.strip("/").startswith("rec") and status == 200:
                assert answer == json.dumps(json.loads(their_body), sort_keys=True,
                                            separators=(",", ":")).encode(), what


def test_jose_verifies_the_advertisement(folder, tmp_path):
    lukskeep("tang", "keygen", "--keys", folder)
    with ours(folder) as server, tangd(folder) as theirs:
        adv = server.adv()
        assert len(adv["signatures"]) == 2
        sets = [sorted(payload(each)["keys"], key=lambda key: key["x"])
                for each in (adv, theirs.adv())]
        assert sets[0] == sets[1]
        kit.write(tmp_path / "adv", json.dumps(adv).encode())
        jwks = kit.write(tmp_path / "jwks", json.dumps(payload(adv)).encode())
        verify = jose("jwk", "use", "-i", jwks, "-r", "-u", "verify", "-o-")
        jose("jws", "ver", "-i", tmp_path / "adv", "-k-", "-a", stdin=verify.encode())
        assert "\"d\"" not in json.dumps(payload(adv))


@pytest.mark.parametrize("hash_name", ["S1", "S224", "S256", "S384", "S512"])
def test_every_thumbprint_names_the_key(folder, tmp_path, hash_name):
    before = json.loads(next(folder.glob("*.jwk")).read_text())
    with ours(folder) as server:
        for key in payload(server.adv())["keys"]:
            path = kit.write(tmp_path / "key", json.dumps(key).encode())
            thumbprint = jose("jwk", "thp", "-i", path, "-a", hash_name)
            if "verify" in key["key_ops"]:
                assert server.ask("GET", f"/adv/{thumbprint}")[0] == 200
            else:
                assert server.ask("POST", f"/rec/{thumbprint}", a_request())[0] == 200
    assert before["kty"] == "EC"


def test_a_hidden_key_vouches_for_the_new(folder, tmp_path):
    with ours(folder) as server:
        old = next(key for key in payload(server.adv())["keys"] if "verify" in key["key_ops"])
        lukskeep("tang", "rotate", "--keys", folder)
        path = kit.write(tmp_path / "old", json.dumps(old).encode())
        thumbprint = jose("jwk", "thp", "-i", path, "-a", "S256")
        for _ in range(100):
            adv = server.adv(thumbprint)
            if old not in payload(adv)["keys"]:
                break
            time.sleep(0.05)
        assert old not in payload(adv)["keys"]
        text = kit.write(tmp_path / "adv", json.dumps(adv).encode())
        jose("jws", "ver", "-i", text, "-k", path)  # by the old one
        new = next(key for key in payload(adv)["keys"] if "verify" in key["key_ops"])
        jose("jws", "ver", "-i", text, "-k", kit.write(tmp_path / "new", json.dumps(new).encode()))


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_clevis_with_keys_of_every_curve(tmp_path, curve):
    folder = tmp_path / "db"
    lukskeep("tang", "keygen", "--keys", folder, "--curve", curve)
    with ours(folder) as server:
        sealed = clevis_encrypt({"url": server.url})
        assert clevis_decrypt(sealed) == b"a secret"
        lukskeep("tang", "rotate", "--keys", folder)
        time.sleep(0.5)
        assert clevis_decrypt(sealed) == b"a secret"


def test_clevis_with_several_exchange_keys(folder):
    lukskeep("tang", "keygen", "--keys", folder)
    lukskeep("tang", "keygen", "--keys", folder, "--curve", "P-256")
    with ours(folder) as server:
        assert clevis_decrypt(clevis_encrypt({"url": server.url})) == b"a secret"


def test_the_folder_goes_to_tangd_and_back(folder):
    """Sealed with one server, opened with the other, in both directions."""
    lukskeep("tang", "rotate", "--keys", folder)
    with tangd(folder) as theirs:
        sealed = clevis_encrypt({"url": theirs.url})
        port = theirs.port
        theirs.process.send_signal(signal.SIGKILL)
        theirs.process.wait()
        process = subprocess.Popen([kit.LUKSKEEP, "tang", "serve", "--keys", folder, "--listen",
                                    f"127.0.0.1:{port}"], stdout=subprocess.PIPE)
        try:
            process.stdout.readline()
            assert clevis_decrypt(sealed) == b"a secret"
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0


def test_inetd_as_socat_starts_tangd(folder):
    done = kit.run([kit.LUKSKEEP, "tang", "serve", "--inetd", "--keys", folder],
                   stdin=request("GET", "/adv") + request("GET", "/nothing"))
    first, _, rest = done.stdout.partition(SEPARATOR)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 404 Not Found" in rest


def test_sockets_of_the_service_manager(folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        script = 'export LISTEN_PID=$$; exec "$@"'
        process = subprocess.Popen(
            ["sh", "-c", script, "sh", kit.LUKSKEEP, "tang", "serve", "--keys", folder],
            env={**os.environ, "LISTEN_FDS": "1"}, stdout=subprocess.PIPE,
            preexec_fn=lambda: os.dup2(listener.fileno(), 3), pass_fds=[3])
        try:
            assert f"127.0.0.1:{port}" in process.stdout.readline().decode()
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(request("GET", "/adv"))
                assert read_reply(client.makefile("rb"))[0] == 200
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


# ---- connections ---------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(folder):
    with ours(folder) as server, server.connect() as client:
        client.sendall(b"".join(request("GET", "/adv" if i % 3 else "/no") for i in range(300)))
        stream = client.makefile("rb")
        assert [read_reply(stream)[0] for _ in range(300)] == [200 if i % 3 else 404
                                                               for i in range(300)]


def test_a_request_may_come_byte_by_byte(folder):
    exc = exchange_thumbprint(folder)
    with ours(folder) as server, server.connect() as client:
        for byte in request("POST", f"/rec/{exc}", a_request()):
            client.sendall(bytes([byte]))
        assert read_reply(client.makefile("rb"))[0] == 200


def test_clients_that_send_nothing_or_half_do_not_stop_others(folder):
    with ours(folder) as server:
        idle = [server.connect() for _ in range(200)]
        for number, client in enumerate(idle):
            if number % 2:
                client.sendall(b"POST /rec/x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        started = time.monotonic()
        for _ in range(20):
            assert server.ask("GET", "/adv")[0] == 200
        assert time.monotonic() - started < 5
        # The server lets go of those that send nothing.
        idle[0].settimeout(20)
        assert idle[0].recv(1) == b""
        for client in idle:
            client.close()


def test_too_many_connections_are_told_so(folder):
    with ours(folder, "--connections", "5") as server:
        held = [server.connect() for _ in range(5)]
        time.sleep(0.3)
        status, headers, _ = server.ask("GET", "/adv")
        assert status == 503 and int(headers["retry-after"]) > 0
        for client in held:
            client.close()
        time.sleep(0.5)
        assert server.ask("GET", "/adv")[0] == 200


def test_who_waits_between_requests_gives_way(folder):
    # A thread closes connections of its own only.
    with ours(folder, "--connections", "3", "--threads", "1") as server:
        held = [server.connect() for _ in range(3)]
        for client in held:
            client.sendall(request("GET", "/adv"))
            assert read_reply(client.makefile("rb"))[0] == 200
        time.sleep(0.3)
        for _ in range(10):
            assert server.ask("GET", "/adv")[0] == 200
        for client in held:
            client.close()


def test_empty_lines_gain_no_time(folder):
    with ours(folder) as server, server.connect() as client:
        client.sendall(request("GET", "/adv"))
        assert read_reply(client.makefile("rb"))[0] == 200
        client.settimeout(0.2)
        for _ in range(60):
            try:
                client.sendall(b"\r")
                time.sleep(0.05)
                client.sendall(b"\n")
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("the connection is kept open")


def test_inetd_serves_no_tls(folder):
    done = lukskeep("tang", "serve", "--inetd", "--keys", folder, "--tls-certificate", "x",
                    "--tls-key", "y", status=1)
    assert b"--inetd" in done.stderr


@pytest.mark.parametrize("data, status", [
    (b"garbage\r\n\r\n", 400),
    (b"GET /adv HTTP/9.9\r\n\r\n", 400),
    (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET /" + b"a" * 60000, 414),
    (b"GET /adv HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431),
    (b"POST /rec/x HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"POST /rec/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /rec/x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    (b"GET /adv HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
], ids=lambda value: str(value)[:24])
def test_garbage_is_refused(folder, data, status):
    with ours(folder) as server:
        with server.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            reply = client.makefile("rb").read()
        if reply:
            assert int(reply.split()[1]) in (status, 505), reply[:100]
        else:
            assert status == 400
        assert server.ask("GET", "/adv")[0] == 200


def test_a_stop_lets_the_answer_end_and_closes_who_waits(folder):
    with ours(folder) as server:
        waiting = server.connect()
        waiting.sendall(request("GET", "/adv"))
        assert read_reply(waiting.makefile("rb"))[0] == 200
    assert waiting.recv(1) == b""


def test_endpoint(folder):
    with ours(folder, "--endpoint", "/a/b") as server:
        assert server.ask("GET", "/a/b/adv")[0] == 200
        assert server.ask("GET", "/adv")[0] == 404
        assert clevis_decrypt(clevis_encrypt({"url": f"{server.url}/a/b"})) == b"a secret"


# ---- TLS -----------------------------------------------------------------------------------------


def make_certificates(place):
    kit.need("openssl", "curl")

    def openssl(*words):
        kit.run(["openssl", *words], cwd=place)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca",
            "-days", "2")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
                f"/CN={name}")
        (place / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", "ext")


def test_tls_and_revoking_a_client_certificate(folder, tmp_path):
    make_certificates(tmp_path)
    rules = kit.write(tmp_path / "rules", b"allow ::/0\n")

    def curl(server, *more, status=0):
        return kit.run(["curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", "--cacert",
                        tmp_path / "ca.pem", *more, f"{server.url}/adv"], status).stdout.decode()

    client = ("--cert", tmp_path / "client.pem", "--key", tmp_path / "client.key")
    tls = ("--tls-certificate", tmp_path / "server.pem", "--tls-key", tmp_path / "server.key")
    with ours(folder, *tls, scheme="https") as server:
        assert curl(server) == "200"
    with ours(folder, *tls, "--client-ca", tmp_path / "ca.pem", "--access", rules,
              scheme="https") as server:
        assert curl(server, *client) == "200"
        curl(server, status=None)
        assert curl(server, status=(35, 52, 55, 56)) == "000"
        digest = kit.run(["openssl", "x509", "-in", tmp_path / "client.pem", "-noout",
                          "-fingerprint", "-sha256"]).stdout.decode().split("=")[1]
        rules.write_text(f"deny certificate {digest.strip().replace(':', '')}\n")
        for _ in range(100):
            if curl(server, *client) == "403":
                break
            time.sleep(0.05)
        assert curl(server, *client) == "403"


# ---- who may, and who did ------------------------------------------------------------------------


def test_a_rule_counts_at_once_on_open_connections(folder, tmp_path):
    rules = kit.write(tmp_path / "rules", b"allow ::/0  # everybody\n")
    with ours(folder, "--access", rules) as server, server.connect() as client:
        stream = client.makefile("rb")
        for text, status in (("deny 127.0.0.0/8\n", 403), ("allow 127.0.0.1\n", 200),
                             ("allow ::1/128\n", 403), ("allow ::/0\n", 200)):
            rules.write_text(text)
            for _ in range(100):
                client.sendall(request("GET", "/adv"))
                if (last := read_reply(stream)[0]) == status:
                    break
                time.sleep(0.05)
            assert last == status, text
        rules.write_text("deny ::/0\n")
        time.sleep(0.5)
        for text in ("nonsense\n", "", "# nothing\n"):
            rules.write_text(text)
            time.sleep(0.5)
            client.sendall(request("GET", "/adv"))
            assert read_reply(stream)[0] == 403, text
    rules.write_text("")
    done = lukskeep("tang", "serve", "--keys", folder, "--access", rules, status=1)
    assert b"no rule" in done.stderr


def test_one_client_cannot_have_more_than_its_rate(folder):
    with ours(folder, "--rate-limit", "5") as server:
        replies = [server.ask("GET", "/adv") for _ in range(30)]
        statuses = [status for status, _, _ in replies]
        assert 10 <= statuses.count(200) <= 25 and 429 in statuses
        limited = next(headers for status, headers, _ in replies if status == 429)
        assert int(limited["retry-after"]) >= 1


def test_usage_decides_what_may_be_deleted(folder, tmp_path):
    log = tmp_path / "log"
    with ours(folder, "--access-log", log) as server:
        sealed = clevis_encrypt({"url": server.url})
        clevis_decrypt(sealed)
        assert b"lukskeep_tang_key_uses_total" in server.ask("GET", "/metrics")[2]
        assert server.ask("GET", "/healthz")[0] == 200
        old = exchange_thumbprint(folder)
        delete = ("tang", "delete", old[:12], "--keys", folder, "--yes")
        assert b"clients are still told" in lukskeep(*delete, status=6).stderr
        lukskeep("tang", "rotate", "--keys", folder)
        time.sleep(1.5)
        uses = json.loads(lukskeep("tang", "usage", "--keys", folder, "--json").stdout)["uses"]
        assert [(use["key"], use["client"], use["count"]) for use in uses] == [(old, "127.0.0.1", 1)]
        assert b"used it in the time" in lukskeep(*delete, status=6).stderr
        # Out of quarantine, but the client has used no other key since.
        later = lukskeep(*delete, "--quarantine", "0s", status=6)
        assert b"used no other key since" in later.stderr and b"needed" in later.stderr
        time.sleep(1.1)
        clevis_decrypt(clevis_encrypt({"url": server.url}))
        time.sleep(1.5)
        lukskeep(*delete, "--quarantine", "0s")
        time.sleep(0.5)
        clevis_decrypt(sealed, status=1)
    lines = log.read_text().splitlines()
    assert any(f"127.0.0.1 POST /rec/{old} => 200" in line for line in lines)
    assert any(f"127.0.0.1 POST /rec/{old} => 404" in line for line in lines)


# ---- crashes and crowds --------------------------------------------------------------------------


def test_rotations_that_are_killed_leave_keys_that_serve(folder):
    with ours(folder) as server, tangd(folder) as theirs:
        sealed = clevis_encrypt({"url": server.url})
        for number in range(25):
            process = subprocess.Popen([kit.LUKSKEEP, "tang", "rotate", "--keys", folder],
                                       stdout=subprocess.DEVNULL)
            time.sleep(number * 0.002)
            process.kill()
            process.wait()
            assert {"sign", "verify", "deriveKey"} <= {
                operation for path in folder.glob("[!.]*.jwk")
                for operation in json.loads(path.read_text())["key_ops"]}
            assert server.ask("GET", "/adv")[0] == 200
        assert theirs.ask("GET", "/adv")[0] == 200
        assert clevis_decrypt(sealed) == b"a secret"
        assert clevis_decrypt(clevis_encrypt({"url": server.url})) == b"a secret"
    lukskeep("tang", "rotate", "--keys", folder)
    assert not list(folder.glob(".lukskeep-*"))
    assert len([key for key in keys(folder) if key["state"] == "advertised"]) == 2


def test_servers_that_start_at_once_make_one_pair(tmp_path):
    folder = tmp_path / "db"

    def serve(_):
        kit.run([kit.LUKSKEEP, "tang", "serve", "--inetd", "--keys", folder, "--usage", "none"],
                stdin=request("GET", "/adv"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(serve, range(16)))
    assert len(list(folder.glob("*.jwk"))) == 2


def test_clients_always_get_an_answer_while_keys_rotate(folder):
    exc = exchange_thumbprint(folder)
    body = a_request()
    with ours(folder) as server, server.connect() as client:
        stream = client.makefile("rb")
        for _ in range(10):
            process = subprocess.Popen([kit.LUKSKEEP, "tang", "rotate", "--keys", folder],
                                       stdout=subprocess.DEVNULL)
            while process.poll() is None:
                client.sendall(request("POST", f"/rec/{exc}", body) + request("GET", "/adv"))
                assert read_reply(stream)[0] == 200
                status, _, adv = read_reply(stream)
                assert status == 200
                operations = [key["key_ops"] for key in payload(json.loads(adv))["keys"]]
                assert ["deriveKey"] in operations and ["verify"] in operations


def test_junk_in_the_folder_is_passed_over(folder):
    kit.write(folder / "half.jwk", next(folder.glob("*.jwk")).read_bytes()[:100])
    kit.write(folder / "empty.jwk", b"")
    kit.write(folder / "readme.txt", b"{}")
    kit.write(folder / "octets.jwk", b'{"kty":"oct","k":"AAAA"}')
    (folder / "folder.jwk").mkdir()
    (folder / "gone.jwk").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jwk")
    with ours(folder, stderr=subprocess.PIPE) as server:
        assert len(payload(server.adv())["keys"]) == 2
        process = server.process
    errors = process.stderr.read().decode()
    for name in ("half", "empty", "octets", "folder", "gone", "pipe"):
        assert f"{name}.jwk" in errors, errors
    assert "readme" not in errors


# ---- backups -------------------------------------------------------------------------------------


def test_a_backup_rebuilds_a_server(folder, tmp_path):
    identity = kit.write(tmp_path / "identity",
                         b"AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX")
    recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
    with ours(folder) as server:
        sealed = clevis_encrypt({"url": server.url})
        port = server.port
        signer = next(key["thumbprint"] for key in keys(folder) if key["purpose"] == "signing")
        lukskeep("tang", "rotate", "--keys", folder)
        lukskeep("tang", "backup", "b", "--keys", folder, "--recipient", recipient)
    restore = ("tang", "restore", "b", "--keys", tmp_path / "new", "--identity", f"file:{identity}")
    lukskeep(*restore, status=6)
    for name in ("AAAAAAAAAAAA", signer[:12]):
        lukskeep(*restore, "--signed-by", name, status=1)
    assert not (tmp_path / "new").exists()
    lukskeep(*restore, "--signed-by", signer)
    lukskeep(*restore, "--signed-by", signer)  # again does no harm
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").glob("*jwk")} == \
        {path.name: 0o440 for path in folder.glob("*jwk")}
    prints = [lukskeep("tang", "keys", "--fingerprint", "--keys", each).stdout
              for each in (folder, tmp_path / "new")]
    assert prints[0] == prints[1]
    process = subprocess.Popen([kit.LUKSKEEP, "tang", "serve", "--keys", tmp_path / "new",
                                "--listen", f"127.0.0.1:{port}"], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert clevis_decrypt(sealed) == b"a secret"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    data = bytearray((tmp_path / "b").read_bytes())
    data[-30] ^= 1
    kit.write(tmp_path / "b", bytes(data))
    lukskeep(*restore, "--yes", status=4)
