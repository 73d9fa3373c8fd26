"""What is checked in holds no secrets and no path of the machine it was written on."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Spelt in pieces, so that this file does not find itself.
MACHINE_PATHS = re.compile("|".join((
    r"/" + r"work/(main|shared|steering)", r"\.\./" + r"shared\b", r"/" + r"home/\w",
    r"/" + r"tmp/brief", r"/" + r"root/\w", r"/" + r"bash_jobs")))
SECRETS = re.compile("|".join((
    r"-----BEGIN (RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE" + r" KEY-----",
    r"\bAKIA" + r"[0-9A-Z]{16}\b", r"\bghp_" + r"[0-9A-Za-z]{36}\b",
    r"\bxox[abp]-" + r"[0-9A-Za-z-]{20,}")))


def files():
    """Tracked files and new ones that git does not ignore; all but build/ without git."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT,
                                 capture_output=True, check=True)
        names = [name for name in listing.stdout.decode().split("\0") if name]
    except (FileNotFoundError, subprocess.CalledProcessError):
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")
                 if p.is_file() and p.relative_to(ROOT).parts[0] not in ("build", ".git")]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def findings(pattern):
    found = []
    for path in files():
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def test_there_are_files_to_look_at():
    assert len(files()) > 50


def test_no_path_of_one_machine():
    assert findings(MACHINE_PATHS) == []


def test_no_secret():
    assert findings(SECRETS) == []


def test_no_large_or_built_file():
    """Test images are made by programs; nothing compiled is checked in."""
    large = [str(p.relative_to(ROOT)) for p in files() if p.stat().st_size > 1 << 20]
    built = [str(p.relative_to(ROOT)) for p in files() if p.read_bytes()[:4] == b"\x7fELF"]
    assert large == [] and built == []


def test_scripts_are_executable_and_parse():
    for path in files():
        first = path.read_bytes()[:32]
        if path.suffix == ".py" or not first.startswith(b"#!"):
            continue
        assert path.stat().st_mode & 0o111, f"{path} is not executable"
        if b"bash" in first or b"/sh" in first:
            subprocess.run(["bash", "-n", path], check=True)
