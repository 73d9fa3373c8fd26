"""Shared fixtures, and the interop matrix: what ran against which peer, for the record."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "uml"))

import kit  # noqa: E402


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    """Every test works in an empty folder: some peers leave files where they stand."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def keys(tmp_path):
    """Two passphrases as key files; bytes that a terminal would not pass, but for the first."""
    return (kit.write(tmp_path / "key-1", b"first passphrase"),
            kit.write(tmp_path / "key-2", b"\x00second\n\xff" + bytes(range(256))))


def pytest_collection_modifyitems(items):
    # The long ones first, so that the workers end together.
    items.sort(key=lambda item: "dm_crypt" not in item.nodeid)


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
