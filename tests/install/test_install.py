"""What `make install` and `make package` put where, and that programs can be built on it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
EXAMPLE = ROOT / "docs" / "example"
CHEAP = ("--pbkdf", "pbkdf2", "--pbkdf-iterations", "1000")


def run(*argv, status=0, env=None, **options):
    done = subprocess.run([str(word) for word in argv], capture_output=True, timeout=300,
                          env={**os.environ, **(env or {})}, **options)
    assert done.returncode == status, f"{argv} ended with {done.returncode}\n{done.stderr.decode()}"
    return done.stdout


@pytest.fixture(scope="session")
def prefix(tmp_path_factory):
    """An installed tree that was moved afterwards: nothing in it may depend on its place."""
    base = tmp_path_factory.mktemp("install")
    run("cmake", "--install", BUILD, "--prefix", base / "first")
    (base / "first").rename(base / "moved here")
    return base / "moved here"


def libdir(prefix):
    return next(prefix.rglob("liblukskeep.so")).parent


@pytest.fixture
def volume(prefix, tmp_path):
    """A volume made by the installed program, and what is in it."""
    plain = tmp_path / "plain"
    plain.write_bytes(os.urandom(300 * 512))
    key = tmp_path / "key"
    key.write_bytes(b"passphrase\n\0")
    run(prefix / "bin" / "lukskeep", "encrypt", plain, tmp_path / "volume", "--key", f"file:{key}",
        "--sector-size", "512", *CHEAP)
    return tmp_path / "volume", key, plain


def test_everything_is_there(prefix):
    names = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}
    lib = libdir(prefix).relative_to(prefix)
    expected = {"bin/lukskeep", f"{lib}/liblukskeep.so", f"{lib}/liblukskeep.so.0",
                f"{lib}/pkgconfig/lukskeep.pc", f"{lib}/cmake/lukskeep/lukskeep-config.cmake",
                f"{lib}/cmake/lukskeep/lukskeep-config-version.cmake",
                f"{lib}/cmake/lukskeep/lukskeep-targets.cmake", "share/man/man1/lukskeep.1",
                "share/bash-completion/completions/lukskeep", "share/doc/lukskeep/LICENSE",
                "share/doc/lukskeep/juju.md", "share/lukskeep/juju/actions.yaml",
                "share/lukskeep/kubernetes/tang-rekey.yaml"}
    expected |= {f"{lib}/nbdkit/plugins/nbdkit-lukskeep-plugin.so",
                 "share/man/man1/nbdkit-lukskeep-plugin.1"}
    expected |= {f"share/lukskeep/juju/actions/{path.name}"
                 for path in (ROOT / "packaging/juju/actions").iterdir() if path.is_file()}
    expected |= {f"include/lukskeep/{path.name}" for path in (ROOT / "include/lukskeep").iterdir()}
    assert expected <= names, expected - names
    # One manual page for each command that the program lists.
    pages = {name for name in names if re.fullmatch(r"share/man/man1/lukskeep-[\w-]+\.1", name)}
    assert len(pages) >= 8


def test_the_juju_actions_run_where_they_are(prefix, tmp_path):
    """Links into their own folder, with nothing between them and Juju's tools."""
    for name in ("backup", "restore", "list"):
        action = prefix / "share/lukskeep/juju/actions" / f"luks-header-{name}"
        assert action.is_symlink() and not os.path.isabs(os.readlink(action))
        for tool, text in (("get", "echo '{}'"), ("set", ":"), ("fail", f"echo \"$1\" > {tmp_path}/failed")):
            path = tmp_path / f"action-{tool}"
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        run(action, env={"PATH": f"{tmp_path}:{prefix}/bin:{os.environ['PATH']}",
                         "LUKSKEEP_JUJU_ROOT": str(tmp_path), "LUKSKEEP_ARCHIVE": str(tmp_path / "a")})
        if name != "list":
            assert (tmp_path / "failed").exists()
    assert not list((prefix / "share/lukskeep/juju").rglob("__pycache__"))


def test_the_drop_in_programs_run_where_they_are(prefix):
    """Links into the tree, in a folder that nobody has in PATH by itself."""
    folder = prefix / "libexec" / "lukskeep" / "compat"
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in (BUILD / "compat").iterdir()}
    assert {"clevis", "clevis-luks-bind", "tangd", "tangd-keygen", "tang-show-keys"} <= names
    for path in folder.iterdir():
        assert path.is_symlink() and path.resolve() == (prefix / "bin" / "lukskeep").resolve()
    sealed = run(folder / "clevis", "encrypt", "null", "{}", input=b"secret")
    assert run(folder / "clevis-decrypt", input=sealed) == b"secret"
    assert (prefix / "share/man/man7/lukskeep-compat.7").exists()


def test_nothing_points_back_to_the_build(prefix):
    for path in prefix.rglob("*"):
        if path.is_file() and path.suffix in (".pc", ".cmake", ".h", ".1"):
            assert str(ROOT) not in path.read_text(), path
    for binary in (prefix / "bin" / "lukskeep", libdir(prefix) / "liblukskeep.so"):
        dynamic = run("readelf", "-d", binary).decode()
        assert "RPATH" not in dynamic and "RUNPATH" not in dynamic
        assert "BIND_NOW" in dynamic or "NOW" in dynamic


def test_the_library_exports_its_public_names_only(prefix):
    library = libdir(prefix) / "liblukskeep.so"
    assert b"Library soname: [liblukskeep.so.0]" in run("readelf", "-d", library)
    symbols = run("nm", "-DC", "--defined-only", library).decode().splitlines()
    names = [line.split(" ", 2)[2] for line in symbols]
    assert any(name.startswith("lukskeep::Volume::open(") for name in names)
    others = [name for name in names
              if not re.match(r"(typeinfo (name )?for |vtable for )?lukskeep::", name)]
    assert others == []
    # What is not marked LUKSKEEP_API stays inside.
    assert [name for name in names if re.search(r"lukskeep::(crypto|storage|cli|keys)::", name)] == []


def check_peek(peek, prefix, volume, tmp_path):
    path, key, plain = volume
    env = {"LD_LIBRARY_PATH": str(libdir(prefix))}
    assert run(peek, path, key, env=env) == plain.read_bytes()
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"not it")
    assert run(peek, path, wrong, env=env, status=2) == b""
    run(peek, plain, key, env=env, status=4)


def test_the_example_builds_with_pkg_config(prefix, volume, tmp_path):
    env = {"PKG_CONFIG_PATH": str(libdir(prefix) / "pkgconfig")}
    # The prefix has a space in it, which pkg-config escapes and the shell reads.
    flags = run("pkg-config", "--cflags", "--libs", "lukskeep", env=env).decode().strip()
    assert run("pkg-config", "--modversion", "lukskeep", env=env).strip()
    peek = tmp_path / "peek"
    run("sh", "-c", f"c++ -std=c++20 -Wall -Wextra -Werror '{EXAMPLE}/peek.cpp' -o '{peek}' {flags}")
    check_peek(peek, prefix, volume, tmp_path)


def test_the_example_builds_with_cmake(prefix, volume, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "example")
    run("cmake", "-S", tmp_path / "example", "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")
    check_peek(tmp_path / "build" / "peek", prefix, volume, tmp_path)


def test_every_public_header_compiles_alone(prefix, tmp_path):
    for header in sorted((prefix / "include" / "lukskeep").iterdir()):
        run("c++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++",
            "-I", prefix / "include", "-include", header, os.devnull)


def test_staged_installation(tmp_path):
    """DESTDIR, as packagers use it."""
    run("cmake", "--install", BUILD, "--prefix", "/opt/keep", env={"DESTDIR": str(tmp_path)})
    assert (tmp_path / "opt" / "keep" / "bin" / "lukskeep").exists()


def test_manual_pages_and_completion_are_well_formed(prefix):
    for page in sorted((prefix / "share" / "man").glob("man*/*")):
        text = run("man", "--warnings=w", "-l", page, env={"MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""})
        assert b"NAME" in text and b"SYNOPSIS" in text, page
    run("bash", "-n", prefix / "share" / "bash-completion" / "completions" / "lukskeep")


def test_the_debian_package(tmp_path):
    run("cpack", "-G", "DEB", "--config", BUILD / "CPackConfig.cmake", "-B", tmp_path / "package")
    packages = list((tmp_path / "package").glob("*.deb"))
    assert len(packages) == 1
    fields = run("dpkg-deb", "--field", packages[0]).decode()
    assert re.search(r"^Package: lukskeep$", fields, re.M)
    # Found by looking at what the binaries link.
    depends = re.search(r"^Depends: (.*)$", fields, re.M).group(1)
    for library in ("libc6", "libssl3", "libgcrypt20", "libargon2-1", "libfmt9"):
        assert library in depends
    run("dpkg-deb", "-x", packages[0], tmp_path / "root")
    program = tmp_path / "root" / "usr" / "bin" / "lukskeep"
    assert run(program, "--version")
    assert (tmp_path / "root/usr/libexec/lukskeep/compat/clevis").resolve() == program.resolve()
    owners = run("dpkg-deb", "-c", packages[0]).decode().splitlines()
    assert all(" root/root " in line for line in owners)
