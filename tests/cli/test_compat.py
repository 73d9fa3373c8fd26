"""Programs that go by Clevis' and Tang's names, without those beside them: tests/interop has these."""

import os
import struct
import subprocess
from pathlib import Path

import pytest

from cli_tools import PBKDF2, PROGRAM, ok
from luksmeta_tools import crc32c

COMPAT = Path(PROGRAM).parent / "compat"
REPLACES = 0x48000000  # docs/format/luksmeta.md


def call(*words, cwd, status=0, stdin=b""):
    done = subprocess.run([COMPAT / words[0], *words[1:]], cwd=cwd, input=stdin, timeout=120,
                          capture_output=True, start_new_session=True,
                          env={**os.environ, "LUKSKEEP_ARCHIVE": "off"})
    assert done.returncode == status, done
    return done


def mark_record(volume, slot, mark):
    """Writes the reserved field of a luksmeta record."""
    data = bytearray(volume.read_bytes())
    table = data.index(b"LUKSMETA")
    struct.pack_into(">I", data, table + 44 + 32 * slot, mark)
    struct.pack_into(">I", data, table + 12, 0)
    struct.pack_into(">I", data, table + 12, crc32c(data[table:table + 272]))
    volume.write_bytes(data)


@pytest.mark.parametrize("words", [["regen", "-q"], ["edit", "-f", "-c", "{}"]],
                         ids=lambda words: words[0])
def test_a_change_that_was_cut_when_the_old_keyslot_had_gone_is_completed(place, words):
    ok("create", "v", "--size", "64K", "--type", "luks1", "--key", "file:k1", *PBKDF2, cwd=place)
    ok("bind", "v", "{}", "--pin", "null", "--slot", "2", "--key", "file:k1", cwd=place)
    own = (place / "v").read_bytes()[208 + 48 * 2 + 8]  # of keyslot 2's salt
    mark_record(place / "v", 2, REPLACES | 1 << 24 | own << 16)
    call("clevis", "luks", *words, "-d", "v", "-s", "3", cwd=place, status=1)
    call("clevis", "luks", *words, "-d", "v", "-s", "1", cwd=place)
    bindings = ok("bindings", "v", "--json", cwd=place).json["bindings"]
    assert [(one["keyslot"], one["state"]) for one in bindings] == [(1, "good")]
    assert bindings[0]["replaces"] is None


@pytest.mark.parametrize("names", [("same", "same"), ("../sig", "exc"), ("sig", "../exc"),
                                   ("there", "exc"), ("sig", "there")], ids="-".join)
def test_a_pair_of_keys_is_made_whole_or_not_at_all(place, names):
    (place / "db").mkdir()
    (place / "db" / "there.jwk").write_text("{}")
    call("tangd-keygen", "db", *names, cwd=place, status=1)
    assert os.listdir(place / "db") == ["there.jwk"]
    call("tangd-keygen", "db", "sig", "exc", cwd=place)
    assert sorted(os.listdir(place / "db")) == ["exc.jwk", "sig.jwk", "there.jwk"]


def test_tangd_answers_without_its_record(place):
    (place / "db").mkdir()
    call("tangd-keygen", "db", cwd=place)
    (place / "db" / "usage.sqlite").write_bytes(b"torn" * 1024)
    done = call("tangd", "db", cwd=place, stdin=b"GET /adv HTTP/1.1\r\n\r\n")
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n") and b"usage.sqlite" in done.stderr
    # Who asks for the record by name wants it.
    failed = subprocess.run([PROGRAM, "tang", "serve", "--inetd", "--keys", "db", "--usage",
                             "db/usage.sqlite"], cwd=place, input=b"GET /adv HTTP/1.1\r\n\r\n",
                            capture_output=True, timeout=120)
    assert failed.returncode != 0 and failed.stdout == b""
