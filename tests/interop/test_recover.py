"""recover with bindings of Clevis and tangd behind socat: what only the site can open."""

import json

import pytest

import kit
from tang import Tang, software_tpm
from test_clevis_luks import (clevis_bind, clevis_pass, key_of, rotate, tang_option,  # noqa: F401
                              tangs, volume)


def recover(folder, volume, *finish, answering=(), status=0):
    """Request and answer; what is returned finishes."""
    kit.lukskeep("recover", "request", volume, "--state", folder / "state", "--out",
                 folder / "request")
    kit.lukskeep("recover", "answer", folder / "request", "--yes", "--out", folder / "answer",
                 *answering, status=status)
    return lambda: kit.lukskeep("recover", "finish", folder / "answer", "--state",
                                folder / "state", "--json", *finish)


def test_what_clevis_bound_opens_without_the_server(volume, tangs, tmp_path):
    server, = tangs()
    clevis_bind(volume, "tang", {"url": server.url})
    passphrase = clevis_pass(volume, 1).decode()
    finish = recover(tmp_path, volume)
    server.stop()
    found = json.loads(finish().stdout)
    assert (found["keyslot"], found["passphrase"]) == (1, passphrase)


def test_rotated_servers_answer_and_are_verified_by_the_old_key(volume, tangs, tmp_path):
    server, = tangs()
    clevis_bind(volume, "tang", {"url": server.url})
    rotate(server)
    finish = recover(tmp_path, volume)
    server.stop()
    assert json.loads(finish().stdout)["keyslot"] == 1


def test_a_signing_key_that_is_gone_is_not_missed(volume, tangs, tmp_path):
    server, = tangs()
    clevis_bind(volume, "tang", {"url": server.url})
    rotate(server)
    for key in server.keys.glob(".*.jwk"):
        if '"verify"' in key.read_text():
            key.unlink()
    finish = recover(tmp_path, volume)
    server.stop()
    finish()


def test_of_nested_shares_as_many_as_are_needed_suffice(volume, tangs, tmp_path):
    servers = tangs(3)
    config = {"t": 2, "pins": {"tang": [{"url": s.url, "thp": s.thumbprint} for s in servers[:2]],
                               "sss": {"t": 1, "pins": {"tang": {"url": servers[2].url,
                                                                 "thp": servers[2].thumbprint}}}}}
    clevis_bind(volume, "sss", config)
    servers[1].stop()
    finish = recover(tmp_path, volume, answering=["--tries", "1"], status=1)
    for server in servers:
        server.stop()
    assert json.loads(finish().stdout)["keyslot"] == 1


def test_too_few_answers_say_which_are_missing(volume, tangs, tmp_path):
    servers = tangs(2)
    config = {"t": 2, "pins": {"tang": [{"url": s.url, "thp": s.thumbprint} for s in servers]}}
    clevis_bind(volume, "sss", config)
    servers[1].stop()
    recover(tmp_path, volume, answering=["--tries", "1"], status=1)
    servers[0].stop()
    result = kit.lukskeep("recover", "finish", tmp_path / "answer", "--state", tmp_path / "state",
                          status=7)
    assert b"1 of 2 shares" in result.stderr and servers[1].url.encode() in result.stderr


@pytest.mark.parametrize("curve", ["P-256", "P-384"])
def test_other_curves(tmp_path, curve):
    server = Tang(tmp_path / "db", curve).start()
    try:
        kit.write(tmp_path / "k", b"first passphrase")
        path = kit.sparse(tmp_path / "volume", 20 << 20)
        kit.cryptsetup("luksFormat", "--type", "luks2", *kit.THEIR_CHEAP["pbkdf2"], "--key-file",
                       tmp_path / "k", path)
        kit.lukskeep("bind", path, "--key", key_of(path), "--tang", tang_option(server))
        finish = recover(tmp_path, path)
    finally:
        server.stop()
    finish()


def test_lines_that_are_read_out_suffice(volume, tangs, tmp_path):
    server, = tangs()
    clevis_bind(volume, "tang", {"url": server.url})
    said = kit.lukskeep("recover", "request", volume, "--state", tmp_path / "state", "--text")
    answer = kit.lukskeep("recover", "answer", "-", "--yes", "--text", stdin=said.stdout.lower())
    server.stop()
    found = kit.lukskeep("recover", "finish", "-", "--state", tmp_path / "state", "--quiet",
                         stdin=answer.stdout.replace(b" ", b"-"))
    kit.lukskeep("key", "test", volume, "--key", "file:-", stdin=found.stdout.strip())


def test_the_tpm_gives_its_share_on_site(volume, tangs, tmp_path):
    server, = tangs()
    with software_tpm(tmp_path / "tpm") as env:
        config = {"t": 2, "pins": {"tang": {"url": server.url, "thp": server.thumbprint},
                                   "tpm2": {"pcr_bank": "sha256", "pcr_ids": "7"}}}
        kit.run(["clevis", "luks", "bind", "-d", volume, "-y", "-k", tmp_path / "k", "sss",
                 json.dumps(config)], env=env)
        recover(tmp_path, volume)
        server.stop()
        # The answer alone is not enough, and the TPM is not.
        finish = ["recover", "finish", tmp_path / "answer", "--state", tmp_path / "state", "--json"]
        nowhere = {"TPM2TOOLS_TCTI": "swtpm:host=127.0.0.1,port=1"}
        assert b"1 of 2 shares" in kit.lukskeep(*finish, status=(4, 7), env=nowhere).stderr
        kit.lukskeep("unlock", volume, "--tries", "1", status=7, env=env)
        assert json.loads(kit.lukskeep(*finish, env=env).stdout)["keyslot"] == 1


def test_what_crosses_opens_nothing(volume, tangs, tmp_path):
    """Neither point is one that the header has, and a second request has other ones."""
    server, = tangs()
    clevis_bind(volume, "tang", {"url": server.url})
    recover(tmp_path, volume)
    crossed = (tmp_path / "request").read_text() + (tmp_path / "answer").read_text()
    pin = json.loads(kit.lukskeep("bindings", volume, "--json").stdout)["bindings"][0]["pin"]
    header = volume.read_bytes()[:1 << 20]
    points = [json.loads((tmp_path / name).read_text())["points"][0]
              for name in ("request", "answer")]
    assert points[0]["kid"] == pin["kid"]
    for x in (points[0]["point"]["x"], points[1]["x"]):
        assert x.encode() not in header
    kit.lukskeep("recover", "request", volume, "--state", tmp_path / "s2", "--out", tmp_path / "r2")
    again = json.loads((tmp_path / "r2").read_text())["points"][0]["point"]["x"]
    assert again not in crossed
