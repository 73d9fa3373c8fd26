"""Sealing: what Clevis seals opens here and the other way round, with the servers of Tang."""

import base64
import hashlib
import json
import time

import pytest

import kit
from tang import Impostor, Tang, drip, endless, jose, respond, software_tpm

SECRET = b"a secret of 32 bytes, or so\x00\xff\n"


@pytest.fixture
def tangs(tmp_path):
    """tangs(n, curve) starts n servers."""
    started = []

    def start(count=1, curve=None):
        servers = []
        for _ in range(count):
            servers.append(Tang(tmp_path / f"db{len(started)}", curve).start())
            started.append(servers[-1])
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


def seal(*arguments, stdin=SECRET, **options):
    return kit.lukskeep("seal", *arguments, stdin=stdin, **options).stdout


def unseal(jwe, *arguments, **options):
    return kit.lukskeep("unseal", *arguments, stdin=jwe, **options).stdout


def clevis_encrypt(pin, config, *more, **options):
    kit.need("clevis")
    return kit.run(["clevis", "encrypt", pin, json.dumps(config), *more], stdin=SECRET,
                   **options).stdout


def clevis_decrypt(jwe, **options):
    kit.need("clevis")
    return kit.run(["clevis", "decrypt"], stdin=jwe, **options).stdout


def tang_config(server):
    return {"url": server.url, "thp": server.thumbprint}


@pytest.mark.parametrize("curve", [None, "P-256", "P-384", "P-521"])
def test_tang_both_ways(tangs, curve):
    server, = tangs(1, curve)
    assert unseal(clevis_encrypt("tang", tang_config(server))) == SECRET
    jwe = seal("--tang", f"{server.url},thp={server.thumbprint}")
    assert clevis_decrypt(jwe) == SECRET
    assert unseal(jwe) == SECRET


def test_nested_sss_both_ways(tangs):
    a, b, c = tangs(3)
    config = {"t": 2, "pins": {"tang": [tang_config(a)], "sss": [
        {"t": 1, "pins": {"tang": [tang_config(b), tang_config(c)]}},
        {"t": 1, "pins": {"null": {}}}]}}
    theirs = clevis_encrypt("sss", config)
    ours = seal(json.dumps(config))
    for server in (a, b):
        server.stop()
    assert unseal(theirs) == SECRET
    assert unseal(ours) == SECRET
    assert clevis_decrypt(ours) == SECRET
    c.stop()
    assert kit.lukskeep("unseal", "--tries", "1", stdin=ours, status=7).stdout == b""


def test_what_was_sealed_to_a_hidden_key_opens(tangs):
    server, = tangs()
    jwe = seal("--tang", f"{server.url},thp={server.thumbprint}")
    kit.run(["/usr/libexec/tangd-rotate-keys", "-d", server.keys])
    assert unseal(jwe) == SECRET
    for hidden in server.keys.glob(".*.jwk"):
        hidden.unlink()
    gone = kit.lukskeep("unseal", stdin=jwe, status=7)
    assert b"does not have the key" in gone.stderr


def test_a_server_with_two_exchange_keys(tangs):
    server, = tangs()
    jose("jwk", "gen", "-i", '{"alg":"ECMR"}', "-o", str(server.keys / "second.jwk"))
    jwe = seal("--tang", f"{server.url},thp={server.thumbprint}")
    assert clevis_decrypt(jwe) == SECRET
    assert unseal(clevis_encrypt("tang", tang_config(server))) == SECRET


def test_a_saved_advertisement_stands_for_a_server_that_is_down(tangs, tmp_path):
    server, = tangs()
    (tmp_path / "adv").write_bytes(server.advertisement())
    server.stop()
    jwe = seal("--tang", f"{server.url},adv=adv")
    assert json.loads(kit.lukskeep("unseal", "--show", "--json", stdin=jwe).stdout)["state"] == "saved"
    server.start()
    assert unseal(jwe) == SECRET
    assert clevis_decrypt(jwe) == SECRET
    confirmed = seal("--top-up", stdin=jwe)
    shown = json.loads(kit.lukskeep("unseal", "--show", "--json", stdin=confirmed).stdout)
    assert shown["state"] == "confirmed"
    assert clevis_decrypt(confirmed) == SECRET


def test_clevis_opens_what_has_pending_shares_and_what_was_added(tangs):
    a, b, c = tangs(3)
    options = [word for server in (a, b, c)
               for word in ("--tang", f"{server.url},thp={server.thumbprint}")]
    c.stop()
    kit.lukskeep("seal", *options, "--threshold", "2", "--tries", "1", stdin=SECRET, status=7)
    jwe = seal(*options, "--threshold", "2", "--tries", "1", "--allow-pending")
    assert clevis_decrypt(jwe) == SECRET
    a.stop()
    c.start()
    kit.lukskeep("unseal", "--tries", "1", stdin=jwe, status=7)
    a.start()
    whole = seal("--top-up", stdin=jwe)
    a.stop()
    assert unseal(whole) == SECRET
    assert clevis_decrypt(whole) == SECRET


def test_trust_is_never_implicit(tangs):
    server, other = tangs(2)
    assert kit.lukskeep("seal", "--tang", server.url, stdin=SECRET, status=6).stdout == b""
    kit.lukskeep("seal", "--tang", f"{server.url},thp={other.thumbprint}", "--trust-on-first-use",
                 stdin=SECRET, status=6)
    assert unseal(seal("--tang", server.url, "--trust-on-first-use")) == SECRET
    # The adv of another server, replayed behind this URL.
    replay = Impostor(respond(other.advertisement()))
    kit.lukskeep("seal", "--tang", f"{replay.url},thp={server.thumbprint}", stdin=SECRET, status=6)
    # Signed, but not by all of its keys.
    forged = json.loads(server.advertisement())
    forged["payload"] = json.loads(other.advertisement())["payload"]
    lie = Impostor(respond(json.dumps(forged).encode()))
    kit.lukskeep("seal", "--tang", lie.url, "--trust-on-first-use", stdin=SECRET, status=7)


def test_one_hanging_server_costs_no_time(tangs, impostor):
    a, b = tangs(2)
    hanging = impostor()
    saved = {"url": hanging.url, "adv": json.loads(a.advertisement())}
    config = {"t": 2, "pins": {"tang": [tang_config(a), tang_config(b), saved]}}
    jwe = seal(json.dumps(config))
    start = time.monotonic()
    report = json.loads(unseal(jwe, "--json", "--timeout", "60", "--try-timeout", "60"))
    took = time.monotonic() - start
    assert [row["outcome"] for row in report["shares"]] == ["opened", "opened", "not-needed"]
    assert took < 30, "it waited for the one that hangs"


@pytest.mark.parametrize("behave, status, words", [
    (None, 7, b"did not answer in time"),
    (drip, 7, b"did not answer in time"),
    (endless, 7, b"more than it may"),
    (respond(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"), 7, b"sends elsewhere"),
    (respond(b"not found", "404 Not Found"), 7, b"does not have the key"),
    (respond(b"busy", "503 Busy", "Retry-After: 3000\r\n"), 7, b"status 503"),
    (respond(b'{"kty":"EC"}'), 7, b"wrong answer"),
    (respond(b"["), 7, b"wrong answer"),
], ids=["silent", "slow", "endless", "redirect", "no key", "busy", "no point", "no JSON"])
def test_bad_servers_end_within_the_limit(tangs, impostor, behave, status, words):
    server, = tangs()
    bad = impostor(behave)
    config = {"url": bad.url, "adv": json.loads(server.advertisement())}
    jwe = seal(json.dumps(config))
    failed = kit.lukskeep("unseal", "--timeout", "1", "--tries", "2", stdin=jwe, status=status,
                          timeout=60)
    assert words in failed.stderr, failed.stderr
    assert failed.stdout == b""


def test_a_wrong_point_opens_nothing(tangs, impostor):
    server, other = tangs(2)
    point = jose("jwk", "pub", "-i", "-", stdin=jose("jwk", "gen", "-i", '{"alg":"ECMR"}').encode())
    liar = impostor(respond(point.encode()))
    jwe = seal(json.dumps({"url": liar.url, "adv": json.loads(server.advertisement())}))
    failed = kit.lukskeep("unseal", stdin=jwe, status=7)
    assert b"does not open it" in failed.stderr


# ---- tpm2 ---------------------------------------------------------------------------------------


@pytest.fixture
def tpm(tmp_path):
    with software_tpm(tmp_path / "tpm") as env:
        yield env


@pytest.mark.parametrize("config", [
    {}, {"pcr_bank": "sha256", "pcr_ids": "7"}, {"pcr_bank": "sha256", "pcr_ids": "0,7"},
    {"hash": "sha256", "key": "rsa", "pcr_bank": "sha256", "pcr_ids": "4"}],
    ids=["no PCR", "PCR 7", "two PCRs", "rsa"])
def test_tpm2_both_ways(tpm, config):
    theirs = clevis_encrypt("tpm2", config, env=tpm)
    assert unseal(theirs, env=tpm) == SECRET
    ours = seal(json.dumps(config), "--pin", "tpm2", env=tpm)
    assert unseal(ours, env=tpm) == SECRET
    assert clevis_decrypt(ours, env=tpm) == SECRET
    if not config:
        return
    pcr = config["pcr_ids"].split(",")[-1]
    kit.run(["tpm2_pcrextend", f"{pcr}:sha256={'ab' * 32}"], env=tpm)
    for jwe in (theirs, ours):
        changed = kit.lukskeep("unseal", stdin=jwe, status=2, env=tpm)
        assert b"PCRs are not what they were" in changed.stderr


def test_tpm2_to_values_that_are_yet_to_come(tpm):
    """A new kernel or firmware measures this: what is sealed to it opens only then."""
    measured = "cd" * 32
    value = hashlib.sha256(bytes(32) + bytes.fromhex(measured)).digest()
    digest = base64.urlsafe_b64encode(value).decode().rstrip("=")
    config = {"pcr_bank": "sha256", "pcr_ids": "16", "pcr_digest": digest}
    theirs = clevis_encrypt("tpm2", config, env=tpm)
    ours = seal(json.dumps(config), "--pin", "tpm2", env=tpm)
    kit.lukskeep("unseal", stdin=ours, status=2, env=tpm)
    kit.run(["tpm2_pcrextend", f"16:sha256={measured}"], env=tpm)
    assert unseal(theirs, env=tpm) == SECRET
    assert unseal(ours, env=tpm) == SECRET
    assert clevis_decrypt(ours, env=tpm) == SECRET


def test_tpm_or_servers(tpm, tangs):
    server, = tangs()
    jwe = seal("--threshold", "1", "--tpm2", "pcrs=7", "--tang",
               f"{server.url},thp={server.thumbprint}", env=tpm)
    server.stop()
    assert unseal(jwe, env=tpm) == SECRET
    server.start()
    elsewhere = {"TPM2TOOLS_TCTI": "device:/dev/null-tpm"}
    assert unseal(jwe, env=elsewhere) == SECRET
    server.stop()
    assert b"no TPM" in kit.lukskeep("unseal", "--tries", "1", stdin=jwe, status=7,
                                     env=elsewhere).stderr


def test_tpm2_banks_that_the_tpm_does_not_keep(tpm):
    """The TPM passes over their PCRs: what is sealed to them would open whatever was booted."""
    kit.run(["tpm2_pcrallocate", "sha256:all+sha1:none+sha384:none+sha512:none"], env=tpm)
    config = json.dumps({"pcr_bank": "sha384", "pcr_ids": "7"})
    refused = kit.lukskeep("seal", config, "--pin", "tpm2", stdin=SECRET, status=4, env=tpm)
    assert b"keeps no PCRs in the bank sha384" in refused.stderr
