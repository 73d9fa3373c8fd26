"""encrypt and decrypt: files, pipes, holes, and what is left when they fail."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from cli_tools import PBKDF2, PROGRAM, fails, ok, run

KEY = ["--key", "file:k1"]
NEW = [*KEY, *PBKDF2]


def padded(data, sector=512):
    return data + bytes(-len(data) % sector)


@pytest.mark.parametrize("options", [
    [], ["--type", "luks1"], ["--sector-size", "4096"], ["--cipher", "twofish-cbc-essiv:sha256"],
    ["--header", "h"], ["--type", "luks1", "--header", "h"],
], ids=" ".join)
def test_there_and_back(place, options):
    plain = (place / "plain").read_bytes()
    result = ok("encrypt", "plain", "v", *options, *NEW, "--json", cwd=place).json
    header = ["--header", "h"] if "--header" in options else []
    ok("decrypt", "v", "out", *header, *KEY, cwd=place)
    sector = 4096 if "4096" in options else 512
    assert (place / "out").read_bytes() == padded(plain, sector)
    assert result["source_size"] == len(plain)
    assert result["padding"] == -len(plain) % sector
    assert result["payload_size"] == len(plain) + result["padding"]
    assert plain[:512] not in (place / "v").read_bytes()


def test_padding_is_said(place):
    assert "509 zero bytes added" in ok("encrypt", "plain", "v", *NEW, cwd=place).text


def test_whole_pages_get_large_sectors(place):
    (place / "even").write_bytes(os.urandom(8192))
    ok("encrypt", "even", "v", *NEW, cwd=place)
    assert ok("info", "v", "--json", cwd=place).json["sector_size"] == 4096


def test_pipes_at_every_end(place):
    plain = (place / "plain").read_bytes()
    ok("encrypt", "-", "v", *NEW, stdin=plain, cwd=place)
    assert ok("decrypt", "v", "-", *KEY, cwd=place).out == padded(plain)
    ok("decrypt", "-", "out", *KEY, stdin=(place / "v").read_bytes(), cwd=place)
    assert (place / "out").read_bytes() == padded(plain)
    volume = ok("encrypt", "plain", "-", *NEW, cwd=place).out
    assert ok("decrypt", "-", "-", *KEY, stdin=volume, cwd=place).out == padded(plain)
    both = ok("encrypt", "-", "-", *NEW, stdin=plain, cwd=place).out
    assert ok("decrypt", "-", "-", *KEY, stdin=both, cwd=place).out == padded(plain)


def test_a_pipe_with_a_detached_header(place):
    plain = (place / "plain").read_bytes()
    payload = ok("encrypt", "-", "-", "--header", "h", *NEW, stdin=plain, cwd=place).out
    assert len(payload) == len(padded(plain))
    assert ok("decrypt", "-", "-", "--header", "h", *KEY, stdin=payload, cwd=place).out == \
        padded(plain)


def test_large_pipes_stay_in_order(place):
    plain = b"".join(b"%015d\n" % i for i in range(1 << 20))
    ok("encrypt", "-", "v", *NEW, stdin=plain, cwd=place)
    assert ok("decrypt", "v", "-", *KEY, cwd=place).out == plain


def test_the_spool_has_no_name(place):
    spool = place / "spool"
    spool.mkdir()
    env = {**os.environ, "TMPDIR": str(spool)}
    volume = ok("encrypt", "plain", "-", *NEW, cwd=place, env=env).out
    ok("decrypt", "-", "out", *KEY, stdin=volume, cwd=place, env=env)
    assert list(spool.iterdir()) == []


def test_nothing_to_encrypt(place):
    (place / "empty").write_bytes(b"")
    assert "'empty' is empty" in fails(1, "encrypt", "empty", "v", *NEW, cwd=place).err
    assert "standard input is empty" in fails(1, "encrypt", "-", "v", *NEW, stdin=b"",
                                              cwd=place).err
    assert not (place / "v").exists()


def test_source_and_destination_must_differ(place):
    ok("encrypt", "plain", "v", *NEW, cwd=place)
    os.symlink("plain", place / "link")
    os.link(place / "plain", place / "hard")
    before = (place / "plain").read_bytes()
    for destination in ("plain", "./plain", "link", "hard", place / "plain"):
        result = fails(1, "encrypt", "plain", destination, "--yes", *NEW, cwd=place)
        assert "the same" in result.err
    fails(1, "decrypt", "v", "./v", "--yes", *KEY, cwd=place)
    fails(1, "encrypt", "plain", "w", "--header", "plain", "--yes", *NEW, cwd=place)
    fails(1, "encrypt", "plain", "w", "--header", "w", "--yes", *NEW, cwd=place)
    assert (place / "plain").read_bytes() == before


def test_data_is_not_overwritten_unasked(place):
    ok("encrypt", "plain", "v", *NEW, cwd=place)
    before = (place / "v").read_bytes()
    fails(5, "encrypt", "plain", "v", *NEW, cwd=place)
    fails(5, "decrypt", "v", "k2", *KEY, cwd=place)
    assert (place / "v").read_bytes() == before
    assert (place / "k2").read_bytes() == b"passphrase 2\n"
    ok("decrypt", "v", "k2", "--yes", *KEY, cwd=place)
    assert (place / "k2").read_bytes() == padded((place / "plain").read_bytes())


def test_a_wrong_passphrase_leaves_no_file(place):
    ok("encrypt", "plain", "v", *NEW, cwd=place)
    fails(2, "decrypt", "v", "out", "--key", "file:k2", cwd=place)
    assert run("decrypt", "v", "-", "--key", "file:k2", cwd=place).out == b""
    assert not (place / "out").exists()


def test_damage_leaves_no_file(place):
    ok("encrypt", "plain", "v", *NEW, cwd=place)
    offset = ok("info", "v", "--json", cwd=place).json["payload_offset"]
    with open(place / "v", "r+b") as file:
        file.truncate(offset)
    result = fails(4, "decrypt", "v", "out", *KEY, cwd=place)
    assert "ends before its payload" in result.err
    assert not (place / "out").exists()


def test_the_volume_key_decrypts(place):
    (place / "vk").write_bytes(os.urandom(64))
    ok("encrypt", "plain", "v", "--volume-key", "file:vk", *NEW, cwd=place)
    ok("decrypt", "v", "out", "--key", "volume-key:vk", cwd=place)
    assert (place / "out").read_bytes() == padded((place / "plain").read_bytes())
    (place / "vk").write_bytes(os.urandom(64))
    result = fails(2, "decrypt", "v", "out2", "--key", "volume-key:vk", cwd=place)
    assert "not a volume key" in result.err


def sparse(path, size):
    """Data at both ends and a hole between."""
    with open(path, "wb") as file:
        file.write(b"a" * 65536)
        file.truncate(size)
        file.seek(size - 65536)
        file.write(b"z" * 65536)


def used_bytes(path):
    return path.stat().st_blocks * 512


def test_holes_are_filled(place):
    sparse(place / "sparse", 32 << 20)
    ok("encrypt", "sparse", "v", *NEW, cwd=place)
    assert used_bytes(place / "v") >= 32 << 20
    ok("decrypt", "v", "out", *KEY, cwd=place)
    assert used_bytes(place / "out") >= 32 << 20
    assert (place / "out").read_bytes() == (place / "sparse").read_bytes()


def test_holes_are_kept_where_asked(place):
    sparse(place / "sparse", 32 << 20)
    ok("encrypt", "sparse", "v", "--holes", "keep", *NEW, cwd=place)
    assert used_bytes(place / "v") < 24 << 20  # most of it the header
    result = ok("decrypt", "v", "out", "--holes", "keep", *KEY, cwd=place)
    assert used_bytes(place / "out") < 8 << 20
    assert (place / "out").read_bytes() == (place / "sparse").read_bytes()
    assert result.err == ""
    piped = ok("decrypt", "v", "-", "--holes", "keep", *KEY, cwd=place).out
    assert piped == (place / "sparse").read_bytes()


def test_holes_that_become_noise_are_announced(place):
    sparse(place / "sparse", 4 << 20)
    ok("encrypt", "sparse", "v", "--holes", "keep", *NEW, cwd=place)
    result = ok("decrypt", "v", "out", *KEY, cwd=place)
    assert "lukskeep: warning: the payload of 'v' has holes" in result.err
    assert "--holes keep" in result.err
    out = (place / "out").read_bytes()
    assert out[:65536] == b"a" * 65536 and out[-65536:] == b"z" * 65536


@pytest.mark.parametrize("folder", ["/dev/shm", "/var/tmp"])
def test_direct_copies_are_the_same(place, folder):
    with tempfile.TemporaryDirectory(dir=folder) as name:
        plain = (place / "plain").read_bytes()
        shutil.copy(place / "plain", name)
        ok("encrypt", f"{name}/plain", f"{name}/v", "--direct", "--sector-size", "512", *NEW,
           cwd=place)
        ok("decrypt", f"{name}/v", f"{name}/out", "--direct", *KEY, cwd=place)
        out = Path(name, "out").read_bytes()
        assert out[:len(plain)] == plain and not any(out[len(plain):])


def test_progress_for_programs(place):
    result = ok("encrypt", "plain", "v", "--progress", "json", *NEW, cwd=place)
    lines = result.err.splitlines()
    assert lines and all(line.startswith('{"progress":') for line in lines)
    assert f'"done_bytes":{(1 << 20) + 3}' in lines[-1]
    assert '"phase":"encrypt"' in lines[-1] and '"total_bytes":1048579' in lines[-1]
    assert ok("decrypt", "v", "out", "--progress", "none", *KEY, cwd=place).err == ""
    assert ok("decrypt", "v", "out2", *KEY, cwd=place).err == ""  # no terminal, no bar


def test_a_rate_limit_limits(place):
    result = subprocess.run(
        ["/usr/bin/env", "time", "-f", "%e", PROGRAM, "encrypt", "plain", "v", "--limit-rate",
         "1M", *NEW], cwd=place, capture_output=True, text=True, check=False)
    if result.returncode == 127:
        pytest.skip("no program 'time'")
    assert result.returncode == 0
    assert float(result.stderr.split()[-1]) > 0.5


@pytest.mark.parametrize("size,status,text", [(1 << 16, 4, "has become shorter"),
                                              (3 << 20, 5, "has grown from")])
def test_a_source_that_changes_its_size_leaves_nothing(place, size, status, text):
    (place / "changing").write_bytes(os.urandom(1 << 20))
    process = subprocess.Popen(
        [PROGRAM, "encrypt", "changing", "v", "--limit-rate", "1M", "--progress", "json", *NEW],
        cwd=place, stderr=subprocess.PIPE)
    first = process.stderr.readline()
    assert b"progress" in first
    os.truncate(place / "changing", size)
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == status and text in err
    assert not (place / "v").exists()


@pytest.mark.parametrize("whole,text", [(80 << 20, "has become shorter"),
                                        (32 << 20, "has shrunk from 33554432 to 1048576 bytes")])
def test_a_hole_that_is_cut_off_is_no_hole(place, whole, text):
    (place / "changing").write_bytes(os.urandom(1 << 20))
    os.truncate(place / "changing", whole)
    process = subprocess.Popen(
        [PROGRAM, "encrypt", "changing", "v", "--holes", "keep", "--limit-rate", "1M",
         "--progress", "json", *NEW], cwd=place, stderr=subprocess.PIPE)
    assert b"progress" in process.stderr.readline()
    os.truncate(place / "changing", 1 << 20)
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) in (4, 5) and text in err
    assert not (place / "v").exists()


def test_a_volume_that_grows_on_its_way_into_a_pipe_is_an_error(place):
    ok("encrypt", "plain", "v", *NEW, cwd=place)
    process = subprocess.Popen([PROGRAM, "decrypt", "v", "-", "--limit-rate", "1M", *KEY],
                               cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(1)
    os.truncate(place / "v", (place / "v").stat().st_size + 512)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5 and b"has grown from" in err


def test_a_closed_pipe_is_an_error_with_an_offset(place):
    (place / "big").write_bytes(os.urandom(8 << 20))
    ok("encrypt", "big", "v", *NEW, cwd=place)
    process = subprocess.Popen([PROGRAM, "decrypt", "v", "-", *KEY], cwd=place,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(4096)
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 4
    assert "lukskeep: error:" in err and any(c.isdigit() for c in err)
