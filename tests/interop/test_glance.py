"""Images with their keys in a real Glance and Barbican, and from one project to another."""

import hashlib
import json
import os
import subprocess

import pytest

import kit
import openstack
from conftest import shared_folder
from kit import lukskeep

pytestmark = pytest.mark.usefixtures("no_services_named")

IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"


@pytest.fixture(scope="session")
def cloud(request):
    with openstack.services(shared_folder(request.config) / "openstack") as found:
        if not found.glance:
            kit.without("python3-glance is not installed")
        yield found


class Project:
    """lukskeep as a user of one project; what Glance and Barbican say to somebody else."""

    def __init__(self, cloud, user, project):
        self.cloud = cloud
        self.env = {"LUKSKEEP_KEY_MANAGER": "barbican:", **cloud.credentials(user, project)}
        self.token = cloud.token(user, project)

    def __call__(self, *words, **options):
        return lukskeep(*words, env=self.env, **options)

    def json(self, *words):
        return json.loads(self(*words, "--json").stdout)

    def image(self, name):
        status, _, body = self.cloud.call("GET", f"{self.cloud.glance}/v2/images/{name}",
                                          token=self.token)
        return body if status == 200 else None

    def secret(self, name):
        return self.cloud.call("GET", f"{self.cloud.barbican}/v1/secrets/{name}", token=self.token,
                               headers={"Accept": "application/json"})[0]

    def cinder_key(self):
        """A key as Cinder orders it, and the passphrase that it stands for."""
        name = self("keystore", "store", "--generate", "256").stdout.decode().strip()
        return name, self("keystore", "get", name).stdout.hex().encode()


@pytest.fixture
def demo(cloud):
    return Project(cloud, "demo", "demo")


def volume(secret, size=5 << 20):
    kit.write("plain", os.urandom(size - 4096) + bytes(4096))
    kit.write("pass", secret)
    lukskeep("encrypt", "plain", "disk", "--type", "luks1", "--key", "file:pass", *kit.CHEAP["pbkdf2"])
    return open("disk", "rb").read()


def test_there_and_back(demo):
    key, passphrase = demo.cinder_key()
    data = volume(passphrase)
    done = demo.json("image", "upload", "disk", "--key-id", key, "--name", "db")
    name = done["image"]["id"]
    image = demo.image(name)
    assert image["disk_format"] == "luks" and image["status"] == "active"
    assert image["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert image["os_encrypt_key_id"] == key and image["os_encrypt_format"] == "LUKSv1"
    consumers = demo.json("keystore", "consumers", key)["consumers"]
    assert [one["resource_id"] for one in consumers] == [name]
    assert demo.json("image", "verify", name)["good"]
    demo("image", "download", name, "out")
    assert open("out", "rb").read() == data
    # What arrived in part goes on: Glance answers ranges.
    os.remove("out")
    kit.write(f"out.{name}.part", data[:1_234_567])
    os.chmod(f"out.{name}.part", 0o600)
    demo("image", "download", name, "out")
    assert open("out", "rb").read() == data
    demo("key", "test", "out", "--key", f"manager:{key}")
    demo("image", "delete", name, "--yes")
    assert demo.image(name) is None and demo.secret(key) == 200
    demo("keystore", "delete", key)


def test_glance_that_knows_no_luks(demo, cloud):
    key, passphrase = demo.cinder_key()
    volume(passphrase)
    service = ["--image-service", f"glance:{cloud.open_glance}?project=demo"]
    name = demo.json("image", "upload", "disk", "--key-id", key, *service)["image"]["id"]
    status, _, image = cloud.call("GET", f"{cloud.open_glance}/v2/images/{name}")
    assert status == 200 and image["disk_format"] == "raw" and image["os_encrypt_key_id"] == key
    demo("image", "properties", "disk", "--key-id", key, "--style", "cinder", "--apply", name, *service)
    image = cloud.call("GET", f"{cloud.open_glance}/v2/images/{name}")[2]
    assert image["cinder_encryption_key_id"] == key and "os_encrypt_key_id" not in image
    assert demo.json("image", "verify", name, *service)["good"]


def test_deletion_policies(demo):
    # Glance 25 deletes the secret of Cinder's pair by itself, whoever uses it: so we tell it not to.
    for style, used in (("spec", False), ("cinder", False), ("cinder", True), ("spec", True)):
        key, passphrase = demo.cinder_key()
        volume(passphrase)
        name = demo.json("image", "upload", "disk", "--key-id", key, "--style", style,
                         "--key-deletion", "delete")["image"]["id"]
        if used:
            demo("keystore", "consumers", key, "--add", "volume/volume/v1")
        demo("image", "delete", name, "--yes")
        assert demo.image(name) is None
        assert demo.secret(key) == (200 if used else 404), (style, used)
        os.remove("disk")


def test_from_one_project_to_another(demo, cloud):
    eve = Project(cloud, "eve", "other")
    key, passphrase = demo.cinder_key()
    data = volume(passphrase)
    kit.write("identity", IDENTITY.encode() + b"\n")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", "signer"], check=True)
    subprocess.run(["openssl", "pkey", "-in", "signer", "-pubout", "-out", "signer.pub"], check=True)
    demo("image", "export", "disk", "bundle", "--key-id", key, "--recipient", RECIPIENT, "--sign-key",
         "file:signer")
    got = eve.json("image", "import", "bundle", "arrived", "--signer", "signer.pub", "--identity",
                   "file:identity")
    assert open("arrived", "rb").read() == data and got["key_id"] != key
    kit.write("set.json", json.dumps(got["properties"]).encode())
    name = eve.json("image", "upload", "arrived", "--properties", "set.json")["image"]["id"]
    assert eve.image(name)["os_encrypt_key_id"] == got["key_id"]
    assert eve.json("image", "verify", name)["good"]
    # The other's secret stays the other's, and so do their images.
    assert demo.secret(got["key_id"]) in (403, 404)
    assert demo("image", "verify", name, status=1).stderr.count(b"has no image") == 1
    eve("image", "delete", name, "--yes")


def test_what_the_client_prints_is_read(demo):
    key, passphrase = demo.cinder_key()
    volume(passphrase)
    line = demo("image", "properties", "disk", "--key-id", key, "--style", "cinder",
                "--openstack").stdout.decode()
    kit.need("openstack")
    env = {**os.environ, **demo.env}
    made = subprocess.run(["sh", "-c", f"exec /usr/bin/python3 /usr/bin/openstack image create -f json "
                           f"--file disk {line.strip()} pasted"], env=env, capture_output=True)
    assert made.returncode == 0, made.stderr
    name = json.loads(made.stdout)["id"]
    shown = subprocess.run(["/usr/bin/python3", "/usr/bin/openstack", "image", "show", "-f", "json",
                            name], env=env, capture_output=True, check=True).stdout
    kit.write("show.json", shown)
    translated = demo.json("image", "properties", "disk", "--properties", "show.json")
    assert translated["properties"]["os_encrypt_key_id"] == key and translated["good"]
    demo("image", "delete", name, "--yes")
