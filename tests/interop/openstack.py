"""A private Keystone, a Barbican and a Glance that use it and one of each that does not, on loopback.

The Glance with Keystone knows the disk format luks, the other is as Debian ships it.

    /usr/bin/python3 openstack.py FOLDER                  runs them until nobody holds FOLDER.users
    /usr/bin/python3 openstack.py serve KIND PORT         one of them

All test processes of a run share them: see services(). They live in processes of their own, which end
when the last of those does, however that one ends. From Debian's python3-* packages alone; nothing in
/etc is read.
"""

import base64
import contextlib
import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import kit
import shared_peer
from shared_peer import die_with_parent, free_ports

PYTHON = "/usr/bin/python3"  # the one that sees Debian's modules
START_SECONDS = 240
PASSWORD = "p\"a's$s w\\ord"
SERVICE_PASSWORD = "svcpw"

KEYSTONE = """
[DEFAULT]
log_file = {folder}/keystone-oslo.log
[database]
connection = sqlite:///{folder}/keystone.sqlite
[token]
provider = fernet
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[identity]
password_hash_rounds = 4
[oslo_policy]
policy_dirs = {folder}/policy.d
[cache]
enabled = false
"""

BARBICAN = """
[DEFAULT]
sql_connection = sqlite:///{folder}/barbican.sqlite
db_auto_create = True
host_href = http://127.0.0.1:{port}
transport_url = fake:/
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = {kek}
[queue]
enable = False
[oslo_policy]
policy_dirs = {folder}/policy.d
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
project_name = service
project_domain_name = Default
username = barbican
user_domain_name = Default
password = {password}
"""

PASTE = """
[composite:main]
use = egg:Paste#urlmap
/: barbican_version
/v1: barbican_api
[pipeline:barbican_version]
pipeline = microversion versionapp
[pipeline:barbican_api]
pipeline = {filters} microversion apiapp
[app:apiapp]
paste.app_factory = barbican.api.app:create_main_app
[app:versionapp]
paste.app_factory = barbican.api.app:create_version_app
[filter:unauthenticated-context]
paste.filter_factory = barbican.api.middleware.context:UnauthenticatedContextMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
[filter:context]
paste.filter_factory = barbican.api.middleware.context:ContextMiddleware.factory
[filter:microversion]
paste.filter_factory = barbican.api.middleware.microversion:MicroversionMiddleware.factory
"""

GLANCE = """
[DEFAULT]
enabled_backends = files:file
transport_url = fake:/
node_staging_uri = file://{folder}/staging
worker_self_reference_url = http://127.0.0.1:{port}
[database]
connection = sqlite:///{folder}/glance.sqlite
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = {folder}/images
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[paste_deploy]
flavor = {flavor}
config_file = {folder}/conf/glance-api-paste.ini
[oslo_concurrency]
lock_path = {folder}/lock
[oslo_policy]
policy_dirs = {folder}/policy.d
[image_format]
disk_formats = {formats}
[key_manager]
backend = barbican
[barbican]
auth_endpoint = {keystone}
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
project_name = service
project_domain_name = Default
username = glance
user_domain_name = Default
password = {password}
"""

GLANCE_PASTE = """
[pipeline:glance-api]
pipeline = versionnegotiation unauthenticated-context rootapp
[pipeline:glance-api-keystone]
pipeline = versionnegotiation authtoken context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:unauthenticated-context]
paste.filter_factory = glance.api.middleware.context:UnauthenticatedContextMiddleware.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
"""
GLANCE_FORMATS = "ami,ari,aki,vhd,vhdx,vmdk,raw,qcow2,vdi,iso,ploop"


def serve(kind, port):
    # The SDK that Glance imports has the name of this file.
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != kit.ROOT / "tests/interop"]
    import waitress
    sys.argv[1:] = []
    if kind == "keystone":
        from keystone.server import wsgi
        application = wsgi.initialize_public_application()
    elif kind == "glance":
        from glance.common import wsgi_app
        application = wsgi_app.init_app()
    else:
        from paste import deploy
        application = deploy.loadapp("config:" + os.environ["BARBICAN_PASTE"])
    # SQLite and more than one thread: "database is locked".
    waitress.serve(application, host="127.0.0.1", port=port, threads=1,
                   max_request_body_size=1 << 30)


# ---- the process that keeps them ---------------------------------------------------------------


class Keeper(shared_peer.Keeper):
    def __init__(self, folder):
        super().__init__(folder)
        self.token = ""

    def daemon(self, kind, port, home, **env):
        log = open(self.folder / f"{home.name}.log", "wb")
        self.daemons.append(subprocess.Popen(
            [PYTHON, __file__, "serve", kind, str(port)], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, preexec_fn=die_with_parent,
            env={**os.environ, "HOME": str(home), **{k: str(v) for k, v in env.items()}}))

    def wait_for(self, port):
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
            for daemon in self.daemons:
                if daemon.poll() is not None:
                    raise RuntimeError(f"{daemon.args} ended with {daemon.returncode}")
            if time.monotonic() > end:
                raise RuntimeError(f"waited {START_SECONDS} s for port {port}")
            time.sleep(0.1)

    def manage(self, *arguments):
        done = subprocess.run(["keystone-manage", "--config-file", self.folder / "keystone.conf",
                               *arguments], capture_output=True, timeout=START_SECONDS,
                              preexec_fn=die_with_parent)
        if done.returncode != 0:
            raise RuntimeError(f"keystone-manage {arguments[0]}: {done.stderr[-2000:]!r}")

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.keystone + path, method=method,
                                         data=json.dumps(body).encode() if body else None)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("X-Auth-Token", self.token)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            text = answer.read()
            self.headers = answer.headers
            return json.loads(text) if text else None

    def make(self, kind, **members):
        return self.call("POST", f"/{kind}s", {kind: members})[kind]["id"]

    def start_keystone(self, port):
        folder = self.folder
        self.keystone = f"http://127.0.0.1:{port}/v3"
        for name in ("fernet", "credential", "policy.d"):
            (folder / name).mkdir(mode=0o700)
        for name in ("fernet", "credential"):  # what fernet_setup does, without its two seconds
            for number in ("0", "1"):
                (folder / name / number).write_bytes(
                    base64.urlsafe_b64encode(secrets.token_bytes(32)))
        (folder / "keystone.conf").write_text(KEYSTONE.format(folder=folder))
        with sqlite3.connect(folder / "keystone.sqlite") as database:
            database.execute("PRAGMA journal_mode=WAL")  # else it locks against itself
        self.manage("db_sync")
        self.manage("bootstrap", "--bootstrap-username", "admin", "--bootstrap-password", PASSWORD,
                    "--bootstrap-project-name", "admin", "--bootstrap-role-name", "admin",
                    "--bootstrap-service-name", "keystone", "--bootstrap-region-id", "RegionOne",
                    "--bootstrap-public-url", self.keystone, "--bootstrap-internal-url",
                    self.keystone)
        home = folder / "keystone"
        home.mkdir()
        self.daemon("keystone", port, home, OS_KEYSTONE_CONFIG_FILES=folder / "keystone.conf")
        self.wait_for(port)

    def fill_keystone(self, addresses):
        self.call("POST", "/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": "admin", "domain": {"id": "default"}, "password": PASSWORD}}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}})
        self.token = self.headers["X-Subject-Token"]
        projects = {name: self.make("project", name=name, domain_id="default")
                    for name in ("service", "demo", "other")}
        roles = {role["name"]: role["id"] for role in self.call("GET", "/roles")["roles"]}
        for name in ("creator", "audit"):
            roles[name] = self.make("role", name=name)
        users = {}
        for name, project, granted in (("barbican", "service", ["admin"]),
                                       ("glance", "service", ["admin"]),
                                       ("demo", "demo", ["member", "creator"]),
                                       ("audit", "demo", ["audit"]),
                                       ("eve", "other", ["member", "creator"])):
            password = SERVICE_PASSWORD if project == "service" else PASSWORD
            users[name] = self.make("user", name=name, domain_id="default", password=password)
            for role in granted:
                self.call("PUT", f"/projects/{projects[project]}/users/{users[name]}"
                                 f"/roles/{roles[role]}")
        for kind, url in addresses.items():
            self.make("endpoint", service_id=self.make("service", name=kind, type=kind),
                      interface="public", region_id="RegionOne", url=url)
        return {"projects": projects, "users": users}

    def start_barbican(self, name, port, filters):
        home = self.folder / name
        (home / ".barbican").mkdir(parents=True)
        (home / "policy.d").mkdir()
        kek = base64.b64encode(secrets.token_bytes(32)).decode()
        (home / ".barbican" / "barbican.conf").write_text(BARBICAN.format(
            folder=home, port=port, kek=kek, keystone=self.keystone, password=SERVICE_PASSWORD))
        (home / "paste.ini").write_text(PASTE.format(filters=filters))
        self.daemon("barbican", port, home, BARBICAN_PASTE=home / "paste.ini")

    def start_glance(self, name, port, flavor, formats):
        home = self.folder / name
        for part in ("conf", "images", "staging", "tasks", "lock", "policy.d"):
            (home / part).mkdir(parents=True)
        (home / "conf" / "glance-api.conf").write_text(GLANCE.format(
            folder=home, port=port, flavor=flavor, formats=formats, keystone=self.keystone,
            password=SERVICE_PASSWORD))
        (home / "conf" / "glance-api-paste.ini").write_text(GLANCE_PASTE)
        made = self.folder / "glance.sqlite"
        if not made.exists():
            with sqlite3.connect(home / "glance.sqlite") as database:
                database.execute("PRAGMA journal_mode=WAL")
            subprocess.run(
                [PYTHON, "-c", "import sys; sys.argv[0] = 'glance-manage'\n"
                 "from glance.cmd.manage import main; main()", "--config-file",
                 home / "conf" / "glance-api.conf", "db_sync"],
                check=True, capture_output=True, timeout=START_SECONDS, preexec_fn=die_with_parent)
            with sqlite3.connect(home / "glance.sqlite") as database:
                database.execute("VACUUM INTO ?", (str(made),))
        else:
            shutil.copy(made, home / "glance.sqlite")
        self.daemon("glance", port, home, OS_GLANCE_CONFIG_DIR=home / "conf")

    def start(self):
        self.folder.mkdir(parents=True)
        keystone, with_keystone, without, glance, open_glance = free_ports(5)
        barbican = f"http://127.0.0.1:{with_keystone}"
        images = f"http://127.0.0.1:{glance}"
        self.keystone = f"http://127.0.0.1:{keystone}/v3"
        self.start_barbican("barbican-open", without, "unauthenticated-context")
        self.start_keystone(keystone)
        state = self.fill_keystone({"key-manager": barbican, "image": images})
        self.start_barbican("barbican", with_keystone, "authtoken context")
        has_glance = subprocess.run([PYTHON, "-c", "import glance"], capture_output=True).returncode == 0
        if has_glance:
            self.start_glance("glance", glance, "keystone", GLANCE_FORMATS + ",luks,gpt")
            self.start_glance("glance-open", open_glance, "", GLANCE_FORMATS)
            self.wait_for(glance)
            self.wait_for(open_glance)
        self.wait_for(with_keystone)
        self.wait_for(without)
        return {**state, "glance": images if has_glance else "",
                "open_glance": f"http://127.0.0.1:{open_glance}" if has_glance else "", "keystone": self.keystone, "barbican": barbican,
                "open": f"http://127.0.0.1:{without}"}


# ---- for the tests -----------------------------------------------------------------------------


@contextlib.contextmanager
def services(folder):
    """The Cloud of a run of tests, started by whoever is first; `folder` is the same for all."""
    kit.need("keystone-manage")
    probe = subprocess.run([PYTHON, "-c", "import barbican, keystone, waitress"],
                           capture_output=True)
    if probe.returncode != 0:
        kit.without("python3-barbican or python3-keystone is not installed")
    with shared_peer.running(folder, [PYTHON, __file__, folder], START_SECONDS) as state:
        yield Cloud(state)


class Cloud:
    """Where the services are, and how to get in."""

    def __init__(self, state):
        self.keystone = state["keystone"]
        self.barbican = state["barbican"]
        self.open = state["open"]
        self.glance = state["glance"]  # empty: it is not installed
        self.open_glance = state["open_glance"]
        self.users = state["users"]
        self.projects = state["projects"]

    def credentials(self, user="demo", project="demo"):
        return {"OS_AUTH_URL": self.keystone, "OS_USERNAME": user, "OS_PASSWORD": PASSWORD,
                "OS_PROJECT_NAME": project, "OS_USER_DOMAIN_NAME": "Default",
                "OS_PROJECT_DOMAIN_NAME": "Default"}

    def call(self, method, url, body=None, token=None, headers=None):
        """(status, headers, JSON), by another implementation than ours."""
        request = urllib.request.Request(url, method=method, headers=headers or {},
                                         data=json.dumps(body).encode() if body else None)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("X-Auth-Token", token)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as answer:
                text = answer.read()
                return answer.status, answer.headers, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, error.headers, None

    def token(self, user="demo", project="demo"):
        status, headers, body = self.call("POST", f"{self.keystone}/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "domain": {"id": "default"}, "password": PASSWORD}}},
            "scope": {"project": {"name": project, "domain": {"id": "default"}}}}})
        assert status == 201
        return headers["X-Subject-Token"]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        shared_peer.keep(Keeper(Path(sys.argv[1])))
