"""Bindings: what `clevis luks` makes is read, opened and changed here, and the other way round."""

import json
import time

import pytest

import kit
from tang import Impostor, Tang

TYPES = ("luks1", "luks2")


@pytest.fixture
def tangs(tmp_path):
    started = []

    def start(count=1):
        servers = []
        for _ in range(count):
            servers.append(Tang(tmp_path / f"db{len(started)}").start())
            started.append(servers[-1])
        return servers
    yield start
    for server in started:
        server.stop()


@pytest.fixture(params=TYPES)
def volume(request, tmp_path):
    """A volume of cryptsetup's that the file k opens."""
    kit.need("clevis", "luksmeta")
    kit.write(tmp_path / "k", b"first passphrase")
    path = kit.sparse(tmp_path / "volume", 20 << 20)
    kit.cryptsetup("luksFormat", "--type", request.param, *kit.THEIR_CHEAP["pbkdf2"],
                   "--key-file", tmp_path / "k", path)
    return path


def key_of(volume):
    return f"file:{volume.parent / 'k'}"


def bind(volume, *arguments, **options):
    return kit.lukskeep("bind", volume, "--key", key_of(volume), *arguments, **options)


def clevis_luks(verb, volume, *arguments, **options):
    return kit.run(["clevis", "luks", verb, "-d", volume, *arguments], **options)


def clevis_bind(volume, pin, config):
    clevis_luks("bind", volume, "-y", "-k", volume.parent / "k", pin, json.dumps(config))


def clevis_pass(volume, slot, **options):
    return clevis_luks("pass", volume, "-s", str(slot), **options).stdout.strip()


def our_pass(volume, slot):
    return kit.lukskeep("passphrase", volume, "--slot", slot).stdout.strip()


def bindings(volume, *arguments):
    return json.loads(kit.lukskeep("bindings", volume, "--json", *arguments).stdout)["bindings"]


def report(volume, status=0):
    result = json.loads(kit.lukskeep("report", volume, "--json", status=status).stdout)
    return {finding["code"] for finding in result["volumes"][0]["findings"]}


def cryptsetup_opens(volume, passphrase, slot):
    return kit.run(["cryptsetup", "open", "--test-passphrase", "--key-file", "-", "-S", str(slot),
                    volume], status=None, stdin=passphrase).returncode == 0


def tang_option(server):
    return f"{server.url},thp={server.thumbprint}"


def rotate(server):
    """New keys; the old ones still answer, hidden."""
    kit.run(["/usr/libexec/tangd-rotate-keys", "-d", server.keys])


def test_clevis_reads_what_is_bound_here(volume, tangs):
    server, = tangs()
    bind(volume, "--tang", tang_option(server))
    passphrase = clevis_pass(volume, 1)
    assert passphrase == our_pass(volume, 1) and len(passphrase) == 54
    assert cryptsetup_opens(volume, passphrase, 1)
    listed = clevis_luks("list", volume).stdout.decode()
    assert listed.startswith("1: tang") and server.url in listed
    kit.lukskeep("key", "test", volume, "--key", "binding:")
    # The keyslot is as Clevis' own.
    keyslot = json.loads(kit.lukskeep("info", volume, "--json").stdout)["keyslots"][1]
    assert keyslot["kdf"]["type"] == "pbkdf2" and keyslot["kdf"]["iterations"] == 1000


def test_clevis_regenerates_edits_and_removes_what_is_bound_here(volume, tangs):
    server, other = tangs(2)
    bind(volume, "--tang", tang_option(server))
    before = our_pass(volume, 1)
    clevis_luks("regen", volume, "-q", "-s", "1")
    after = our_pass(volume, 1)
    assert before != after and cryptsetup_opens(volume, after, 1)
    config = json.dumps({"url": other.url, "thp": other.thumbprint})
    clevis_luks("edit", volume, "-s", "1", "-c", config)
    assert bindings(volume)[0]["pin"]["url"] == other.url
    our_pass(volume, 1)
    clevis_luks("unbind", volume, "-f", "-s", "1")
    assert bindings(volume) == []


def test_what_clevis_bound_is_rebound_edited_and_removed_here(volume, tangs):
    server, other = tangs(2)
    clevis_bind(volume, "tang", {"url": server.url})
    before = clevis_pass(volume, 1)
    assert before == our_pass(volume, 1)
    token = bindings(volume)[0]["token"]
    kit.lukskeep("rebind", volume)
    after = clevis_pass(volume, 1)
    assert before != after and not cryptsetup_opens(volume, before, 1)
    assert [(b["keyslot"], b["token"], b["state"]) for b in bindings(volume)] == [(1, token, "good")]
    kit.lukskeep("edit", volume, "--slot", "1", "--tang", tang_option(other))
    assert other.url in clevis_luks("list", volume).stdout.decode()
    assert clevis_pass(volume, 1) != after
    kit.lukskeep("unbind", volume, "--slot", "1")
    assert clevis_luks("list", volume, status=None).stdout.strip() == b""
    keyslots = json.loads(kit.lukskeep("info", volume, "--json").stdout)["keyslots"]
    assert [keyslot["slot"] for keyslot in keyslots] == [0]


def test_a_rebind_keeps_nested_policies(volume, tangs):
    servers = tangs(3)
    pins = [{"url": s.url, "thp": s.thumbprint} for s in servers]
    policy = {"t": 2, "pins": {"sss": [{"t": 1, "pins": {"tang": pins[:2]}},
                                       {"t": 1, "pins": {"tang": pins[2:]}}]}}
    bind(volume, json.dumps(policy))
    before = bindings(volume)[0]["pin"]
    clevis_pass(volume, 1)
    kit.lukskeep("rebind", volume)
    after = bindings(volume)[0]["pin"]
    assert after["threshold"] == 2 and len(after["shares"]) == 2
    shape = [[leaf["url"] for leaf in share["shares"]] for share in after["shares"]]
    assert shape == [[leaf["url"] for leaf in share["shares"]] for share in before["shares"]]
    clevis_pass(volume, 1)


def test_rotated_keys_are_reported_and_taken_by_trust_in_the_old_ones(volume, tangs):
    server, = tangs()
    bind(volume, "--tang", tang_option(server))
    assert report(volume) == set()
    rotate(server)
    assert report(volume, status=1) == {"rotated"}
    clevis_pass(volume, 1)
    kit.lukskeep("rebind", volume)
    assert report(volume) == set()
    for key in server.keys.glob(".*.jwk"):
        key.unlink()
    clevis_pass(volume, 1)


def test_a_server_with_other_keys_is_not_believed(volume, tangs):
    server, = tangs()
    bind(volume, "--tang", tang_option(server))
    before = volume.read_bytes()
    for key in server.keys.iterdir():
        key.unlink()
    kit.run(["/usr/libexec/tangd-keygen", server.keys])
    assert "untrusted" in report(volume, status=1)
    kit.lukskeep("rebind", volume, "--key", key_of(volume), status=6)
    assert volume.read_bytes() == before


def test_a_server_that_is_down_or_hangs_is_reported(volume, tangs):
    server, other = tangs(2)
    bind(volume, "--threshold", "1", "--tang", tang_option(server), "--tang", tang_option(other))
    other.stop()
    assert report(volume, status=1) == {"down", "no-spare"}
    start = time.monotonic()
    kit.lukskeep("unlock", volume)
    assert time.monotonic() - start < 10


def test_top_up_adds_the_server_that_was_down(volume, tangs):
    server, other = tangs(2)
    thumbprint = tang_option(other)
    other.stop()
    arguments = ("--threshold", "1", "--tang", tang_option(server), "--tang", thumbprint,
                 "--timeout", "3")
    refused = bind(volume, *arguments, status=7)
    assert b"pending" in refused.stderr
    bind(volume, *arguments, "--allow-pending")
    assert {"pending"} <= report(volume, status=1)
    clevis_pass(volume, 1)
    before = our_pass(volume, 1)
    other.start()
    kit.lukskeep("top-up", volume)
    assert report(volume) == set()
    server.stop()
    assert our_pass(volume, 1) == before == clevis_pass(volume, 1)


def test_orphans_open_nothing_and_go(volume, tangs):
    server, = tangs()
    clevis_bind(volume, "tang", {"url": server.url})
    kit.cryptsetup("luksKillSlot", "--key-file", volume.parent / "k", volume, "1")
    assert bindings(volume)[0]["state"] == "orphan"
    assert report(volume, status=1) == {"orphan"}
    kit.lukskeep("unlock", volume, status=1)
    # A new binding takes its place …
    bind(volume, "--tang", tang_option(server))
    assert [b["state"] for b in bindings(volume)] == ["good"]
    clevis_pass(volume, 1)
    # … and without one they are taken away.
    kit.cryptsetup("luksKillSlot", "--key-file", volume.parent / "k", volume, "1")
    kit.lukskeep("unbind", volume, "--orphans")
    assert bindings(volume) == []


def test_what_does_not_fit_is_refused_with_the_remedy(volume, tangs):
    server, = tangs()
    before = volume.read_bytes()
    many = [word for _ in range(18) for word in ("--tang", tang_option(server))]
    refused = bind(volume, "--threshold", "1", *many, status=4)
    assert b"hint" in refused.stderr
    assert volume.read_bytes() == before


def test_records_of_others_stay(tmp_path, tangs):
    kit.need("luksmeta")
    server, = tangs()
    volume = kit.sparse(tmp_path / "volume", 4 << 20)
    kit.write(tmp_path / "k", b"first passphrase")
    kit.cryptsetup("luksFormat", "--type", "luks1", *kit.THEIR_CHEAP["pbkdf2"], "--key-file",
                   tmp_path / "k", volume)
    other = "12345678-1234-1234-1234-123456789abc"
    kit.run(["luksmeta", "init", "-f", "-d", volume])
    kit.run(["luksmeta", "save", "-d", volume, "-s", "1", "-u", other], stdin=b"of somebody else")
    bind(volume, "--tang", tang_option(server))
    assert [b["keyslot"] for b in bindings(volume)] == [2]
    kit.lukskeep("rebind", volume)
    assert [b["keyslot"] for b in bindings(volume)] == [2]
    clevis_pass(volume, 2)
    loaded = kit.run(["luksmeta", "load", "-d", volume, "-s", "1", "-u", other]).stdout
    assert loaded == b"of somebody else"
    refused = kit.lukskeep("header", "convert", volume, "--type", "luks2", status=4)
    assert b"luksmeta" in refused.stderr


def test_a_header_backup_brings_bindings_back(volume, tangs):
    server, = tangs()
    bind(volume, "--tang", tang_option(server))
    backup = volume.parent / "backup"
    kit.lukskeep("header", "backup", volume, backup)
    kit.lukskeep("unbind", volume, "--slot", "1")
    kit.cryptsetup("luksHeaderRestore", volume, "--header-backup-file", backup)
    kit.lukskeep("header", "restore", volume, backup, "--yes")
    clevis_pass(volume, 1)
    kit.lukskeep("unlock", volume)


def test_a_dry_run_changes_nothing(volume, tangs):
    server, = tangs()
    before = volume.read_bytes()
    bind(volume, "--tang", tang_option(server), "--dry-run")
    assert volume.read_bytes() == before
    bind(volume, "--tang", tang_option(server))
    before = volume.read_bytes()
    kit.lukskeep("rebind", volume, "--dry-run")
    kit.lukskeep("unbind", volume, "--slot", "1", "--dry-run")
    assert volume.read_bytes() == before


def test_many_volumes_at_once(tmp_path, tangs):
    server, = tangs()
    hanging = Impostor()
    kit.write(tmp_path / "k", b"first passphrase")
    volumes = []
    for number in range(6):
        path = tmp_path / f"v{number}"
        kit.lukskeep("create", path, "--size", "64K", "--key", f"file:{tmp_path / 'k'}",
                     *kit.CHEAP["pbkdf2"])
        bind(path, "--tang", tang_option(server))
        volumes.append(path)
    kit.lukskeep("unlock", *volumes)
    bare = tmp_path / "bare"
    kit.lukskeep("create", bare, "--size", "64K", "--key", f"file:{tmp_path / 'k'}",
                 *kit.CHEAP["pbkdf2"])
    result = json.loads(kit.lukskeep("unlock", *volumes, bare, "--json", status=1).stdout)
    assert [row["opens"] for row in result["volumes"]] == [True] * 6 + [False]
    hanging.stop()
