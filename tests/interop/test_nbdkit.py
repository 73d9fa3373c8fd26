"""nbdkit's luks filter and lukskeep on the same LUKS1 volumes, with nbdcopy in both directions."""

import pytest

from kit import CHEAP, MIB, bytes_of, lukskeep, need, run, same, write

PLAIN_BYTES = 3 * MIB + 512
# What the filter and the GnuTLS below it know: no essiv, no ctr.
CIPHERS = [("aes-xts-plain64", 512), ("aes-xts-plain64", 256), ("aes-cbc-plain64", 256),
           ("aes-cbc-plain", 128)]


def with_luks_filter(volume, key, command):
    need("nbdkit", "nbdcopy")
    run(["nbdkit", "-U", "-", "--filter=luks", "file", volume, f"passphrase=+{key}", "--run",
         command])


@pytest.mark.parametrize("cipher,bits", CIPHERS, ids=lambda value: str(value))
def test_both_directions(cipher, bits, tmp_path):
    key = write(tmp_path / "key", b"open for nbdkit")
    plain = write(tmp_path / "plain", bytes_of(cipher, PLAIN_BYTES))
    volume = tmp_path / "volume"
    lukskeep("encrypt", plain, volume, "--type", "luks1", "--cipher", cipher, "--key-size", bits,
             "--key", f"file:{key}", *CHEAP["pbkdf2"])
    with_luks_filter(volume, key, f'nbdcopy "$uri" {tmp_path / "out"}')
    assert same(plain, tmp_path / "out")

    other = write(tmp_path / "other", bytes_of(cipher + " again", PLAIN_BYTES))
    with_luks_filter(volume, key, f'nbdcopy {other} "$uri"')
    lukskeep("decrypt", volume, tmp_path / "back", "--key", f"file:{key}")
    assert same(other, tmp_path / "back")
