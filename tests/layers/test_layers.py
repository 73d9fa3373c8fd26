"""The tree keeps its layers, and the checker sees it when one does not."""

import shutil
from pathlib import Path

import pytest

import check_layers

ROOT = Path(__file__).resolve().parents[2]


def test_every_source_keeps_the_layers():
    assert check_layers.check(ROOT) == []


def test_every_folder_of_src_is_built_with_what_it_may_use():
    """CMake's USES and the table agree, so a forbidden include does not even link."""
    import re

    text = (ROOT / "src" / "CMakeLists.txt").read_text()
    modules = re.findall(r"lukskeep_module\(\s*NAME\s+(\w+)([^)]*)\)", text)
    assert {"base", "crypto", "storage", "luks", "keys"} <= {name for name, _ in modules}
    for name, rest in modules:
        uses = re.search(r"USES\s+((?:(?!LIBS)\w+\s*)+)", rest)
        used = set(uses.group(1).split()) if uses else set()
        assert used <= check_layers.allowed_folders(name), name


def make_tree(root, files):
    for folder in ("src", "include/lukskeep", "tests", "bench", "scripts", "cmake"):
        (root / folder).mkdir(parents=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


BASE = {"src/base/bytes.h": "#pragma once\n", "src/luks/layout.h": "#pragma once\n",
        "src/net/client.h": "#pragma once\n", "src/storage/file.h": "#pragma once\n",
        "src/crypto/random.h": "#pragma once\n", "src/crypto/hash.h": "#pragma once\n"}
LONG_FUNCTION = "int f() {\n" + "  g();\n" * 70 + "  return 0;\n}\n"

VIOLATIONS = [
    ("src/base/x.cpp", '#include "luks/layout.h"\n', "base may not include"),
    ("src/crypto/x.cpp", '#include "storage/file.h"\n', "crypto may not include"),
    ("src/luks/x.cpp", '#include "net/client.h"\n', "luks may not include"),
    ("src/luks/x_test.cpp", '#include "net/client.h"\n', "luks may not include"),
    ("src/luks/x.cpp", '#include "layout.h"\n', "does not say its folder"),
    ("src/luks/x.cpp", '#include "luks/gone.h"\n', "is not a file of src"),
    ("src/attic/x.cpp", "\n", "not a folder of the house"),
    ("src/luks/luks2_codec.cpp", '#include "storage/file.h"\n', "a codec is pure"),
    ("src/luks/luks1_codec.cpp", '#include "crypto/random.h"\n', "a codec is pure"),
    ("src/luks/luks1_codec.cpp", "#include <chrono>\n", "a codec is pure"),
    ("src/luks/x.cpp", "#include <sys/socket.h>\n", "does not touch sockets"),
    ("src/luks/x.cpp", "#include <termios.h>\n", "does not touch a terminal"),
    ("src/luks/x.cpp", "#include <iostream>\n", "do not print"),
    ("src/luks/x.cpp", 'void f() { std::cerr << "x"; }\n', "do not print"),
    ("src/luks/x.cpp", 'void f() { fmt::print("x"); }\n', "do not print"),
    ("src/luks/x.cpp", 'void f() { fprintf(stderr, "x"); }\n', "do not print"),
    ("src/luks/x.cpp", "void f() { std::exit(1); }\n", "do not end the process"),
    ("src/luks/x.cpp", "void f() { abort(); }\n", "do not end the process"),
    ("src/luks/x.cpp", "int f(char** argv);\n", "only cli knows the command line"),
    ("src/storage/x.cpp", "luks::Header header;\n", "does not know what LUKS is"),
    ("src/luks/x.h", "int x();\n", "no #pragma once"),
    ("include/lukskeep/x.h", "#include <fmt/format.h>\n", "a public header may not include"),
    ("include/lukskeep/x.h", '#include "base/bytes.h"\n', "a public header may not include"),
    ("src/luks/x.cpp", "// a line\n" * 801, "801 lines"),
    ("tests/cli/x.py", "# a line\n" * 801, "801 lines"),
    ("src/luks/x.cpp", LONG_FUNCTION, "f has 73 lines"),
]


@pytest.mark.parametrize("name,text,expected", VIOLATIONS)
def test_a_violation_is_named_with_its_place(tmp_path, name, text, expected):
    make_tree(tmp_path, {**BASE, name: text})
    found = check_layers.check(tmp_path)
    assert len(found) == 1 and expected in found[0] and found[0].startswith(f"{name}:"), found


def test_what_is_allowed_is_not_reported(tmp_path):
    make_tree(tmp_path, {
        **BASE,
        "src/luks/x.cpp": '#include <string>\n#include <lukskeep/x.h>\n#include "base/bytes.h"\n'
                          '#include "luks/layout.h"\n#include "storage/file.h"\n'
                          "// std::cout << exit(1) in a comment\n"
                          'const char* kText = "printf(argv)";\nvoid f() { a.exit(); }\n',
        "src/luks/luks2_codec.cpp": '#include "crypto/hash.h"\n',
        "src/luks/x_test.cpp": "#include <iostream>\n" + LONG_FUNCTION,
        "src/cli/main.cpp": '#include <iostream>\n#include "luks/layout.h"\nint main() '
                            "{ std::cout << 1; exit(1); }\n",
        "include/lukskeep/x.h": "#include <vector>\n#include <lukskeep/y.h>\n",
    })
    assert check_layers.check(tmp_path) == []
    shutil.rmtree(tmp_path)
