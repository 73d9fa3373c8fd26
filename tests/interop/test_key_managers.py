"""Barbican with Keystone, a stand-in for Vault, and castellan's own objects, both directions."""

import json
import os
import subprocess
import time
from types import SimpleNamespace

import pytest

import fake_vault
import kit
import openstack
from conftest import shared_folder
from kit import lukskeep

pytestmark = pytest.mark.usefixtures("no_services_named")

TEXTS = [b"correct horse", b"  blanks \n", b"quote \" back \\ tab \t", "schl\u00fcssel".encode(),
         b"\x00\xff\x80 bytes", b"x" * 14000, b"\xc2\xa0nbsp\xc2\xa0", b"0"]


@pytest.fixture(scope="session")
def cloud(request):
    with openstack.services(shared_folder(request.config) / "openstack") as found:
        yield found


@pytest.fixture
def vault():
    with fake_vault.running() as found:
        yield found


def manager(uri, credentials=None):
    """ks(command, *arguments) on one key manager; the credentials are in a file, as they should be."""
    env = {"LUKSKEEP_KEY_MANAGER": uri, "LUKSKEEP_CREDENTIALS": os.path.abspath("credentials")}
    lines = [f"export {name}='{value}'" if "'" not in value else
             f'{name}="{value}"' for name, value in (credentials or {}).items()]
    kit.write("credentials", "\n".join(lines).encode())
    os.chmod("credentials", 0o600)

    def ks(*arguments, **options):
        return lukskeep("keystore", *arguments, env=env, **options).stdout

    ks.env = env
    return ks


def barbican(cloud, user="demo", project="demo"):
    # A password with every quote has no place in a line of a shell: the environment takes it.
    ks = manager("barbican:")
    os.remove("credentials")
    del ks.env["LUKSKEEP_CREDENTIALS"]
    ks.env.update(cloud.credentials(user, project))
    return ks


def put(ks, secret, *options):
    return ks("store", *options, stdin=secret).decode().strip()


def shown(ks, name):
    return json.loads(ks("show", name, "--json"))


# ---- what every kind does alike ------------------------------------------------------------------


def make_manager(request, kind):
    if kind == "file":
        kit.write("w", b"w" * 32)
        ks = manager("file:" + os.path.abspath("keystore"))
        ks("init", "--wrapping-key", "file:w")
        return ks
    if kind in ("barbican", "open"):
        cloud = request.getfixturevalue("cloud")
        return barbican(cloud) if kind == "barbican" else manager(
            f"barbican:{cloud.open}?project=interop")
    vault = request.getfixturevalue("vault")
    if kind == "approle":
        return manager(f"vault:{vault.url}/secret", {"VAULT_ROLE_ID": fake_vault.ROLE,
                                                     "VAULT_SECRET_ID": fake_vault.SECRET})
    return manager(f"vault:{vault.url}/{'kv1?kv=1' if kind == 'vault-1' else 'secret'}",
                   {"VAULT_TOKEN": "root"})


@pytest.fixture(params=["file", "barbican", "open", "vault-1", "vault-2", "approle"])
def any_manager(request):
    return make_manager(request, request.param)


@pytest.fixture(params=["file", "open", "vault-1", "vault-2"])
def quick_manager(request):
    """Without logging in each time, which takes a second of Keystone."""
    return make_manager(request, request.param)


def test_whole_life_of_a_secret(any_manager):
    ks = any_manager
    tag = f"life-{time.monotonic_ns()}"
    name = put(ks, b"s3cret", "--name", tag, "--metadata", "luks-uuid=u,role=root")
    assert ks("get", name) == b"s3cret"
    one = shown(ks, name)
    assert (one["name"], one["type"], one["content_type"]) == (tag, "passphrase", "text/plain")
    assert one["metadata"] == {"luks-uuid": "u", "role": "root"} and one["consumers"] == []
    assert [each["id"] for each in json.loads(ks("list", "--name", tag, "--json"))["secrets"]] == [name]
    ks("metadata", name, "role=", "lukskeep-encoding=plain")
    assert shown(ks, name)["metadata"] == {"luks-uuid": "u", "lukskeep-encoding": "plain"}
    for consumer in ("image/image/i-1", "volume/volumes/v-1", "volume/volumes/v-1"):
        ks("consumers", name, "--add", consumer)
    assert len(shown(ks, name)["consumers"]) == 2
    done = lukskeep("keystore", "delete", name, env=ks.env, status=6)
    assert b"image/image/i-1" in done.stderr and ks("get", name) == b"s3cret"
    for consumer in ("image/image/i-1", "volume/volumes/v-1", "volume/volumes/none"):
        ks("consumers", name, "--remove", consumer)
    ks("delete", name)
    for command in ("get", "show", "delete", "consumers", "metadata"):
        lukskeep("keystore", command, name, env=ks.env, status=1)
    assert json.loads(ks("list", "--name", tag, "--json"))["secrets"] == []


@pytest.mark.parametrize("kind", ["passphrase", "symmetric", "opaque", "private", "public",
                                  "certificate"])
def test_every_type_keeps_every_byte(quick_manager, kind):
    ks = quick_manager
    for secret in TEXTS if kind == "passphrase" else TEXTS[4:6]:
        name = put(ks, secret, "--type", kind)
        assert ks("get", name) == secret
        assert shown(ks, name)["type"] == kind
        ks("delete", name)


def test_generated_keys_and_volumes(quick_manager):
    ks = quick_manager
    name = put(ks, b"", "--generate", "256", "--name", "gen", "--mode", "xts")
    key = ks("get", name)
    one = shown(ks, name)
    assert len(key) == 32 and (one["type"], one["bit_length"]) == ("symmetric", 256)
    lukskeep("create", "v", "--size", "64K", "--key", f"manager:{name}", *kit.CHEAP["pbkdf2"],
             env=ks.env)
    kit.write("hex", key.hex().encode())
    lukskeep("key", "test", "v", "--key", "file:hex")
    lukskeep("key", "test", "v", "--key", f"manager:{name}", env=ks.env)
    ks("delete", name)


def test_copies_between_managers(quick_manager):
    ks = quick_manager
    kit.write("w2", b"w" * 32)
    other = f"file:{os.path.abspath('second')}"
    lukskeep("keystore", "init", "--wrapping-key", "file:w2", env={"LUKSKEEP_KEY_MANAGER": other})
    name = put(ks, b"\x00bytes", "--type", "symmetric", "--name", "n", "--metadata", "a=b")
    there = json.loads(ks("copy", other, name, "--json"))["copied"][0]["to"]
    back = json.loads(lukskeep("keystore", "copy", ks.env["LUKSKEEP_KEY_MANAGER"], there, "--json",
                               env={**ks.env, "LUKSKEEP_KEY_MANAGER": other}).stdout)
    again = back["copied"][0]["to"]
    assert again != name and ks("get", again) == b"\x00bytes"
    assert shown(ks, again)["metadata"] == {"a": "b"}
    ks("delete", name)
    ks("delete", again)


# ---- Barbican and Keystone -----------------------------------------------------------------------


def test_ways_into_keystone(cloud):
    name = put(barbican(cloud), b"s")
    token = cloud.token()
    assert manager("barbican:", {"OS_AUTH_URL": cloud.keystone, "OS_TOKEN": token})(
        "get", name) == b"s"
    assert manager(f"barbican:{cloud.barbican}", {"OS_AUTH_URL": cloud.keystone, "OS_TOKEN": token})(
        "get", f"{cloud.barbican}/v1/secrets/{name}") == b"s"
    status, _, made = cloud.call(
        "POST", f"{cloud.keystone}/users/{cloud.users['demo']}/application_credentials",
        {"application_credential": {"name": f"ac-{name}", "secret": "app secret"}}, token)
    assert status == 201
    for credentials in (
            {"OS_APPLICATION_CREDENTIAL_ID": made["application_credential"]["id"]},
            {"OS_APPLICATION_CREDENTIAL_NAME": f"ac-{name}", "OS_USERNAME": "demo"}):
        ks = manager("barbican:", {"OS_AUTH_URL": cloud.keystone, **credentials,
                                   "OS_APPLICATION_CREDENTIAL_SECRET": "app secret"})
        assert ks("get", name) == b"s"


@pytest.mark.parametrize("change, status, message", [
    ({"OS_PASSWORD": "wrong"}, 2, b"does not accept the credentials"),
    ({"OS_PROJECT_NAME": "none"}, 2, b"does not accept the credentials"),
    ({"OS_PASSWORD": ""}, 1, b"have no OS_PASSWORD"),
    ({"OS_INTERFACE": "internal"}, 1, b"no internal key-manager service"),
    ({"OS_REGION_NAME": "elsewhere"}, 1, b"in region 'elsewhere'"),
    ({"OS_AUTH_URL": ""}, 1, b"have no OS_AUTH_URL"),
], ids=str)
def test_what_is_wrong_with_credentials(cloud, change, status, message):
    ks = barbican(cloud)
    done = lukskeep("keystore", "list", env={**ks.env, **change}, status=status)
    assert message in done.stderr
    assert openstack.PASSWORD.encode() not in done.stderr


def test_who_may_read(cloud):
    ks = barbican(cloud)
    name = put(ks, b"s")
    eve = {**ks.env, **cloud.credentials("eve", "other")}
    done = lukskeep("keystore", "get", name, env=eve, status=2)
    assert b"does not allow access" in done.stderr and b"403" in done.stderr
    ks("access", name, "--users", cloud.users["eve"])
    assert json.loads(ks("access", name, "--json"))["users"] == [cloud.users["eve"]]
    assert lukskeep("keystore", "get", name, env=eve).stdout == b"s"
    lukskeep("keystore", "delete", name, env=eve, status=2)
    ks("access", name, "--users", "", "--private")
    assert json.loads(ks("access", name, "--json")) == {"id": name, "project": False, "users": []}
    lukskeep("keystore", "get", name, env={**ks.env, **cloud.credentials("audit")}, status=2)


def test_token_that_is_revoked(cloud):
    token = cloud.token()
    ks = manager("barbican:", {"OS_AUTH_URL": cloud.keystone, "OS_TOKEN": token})
    cloud.call("DELETE", f"{cloud.keystone}/auth/tokens", token=token,
               headers={"X-Subject-Token": token})
    done = lukskeep("keystore", "list", env=ks.env, status=2)
    assert b"expired" in done.stderr


def test_what_barbican_refuses_leaves_nothing(cloud):
    ks = manager(f"barbican:{cloud.open}?project=refusals")
    done = lukskeep("keystore", "store", env=ks.env, stdin=b"x" * 20001, status=1)
    assert b"too large" in done.stderr
    done = lukskeep("keystore", "store", "--expires", "2020-01-01T00:00:00Z", env=ks.env, stdin=b"x",
                    status=1)
    assert b"does not take" in done.stderr
    assert json.loads(ks("list", "--json"))["secrets"] == []
    for name in ("x", "../orders", "11111111-2222-3333-4444-55555555555"):
        done = lukskeep("keystore", "get", name, env=ks.env, status=1)
        assert b"no ID of a secret" in done.stderr


def test_secret_without_a_payload(cloud):
    ks = manager(f"barbican:{cloud.open}?project=empty")
    status, _, made = cloud.call("POST", f"{cloud.open}/v1/secrets", {"name": "two-step"},
                                 headers={"X-Project-Id": "empty"})
    assert status == 201
    name = made["secret_ref"].rpartition("/")[2]
    done = lukskeep("keystore", "get", name, env=ks.env, status=1)
    assert b"has no payload" in done.stderr
    ks("delete", name)


def test_more_than_a_page(cloud):
    ks = manager(f"barbican:{cloud.open}?project=pages")
    headers = {"X-Project-Id": "pages"}
    for number in range(105):
        assert cloud.call("POST", f"{cloud.open}/v1/secrets", {"name": f"n{number}"},
                          headers=headers)[0] == 201
    listed = json.loads(ks("list", "--json"))["secrets"]
    assert sorted(one["name"] for one in listed) == sorted(f"n{number}" for number in range(105))
    name = listed[0]["id"]
    for number in range(12):  # more than Barbican gives unasked
        assert cloud.call("POST", f"{cloud.open}/v1/secrets/{name}/consumers",
                          {"service": "s", "resource_type": "t", "resource_id": f"r{number}"},
                          headers=headers)[0] == 200
    assert len(shown(ks, name)["consumers"]) == 12


def test_openstack_command_line(cloud):
    kit.need("openstack")
    ks = barbican(cloud)
    env = cloud.credentials() | {"OS_IDENTITY_API_VERSION": "3"}
    stored = json.loads(kit.run(["openstack", "secret", "store", "--name", "cli", "--secret-type",
                                 "passphrase", "--payload", "typed by hand", "-f", "json"],
                                env=env).stdout)
    name = stored["Secret href"].rpartition("/")[2]
    assert ks("get", name) == b"typed by hand"
    assert shown(ks, name)["algorithm"] == "aes"  # which the client says of everything
    mine = put(ks, b"ours", "--name", "ours")
    got = kit.run(["openstack", "secret", "get", "--payload", "-f", "value",
                   f"{cloud.barbican}/v1/secrets/{mine}"], env=env).stdout
    assert got.strip() == b"ours"


# ---- castellan -----------------------------------------------------------------------------------


def castellan_manager(backend, **options):
    try:
        from castellan import key_manager
        from castellan import options as castellan_options
        from oslo_config import cfg
    except ImportError:
        kit.without("python3-castellan is not installed")
    configuration = cfg.ConfigOpts()
    configuration([], project="lukskeep", default_config_files=[])
    castellan_options.set_defaults(configuration, backend=backend, **options)
    return configuration, key_manager


@pytest.fixture(params=["barbican", "vault-1", "vault-2"])
def castellan(request):
    """The same place seen by castellan and by us."""
    if request.param == "barbican":
        cloud = request.getfixturevalue("cloud")
        configuration, key_manager = castellan_manager(
            "barbican", barbican_endpoint=cloud.barbican, auth_endpoint=cloud.keystone)
        from castellan.common.credentials import keystone_password
        context = keystone_password.KeystonePassword(
            openstack.PASSWORD, auth_url=cloud.keystone, username="demo", project_name="demo",
            user_domain_name="Default", project_domain_name="Default")
        return SimpleNamespace(api=key_manager.API(configuration), context=context,
                               ks=barbican(cloud))
    vault = request.getfixturevalue("vault")
    version = int(request.param[-1])
    mount = "kv1" if version == 1 else "secret"
    configuration, key_manager = castellan_manager(
        "vault", vault_url=vault.url, vault_root_token_id="root", vault_kv_mountpoint=mount,
        vault_kv_version=version)
    return SimpleNamespace(api=key_manager.API(configuration), context=None,
                           ks=manager(f"vault:{vault.url}/{mount}?kv={version}",
                                      {"VAULT_TOKEN": "root"}))


def test_what_castellan_stored(castellan):
    from castellan.common.objects import opaque_data, passphrase, symmetric_key
    api, context, ks = castellan.api, castellan.context, castellan.ks
    cases = {
        api.store(context, passphrase.Passphrase(b"castellan pass" if context is None else
                                                 "castellan pass", name="p")):
            ("passphrase", b"castellan pass", b"castellan pass"),
        api.store(context, symmetric_key.SymmetricKey("AES", 256, bytes(range(32)), name="k")):
            ("symmetric", bytes(range(32)), bytes(range(32)).hex().encode()),
        api.store(context, opaque_data.OpaqueData(b"\x00\x01opaque", name="o")):
            ("opaque", b"\x00\x01opaque", None),
    }
    for name, (kind, payload, used) in cases.items():
        assert ks("get", name) == payload
        assert shown(ks, name)["type"] == kind
        if used is None:
            continue
        kit.write("k", used)
        lukskeep("create", f"v-{kind}", "--size", "64K", "--key", "file:k", *kit.CHEAP["pbkdf2"])
        done = lukskeep("key", "test", f"v-{kind}", "--key", f"manager:{name}", env=ks.env)
        assert done.stderr == b""
    made = api.create_key(context, algorithm="AES", length=256)
    assert len(ks("get", made)) == 32


def test_what_castellan_reads(castellan):
    from castellan.common.objects import opaque_data, passphrase, symmetric_key
    api, context, ks = castellan.api, castellan.context, castellan.ks
    name = put(ks, b"\x01" * 32, "--type", "symmetric", "--algorithm", "AES", "--bits", "256",
               "--name", "ours", "--metadata", "a=b", "--consumer", "image/image/i")
    key = api.get(context, name)
    assert isinstance(key, symmetric_key.SymmetricKey)
    assert (key.get_encoded(), key.algorithm, key.bit_length, key.name) == (
        b"\x01" * 32, "AES", 256, "ours")
    words = api.get(context, put(ks, b"pass words", "--type", "passphrase"))
    assert isinstance(words, passphrase.Passphrase)
    assert words.get_encoded() in (b"pass words", "pass words")
    data = api.get(context, put(ks, b"\x00\xff", "--type", "opaque"))
    assert isinstance(data, opaque_data.OpaqueData) and data.get_encoded() == b"\x00\xff"
    ks("delete", name, "--used-too", "--yes")
    with pytest.raises(Exception, match="(?i)not found"):
        api.get(context, name)


# ---- Vault ---------------------------------------------------------------------------------------


def test_role_logs_in_again(vault):
    ks = manager(f"vault:{vault.url}/secret", {"VAULT_ROLE_ID": fake_vault.ROLE,
                                               "VAULT_SECRET_ID": fake_vault.SECRET,
                                               "VAULT_NAMESPACE": "team"})
    name = put(ks, b"s")
    assert vault.requests[-1][2]["X-Vault-Namespace"] == "team"
    before = vault.logins
    # The token dies between reading the record and writing it.
    vault.before_write = vault.tokens.clear
    ks("metadata", name, "a=b")
    assert vault.logins == before + 2
    assert shown(ks, name)["metadata"] == {"a": "b"}
    bad = manager(f"vault:{vault.url}/secret", {"VAULT_ROLE_ID": "x", "VAULT_SECRET_ID": "y"})
    done = lukskeep("keystore", "list", env=bad.env, status=1)
    assert b"invalid role or secret ID" in done.stderr
    done = lukskeep("keystore", "list", status=2, env=manager(
        f"vault:{vault.url}/secret", {"VAULT_TOKEN": "expired"}).env)
    assert b"permission denied" in done.stderr


def test_two_change_a_record_at_once(vault):
    ks = manager(f"vault:{vault.url}/secret", {"VAULT_TOKEN": "root"})
    name = put(ks, b"s")

    def other():
        record = dict(vault.two[name][-1])
        record["consumers"] = [{"service": "a", "resource_type": "b", "resource_id": "theirs"}]
        vault.two[name].append(record)

    vault.before_write = other
    ks("consumers", name, "--add", "a/b/ours")
    assert {one["resource_id"] for one in shown(ks, name)["consumers"]} == {"ours", "theirs"}


def test_a_secret_whose_answer_was_lost_is_stored_once(vault):
    """What the first try wrote is what the second one meets: no secret of somebody else."""
    ks = manager(f"vault:{vault.url}/secret", {"VAULT_TOKEN": "root"})
    vault.lose_answer = True
    name = put(ks, b"s", "--name", "n")
    assert not vault.lose_answer and list(vault.two) == [name]
    assert len(vault.two[name]) == 1 and ks("get", name) == b"s"


def test_deletion_leaves_no_old_version(vault):
    ks = manager(f"vault:{vault.url}/secret", {"VAULT_TOKEN": "root"})
    name = put(ks, b"s")
    ks("metadata", name, "a=b")
    ks("delete", name)
    assert vault.two == {}


@pytest.mark.parametrize("version", [1, 2])
def test_vaultlockers_keys(vault, version):
    """vaultlocker: base64 of 512 random bytes, which is the passphrase as it is."""
    uuid = "5c2d4a3e-0000-4000-8000-123456789abc"
    text = kit.bytes_of(7, 512)
    import base64
    words = base64.b64encode(text)
    record = {"dmcrypt_key": words.decode()}
    store, mount = (vault.one, "kv1") if version == 1 else (vault.two, "secret")
    store[f"node-1/{uuid}"] = record if version == 1 else [record]
    ks = manager(f"vault:{vault.url}/{mount}?kv={version}&layout=vaultlocker",
                 {"VAULT_TOKEN": "root"})
    kit.write("k", words)
    lukskeep("create", "v", "--size", "64K", "--key", "file:k", *kit.CHEAP["pbkdf2"])
    lukskeep("key", "test", "v", "--key", f"manager:node-1/{uuid}", env=ks.env)
    ks("consumers", f"node-1/{uuid}", "--add", "host/device/sdb")
    now = store[f"node-1/{uuid}"] if version == 1 else store[f"node-1/{uuid}"][-1]
    assert now["dmcrypt_key"] == words.decode()
    mine = put(ks, words, "--name", f"node-2/{uuid}")
    assert mine == f"node-2/{uuid}"
    assert {one["id"] for one in json.loads(ks("list", "--json"))["secrets"]} == {
        f"node-1/{uuid}", f"node-2/{uuid}"}
    if version == 2:
        # Nobody's key is overwritten.
        lukskeep("keystore", "store", "--name", f"node-2/{uuid}", stdin=b"x", env=ks.env, status=5)
    assert ks("get", mine) == words
