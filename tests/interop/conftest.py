"""Shared fixtures, and the interop matrix: what ran against which peer, for the record."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "uml"))

import kit  # noqa: E402
import qemu10  # noqa: E402

FAILED = pytest.StashKey()


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    """Every test works in an empty folder: some peers leave files where they stand."""
    monkeypatch.chdir(tmp_path)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test that passed has in its folder goes: all of it together is 16 GB of memory."""
    outcome = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or outcome.get_result().failed
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if call.when == "teardown" and folder is not None and not item.stash[FAILED]:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def no_services_named(monkeypatch):
    """In the environment; a test names those that it talks to."""
    for name in list(os.environ):
        if name.startswith(("OS_", "VAULT_", "LUKSKEEP_")) and name != "LUKSKEEP_KERNEL":
            monkeypatch.delenv(name)


@pytest.fixture
def keys(tmp_path):
    """Two passphrases as key files; bytes that a terminal would not pass, but for the first."""
    return (kit.write(tmp_path / "key-1", b"first passphrase"),
            kit.write(tmp_path / "key-2", b"\x00second\n\xff" + bytes(range(256))))


@pytest.fixture(params=["installed", "10"])
def either_qemu(request, monkeypatch):
    """qemu-img and qemu-io as Debian 12 has them, and those of QEMU 10."""
    if request.param == "installed":
        return
    try:
        folder = qemu10.fetch()
    except qemu10.Unavailable as error:
        pytest.skip(f"no QEMU 10: {error}")
    monkeypatch.setenv("PATH", f"{folder}/usr/bin:{os.environ['PATH']}")


def shared_folder(config):
    """One for all workers of a run."""
    base = config._tmp_path_factory.getbasetemp()
    return base.parent if hasattr(config, "workerinput") else base


@pytest.fixture(scope="session")
def guest_folder(request):
    folder = shared_folder(request.config) / "guest"
    deadline = time.monotonic() + 60
    while not folder.with_suffix(".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return folder


def pytest_collection_modifyitems(items):
    """What needs the guest comes last: it works beside the others until then."""
    items.sort(key=lambda item: "guest" in item.fixturenames)


def pytest_collection_finish(session):
    """The first worker starts the guest, if a test wants it."""
    if hasattr(session.config, "workerinput"):
        first = session.config.workerinput["workerid"] == "gw0"
    else:
        first = not session.config.getoption("numprocesses", None)
    wanted = any("guest" in getattr(item, "fixturenames", ()) for item in session.items)
    if not first or not wanted or session.config.option.collectonly:
        return
    folder = shared_folder(session.config) / "guest"
    with open(folder.with_suffix(".new"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        session.config.guest = subprocess.Popen(
            [sys.executable, kit.ROOT / "tests" / "interop" / "dm_crypt_cases.py", folder],
            pass_fds=[lock.fileno()], stdin=subprocess.DEVNULL)
        folder.with_suffix(".new").rename(folder.with_suffix(".lock"))


def pytest_unconfigure(config):
    """Nobody waits for a guest when the run was stopped."""
    guest = getattr(config, "guest", None)
    if guest and guest.poll() is None:
        guest.terminate()
        guest.wait()


class Matrix:
    """Gathers outcomes in the process that hands out the tests, and writes them when all is done."""

    def __init__(self):
        self.rows = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.rows[report.nodeid] = "ok" if report.outcome == "passed" else report.outcome

    def pytest_sessionfinish(self, session):
        if not self.rows or not (kit.ROOT / "build").is_dir():
            return
        path = kit.ROOT / "build" / "interop-matrix.md"
        path.write_text(self.text())

    def text(self):
        groups = {}
        for nodeid, outcome in sorted(self.rows.items()):
            function, _, case = nodeid.partition("[")
            groups.setdefault(function, []).append((case.rstrip("]") or "-", outcome))
        lines = ["# What was run against the other implementations", ""]
        for function, cases in groups.items():
            good = sum(outcome == "ok" for _, outcome in cases)
            name = re.sub(r"^.*/", "", function)
            lines += [f"## {name}: {good} of {len(cases)}", ""]
            lines += [f"- {case}: {outcome}" for case, outcome in cases] + [""]
        return "\n".join(lines)


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Matrix(), "interop-matrix")
