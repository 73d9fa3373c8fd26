"""`image upload`, `download`, `verify` and `delete` against a Glance that lies, hangs or breaks."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli_tools import fails, interrupt, ok, run, start, wait_until
from image_tools import PASSPHRASE, encrypted, forget_services, keystore

FORMATS = ["ami", "vhd", "raw", "qcow2", "luks"]
PAGE = (b"<html>\n <head>\n  <title>400 Bad Request</title>\n </head>\n <body>\n  <h1>400 Bad Request</h1>"
        b"\n  it does not &#x27;like&#x27; that.<br /><br />\n </body>\n</html>")


class Glance(ThreadingHTTPServer):
    """With the Keystone that it asks, if any; `say[(method, kind)]` overrides answers."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.images, self.data = {}, {}
        self.formats = FORMATS
        self.say, self.asked = {}, []
        self.tokens = None  # a set: Keystone is there
        self.logins = 0
        self.cut = None  # downloads end after so many bytes
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
        if length is not None:
            self.close_connection = True

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def kind(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[1:] == ["schemas", "image"]:
            return "schema", None
        if parts[1:] == ["auth", "tokens"]:
            return "login", None
        if parts[1:] == ["images"]:
            return "images", None
        return ("file" if parts[-1] == "file" else "image"), parts[2]

    def handle_any(self):
        glance = self.server
        kind, name = self.kind()
        glance.asked.append((self.command, kind))
        override = glance.say.get((self.command, kind))
        if isinstance(override, list):
            now = override.pop(0)
            if not override:
                del glance.say[(self.command, kind)]
            if now is not None:
                return now(self)
        elif override:
            return override(self)
        self.really(kind, name)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def really(self, kind, name):
        glance = self.server
        if kind == "login":
            self.body()
            return self.login()
        if glance.tokens is not None and self.headers.get("X-Auth-Token") not in glance.tokens:
            self.body()
            return self.answer(401, PAGE)
        if kind == "schema":
            return self.answer(200, {"properties": {"disk_format": {"enum": [None, *glance.formats]}}})
        if kind == "images":
            image = json.loads(self.body())
            if image["disk_format"] not in glance.formats:
                return self.answer(400, PAGE)
            glance.images[image["id"]] = {**image, "status": "queued", "size": None}
            return self.answer(201, glance.images[image["id"]])
        if name not in glance.images:
            self.body()
            return self.answer(404, PAGE)
        getattr(self, f"{self.command.lower()}_{kind}")(glance.images[name], name)

    def login(self):
        glance = self.server
        glance.logins += 1
        glance.tokens = {f"token-{glance.logins}"}
        now = time.gmtime
        stamp = lambda t: time.strftime("%Y-%m-%dT%H:%M:%SZ", now(t))
        self.answer(201, {"token": {
            "issued_at": stamp(time.time()), "expires_at": stamp(time.time() + 3600),
            "catalog": [{"type": "image", "endpoints": [
                {"interface": "public", "region_id": "R", "url": glance.url}]}]}},
            [("X-Subject-Token", f"token-{glance.logins}")])

    def put_file(self, image, name):
        data = self.body()
        self.server.data[name] = data
        image.update(status="active", size=len(data), os_hash_algo="sha512",
                     os_hash_value=hashlib.sha512(data).hexdigest(),
                     checksum=hashlib.md5(data).hexdigest())
        self.answer(204)

    def get_image(self, image, _):
        self.answer(200, image)

    def get_file(self, _, name):
        glance = self.server
        data = glance.data.get(name)
        if data is None:
            return self.answer(204)
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        status = 206 if start else 200
        headers = [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")] if start else []
        part = data[start:]
        if glance.cut is not None:
            return self.answer(status, part[:glance.cut], headers, length=len(part))
        self.answer(status, part, headers)

    def patch_image(self, image, _):
        for change in json.loads(self.body()):
            key = change["path"][1:]
            if change["op"] == "remove":
                del image[key]
            else:
                image[key] = change["value"]
        self.answer(200, image)

    def delete_image(self, image, name):
        del self.server.images[name]
        self.server.data.pop(name, None)
        self.answer(204)


def status(number, body=PAGE):
    def say(handler):
        handler.body()
        handler.answer(number, body)
    return say


def hang(handler):
    time.sleep(300)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def half(handler):
    handler.answer(200, b'{"id', length=1000)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    return encrypted(tmp_path_factory.mktemp("glance"))


@pytest.fixture
def glance(monkeypatch, tmp_path):
    forget_services(monkeypatch)
    monkeypatch.setenv("LUKSKEEP_KEY_MANAGER", keystore(tmp_path))
    with Glance() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("LUKSKEEP_IMAGE_SERVICE", f"glance:{server.url}?project=p")
        server.key = ok("keystore", "store", "--type", "passphrase", stdin=PASSPHRASE).text.strip()
        server.folder = tmp_path
        yield server
        server.shutdown()


@pytest.fixture
def keystone(glance, monkeypatch):
    glance.tokens = set()
    (glance.folder / "openrc").write_text(
        f"OS_AUTH_URL={glance.url}\nOS_USERNAME=u\nOS_PASSWORD=w\nOS_PROJECT_NAME=p\n")
    os.chmod(glance.folder / "openrc", 0o600)
    monkeypatch.setenv("LUKSKEEP_CREDENTIALS", str(glance.folder / "openrc"))
    monkeypatch.setenv("LUKSKEEP_IMAGE_SERVICE", "glance:")
    return glance


def consumers(key):
    found = ok("keystore", "consumers", key, "--json").json["consumers"]
    return [f"{one['service']}/{one['resource_type']}/{one['resource_id']}" for one in found]


def upload(glance, disk, *options):
    return ok("image", "upload", disk, "--key-id", glance.key, "--json", *options).json


def nothing_left(glance):
    assert glance.images == {} and consumers(glance.key) == []


# ---- what should be --------------------------------------------------------------------------------


def test_there_and_back(keystone, disk):
    glance = keystone
    done = upload(glance, disk, "--name", "db", "--key-deletion", "delete")
    name = done["image"]["id"]
    image = glance.images[name]
    assert image["disk_format"] == "luks" and image["name"] == "db" and done["consumer"]
    assert image["os_encrypt_key_id"] == glance.key and image["visibility"] == "private"
    assert image["os_encrypt_key_deletion_policy"] == "True"
    assert image["os_decrypt_size"] == str((disk.parent / "plain").stat().st_size)
    assert consumers(glance.key) == [f"image/image/{name}"]
    assert ok("image", "verify", name, "--json").json["good"]
    assert ok("image", "verify", name, disk).text == f"image '{name}' is as it should be\n"
    ok("image", "download", name, glance.folder / "out")
    assert (glance.folder / "out").read_bytes() == disk.read_bytes()
    fails(6, "image", "delete", name)
    assert "and its secret" in ok("image", "delete", name, "--yes").text
    assert glance.images == {}
    fails(1, "keystore", "show", glance.key)


def test_falls_back_where_luks_is_not_known(glance, disk):
    glance.formats = ["raw", "qcow2"]
    name = upload(glance, disk)["image"]["id"]
    assert glance.images[name]["disk_format"] == "raw"
    assert glance.images[name]["os_encrypt_format"] == "LUKSv1"
    assert ok("image", "verify", name, "--json").json["good"]
    glance.say = {("GET", "schema"): status(404)}
    glance.formats = FORMATS
    upload(glance, disk, "--style", "cinder")


def test_plain_images_need_no_key(glance, disk):
    name = ok("image", "upload", disk.parent / "plain", "--json").json["image"]["id"]
    assert glance.images[name]["disk_format"] == "raw"
    ok("image", "delete", name, "--yes")
    fails(1, "image", "upload", disk)
    fails(1, "image", "upload", disk, "--key-id", "no-such-secret")
    assert glance.images == {}


def test_properties_are_applied(glance, disk):
    name = upload(glance, disk, "--style", "cinder")["image"]["id"]
    result = ok("image", "properties", disk, "--key-id", glance.key, "--apply", name, "--json")
    image = glance.images[name]
    assert "cinder_encryption_key_id" not in image and image["os_encrypt_key_id"] == glance.key
    assert "stays 'raw', not 'luks'" in result.err
    fails(1, "image", "properties", disk, "--apply", name)


def test_properties_of_another_image_are_not_applied(glance, disk, tmp_path):
    name = upload(glance, disk, "--style", "cinder")["image"]["id"]
    before = dict(glance.images[name])
    apply = ("image", "properties", disk, "--key-id", glance.key, "--apply", name)
    ok(*apply, "--dry-run")
    glance.images[name]["size"] += 512
    assert "bytes" in fails(5, *apply).err
    ok(*apply, "--compressed", "--dry-run")
    glance.images[name]["size"] -= 512
    luks = {"disk_format": "luks", "container_format": "bare", "os_encrypt_format": "LUKSv1",
            "os_encrypt_key_id": glance.key, "os_decrypt_size": "5"}
    wanted = json.dumps(luks).encode()
    result = fails(1, "image", "properties", disk.parent / "plain", "--properties", "-", "--apply", name,
                   stdin=wanted)
    assert "not-encrypted" in result.err and "were not applied" in result.err
    both = json.dumps({**luks, "cinder_encryption_key_id": "other"}).encode()
    assert "contradicts" in fails(1, "image", "properties", disk, "--properties", "-", "--apply", name,
                                  stdin=both).err
    assert glance.images[name] == before
    run(*apply, "--properties", "-", stdin=both, check=1)  # says what was wrong, and mends it
    assert glance.images[name]["os_encrypt_key_id"] == glance.key


def test_plain_images_are_not_said_to_be_encrypted(glance, disk):
    plain = disk.parent / "plain"
    for options, more in ((["--key-id", glance.key], b""),
                          (["--properties", "-"], b'{"os_encrypt_format": "LUKSv1"}')):
        result = fails(1, "image", "upload", plain, *options, stdin=more)
        assert "is not encrypted, and it is said to be" in result.err
    nothing_left(glance)


def test_name_that_is_no_text(glance, disk):
    name = os.fsdecode(b"\xff")
    assert "UTF-8" in fails(1, "image", "upload", disk, "--key-id", glance.key, "--name", name).err
    nothing_left(glance)


def test_references_of_secrets(glance, disk):
    reference = f"https://barbican:9311/v1/secrets/{glance.key}"
    done = ok("image", "upload", disk, "--key-id", reference, "--json").json
    assert done["properties"]["os_encrypt_key_id"] == glance.key and done["consumer"]
    assert "ID" in fails(1, "image", "upload", disk, "--key-id", "no:id").err
    assert len(glance.images) == 1


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="skipped: qemu-img is not installed")
def test_formats_that_glance_does_not_take(glance, disk):
    subprocess.run(["qemu-img", "create", "-q", "-f", "vdi", glance.folder / "v", "1M"], check=True)
    assert "does not take" in fails(4, "image", "upload", glance.folder / "v").err
    glance.formats = [*FORMATS, "vdi"]
    ok("image", "upload", glance.folder / "v")
    assert [image["disk_format"] for image in glance.images.values()] == ["vdi"]


def test_dry_run_uploads_nothing(glance, disk):
    ok("image", "upload", disk, "--key-id", glance.key, "--dry-run")
    nothing_left(glance)


def test_unsafe_images_are_not_moved(glance, disk):
    header = bytearray(1024)
    header[0:8] = b"QFI\xfb\0\0\0\3"
    header[8:16], header[16:20] = (512).to_bytes(8, "big"), (11).to_bytes(4, "big")
    header[20:24] = (16).to_bytes(4, "big")
    header[512:523] = b"/etc/passwd"
    (glance.folder / "evil").write_bytes(header)
    fails(6, "image", "upload", glance.folder / "evil")
    assert glance.images == {}
    name = upload(glance, disk)["image"]["id"]
    glance.data[name] = bytes(header)
    glance.images[name].update(size=len(header), os_hash_value=hashlib.sha512(header).hexdigest())
    fails(6, "image", "download", name, glance.folder / "out")
    assert not list(glance.folder.glob("out*"))


# ---- deletion ----------------------------------------------------------------------------------------


def test_key_that_others_use_stays(glance, disk):
    name = upload(glance, disk, "--style", "cinder", "--key-deletion", "delete")["image"]["id"]
    ok("keystore", "consumers", glance.key, "--add", "volume/volume/v")
    result = ok("image", "delete", name, "--yes")
    assert "was not deleted: volume/volume/v uses it too" in result.err
    # Glance would have deleted it: it is told not to first.
    assert glance.asked.index(("PATCH", "image")) < glance.asked.index(("DELETE", "image"))
    assert consumers(glance.key) == ["volume/volume/v"]


def test_key_stays_unless_the_image_says_otherwise(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    ok("image", "delete", name, "--yes")
    assert consumers(glance.key) == []


@pytest.mark.parametrize("said, why", [
    ({"cinder_encryption_key_deletion_policy": "on_image_deletion",
      "os_encrypt_key_deletion_policy": "False"}, "contradicts itself"),
    ({"cinder_encryption_key_id": "11111111-2222-4333-8444-555555555555"}, "contradicts itself"),
    (None, "not known as its consumer")], ids=["policies", "keys", "no-consumer"])
def test_key_that_others_may_use_stays(glance, disk, said, why):
    name = upload(glance, disk, "--key-deletion", "delete")["image"]["id"]
    glance.images[name].update(said or {})
    if said is None:
        ok("keystore", "consumers", glance.key, "--remove", f"image/image/{name}")
    gone = {}
    def note(handler):
        gone.update(glance.images[name])
        handler.really("image", name)
    glance.say = {("DELETE", "image"): note}
    result = ok("image", "delete", name, "--yes")
    assert "was not deleted" in result.err and why in result.err
    assert gone and not [key for key in gone if key.endswith("deletion_policy")]
    nothing_left(glance)  # the secret itself is there


def test_image_whose_secret_is_gone_can_be_deleted(glance, disk):
    name = upload(glance, disk, "--key-deletion", "delete")["image"]["id"]
    ok("keystore", "consumers", glance.key, "--remove", f"image/image/{name}")
    ok("keystore", "delete", glance.key)
    assert "has no such secret" in ok("image", "delete", name, "--yes").err
    assert glance.images == {}


def test_lost_answer_to_a_deletion(glance, disk):
    name = upload(glance, disk, "--key-deletion", "delete")["image"]["id"]
    def lose(handler):
        handler.answer = lambda *_: None
        handler.really("image", name)
        hang_up(handler)
    glance.say = {("DELETE", "image"): [lose]}
    assert ok("image", "delete", name, "--yes", "--json").json["key_deleted"]
    fails(1, "keystore", "show", glance.key)


def test_deletion_that_fails_keeps_everything(glance, disk):
    name = upload(glance, disk, "--key-deletion", "delete")["image"]["id"]
    glance.say = {("DELETE", "image"): status(403)}
    fails(2, "image", "delete", name, "--yes")
    assert consumers(glance.key) == [f"image/image/{name}"]


# ---- what fails is undone ----------------------------------------------------------------------------


@pytest.mark.parametrize("number, exit_status", [(401, 2), (403, 2), (404, 1), (409, 5), (413, 1),
                                                 (500, 7), (503, 7)])
@pytest.mark.parametrize("where", [("POST", "images"), ("PUT", "file")])
def test_statuses(glance, disk, where, number, exit_status):
    glance.say = {where: status(number)}
    result = fails(exit_status, "image", "upload", disk, "--key-id", glance.key)
    assert str(number) in result.err and "it does not 'like' that" in result.err.replace("\\x27", "'")
    nothing_left(glance)


def test_refusal_before_the_body_was_read(glance, disk):
    glance.say = {("PUT", "file"): lambda handler: handler.answer(413, PAGE, length=len(PAGE))}
    result = run("image", "upload", disk, "--key-id", glance.key)
    # What it said is lost if the system resets the connection before it is read.
    assert result.status == 1 and "413" in result.err or result.status == 7, result
    nothing_left(glance)


@pytest.mark.parametrize("way", [hang_up, half, hang], ids=["hang-up", "half", "never"])
def test_answers_that_do_not_come(glance, disk, way):
    glance.say = {("PUT", "file"): way}
    fails(7, "image", "upload", disk, "--key-id", glance.key, "--timeout", "2")
    nothing_left(glance)


@pytest.mark.parametrize("where", [("POST", "images"), ("PUT", "file")])
def test_lost_answers_are_asked_after(glance, disk, where):
    def lose(handler):
        kind, name = handler.kind()
        handler.answer = lambda *_: None
        handler.really(kind, name)
        hang_up(handler)
    glance.say = {where: lose}
    name = upload(glance, disk)["image"]["id"]
    assert glance.images[name]["status"] == "active" and consumers(glance.key)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id": 5}', b"x" * (2 << 20)],
                         ids=["empty", "html", "list", "number", "large"])
def test_garbage(glance, disk, body):
    name = upload(glance, disk)["image"]["id"]
    glance.say = {("GET", "image"): status(200, body)}
    for command in (("verify", name), ("download", name, glance.folder / "out")):
        fails(7, "image", *command)
    assert not list(glance.folder.glob("out*"))


def test_what_cannot_be_undone_is_named(glance, disk):
    glance.say = {("PUT", "file"): status(500), ("DELETE", "image"): status(403)}
    result = fails(7, "image", "upload", disk, "--key-id", glance.key)
    [name] = glance.images
    assert f"what could not be undone: image '{name}'" in result.err
    assert consumers(glance.key) == []


def test_wrong_checksum_is_no_upload(glance, disk):
    def spoil(handler):
        for image in glance.images.values():
            image["os_hash_value"] = "0" * 128
        handler.really(*handler.kind())
    glance.say = {("GET", "image"): spoil}
    assert "checksum" in fails(4, "image", "upload", disk, "--key-id", glance.key).err
    nothing_left(glance)


def test_token_that_dies_in_the_middle(keystone, disk):
    glance = keystone
    def expire(handler):
        glance.tokens.clear()
        handler.really(*handler.kind())
    glance.say = {("PUT", "file"): [expire]}
    name = upload(glance, disk)["image"]["id"]
    assert glance.data[name] == disk.read_bytes()
    assert glance.logins == 3  # to ask for the formats, to upload, and again


def test_interrupted_upload_is_undone(glance, disk):
    glance.say = {("PUT", "file"): hang}
    process = start("image", "upload", disk, "--key-id", glance.key)
    wait_until(lambda: ("PUT", "file") in glance.asked, "the upload")
    code, _, err = interrupt(process)
    assert code == 130 and "could not be undone" not in err
    nothing_left(glance)


# ---- downloads that break ----------------------------------------------------------------------------


def test_download_goes_on_by_itself(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    glance.cut = 1 << 20
    ok("image", "download", name, glance.folder / "out")
    assert (glance.folder / "out").read_bytes() == disk.read_bytes()
    assert glance.asked.count(("GET", "file")) > 3


def test_download_goes_on_with_the_next_command(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    glance.cut = 1 << 20
    glance.say = {("GET", "file"): [None, *[hang_up] * 5]}
    result = fails(7, "image", "download", name, glance.folder / "out")
    part = glance.folder / f"out.{name}.part"
    assert part.stat().st_size == 1 << 20 and str(part) in result.err
    glance.cut = None
    ok("image", "download", name, glance.folder / "out")
    assert (glance.folder / "out").read_bytes() == disk.read_bytes() and not part.exists()


def test_server_that_sends_a_little_each_time(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    glance.cut = 1000
    fails(7, "image", "download", name, glance.folder / "out")
    assert 0 < (glance.folder / f"out.{name}.part").stat().st_size <= 10_000


def test_insecure_says_so(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    result = ok("image", "download", name, glance.folder / "out", "--insecure")
    assert "certificate of the image service is not verified" in result.err


def test_server_that_knows_no_ranges(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    glance.cut = 1 << 20
    def whole(handler):
        handler.answer(200, glance.data[name])
    glance.say = {("GET", "file"): [None, whole]}
    ok("image", "download", name, glance.folder / "out")
    assert (glance.folder / "out").read_bytes() == disk.read_bytes()


def short(glance, name, count):
    def say(handler):
        handler.answer(200, glance.data[name][:count])
    return say


def test_short_data_is_no_damage(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    part = glance.folder / f"out.{name}.part"
    glance.say = {("GET", "file"): short(glance, name, 1000)}
    assert "sends only 1000 of" in fails(7, "image", "download", name, glance.folder / "out").err
    assert part.stat().st_size == 1000
    glance.say = {("GET", "file"): [short(glance, name, 2000)]}
    ok("image", "download", name, glance.folder / "out")
    assert (glance.folder / "out").read_bytes() == disk.read_bytes() and not part.exists()
    glance.say = {("GET", "file"): [short(glance, name, 2000)]}
    ok("image", "verify", name)


def test_data_without_a_size_or_an_end(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    size, glance.images[name]["size"] = glance.images[name]["size"], None
    for command in (("verify", name), ("download", name, glance.folder / "out")):
        assert "does not say how large" in fails(7, "image", *command).err
    glance.images[name]["size"] = size - 1
    assert "more bytes" in fails(4, "image", "verify", name).err


def test_checksums_of_other_names(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    data, image = glance.data[name], glance.images[name]
    image.update(os_hash_algo="sha3_512", os_hash_value=hashlib.sha3_512(data).hexdigest())
    ok("image", "download", name, glance.folder / "a")
    image.update(os_hash_algo="sha3_512", os_hash_value="0" * 128)
    fails(4, "image", "download", name, glance.folder / "b")
    image.update(os_hash_algo="shake_128", checksum="0" * 32)
    assert "md5" in fails(4, "image", "download", name, glance.folder / "b").err
    image.update(checksum=None)
    part = glance.folder / f"b.{name}.part"
    part.write_bytes(b"x" * 5000)
    part.chmod(0o600)
    assert "no checksum" in ok("image", "download", name, glance.folder / "b").err
    assert (glance.folder / "b").read_bytes() == data


@pytest.mark.parametrize("spoil", ["bytes", "part", "more"])
def test_wrong_data_is_not_kept(glance, disk, spoil):
    name = upload(glance, disk)["image"]["id"]
    if spoil == "bytes":
        glance.data[name] = b"x" + glance.data[name][1:]
    if spoil == "more":
        glance.data[name] += b"more"
    if spoil == "part":
        (glance.folder / f"out.{name}.part").write_bytes(b"x" * 5000)
        os.chmod(glance.folder / f"out.{name}.part", 0o600)
    fails(4, "image", "download", name, glance.folder / "out")
    assert not list(glance.folder.glob("out*"))


def test_image_without_data(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    glance.images[name]["status"] = "queued"
    fails(1, "image", "download", name, glance.folder / "out")
    fails(1, "image", "download", "../../etc/passwd", glance.folder / "out")
    fails(1, "image", "download", "11111111-2222-4333-8444-555555555555", glance.folder / "out")


# ---- verify ------------------------------------------------------------------------------------------


def test_verify_finds_what_is_wrong(glance, disk):
    name = upload(glance, disk)["image"]["id"]
    found = lambda result: {one["name"] for one in result.json["problems"]}
    glance.images[name]["os_decrypt_size"] = "5"
    assert "decrypt-size-wrong" in found(run("image", "verify", name, "--json", check=6))
    glance.images[name]["os_decrypt_size"] = str((disk.parent / "plain").stat().st_size)
    ok("keystore", "consumers", glance.key, "--remove", f"image/image/{name}")
    assert found(ok("image", "verify", name, "--json")) == {"not-a-consumer"}
    ok("keystore", "delete", glance.key)
    assert "secret-missing" in found(run("image", "verify", name, "--json", check=6))
    (glance.folder / "other").write_bytes(disk.read_bytes()[:-1] + b"x")
    assert "checksum" in fails(4, "image", "verify", name, glance.folder / "other").err


def test_service_uris(glance, disk):
    for uri in ("http://x", "glance:ftp://x", "glance:http://x?y=1", "glance:?project=p",
                "glance:http://x?project="):
        fails(1, "image", "verify", "11111111-2222-4333-8444-555555555555", "--image-service", uri)
