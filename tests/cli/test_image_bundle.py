"""`image export` and `image import`: what arrives, and what must not."""

import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli_tools import IDENTITY, PBKDF2, RECIPIENT, fails, ok, run, start, wait_until
from image_tools import PASSPHRASE, encrypted, forget_services, keystore

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="skipped: openssl is not installed")
SIGNATURE_AT = 56
DATA_AT = 120


def openssl(*words, **more):
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, **more).stdout


def signing_key(folder, name):
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / name)
    (folder / f"{name}.pub").write_bytes(openssl("pkey", "-in", folder / name, "-pubout"))
    return folder / name


class Clouds:
    """Two key managers, an image whose key is in the first, and a bundle of both."""

    def __init__(self, folder):
        self.folder = folder
        self.here, self.there = keystore(folder, "here"), keystore(folder, "there")
        self.key = self.store(os.urandom(32), "symmetric")
        secret = ok("keystore", "get", self.key, "--key-manager", self.here).out
        self.disk = encrypted(folder, secret=secret.hex().encode())  # as Cinder does it
        self.sign_key = signing_key(folder, "signer.pem")
        (folder / "identity").write_text(IDENTITY + "\n")
        self.bundle = folder / "image.bundle"
        ok("image", "export", self.disk, self.bundle, *self.sending())

    def store(self, secret, kind):
        return ok("keystore", "store", "--name", "disk of a customer", "--type", kind, "--key-manager",
                  self.here, stdin=secret).text.strip()

    def sending(self, key=None, sign_key=None):
        return ["--key-manager", self.here, "--key-id", key or self.key, "--recipient", RECIPIENT,
                "--sign-key", f"file:{sign_key or self.sign_key}"]

    def receiving(self, signer=None):
        return ["--key-manager", self.there, "--signer", signer or f"{self.sign_key}.pub",
                "--identity", f"file:{self.folder / 'identity'}"]

    def secrets_there(self):
        return ok("keystore", "list", "--key-manager", self.there, "--json").json["secrets"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Clouds(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def clouds(made, tmp_path, monkeypatch):
    """With an empty key manager on the other side."""
    forget_services(monkeypatch)
    made.there = keystore(tmp_path, "there")
    return made


def test_arrives_with_its_key(clouds, tmp_path):
    result = ok("image", "import", clouds.bundle, tmp_path / "out", *clouds.receiving(), "--json").json
    assert (tmp_path / "out").read_bytes() == clouds.disk.read_bytes()
    assert clouds.bundle.stat().st_size < clouds.disk.stat().st_size  # holes did not travel
    assert result["properties"]["os_encrypt_key_id"] == result["key_id"] != clouds.key
    ok("key", "test", tmp_path / "out", "--key", f"manager:{result['key_id']}", "--key-manager",
       clouds.there)
    [secret] = clouds.secrets_there()
    assert secret["name"] == "" and secret["type"] == "symmetric"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "there", "there-key"]
    check = ok("image", "properties", tmp_path / "out", "--key-id", result["key_id"], "--json").json
    assert check["properties"] == result["properties"]


def test_through_a_pipe_and_with_other_properties(clouds, tmp_path):
    (tmp_path / "set.json").write_text(
        '{"id": "1", "status": "active", "properties": {"os_distro": "debian", '
        '"cinder_encryption_key_id": "old", "cinder_encryption_key_deletion_policy": "on_image_deletion"}}')
    bundle = ok("image", "export", clouds.disk, "-", *clouds.sending(), "--properties",
                tmp_path / "set.json").out
    line = ok("image", "import", "-", tmp_path / "out", *clouds.receiving(), "--style", "cinder",
              "--openstack", stdin=bundle).text
    [secret] = clouds.secrets_there()
    assert "--disk-format raw" in line and "--property os_distro=debian" in line
    assert f"--property cinder_encryption_key_id={secret['id']}" in line
    assert "on_image_deletion" in line and "status" not in line and "=old" not in line


@pytest.mark.parametrize("name, version, disk_format, word", [
    ("qcow2:disk.qcow2", "luks1", "qcow2", "LUKSv1"), ("disk2", "luks2", "luks", "LUKSv2")])
def test_every_kind_of_image(clouds, tmp_path, name, version, disk_format, word):
    file = name.removeprefix("qcow2:")
    secret = ok("keystore", "get", clouds.key, "--key-manager", clouds.here).out
    (tmp_path / "pass").write_bytes(secret.hex().encode())
    ok("encrypt", clouds.folder / "plain", name, "--type", version, "--key", "file:pass", *PBKDF2,
       cwd=tmp_path)
    ok("image", "export", file, "bundle", *clouds.sending(), cwd=tmp_path)
    got = ok("image", "import", "bundle", "out", *clouds.receiving(), "--json", cwd=tmp_path).json
    assert (tmp_path / "out").read_bytes() == (tmp_path / file).read_bytes()
    assert got["properties"]["disk_format"] == disk_format
    assert got["properties"]["os_encrypt_format"] == word
    size = (clouds.folder / "plain").stat().st_size
    assert 0 <= int(got["properties"]["os_decrypt_size"]) - size < 4096
    ok("decrypt", name.replace(file, "out"), "back", "--key", f"manager:{got['key_id']}", "--key-manager",
       clouds.there, cwd=tmp_path)
    assert (tmp_path / "back").read_bytes()[:size] == (clouds.folder / "plain").read_bytes()


def test_signer_in_base64_and_several(clouds, tmp_path):
    der = openssl("pkey", "-in", clouds.sign_key, "-pubout", "-outform", "DER")
    import base64
    other = signing_key(tmp_path, "other.pem")
    ok("image", "import", clouds.bundle, tmp_path / "out",
       *clouds.receiving(base64.b64encode(der[-32:]).decode()), "--signer", f"{other}.pub")


def nothing_arrived(clouds, folder):
    assert not (folder / "out").exists() and not list(folder.glob("*.part"))
    assert clouds.secrets_there() == []


def test_strangers_are_refused(clouds, tmp_path):
    other = signing_key(tmp_path, "other.pem")
    result = fails(6, "image", "import", clouds.bundle, tmp_path / "out",
                   *clouds.receiving(f"{other}.pub"))
    assert "nobody that was named" in result.err
    fails(1, "image", "import", clouds.bundle, tmp_path / "out", "--key-manager", clouds.there,
          "--identity", f"file:{clouds.folder / 'identity'}")
    (tmp_path / "identity").write_text(
        "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33\n")
    fails(2, "image", "import", clouds.bundle, tmp_path / "out", *clouds.receiving()[:-1],
          f"file:{tmp_path / 'identity'}")
    nothing_arrived(clouds, tmp_path)


@pytest.mark.parametrize("at", [0, 18, 22, 30, SIGNATURE_AT, DATA_AT + 5, -1])
def test_changed_bundles_are_refused(clouds, tmp_path, at):
    data = bytearray(clouds.bundle.read_bytes())
    data[at] ^= 1
    (tmp_path / "bad").write_bytes(data)
    result = run("image", "import", tmp_path / "bad", tmp_path / "out", *clouds.receiving())
    assert result.status in (4, 6), result
    assert not (tmp_path / "out").exists() and clouds.secrets_there() == []


def test_cut_bundles_go_on_where_they_were_cut(clouds, tmp_path):
    data = clouds.bundle.read_bytes()
    (tmp_path / "cut").write_bytes(data[:-4000])
    result = fails(4, "image", "import", tmp_path / "cut", tmp_path / "out", *clouds.receiving())
    [part] = tmp_path.glob("out.*.part")
    assert str(part) in result.err and clouds.secrets_there() == []
    # A bundle that is made anew has the same chunks.
    ok("image", "export", clouds.disk, tmp_path / "again", *clouds.sending())
    done = ok("image", "import", tmp_path / "again", tmp_path / "out", *clouds.receiving(), "--json")
    assert done.json["kept_bytes"] >= 1 << 20
    assert (tmp_path / "out").read_bytes() == clouds.disk.read_bytes() and not part.exists()


def test_interrupted_import_goes_on(clouds, tmp_path):
    process = start("image", "import", "-", tmp_path / "out", *clouds.receiving(), stdin=subprocess.PIPE)
    process.stdin.write(clouds.bundle.read_bytes()[:-2000])
    process.stdin.flush()
    wait_until(lambda: any(p.stat().st_size > 2 << 20 for p in tmp_path.glob("out.*.part")), "a part")
    process.send_signal(2)
    assert process.wait(timeout=30) == 130
    process.stdin.close()
    assert "goes on from there" in process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()
    ok("image", "import", clouds.bundle, tmp_path / "out", *clouds.receiving())
    assert (tmp_path / "out").read_bytes() == clouds.disk.read_bytes()


def test_nothing_is_replaced(clouds, tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    fails(5, "image", "import", clouds.bundle, tmp_path / "out", *clouds.receiving())
    fails(5, "image", "export", clouds.disk, clouds.bundle, *clouds.sending())
    assert (tmp_path / "out").read_bytes() == b"mine" and clouds.secrets_there() == []


def test_dry_run_changes_nothing(clouds, tmp_path):
    ok("image", "import", clouds.bundle, tmp_path / "out", *clouds.receiving(), "--dry-run")
    ok("image", "export", clouds.disk, tmp_path / "b", *clouds.sending(), "--dry-run")
    nothing_arrived(clouds, tmp_path)
    assert not (tmp_path / "b").exists()


def test_only_the_right_key_leaves(clouds, tmp_path):
    other = clouds.store(b"another", "passphrase")
    result = fails(2, "image", "export", clouds.disk, tmp_path / "b", *clouds.sending(key=other))
    assert "does not open" in result.err and not (tmp_path / "b").exists()
    fails(1, "image", "export", clouds.folder / "plain", tmp_path / "b", *clouds.sending())
    for missing in ("--key-id", "--recipient", "--sign-key"):
        options = clouds.sending()
        at = options.index(missing)
        fails(1, "image", "export", clouds.disk, tmp_path / "b", *options[:at], *options[at + 2:])


def test_nothing_secret_is_told(clouds, tmp_path):
    secret = ok("keystore", "get", clouds.key, "--key-manager", clouds.here).out
    data = clouds.bundle.read_bytes()
    assert secret not in data and secret.hex().encode() not in data and PASSPHRASE not in data
    assert b"customer" not in data


def test_no_image_without_its_secret(clouds, tmp_path):
    (tmp_path / "there-key").rename(tmp_path / "away")
    result = run("image", "import", clouds.bundle, tmp_path / "out", *clouds.receiving())
    assert result.status != 0 and not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.part"))


class Refusing(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_image_stays_until_its_secret_is_taken(clouds, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"barbican:http://127.0.0.1:{server.server_port}?project=p"
        result = fails(2, "image", "import", clouds.bundle, tmp_path / "out", "--key-manager", there,
                       *clouds.receiving()[2:])
        server.shutdown()
    [part] = tmp_path.glob("*.part")  # it was verified: only the secret is missing
    assert str(part) in result.err and not (tmp_path / "out").exists()
    done = ok("image", "import", clouds.bundle, tmp_path / "out", *clouds.receiving(), "--json").json
    assert done["kept_bytes"] >= 1 << 20 and not part.exists()
    assert (tmp_path / "out").read_bytes() == clouds.disk.read_bytes()


@pytest.mark.skipif(not shutil.which("strace"), reason="skipped: strace is not installed")
def test_secret_of_an_image_that_has_its_name_stays(clouds, tmp_path, monkeypatch):
    # LeakSanitizer wants to trace the program itself.
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")
    folder = tmp_path / "folder"
    folder.mkdir()
    result = run("image", "import", clouds.bundle, folder / "out", *clouds.receiving(),
                 wrap=["strace", "-f", "-qq", "-o", tmp_path / "trace", "-P", folder, "-e", "trace=fsync",
                       "-e", "inject=fsync:error=EIO"])
    assert result.status == 4 and (tmp_path / "trace").read_text().count("INJECTED") >= 1, result
    [secret] = clouds.secrets_there()
    assert f"the image is there; its secret is '{secret['id']}'" in result.err
    assert (folder / "out").read_bytes() == clouds.disk.read_bytes()


def qcow2_of(clouds, folder):
    (folder / "pass").write_bytes(ok("keystore", "get", clouds.key, "--key-manager", clouds.here).out.hex().encode())
    ok("encrypt", clouds.folder / "plain", "qcow2:disk.qcow2", "--type", "luks1", "--key", "file:pass", *PBKDF2,
       cwd=folder)
    ok("image", "export", "disk.qcow2", "bundle", *clouds.sending(), cwd=folder)


def test_style_that_cannot_say_it_is_refused_before_anything_is_done(clouds, tmp_path):
    qcow2_of(clouds, tmp_path)
    for more in ([], ["--dry-run"]):
        result = fails(1, "image", "import", "bundle", "out", *clouds.receiving(), "--style", "cinder", *more,
                       cwd=tmp_path)
        assert "qcow2" in result.err or "raw" in result.err
        nothing_arrived(clouds, tmp_path)


def test_header_alone_is_not_exported(clouds, tmp_path):
    offset = int.from_bytes(clouds.disk.read_bytes()[104:108], "big") * 512
    (tmp_path / "alone").write_bytes(clouds.disk.read_bytes()[:offset])
    result = fails(1, "image", "export", tmp_path / "alone", tmp_path / "b", *clouds.sending())
    assert "no payload" in result.err and not (tmp_path / "b").exists()
