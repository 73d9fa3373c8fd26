import os

import pytest

from cli_tools import PBKDF2, fails, ok

KEY = ["--key", "file:k1", *PBKDF2]


@pytest.mark.parametrize("version", ["luks1", "luks2"])
def test_size_is_what_can_be_used(place, version):
    result = ok("create", "v", "--size", "1M", "--type", version, *KEY, "--json", cwd=place).json
    assert result["payload_size"] == 1 << 20
    assert (place / "v").stat().st_size == result["payload_offset"] + (1 << 20)
    info = ok("info", "v", "--json", cwd=place).json
    assert info["type"] == version
    assert info["payload_size"] == 1 << 20
    assert info["uuid"] == result["uuid"]
    ok("key", "test", "v", "--key", "file:k1", cwd=place)


def test_total_size_is_that_of_the_file(place):
    ok("create", "v", "--total-size", "20M", *KEY, cwd=place)
    assert (place / "v").stat().st_size == 20 << 20
    info = ok("info", "v", "--json", cwd=place).json
    assert info["payload_size"] + info["payload_offset"] == 20 << 20


@pytest.mark.parametrize("size,sector", [("4K", 4096), ("4608", 512), ("1M", 4096)])
def test_sectors_are_large_where_they_fit(place, size, sector):
    ok("create", "v", "--size", size, *KEY, cwd=place)
    assert ok("info", "v", "--json", cwd=place).json["sector_size"] == sector


def test_every_option_arrives_in_the_header(place):
    (place / "vk").write_bytes(bytes(range(32)))
    ok("create", "v", "--size", "1M", "--cipher", "serpent-cbc-essiv:sha256", "--key-size", "256",
       "--hash", "sha512", "--sector-size", "1024", "--metadata-size", "32K", "--keyslots-size",
       "1M", "--payload-offset", "4M", "--label", "a label", "--subsystem", "a system", "--uuid",
       "11111111-2222-3333-4444-555555555555", "--volume-key", "file:vk", *KEY, cwd=place)
    info = ok("info", "v", "--json", cwd=place).json
    assert info["cipher"] == "serpent-cbc-essiv:sha256"
    assert info["key_bits"] == 256
    assert info["sector_size"] == 1024
    assert info["metadata_size"] == 32768
    assert info["payload_offset"] == 4 << 20
    assert info["label"] == "a label" and info["subsystem"] == "a system"
    assert info["uuid"] == "11111111-2222-3333-4444-555555555555"
    slot = info["keyslots"][0]
    assert slot["kdf"] == {"type": "pbkdf2", "hash": "sha512", "iterations": 1000,
                           "salt": slot["kdf"]["salt"]}
    assert slot["af"]["hash"] == "sha512"
    assert info["digests"][0]["hash"] == "sha512"
    ok("key", "test", "v", "--key", "volume-key:vk", cwd=place)


def test_argon2_costs_arrive_too(place):
    ok("create", "v", "--size", "1M", "--key", "file:k1", "--pbkdf", "argon2i",
       "--pbkdf-iterations", "5", "--pbkdf-memory", "64KiB", "--pbkdf-parallel", "2", cwd=place)
    kdf = ok("info", "v", "--json", cwd=place).json["keyslots"][0]["kdf"]
    assert (kdf["type"], kdf["time"], kdf["memory_kib"], kdf["parallel"]) == ("argon2i", 5, 64, 2)


def test_a_measured_kdf_opens(place):
    ok("create", "v", "--size", "1M", "--key", "file:k1", "--iter-time", "1", "--pbkdf-memory",
       "1M", cwd=place)
    kdf = ok("info", "v", "--json", cwd=place).json["keyslots"][0]["kdf"]
    assert kdf["type"] == "argon2id" and kdf["time"] >= 4 and kdf["memory_kib"] <= 1024
    ok("key", "test", "v", "--key", "file:k1", cwd=place)


@pytest.mark.parametrize("version", ["luks1", "luks2"])
def test_a_detached_header_leaves_the_payload_alone(place, version):
    payload = os.urandom(1 << 20)
    (place / "data").write_bytes(payload)
    fails(5, "create", "data", "--header", "h", "--type", version, *KEY, cwd=place)
    ok("create", "data", "--header", "h", "--type", version, "--yes", *KEY, cwd=place)
    assert (place / "data").read_bytes() == payload
    info = ok("info", "data", "--header", "h", "--json", cwd=place).json
    assert info["payload_offset"] == 0 and info["payload_size"] == 1 << 20
    assert ok("info", "h", "--json", cwd=place).json["payload_size"] is None


def test_a_detached_header_and_a_new_payload(place):
    ok("create", "data", "--size", "1M", "--header", "h", *KEY, cwd=place)
    assert (place / "data").stat().st_size == 1 << 20
    ok("key", "test", "data", "--header", "h", "--key", "file:k1", cwd=place)
    fails(4, "key", "test", "data", "--key", "file:k1", cwd=place)


def test_an_existing_empty_file_is_used_whole(place):
    with open(place / "v", "wb") as file:
        file.truncate(20 << 20)
    inode = (place / "v").stat().st_ino
    ok("create", "v", *KEY, cwd=place)
    assert (place / "v").stat().st_ino == inode
    assert (place / "v").stat().st_size == 20 << 20
    ok("key", "test", "v", "--key", "file:k1", cwd=place)


def test_data_is_not_overwritten_unasked(place):
    for where in (0, (20 << 20) - 1):  # its first byte, its last
        with open(place / "v", "wb") as file:
            file.truncate(20 << 20)
            file.seek(where)
            file.write(b"x")
        before = (place / "v").read_bytes()
        result = fails(5, "create", "v", *KEY, cwd=place)
        assert "'v' holds data" in result.err and "--yes" in result.err
        fails(5, "create", "v", "--size", "1M", *KEY, cwd=place)
        assert (place / "v").read_bytes() == before
    ok("create", "v", "--yes", *KEY, cwd=place)


def test_a_header_file_is_not_overwritten_unasked(place):
    fails(5, "create", "v", "--size", "1M", "--header", "plain", *KEY, cwd=place)
    assert not (place / "v").exists()


def test_an_existing_file_gives_way_to_a_new_one(place):
    (place / "v").write_bytes(b"old")
    ok("create", "v", "--size", "1M", "--yes", *KEY, cwd=place)
    assert ok("info", "v", "--json", cwd=place).json["payload_size"] == 1 << 20


@pytest.mark.parametrize("args,status,part", [
    (["--size", "1M", "--cipher", "rot13-xts-plain64"], 4, "rot13"),
    (["--size", "1M", "--cipher", "aes-xts-plain64", "--key-size", "200"], 4, "200"),
    (["--size", "1M", "--cipher", "cipher_null-ecb"], 6, "encrypts nothing"),
    (["--size", "1M", "--hash", "crc32"], 4, "crc32"),
    (["--size", "1M", "--sector-size", "3000"], 1, "3000"),
    (["--size", "1M", "--type", "luks1", "--sector-size", "4096"], 1, "512"),
    (["--size", "1M", "--metadata-size", "20K"], 1, "20480"),
    (["--size", "1M", "--uuid", "nonsense"], 1, "nonsense"),
    (["--size", "1M", "--label", "x" * 48], 1, "47 bytes"),
    (["--size", "1M", "--type", "luks1", "--label", "x"], 1, "label"),
    (["--size", "1M", "--volume-key", "file:k1"], 4, "key"),
])
def test_what_the_engine_refuses(place, args, status, part):
    result = fails(status, "create", "v", *args, *KEY, cwd=place)
    assert part in result.err
    assert not (place / "v").exists()


@pytest.mark.parametrize("kdf,part", [
    (["--pbkdf", "pbkdf2", "--pbkdf-iterations", "999"], "999"),
    (["--pbkdf", "pbkdf2", "--pbkdf-iterations", "0"], "0"),
    (["--pbkdf", "argon2id", "--pbkdf-iterations", "3", "--pbkdf-memory", "64"], "3"),
    (["--pbkdf", "argon2id", "--pbkdf-iterations", "4", "--pbkdf-memory", "8"], "8"),
    (["--pbkdf", "argon2id", "--pbkdf-iterations", "4", "--pbkdf-memory", "64",
      "--pbkdf-parallel", "5"], "5"),
])
def test_costs_below_the_minimum(place, kdf, part):
    result = fails(1, "create", "v", "--size", "1M", "--key", "file:k1", *kdf, cwd=place)
    assert part in result.err
    assert not (place / "v").exists()


def test_insecure_volumes_are_made_only_with_a_warning(place):
    result = ok("create", "v", "--size", "1M", "--cipher", "cipher_null-ecb", "--allow-insecure",
                *KEY, cwd=place)
    assert "lukskeep: warning: --allow-insecure" in result.err
    fails(6, "decrypt", "v", "out", "--key", "file:k1", cwd=place)
    assert not (place / "out").exists()
    result = ok("decrypt", "v", "out", "--key", "file:k1", "--allow-insecure", cwd=place)
    assert "lukskeep: warning: --allow-insecure" in result.err


def test_new_files_are_for_their_owner_only(place):
    ok("create", "v", "--size", "1M", "--header", "h", *KEY, cwd=place)
    assert (place / "v").stat().st_mode & 0o777 == 0o600
    assert (place / "h").stat().st_mode & 0o777 == 0o600
