"""Encrypted images and the keystore that has their keys: what the tests of `image` share."""

import os

from cli_tools import PBKDF2, ok

PASSPHRASE = b"nobody guesses this"


def forget_services(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OS_", "VAULT_", "LUKSKEEP_KEY", "LUKSKEEP_CRED", "LUKSKEEP_IMAGE")):
            monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def keystore(folder, name="keystore"):
    """The URI of a new one."""
    (folder / f"{name}-key").write_bytes(os.urandom(32))
    uri = f"file:{folder / name}"
    ok("keystore", "init", "--key-manager", uri, "--wrapping-key", f"file:{folder / name}-key")
    return uri


def plain(size=3 << 20):
    """Data, a hole of whole chunks, data."""
    return os.urandom(1 << 20) + bytes(size - (1 << 20) - 5000) + os.urandom(5000)


def encrypted(folder, name="disk.luks", contents=None, version="luks1", secret=PASSPHRASE):
    contents = contents if contents is not None else plain()
    (folder / "plain").write_bytes(contents)
    (folder / "pass").write_bytes(secret)
    ok("encrypt", folder / "plain", folder / name, "--type", version, "--key", f"file:{folder / 'pass'}",
       "--holes", "keep", *PBKDF2)
    return folder / name
