#!/usr/bin/python3
"""Checks the shape of the source tree: who may include whom, sizes, and what libraries never do.

    tests/layers/check_layers.py [ROOT]

Prints one line for each violation, `path:line: what`, and exits 1 if there was one.
"""

import re
import subprocess
import sys
from pathlib import Path

# The rows of the house. A folder may include its own files and those of rows above, less what
# NEVER lists; folders of one row do not know each other.
ROWS = (
    ("base",),
    ("crypto", "storage", "net"),
    ("luks", "keys"),
    ("nbde", "archive", "image"),
    ("vm", "server"),
    ("cli",),
)
NEVER = {"luks": {"net"}}

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
# Only the outermost rows talk to people; only cli decides how the process ends.
MAY_PRINT = {"cli", "server"}
MAY_EXIT = {"cli", "server"}

PRINTS = re.compile(r"\bstd::(cout|cerr|clog|print|println)\b|\bfmt::(print|println|vprint)\s*\("
                    r"|(?<![\w.>:])(?:std::)?(printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|"
                    r"perror)\s*\(")
EXITS = re.compile(r"(?<![\w.>:])(?:std::|::)?(exit|_exit|_Exit|quick_exit|abort|terminate)\s*\(")
PRINT_HEADERS = {"iostream", "ostream", "print", "syncstream", "fmt/ostream.h"}
SOCKET_HEADERS = {"sys/socket.h", "netinet/in.h", "sys/un.h", "netdb.h", "arpa/inet.h"}
TERMINAL_HEADERS = {"termios.h", "sys/ioctl.h", "curses.h"}
CLOCK_AND_IO_HEADERS = {"fstream", "filesystem", "chrono", "ctime", "time.h", "unistd.h", "fcntl.h",
                        "cstdio", "stdio.h", "thread", "random"}
# Bytes in, values out.
PURE = re.compile(r"^(luks1_codec|luks2_codec|\w+_inspector|jose_header|luksmeta)\w*$")
PURE_NEVER = re.compile(r"^(storage|net)/|^crypto/(kdf|random|sector_cipher)")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'',
                    re.S)


def allowed_folders(folder):
    allowed = {folder}
    for row in ROWS:
        if folder in row:
            return allowed - NEVER.get(folder, set())
        allowed.update(row)
    return None


def blank(text):
    """`text` without comments and literals; every line stays where it was."""
    return TOKENS.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def is_test(path):
    """Tests, and the files that only they include, such as test_files.h and codec_test_models.h."""
    return re.search(r"(^|_)test(_|$)|_(fuzz|bench)$", path.stem) is not None


def includes(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def check_include(root, path, folder, own, target):
    """What is wrong with one #include in src/FOLDER, or None."""
    if own:
        if "/" not in target:
            return f'"{target}" does not say its folder'
        top = target.split("/")[0]
        if not (root / "src" / target).exists():
            return f'"{target}" is not a file of src'
        if top not in allowed_folders(folder):
            return f'{folder} may not include "{target}"'
        if PURE.match(path.stem) and not is_test(path) and PURE_NEVER.match(target):
            return f'a codec is pure and may not include "{target}"'
        return None
    if is_test(path):
        return None
    if folder not in MAY_PRINT and target in PRINT_HEADERS:
        return f"<{target}>: libraries do not print"
    if folder in ("base", "crypto", "storage", "luks") and target in SOCKET_HEADERS:
        return f"<{target}>: {folder} does not touch sockets"
    if folder != "cli" and target in TERMINAL_HEADERS and folder in ("luks", "keys"):
        return f"<{target}>: {folder} does not touch a terminal"
    if PURE.match(path.stem) and target in CLOCK_AND_IO_HEADERS:
        return f"<{target}>: a codec is pure"
    return None


def check_source(root, path):
    folder = path.relative_to(root / "src").parts[0]
    text = path.read_text()
    shown = path.relative_to(root)
    if allowed_folders(folder) is None:
        yield f"{shown}:1: src/{folder} is not a folder of the house"
        return
    for number, own, target in includes(text):
        problem = check_include(root, path, folder, own, target)
        if problem:
            yield f"{shown}:{number}: {problem}"
    if is_test(path):
        return
    for number, line in enumerate(blank(text).splitlines(), 1):
        if folder not in MAY_PRINT and PRINTS.search(line):
            yield f"{shown}:{number}: libraries do not print"
        if folder not in MAY_EXIT and EXITS.search(line):
            yield f"{shown}:{number}: libraries do not end the process"
        if folder in ("base", "crypto", "storage", "net") and re.search(r"\bluks::", line):
            yield f"{shown}:{number}: {folder} does not know what LUKS is"
        if folder != "cli" and re.search(r"\bargv\b", line):
            yield f"{shown}:{number}: only cli knows the command line"


def check_public_header(root, path):
    """Public headers stand on the standard library alone."""
    shown = path.relative_to(root)
    for number, own, target in includes(path.read_text()):
        if own or not (target.startswith("lukskeep/") or re.fullmatch(r"[a-z0-9_]+", target)):
            yield f'{shown}:{number}: a public header may not include "{target}"'
        elif target in PRINT_HEADERS:
            yield f"{shown}:{number}: <{target}>: libraries do not print"


def check_sizes(root, paths):
    for path in paths:
        lines = path.read_text(errors="replace").count("\n")
        if lines > FILE_LINES_MAX:
            yield f"{path.relative_to(root)}:1: {lines} lines, {FILE_LINES_MAX} are the most"


def check_functions(root, paths):
    """Functions of programs and libraries; a test's table may be as long as its cases are many."""
    sources = [str(path) for path in paths if path.suffix in (".cpp", ".h") and not is_test(path)]
    if not sources:
        return
    listing = subprocess.run(
        ["ctags", "-f", "-", "--languages=C++", "--langmap=C++:.cpp.h", "--kinds-C++=f",
         "--fields=+ne", *sources], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        name, path = line.split("\t")[:2]
        start, end = (re.search(rf"\t{key}:(\d+)", line) for key in ("line", "end"))
        if not start or not end:
            continue
        lines = int(end.group(1)) - int(start.group(1)) + 1
        if lines > FUNCTION_LINES_MAX:
            yield (f"{Path(path).relative_to(root)}:{start.group(1)}: {name} has {lines} lines, "
                   f"{FUNCTION_LINES_MAX} are the most")


def check(root):
    root = Path(root)
    sources = sorted(p for p in (root / "src").rglob("*") if p.suffix in (".cpp", ".h"))
    headers = sorted((root / "include").rglob("*.h"))
    scripts = [p for folder in ("tests", "bench", "scripts", "cmake")
               for p in sorted((root / folder).rglob("*"))
               if p.suffix in (".py", ".cpp", ".h", ".cmake", ".sh")]
    violations = []
    for path in sources:
        violations += check_source(root, path)
        if path.suffix == ".h" and "#pragma once" not in path.read_text():
            violations.append(f"{path.relative_to(root)}:1: no #pragma once")
    for path in headers:
        violations += check_public_header(root, path)
    violations += check_sizes(root, sources + headers + scripts)
    violations += check_functions(root, sources)
    return violations


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    violations = check(root)
    print("\n".join(violations) if violations else "the tree keeps its layers")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
