"""seal and unseal, as far as they go without servers: what asks them is in tests/interop."""

import base64
import json

import pytest

from cli_tools import ROOT, fails, ok

VECTORS = ROOT / "tests" / "vectors" / "nbde"
NULLS = '{"t":2,"pins":{"null":[{},{"fail":true},{}]}}'


def put(path, data):
    path.write_bytes(data)
    return path


def seal(place, *args, data=b"\x00secret\n"):
    with open(put(place / "in", data), "rb") as stdin:
        return put(place / "jwe", ok("seal", *args, stdin=stdin).out)


def test_what_is_sealed_opens(place):
    jwe = seal(place, NULLS)
    assert jwe.read_bytes().count(b".") == 4 and not jwe.read_bytes().endswith(b"\n")
    with open(jwe, "rb") as stdin:
        assert ok("unseal", stdin=stdin).out == b"\x00secret\n"
    put(jwe, b"\n " + jwe.read_bytes() + b"\r\n")
    with open(jwe, "rb") as stdin:
        report = ok("unseal", "--json", "--all-shares", stdin=stdin).json
    assert base64.b64decode(report["plain"]) == b"\x00secret\n"
    assert [row["outcome"] for row in report["shares"]] == ["opened", "failed", "opened"]
    assert report["shares"][1]["path"] == [1]


@pytest.mark.parametrize("name", ["null", "sss", "nested"])
def test_what_clevis_sealed_opens(name):
    with open(VECTORS / f"{name}.jwe", "rb") as stdin:
        assert ok("unseal", stdin=stdin).out == f"sealed by clevis {name}".encode()


def test_show_asks_nobody():
    with open(VECTORS / "tang-P-521.jwe", "rb") as stdin:
        shown = ok("unseal", "--show", "--json", stdin=stdin).json
    assert shown["url"] == "http://tang.example" and shown["state"] == "confirmed"
    assert len(shown["kid"]) == 43 and shown["signing_keys"][0]["curve"] == "P-521"
    with open(VECTORS / "nested.jwe", "rb") as stdin:
        assert "    sss, 1 of 2: confirmed" in ok("unseal", "--show", stdin=stdin).text


def test_sealing_without_the_network(place):
    adv = VECTORS / "tang-P-521.adv"
    jwe = seal(place, "--threshold", "1", "--tang", f"http://a,adv={adv}",
               "--tang", f"http://b,adv={adv}")
    with open(jwe, "rb") as stdin:
        shown = ok("unseal", "--show", "--json", stdin=stdin).json
    assert [share["state"] for share in shown["shares"]] == ["saved", "saved"]
    policy = put(place / "p.toml", f"""
        threshold = 2
        closest = 2
        [[region]]
        distance = 3
        tang = {{url = "http://far", adv = "{adv}"}}
        [[region]]
        distance = 1
        tang = {{url = "http://near", adv = "{adv}"}}
        [[region]]
        distance = 2
        tang = {{url = "http://middle", adv = "{adv}"}}
    """.encode())
    sealed = json.loads(seal(place, policy, "--json").read_text())
    assert [share["url"] for share in sealed["policy"]["shares"]] == ["http://near", "http://middle"]


@pytest.mark.parametrize("args, status, words", [
    ((), 1, "no policy"),
    (("--pin", "tang"), 1, "--pin goes with a policy"),
    (("{}",), 1, "names no pin"),
    (("nowhere",), 1, "nowhere"),
    ((NULLS, "--tang", "http://a"), 1, "exclude each other"),
    (("--tang", "http://a", "--tang", "http://b"), 1, "--threshold"),
    (("--tang", "ftp://a"), 1, "no URL"),
    (("--tang", "http://a,thp=x"), 1, "no thumbprint"),
    (("--tpm2", "pcrs=77"), 1, "no PCR"),
    (("--top-up", NULLS), 1, "--top-up takes no policy"),
    ((NULLS, "--timeout", "0"), 1, "--timeout"),
    ((NULLS, "--tries", "0"), 1, "--tries"),
    (('{"t":3,"pins":{"null":[{},{}]}}',), 1, "threshold of 3"),
    (("--tpm2", "", "--tpm", "device:/dev/no-tpm"), 4, "no TPM"),
    (("--tang", "http://127.0.0.1:1", "--tries", "1"), 7, "127.0.0.1:1"),
], ids=str)
def test_refusals_of_seal(place, args, status, words):
    with open(put(place / "in", b"x"), "rb") as stdin:
        assert words in fails(status, "seal", *args, stdin=stdin, cwd=place).err


@pytest.mark.parametrize("data, status, words", [
    (b"", 1, "empty"),
    (b"nonsense", 4, "no JWE"),
    (b"e30..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA", 4, "'alg'"),
], ids=str)
def test_refusals_of_unseal(place, data, status, words):
    with open(put(place / "in", data), "rb") as stdin:
        assert words in fails(status, "unseal", stdin=stdin).err


def test_a_changed_jwe_opens_nothing(place):
    jwe = seal(place, "{}", "--pin", "null")
    parts = jwe.read_bytes().split(b".")
    parts[3] = (b"B" if parts[3][:1] != b"B" else b"C") + parts[3][1:]
    put(jwe, b".".join(parts))
    with open(jwe, "rb") as stdin:
        result = fails(4, "unseal", stdin=stdin)
    assert result.out == b"" and "has been changed" in result.err


def test_dead_shares_are_named(place):
    jwe = seal(place, '{"t":1,"pins":{"null":[{"fail":true},{"fail":true}]}}')
    with open(jwe, "rb") as stdin:
        assert "0 of 1 shares" in fails(2, "unseal", stdin=stdin).err
