"""Tang servers as networks have them: behind load balancers, behind TLS, unreachable, and lying."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time

import pytest

import kit
from compat_tools import COMPAT
from tang import Impostor, Tang, endless, free_port, jose, respond, wait_for
from tang_tools import b64, ours, unb64

SECRET = b"behind a load balancer\x00\xff"


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


@pytest.fixture
def impostor():
    made = []

    def make(behave=None):
        made.append(Impostor(behave))
        return made[-1]
    yield make
    for server in made:
        server.stop()


def seal(policy, *more, **options):
    return kit.lukskeep("seal", json.dumps(policy), *more, stdin=SECRET, **options)


def unseal(jwe, *more, **options):
    return kit.lukskeep("unseal", *more, stdin=jwe, **options)


def fingerprint(folder):
    return kit.lukskeep("tang", "keys", "--keys", folder, "--fingerprint").stdout


def uses(folder):
    """They are written once a second."""
    for _ in range(100):
        found = json.loads(kit.lukskeep("tang", "usage", "--keys", folder, "--json").stdout)["uses"]
        if found:
            return found
        time.sleep(0.1)
    return []


# ---- load balancers -----------------------------------------------------------------------------


@contextlib.contextmanager
def haproxy(folder, mode, ports, bind=""):
    """One URL for several servers, asked in turn; who does not answer is left out."""
    kit.need("haproxy")
    port = free_port()
    check = "option httpchk GET /adv" if mode == "http" else ""
    servers = "\n".join(f"  server s{n} 127.0.0.1:{one} check inter 100 fall 1 rise 1"
                        for n, one in enumerate(ports))
    kit.write(folder / "haproxy.cfg", f"""
defaults
  mode {mode}
  timeout connect 2s
  timeout check 5s
  timeout client 10s
  timeout server 10s
  retries 3
  option redispatch 1
listen tang
  bind 127.0.0.1:{port} {bind}
  balance roundrobin
  {check}
{servers}
""".encode())
    process = subprocess.Popen(["haproxy", "-db", "-f", folder / "haproxy.cfg"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={"PATH": kit.search_path()})
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_a_pair_with_the_same_keys_is_one_server(tangs, tmp_path, mode):
    """One of ours and one of tangd's: whichever is left, both kinds of client go on."""
    kit.need("clevis")
    theirs, = tangs()
    copy = tmp_path / "copy"
    shutil.copytree(theirs.keys, copy)
    assert fingerprint(copy) == fingerprint(theirs.keys)
    with ours(copy) as server, haproxy(tmp_path, mode, [theirs.port, server.port]) as port:
        config = {"url": f"http://127.0.0.1:{port}", "thp": theirs.thumbprint}
        jwe = seal(config).stdout
        by_clevis = kit.run(["clevis", "encrypt", "tang", json.dumps(config)], stdin=SECRET).stdout
        # In turn: each is asked.
        for _ in range(4):
            assert unseal(jwe).stdout == unseal(by_clevis).stdout == SECRET
        assert uses(copy), "ours was never asked"
        theirs.stop()
        for _ in range(4):
            assert unseal(jwe).stdout == SECRET
        assert kit.run(["clevis", "decrypt"], stdin=jwe).stdout == SECRET
        theirs.start()
    # Ours is gone, and tangd is alone with one that never was.
    with haproxy(tmp_path, mode, [theirs.port, free_port()]) as port:
        sealed = seal({"url": f"http://127.0.0.1:{port}", "thp": theirs.thumbprint}).stdout
        for _ in range(4):
            assert unseal(sealed).stdout == SECRET


def test_servers_with_other_keys_are_told_apart(tangs, tmp_path):
    """What may not stand behind one URL; and what it looks like if it does."""
    first, second = tangs(2)
    assert fingerprint(first.keys) != fingerprint(second.keys)
    with haproxy(tmp_path, "http", [first.port, second.port]) as port:
        config = {"url": f"http://127.0.0.1:{port}", "adv": json.loads(first.advertisement())}
        jwe = seal(config).stdout
        statuses = []
        for _ in range(6):
            done = unseal(jwe, "--tries", "1", status=(0, 7))
            statuses.append(done.returncode)
            assert done.returncode == 0 or b"does not have the key" in done.stderr
        assert set(statuses) == {0, 7}


# ---- HTTPS --------------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path):
    """A CA, and certificates of it: one that is good, one for another name, one that is over."""
    kit.need("openssl")
    place = tmp_path / "tls"
    place.mkdir()

    def openssl(*words):
        kit.run(["openssl", *words], cwd=place)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca",
            "-days", "2")
    for name, alternative, days in (("good", "IP:127.0.0.1", 2), ("other", "DNS:elsewhere", 2),
                                    ("over", "IP:127.0.0.1", -1)):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (place / "ext").write_text(f"subjectAltName={alternative}\n")
        if days < 0:
            dates = ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"]
            (place / "ca.cnf").write_text(
                "[ca]\ndefault_ca=it\n[it]\nnew_certs_dir=.\ndatabase=index\nserial=serial\n"
                "default_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n")
            (place / "index").write_text("")
            (place / "serial").write_text("01\n")
            openssl("ca", "-batch", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem",
                    "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "ext",
                    "-startdate", dates[1], "-enddate", dates[3])
        else:
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                    "-CAcreateserial", "-out", f"{name}.pem", "-days", str(days), "-extfile", "ext")
        pem = (place / f"{name}.pem").read_text() + (place / f"{name}.key").read_text()
        (place / f"{name}.both").write_text(pem)
    return place


def tls_options(place, name):
    return ("--tls-certificate", place / f"{name}.pem", "--tls-key", place / f"{name}.key")


def test_https_both_ways(tangs, tmp_path, certificates):
    """Our server, and tangd behind haproxy; our client, Clevis, and ours by Clevis' name."""
    kit.need("clevis")
    theirs, = tangs()
    ca = certificates / "ca.pem"
    copy = tmp_path / "copy"
    shutil.copytree(theirs.keys, copy)
    env = {"CURL_CA_BUNDLE": str(ca)}
    bind = f"ssl crt {certificates / 'good.both'}"
    with ours(copy, *tls_options(certificates, "good"), scheme="https") as server, \
            haproxy(tmp_path, "http", [theirs.port], bind) as port:
        for url in (server.url, f"https://127.0.0.1:{port}"):
            config = {"url": url, "thp": theirs.thumbprint}
            jwe = seal(config, "--tang-ca", ca).stdout
            assert unseal(jwe, "--tang-ca", ca).stdout == SECRET
            for clevis in ("clevis", COMPAT / "clevis"):
                assert kit.run([clevis, "decrypt"], stdin=jwe, env=env).stdout == SECRET
                sealed = kit.run([clevis, "encrypt", "tang", json.dumps(config)], stdin=SECRET,
                                 env=env).stdout
                assert unseal(sealed, "--tang-ca", ca).stdout == SECRET
            # Without a reason to trust the certificate nobody is asked anything.
            for done in (seal(config, "--tries", "1", status=6),
                         unseal(jwe, "--tries", "1", status=6)):
                assert b"certificate" in done.stderr and done.stdout == b""
            # Where --tang-ca cannot be given.
            for variables in ({"CURL_CA_BUNDLE": ca}, {"CURL_CA_BUNDLE": "", "SSL_CERT_FILE": ca}):
                assert unseal(jwe, env=variables).stdout == SECRET


@pytest.mark.parametrize("name", ["other", "over"])
def test_a_certificate_of_another_or_of_the_past_is_refused(tangs, certificates, name):
    server, = tangs()
    options = tls_options(certificates, name)
    with ours(server.keys, *options, scheme="https") as listening:
        config = {"url": listening.url, "adv": json.loads(server.advertisement())}
        jwe = seal(config).stdout
        trust = ("--tang-ca", certificates / "ca.pem")
        failed = unseal(jwe, *trust, "--tries", "1", status=6)
        assert b"certificate" in failed.stderr
        # Nor is it a server that is down, whose share comes later.
        both = {"t": 1, "pins": {"tang": [{"url": one.url, "thp": server.thumbprint}
                                          for one in (server, listening)]}}
        failed = seal(both, "--allow-pending", *trust, status=6)
        assert b"certificate" in failed.stderr and failed.stdout == b""
        failed = seal(both, "--allow-pending", "--tang-ca", "/none.pem", status=1)
        assert b"/none.pem" in failed.stderr and failed.stdout == b""


def test_plain_http_is_not_taken_for_https_nor_the_other_way(tangs, certificates, tmp_path):
    server, = tangs()
    adv = json.loads(server.advertisement())
    jwe = seal({"url": server.url.replace("http:", "https:"), "adv": adv}).stdout
    unseal(jwe, "--tries", "1", "--tang-ca", certificates / "ca.pem", status=7)
    with ours(server.keys, *tls_options(certificates, "good"), scheme="https") as listening:
        jwe = seal({"url": listening.url.replace("https:", "http:"), "adv": adv}).stdout
        unseal(jwe, "--tries", "1", status=7)


# ---- who cannot be reached ----------------------------------------------------------------------


@contextlib.contextmanager
def full_listener():
    """A port that answers no SYN: its queue is full and stays so, like a host behind a firewall
    that drops."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    waiting = []
    for _ in range(8):
        client = socket.socket()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(("127.0.0.1", port))
        waiting.append(client)
    probe = socket.socket()
    probe.settimeout(0.5)
    with pytest.raises(TimeoutError):
        probe.connect(("127.0.0.1", port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for one in (*waiting, probe, listener):
            one.close()


@contextlib.contextmanager
def resetting_listener():
    """Takes connections and throws them away with a reset."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.close()
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


@contextlib.contextmanager
def silent_listener():
    """Takes connections and never answers."""
    server = Impostor()
    try:
        yield server.url
    finally:
        server.stop()


@contextlib.contextmanager
def nobody():
    yield f"http://127.0.0.1:{free_port()}"


HOLES = [full_listener, silent_listener, resetting_listener, nobody]


@pytest.mark.parametrize("hole", HOLES)
def test_a_server_that_cannot_be_reached_costs_its_limit_at_most(tangs, hole):
    server, = tangs()
    with hole() as url:
        jwe = seal({"url": url, "adv": json.loads(server.advertisement())}).stdout
        start = time.monotonic()
        unseal(jwe, "--timeout", "2", "--try-timeout", "1", status=7)
        seal({"url": url, "thp": server.thumbprint}, "--timeout", "2", "--try-timeout", "1", status=7)
        # Two programs of at most two seconds each; the rest is what a machine under load takes.
        assert time.monotonic() - start < 20


@pytest.mark.parametrize("hole", HOLES)
def test_others_open_a_volume_meanwhile(tangs, tmp_path, hole):
    """Two of three: the third, however it is away, is not waited for."""
    first, second = tangs(2)
    kit.write(tmp_path / "k", b"first passphrase")
    volume = tmp_path / "volume"
    kit.lukskeep("create", volume, "--size", "64K", "--key", f"file:{tmp_path / 'k'}",
                 *kit.CHEAP["pbkdf2"])
    with hole() as url:
        pins = [{"url": one.url, "thp": one.thumbprint} for one in (first, second)]
        pins.append({"url": url, "adv": json.loads(first.advertisement())})
        policy = {"t": 2, "pins": {"tang": pins}}
        kit.lukskeep("bind", volume, json.dumps(policy), "--key", f"file:{tmp_path / 'k'}")
        start = time.monotonic()
        kit.lukskeep("unlock", volume, "--timeout", "100", "--try-timeout", "100")
        assert time.monotonic() - start < 50, "it waited for the one that is away"
        # By Clevis' name as well.
        kit.run([COMPAT / "clevis", "luks", "unlock", "-d", volume, "-t", "1"])


# ---- liars --------------------------------------------------------------------------------------


def advertisement_of(server):
    return json.loads(server.advertisement())


def signatures_of(adv):
    return adv.get("signatures") or [{"protected": adv["protected"], "signature": adv["signature"]}]


def lies_about_keys(server, other):
    """Advertisements that the server did not make; all would be as useful to a liar."""
    good, foreign = advertisement_of(server), advertisement_of(other)
    keys = json.loads(unb64(good["payload"]))["keys"]
    strange = json.loads(unb64(foreign["payload"]))["keys"]
    exchange = next(key for key in strange if "deriveKey" in key["key_ops"])
    signing = next(key for key in keys if "verify" in key["key_ops"])
    swapped = b64(json.dumps({"keys": [signing, exchange]}).encode())
    return {
        "of another server": foreign,
        "another's exchange key": {**good, "payload": swapped},
        "another's signature": {**good, "signature": foreign["signature"]},
        "no signature": {"payload": swapped, "signatures": []},
        "no algorithm": {"payload": swapped, "signature": "",
                         "protected": b64(b'{"alg":"none","cty":"jwk-set+json"}')},
        "signed by one of two": {
            "payload": b64(json.dumps({"keys": [*keys, *strange]}).encode()),
            "signatures": signatures_of(good)},
        "no keys": {**good, "payload": b64(b'{"keys":[]}')},
        "no JSON in it": {**good, "payload": b64(b"keys")},
    }


LIES = ["of another server", "another's exchange key", "another's signature", "no signature",
        "no algorithm", "signed by one of two", "no keys", "no JSON in it"]


@pytest.mark.parametrize("lie", LIES)
def test_false_advertisements_are_not_sealed_to(tangs, impostor, lie):
    server, other = tangs(2)
    liar = impostor(respond(json.dumps(lies_about_keys(server, other)[lie]).encode()))
    failed = seal({"url": liar.url, "thp": server.thumbprint}, "--tries", "1", status=(6, 7))
    assert failed.stdout == b""
    # Nor with -y, which takes keys that nothing vouches for, where they did not sign.
    if lie != "of another server":
        done = kit.run([COMPAT / "clevis", "encrypt", "tang", json.dumps({"url": liar.url}), "-y"],
                       1, stdin=SECRET)
        assert done.stdout == b""


def test_an_advertisement_from_before_the_rotation_is_not_enough(tangs, impostor):
    """Replayed: the keys of then, which somebody may have stolen."""
    server, = tangs()
    replayed = impostor(respond(server.advertisement()))
    kit.run(["/usr/libexec/tangd-rotate-keys", "-d", server.keys])
    assert seal({"url": replayed.url, "thp": server.thumbprint}, status=6).stdout == b""
    seal({"url": server.url, "thp": server.thumbprint})


@pytest.mark.parametrize("behave, status", [
    (respond(b"x" * (2 << 20)), 7), (endless, 7),
    (respond(b"[" * 100000), 7), (respond(b'{"payload":' * 1000), 7), (respond(b""), 7),
], ids=["huge", "endless", "deep", "nested", "empty"])
def test_monstrous_advertisements(impostor, behave, status):
    done = seal({"url": impostor(behave).url}, "--trust-on-first-use", "--tries", "1",
                "--timeout", "5", status=status)
    assert done.stdout == b""


def test_redirects_are_not_followed_to_keys(tangs, impostor):
    server, = tangs()
    away = impostor(respond(b"", "301 Moved", f"Location: {server.url}/adv\r\n"))
    failed = seal({"url": away.url, "thp": server.thumbprint}, status=7)
    assert b"sends elsewhere" in failed.stderr


def jwk_of(point_json):
    return json.dumps(point_json).encode()


def echo(connection, request):
    """Gives back the very point that it was asked with."""
    body = request.split(b"\r\n\r\n", 1)[1]
    length = int(next(line for line in request.split(b"\r\n")
                      if line.lower().startswith(b"content-length")).split(b":")[1])
    while len(body) < length:
        body += connection.recv(65536)
    respond(body)(connection, request)


def false_points():
    point = json.loads(jose("jwk", "pub", "-i", "-",
                            stdin=jose("jwk", "gen", "-i", '{"alg":"ECMR"}').encode()))
    small = json.loads(jose("jwk", "pub", "-i", "-", stdin=jose(
        "jwk", "gen", "-i", '{"alg":"ECMR","crv":"P-256"}').encode()))
    y = bytearray(unb64(point["y"]))
    y[-1] ^= 1
    zero = b64(bytes(66))
    return {
        "another point": respond(jwk_of(point)),
        "off the curve": respond(jwk_of({**point, "y": b64(bytes(y))})),
        "another curve": respond(jwk_of(small)),
        "said to be another curve": respond(jwk_of({**small, "crv": "P-521"})),
        "zero": respond(jwk_of({**point, "x": zero, "y": zero})),
        "short": respond(jwk_of({**point, "x": point["x"][:40]})),
        "too long": respond(jwk_of({**point, "x": point["x"] + "AAAA"})),
        "no key": respond(b'{"kty":"oct","k":"AAAA"}'),
        "many": respond(jwk_of([point, point])),
        "huge": respond(jwk_of({**point, "note": "x" * (2 << 20)})),
        "the question": echo,
    }


POINTS = ["another point", "off the curve", "another curve", "said to be another curve", "zero",
          "short", "too long", "no key", "many", "huge", "the question"]


@pytest.mark.parametrize("name", POINTS)
def test_false_points_open_nothing_and_hold_up_nobody(tangs, impostor, name):
    kit.need("jose")
    server, = tangs()
    liar = impostor(false_points()[name])
    lying = {"url": liar.url, "adv": advertisement_of(server)}
    failed = unseal(seal(lying).stdout, "--tries", "1", status=7)
    assert failed.stdout == b"" and liar.url.encode() in failed.stderr
    # A share of it spoils itself only.
    both = {"t": 1, "pins": {"tang": [lying, {"url": server.url, "thp": server.thumbprint}]}}
    assert unseal(seal(both).stdout).stdout == SECRET


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_a_volume_stays_as_it_was_when_its_server_is_replaced_by_a_liar(tangs, tmp_path, kind):
    server, other = tangs(2)
    kit.write(tmp_path / "k", b"first passphrase")
    volume = tmp_path / "volume"
    key = ("--key", f"file:{tmp_path / 'k'}")
    kit.lukskeep("create", volume, "--size", "64K", "--type", kind, *key, *kit.CHEAP["pbkdf2"])
    kit.lukskeep("bind", volume, *key, "--tang", f"{server.url},thp={server.thumbprint}")
    before = volume.read_bytes()
    lies = lies_about_keys(server, other)
    server.stop()
    liar = Impostor(port=server.port)
    try:
        for lie in LIES:
            liar.behave = respond(json.dumps(lies[lie]).encode())
            kit.lukskeep("rebind", volume, *key, "--tries", "1", "--timeout", "3", status=(6, 7))
            kit.run([COMPAT / "clevis", "luks", "regen", "-q", "-d", volume, "-s", "1"], 1,
                    stdin=b"first passphrase\n")
            assert volume.read_bytes() == before, lie
    finally:
        liar.stop()
