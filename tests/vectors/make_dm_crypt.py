#!/usr/bin/python3
"""Writes dm_crypt.txt: what a real Linux kernel's dm-crypt makes of 8 KiB in many constructions.

    tests/vectors/make_dm_crypt.py        # boots User-Mode Linux, a minute or two

sector_cipher_test.cpp reads the file. Each line: cipher, key bits, sector size, number of the
first sector, SHA-256 of the encrypted bytes. The plain bytes
are (i * 7 + i // 256) % 256, those of the key (i * 37 + 11) % 256.
"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop" / "uml"))
import uml  # noqa: E402

SIZE = 8192
# The second start lets the low 32 bits of the number roll over in the middle of the bytes.
STARTS = (0, 2**32 - 8)
IVS = ("plain", "plain64", "plain64be", "essiv:{hash}", "benbi", "eboiv", "null")


def key(size):
    return bytes((i * 37 + 11) % 256 for i in range(size)).hex()


def constructions():
    for cipher in ("aes", "serpent", "twofish", "camellia"):
        for mode in ("xts", "cbc", "ctr", "lrw"):
            for iv in IVS:
                if mode == "ctr" and iv == "eboiv":
                    continue
                for size in (16, 24, 32) if iv == "plain64" else (32,):
                    whole = {"xts": 2 * size, "lrw": size + 16}.get(mode, size)
                    yield f"{cipher}-{mode}-{iv.format(hash='sha256')}", key(whole)
        yield f"{cipher}-ecb", key(32)
    for mode in ("cbc", "ctr"):
        for iv in IVS:
            if mode == "ctr" and iv == "eboiv":
                continue
            yield f"cast5-{mode}-{iv.format(hash='md5')}", key(16)
    yield "cast5-ecb", key(16)
    yield "serpent-cbc-essiv:sha1", key(32)
    yield "twofish", key(24)
    yield "aes-plain", key(16)


def script(work):
    lines = ["for m in camellia_generic cast5_generic md5 sha1_generic crypto_null lrw; do modprobe -d "
             "/run/modules -S $(uname -r) $m || true; done",
             "loop=$(losetup -f --show data)"]
    for number, (spec, hex_key) in enumerate(constructions()):
        for sector in (512, 4096):
            for start in STARTS:
                extra = "" if sector == 512 else " 1 sector_size:4096"
                table = f"0 {SIZE // 512} crypt {spec} {hex_key} {start} $loop 0{extra}"
                lines.append(
                    f"dmsetup create --noudevsync v{number} --table \"{table}\" && "
                    # The kernel's own name: nobody else has a device here.
                    f"dd if=plain of=/dev/dm-0 bs={SIZE} oflag=direct status=none && "
                    f"dmsetup remove --noudevsync v{number} && "
                    f"echo {spec} {len(hex_key) * 4} {sector} {start} "
                    f"$(dd if=$loop bs={SIZE} count=1 iflag=direct status=none | sha256sum | "
                    "cut -d' ' -f1) || "
                    f"echo '# refused: {spec} {len(hex_key) * 4} {sector} {start}'")
    return "\n".join(lines)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "plain").write_bytes(bytes((i * 7 + i // 256) % 256 for i in range(SIZE)))
        (work / "data").write_bytes(bytes(1 << 20))
        everything = script(work).split("\n")
        head, lines = everything[:2], everything[2:]
        # A case may take 90 seconds: split into some.
        cases = {}
        for first in range(0, len(lines), 200):
            cases[f"from-{first}"] = "\n".join(head + lines[first:first + 200])
        results = uml.run(work, cases)
        text = "".join(results[name]["output"] for name in cases)
        for name in cases:
            if results[name]["status"] != 0 or results[name]["errors"]:
                print(name, results[name]["status"], results[name]["errors"][-2000:], file=sys.stderr)
    (HERE / "dm_crypt.txt").write_text(text)


main()
