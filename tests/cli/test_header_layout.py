"""header convert, resize, detach, attach."""

import os

import pytest

from cli_tools import ARGON2, PBKDF2, fails, ok


def plain(place, volume, *more):
    return ok("decrypt", volume, "-", "--key", "file:k1", *more, cwd=place).out


@pytest.fixture
def both(place):
    """v, with the image `plain` in it; k1 and k2 open it."""
    def make(type):
        ok("encrypt", "plain", "v", "--type", type, "--sector-size", "512", "--key", "file:k1",
           *PBKDF2, cwd=place)
        ok("key", "add", "v", "--key", "file:k1", "--new-key", "file:k2", *PBKDF2, cwd=place)
        return place
    return make


@pytest.mark.parametrize("type,other", [("luks1", "luks2"), ("luks2", "luks1")])
def test_convert_there_and_back(both, type, other):
    place = both(type)
    whole = plain(place, "v")
    uuid = ok("info", "v", "--json", cwd=place).json["uuid"]
    before = (place / "v").read_bytes()
    ok("header", "convert", "v", "--type", other, "--dry-run", cwd=place)
    assert (place / "v").read_bytes() == before
    for target in (other, type):
        ok("header", "convert", "v", "--type", target, cwd=place)
        info = ok("info", "v", "--json", cwd=place).json
        assert info["type"] == target and info["uuid"] == uuid
        assert plain(place, "v") == whole
        ok("key", "test", "v", "--key", "file:k2", cwd=place)
    assert "already" in fails(4, "header", "convert", "v", "--type", type, cwd=place).err


def test_convert_names_every_obstacle(luks2):
    ok("config", "v2", "--label", "x", "--flags", "allow-discards", cwd=luks2)
    before = (luks2 / "v2").read_bytes()
    for more in ([], ["--dry-run"]):
        result = fails(4, "header", "convert", "v2", "--type", "luks1", *more, cwd=luks2)
        for text in ("label", "allow-discards", "argon2id", "keyslot 1"):
            assert text in result.err
    fails(1, "header", "convert", "v2", cwd=luks2)
    assert (luks2 / "v2").read_bytes() == before


def test_resize(both):
    place = both("luks2")
    whole = plain(place, "v")
    for metadata in ("64K", "1M", "16K"):
        result = ok("header", "resize", "v", "--metadata-size", metadata, "--json", cwd=place).json
        assert 2 * result["metadata_size"] + result["keyslots_size"] == 16 << 20
        assert plain(place, "v") == whole
        ok("key", "test", "v", "--key", "file:k2", cwd=place)
    result = ok("header", "resize", "v", "--keyslots-size", "1M", "--json", cwd=place).json
    assert result["keyslots_size"] == 1 << 20
    before = (place / "v").read_bytes()
    fails(4, "header", "resize", "v", "--metadata-size", "20K", cwd=place)
    fails(4, "header", "resize", "v", "--keyslots-size", "100M", cwd=place)
    fails(4, "header", "resize", "v", "--keyslots-size", "8K", cwd=place)
    assert (place / "v").read_bytes() == before


@pytest.mark.parametrize("type", ["luks1", "luks2"])
def test_detach_and_attach(both, type):
    place = both(type)
    whole = plain(place, "v")
    before = (place / "v").read_bytes()
    ok("header", "detach", "v", "h", "--dry-run", cwd=place)
    assert (place / "v").read_bytes() == before and not (place / "h").exists()
    ok("header", "detach", "v", "h", cwd=place)
    assert (place / "h").stat().st_mode & 0o077 == 0
    after = (place / "v").read_bytes()
    offset = ok("info", "h", "--json", cwd=place).json["payload_offset"]
    # In LUKS1 there is a gap between the header and the payload, which is nobody's.
    end = (place / "h").stat().st_size - 4096
    assert after[offset:] == before[offset:] and not any(after[:end])
    fails(4, "info", "v", cwd=place)
    assert plain(place, "v", "--header", "h") == whole
    ok("header", "attach", "v", "h", cwd=place)
    assert (place / "v").read_bytes() == before
    assert plain(place, "v") == whole


def test_detach_loses_nothing(both):
    place = both("luks2")
    before = (place / "v").read_bytes()
    (place / "h").write_bytes(b"precious")
    fails(5, "header", "detach", "v", "h", cwd=place)
    fails(1, "header", "detach", "v", "v", cwd=place)
    fails(2 if os.geteuid() else 1, "header", "detach", "v", "nowhere/h", cwd=place)
    assert (place / "v").read_bytes() == before and (place / "h").read_bytes() == b"precious"


def test_attach_needs_room_and_the_right_volume(both):
    place = both("luks2")
    ok("create", "data", "--size", "64K", "--header", "apart", "--key", "file:k1", *PBKDF2,
       cwd=place)
    assert "no room" in fails(4, "header", "attach", "data", "apart", cwd=place).err
    ok("create", "other", "--size", "64K", "--key", "file:k1", *ARGON2, cwd=place)
    ok("header", "detach", "other", "h", cwd=place)
    before = (place / "v").read_bytes()
    result = fails(6, "header", "attach", "v", "h", cwd=place)
    assert "uuid" in result.err and "volume-key" in result.err
    assert (place / "v").read_bytes() == before
