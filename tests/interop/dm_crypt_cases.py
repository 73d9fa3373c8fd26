#!/usr/bin/python3
"""The volumes that dm-crypt and lukskeep exchange, and the one boot of the guest that does it.

    dm_crypt_cases.py FOLDER

makes the volumes in FOLDER, runs the guest (see uml/), and leaves in FOLDER/outcome what was said
of each, or the exception that ended it. conftest.py starts this beside the other tests.
"""

import pickle
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "uml"))

import uml  # noqa: E402
from kit import CHEAP, LUKSKEEP, MIB, bytes_of, lukskeep, run, sha256, sparse, write  # noqa: E402

TIB = 1 << 40
IMAGE_BYTES = 6 * MIB


@dataclass(frozen=True)
class Form:
    type: str
    cipher: str
    bits: int
    sector: int = 512
    detached: bool = False

    @property
    def name(self):
        words = [self.type, self.cipher.replace(":", "."), str(self.bits), str(self.sector)]
        return "-".join(words + (["detached"] if self.detached else []))


LUKS1 = [("aes-xts-plain64", 512), ("aes-xts-plain64", 384), ("aes-xts-plain64", 256),
         ("aes-xts-plain", 512), ("aes-xts-plain64be", 512), ("aes-xts-essiv:sha256", 512),
         ("aes-cbc-essiv:sha256", 256), ("aes-cbc-essiv:sha256", 128), ("aes-cbc-plain", 192),
         ("aes-cbc-plain64", 256), ("aes-cbc-benbi", 256), ("aes-cbc-eboiv", 256),
         ("aes-cbc-null", 256), ("aes-ctr-plain64", 256), ("aes-ecb", 256),
         ("aes-lrw-benbi", 384), ("aes-lrw-benbi", 256), ("aes-lrw-plain64", 384),
         ("serpent-xts-plain64", 512), ("serpent-xts-plain64", 256),
         ("serpent-cbc-essiv:sha256", 256), ("serpent-lrw-benbi", 384), ("twofish-xts-plain64", 512),
         ("twofish-cbc-plain64", 128), ("twofish-cbc-essiv:sha256", 256),
         ("camellia-xts-plain64", 512), ("camellia-cbc-essiv:sha256", 256),
         ("cast5-cbc-plain64", 128), ("cast5-cbc-benbi", 128)]
LUKS2 = [("aes-xts-plain64", 512), ("serpent-xts-plain64", 512), ("twofish-xts-plain64", 512),
         ("camellia-xts-plain64", 512), ("aes-cbc-essiv:sha256", 256), ("aes-cbc-plain64", 256),
         ("aes-xts-plain64be", 512), ("aes-cbc-benbi", 256), ("aes-cbc-eboiv", 256),
         ("aes-lrw-benbi", 384), ("aes-ctr-plain64", 256)]

FORMS = [Form("luks1", *entry) for entry in LUKS1]
FORMS += [Form("luks2", *entry, sector=4096) for entry in LUKS2]
FORMS += [Form("luks2", "aes-xts-plain64", 512, sector=size) for size in (512, 1024, 2048)]
FORMS += [Form("luks2", "twofish-cbc-essiv:sha256", 256, sector=512),
          Form("luks2", "serpent-xts-plain64", 512, sector=512),
          Form("luks1", "aes-xts-plain64", 512, detached=True),
          Form("luks1", "serpent-cbc-essiv:sha256", 256, detached=True),
          Form("luks2", "aes-xts-plain64", 512, sector=512, detached=True),
          Form("luks2", "aes-xts-plain64", 512, sector=4096, detached=True)]

FAR = [Form("luks1", "aes-cbc-plain", 256), Form("luks1", "aes-xts-plain64", 512),
       Form("luks2", "aes-xts-plain64", 512, sector=4096),
       Form("luks2", "twofish-xts-plain", 512, sector=512)]
FAR_OFFSETS = {0: b"\x61", 2 * TIB - MIB: b"\x62", 2 * TIB: b"\x63", 3 * TIB + 4096: b"\x64"}


@dataclass(frozen=True)
class Change:
    """What lukskeep did to the header of a volume of `form`, by these commands, before the guest
    opens it. V is the volume, V.header its header elsewhere."""

    name: str
    form: Form
    commands: tuple
    detached: bool = False  # afterwards
    first_key: str = "key"

    @property
    def volume(self):
        return f"changed-{self.name}"

    @property
    def result(self):
        return Form(self.form.type, self.form.cipher, self.form.bits, self.form.sector, self.detached)


AS_LUKS1 = Form("luks1", "aes-xts-plain64", 512)
AS_LUKS2 = Form("luks2", "aes-xts-plain64", 512)
DETACH = "header detach V V.header"
CHANGES = [
    Change("converted-to-luks2", AS_LUKS1, ("header convert V --type luks2",)),
    Change("converted-to-luks1", AS_LUKS2, ("header convert V --type luks1",)),
    Change("metadata-grown", AS_LUKS2, ("header resize V --metadata-size 1M",)),
    Change("keyslots-shrunk", AS_LUKS2, ("header resize V --keyslots-size 256K",)),
    Change("detached", AS_LUKS2, (DETACH,), detached=True),
    Change("luks1-detached", AS_LUKS1, (DETACH,), detached=True),
    Change("attached-again", AS_LUKS2, (DETACH, "header attach V V.header")),
    Change("restored-killing-revived", AS_LUKS2,
           ("key add V --key file:key --new-key file:other-key --slot 3", "header backup V V.header",
            "key remove V --slot 3",
            "header restore V V.header --allow older --kill-revived")),
    Change("key-changed", AS_LUKS2, ("key change V --key file:other-key --new-key file:key",),
           first_key="other-key"),
]

# ---- what happens in the guest -----------------------------------------------------------------

GUEST_OPENS = """
cryptsetup open --key-file key {header} {volume} inside
echo "before $(sha256sum < /dev/mapper/inside | cut -d' ' -f1)"
mount /dev/mapper/inside /run/mnt
(cd /run/mnt && sha256sum --quiet -c files.sum)
cp tree/written-by-guest /run/mnt/written-by-guest
umount /run/mnt
echo "after $(sha256sum < /dev/mapper/inside | cut -d' ' -f1)"
cryptsetup close inside
"""

GUEST_FORMATS = """
truncate -s {size} {volume}
cryptsetup -q luksFormat --type {type} --cipher {cipher} --key-size {bits} {sector} \
  --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file key {header} {volume}
cryptsetup open --key-file key {header} {volume} inside
mke2fs -q -F -t ext4 -d tree /dev/mapper/inside
mount /dev/mapper/inside /run/mnt
cp tree/written-by-guest /run/mnt/again
umount /run/mnt
echo "after $(sha256sum < /dev/mapper/inside | cut -d' ' -f1)"
echo "table $(dmsetup table inside)"
cryptsetup close inside
"""

GUEST_WRITES_FAR = """
cryptsetup open --key-file key {volume} inside
for place in {places}; do
  head -c 1048576 /dev/zero | tr '\\0' "\\\\${{place#*:}}" |
    dd of=/dev/mapper/inside bs=4096 seek=$((${{place%:*}} / 4096)) conv=notrunc,fsync status=none
done
cryptsetup close inside
"""

GUEST_READS_FAR = """
cryptsetup open --readonly --key-file key {volume} inside
for place in {places}; do
  echo "$place $(dd if=/dev/mapper/inside bs=4096 skip=$((${{place%:*}} / 4096)) count=256 \
    status=none | sha256sum | cut -d' ' -f1)"
done
cryptsetup close inside
"""

GUEST_REENCRYPTS = """
cryptsetup open --key-file key {volume} inside
echo "after $(sha256sum < /dev/mapper/inside | cut -d' ' -f1)"
cryptsetup close inside
device=$(losetup --show -f {volume})
cryptsetup -q reencrypt --key-file key --key-slot 0 --iter-time 10 $device
losetup -d $device
"""

# A header is lost while its volume is in use, and comes back from a backup: only the kernel still
# has the key that proves it to be the right one. "status TEXT" after each step.
GUEST_RESTORES_WHILE_RUNNING = """
lukskeep() {{ LUKSKEEP_ARCHIVE=off {lukskeep} "$@"; }}
restore() {{ lukskeep header restore $device {volume}.backup --yes "$@" 2>&1 | tr '\\n' ' '; }}
lukskeep header backup {volume} {volume}.backup
device=$(losetup --show -f {volume})
other=$(losetup --show -f {volume}-other)
cryptsetup open --disable-keyring --key-file key $device running
cryptsetup open --disable-keyring --key-file key $other other
echo "before $(sha256sum < /dev/mapper/running | cut -d' ' -f1)"
lukskeep key test $device --key mapping:running && echo "tested yes"
lukskeep key test $device --key mapping:other || echo "tested-other $?"
dd if=/dev/zero of=$device bs=4096 count=16 conv=notrunc,fsync status=none
echo "in-use $(restore --key mapping:running)"
echo "other $(restore --key mapping:other --allow in-use)"
echo "restored $(restore --key mapping:running --allow in-use)"
cryptsetup close running
cryptsetup open --key-file key $device running
echo "after $(sha256sum < /dev/mapper/running | cut -d' ' -f1)"
echo "keyring $(lukskeep key test $device --key mapping:running 2>&1 | tr '\\n' ' ')"
echo "absent $(lukskeep key test $device --key mapping:nothing 2>&1 | tr '\\n' ' ')"
cryptsetup close running
cryptsetup close other
losetup -d $device $other
"""

# Keys, tokens and settings change while the volume runs; what would pull it away does not. The
# status of each command, and what it said.
GUEST_CHANGES_WHILE_RUNNING = """
lukskeep() {{ LUKSKEEP_ARCHIVE=off {lukskeep} "$@"; }}
clevis() {{ (export LUKSKEEP_ARCHIVE=off; exec -a "clevis-$1" {lukskeep} "${{@:2}}"); }}
try() {{
  local word=$1 status=0
  "${{@:2}}" > said 2>&1 || status=$?
  echo "$word $status $(tr '\\n' ' ' < said)"
}}
cheap="--pbkdf pbkdf2 --pbkdf-iterations 1000"
device=$(losetup --show -f {volume})
cryptsetup open --key-file key $device running
echo "before $(sha256sum < /dev/mapper/running | cut -d' ' -f1)"
try add lukskeep key add $device --key file:key --new-key file:other-key --slot 3 $cheap
try change lukskeep key change $device --key file:other-key --new-key file:third-key $cheap
try convert lukskeep key convert $device --key file:third-key --slot 3 $cheap
try test lukskeep key test $device --key file:third-key --slot 3
try remove lukskeep key remove $device --slot 3
try bind lukskeep bind $device '{{}}' --pin null --key file:key --slot 1
try clevis-bind clevis luks-bind -f -k key -d $device null '{{}}'
try clevis-regen clevis luks-regen -q -d $device -s 2
try clevis-unbind clevis luks-unbind -f -d $device -s 2
try unbind lukskeep unbind $device --slot 1
echo '{{"type":"note","keyslots":["0"]}}' | try token lukskeep token import $device - --token 5
try token-remove lukskeep token remove $device 5
try config lukskeep config $device --label running
dd if=/dev/zero of=$device bs=6 count=1 conv=notrunc,fsync status=none
try repair lukskeep header repair $device --yes
try erase lukskeep erase $device --yes
try create lukskeep create $device --type {type} --yes --key file:key $cheap
try header lukskeep header convert $device --type {other_type}
try cryptsetup cryptsetup open --test-passphrase --key-file key $device
echo "after $(sha256sum < /dev/mapper/running | cut -d' ' -f1)"
cryptsetup close running
losetup -d $device
"""


def header_option(form, volume):
    return f"--header {volume}.header" if form.detached else ""


def far_places():
    """Offset and byte, as octal for tr."""
    return " ".join(f"{offset}:{byte[0]:03o}" for offset, byte in FAR_OFFSETS.items())


def create_options(form, key="key"):
    options = ["--type", form.type, "--cipher", form.cipher, "--key-size", form.bits, "--key",
               f"file:{key}", *CHEAP["pbkdf2"]]
    if form.type == "luks2":
        options += ["--sector-size", form.sector]
    return options


def encrypt_image(form, work):
    """The volume that the guest opens, made here; None or why it could not be made."""
    volume = f"ours-{form.name}"
    header = ["--header", f"{volume}.header"] if form.detached else []
    return made(["encrypt", "image", volume, *header, *create_options(form)], work)


def encrypt_far(form, work):
    return made(["encrypt", "far-plain", f"far-ours-{form.name}", "--holes", "keep",
                 *create_options(form)], work)


def create_far(form, work):
    return made(["create", f"far-theirs-{form.name}", "--size", "4T", *create_options(form)], work)


def encrypt_and_change(change, work):
    """None, or why the volume could not be made or its header not be changed."""
    failure = made(["encrypt", "image", change.volume,
                    *create_options(change.form, change.first_key)], work)
    for command in change.commands:
        words = [word.replace("V", change.volume, 1) if word in ("V", "V.header") else word
                 for word in command.split()]
        cost = CHEAP["pbkdf2"] if "--new-key" in words else ()
        failure = failure or made([*words, *cost], work)
    return failure


def made(arguments, work):
    done = lukskeep(*arguments, status=None, cwd=work)
    return None if done.returncode == 0 else done.stderr.decode(errors="replace")


def make_tree(work):
    """Real files, and the sums by which the guest knows them."""
    tree = work / "tree"
    (tree / "folder").mkdir(parents=True)
    for number, size in enumerate((0, 1, 511, 4096, 70001, 1 << 20)):
        write(tree / "folder" / f"file {number}", bytes_of(f"tree{number}", size))
    write(tree / "source.py", Path(__file__).read_bytes())
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    (tree / "files.sum").write_text("".join(f"{sha256(tree / n)}  {n}\n" for n in names))
    write(tree / "written-by-guest", bytes_of("guest", 100_000))
    sparse(work / "image", IMAGE_BYTES)
    # In blocks of 4096 bytes, as sectors of that size ask for.
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, work / "image"])


def make_far_plain(work):
    plain = sparse(work / "far-plain", 4 * TIB)
    with open(plain, "r+b") as file:
        for offset, byte in FAR_OFFSETS.items():
            file.seek(offset)
            file.write(byte * MIB)


def guest_script(form, template, volume):
    room = MIB if form.detached else 17 * MIB
    return template.format(
        volume=volume, header=header_option(form, volume), type=form.type, cipher=form.cipher,
        bits=form.bits, size=room + IMAGE_BYTES, places=far_places(), lukskeep=LUKSKEEP,
        other_type="luks1" if form.type == "luks2" else "luks2",
        sector=f"--sector-size {form.sector}" if form.type == "luks2" else "")


def run_guest(work):
    """Makes the volumes, boots once, and returns {case: result or why it was not run}."""
    write(work / "key", b"a passphrase for both sides")
    write(work / "other-key", b"a passphrase of lukskeep alone")
    write(work / "third-key", b"the next passphrase of lukskeep")
    make_tree(work)
    make_far_plain(work)
    failures, scripts = {}, {}

    def add(case, form, template, volume, failure=None):
        if failure is not None:
            failures[case] = failure
        else:
            scripts[case] = guest_script(form, template, volume)

    for form in FORMS:
        ours, theirs = f"ours-{form.name}", f"theirs-{form.name}"
        add(ours, form, GUEST_OPENS, ours, encrypt_image(form, work))
        add(theirs, form, GUEST_FORMATS, theirs)
    for form in FAR:
        read, written = f"far-ours-{form.name}", f"far-theirs-{form.name}"
        add(read, form, GUEST_READS_FAR, read, encrypt_far(form, work))
        add(written, form, GUEST_WRITES_FAR, written, create_far(form, work))
    for change in CHANGES:
        add(change.volume, change.result, GUEST_OPENS, change.volume,
            encrypt_and_change(change, work))
    add("reencrypted", AS_LUKS1, GUEST_REENCRYPTS, "reencrypted",
        made(["encrypt", "image", "reencrypted", *create_options(AS_LUKS1)], work))

    for form in (AS_LUKS1, AS_LUKS2):
        volume = f"running-{form.type}"
        failure = None
        for name in (volume, f"{volume}-other"):
            failure = failure or made(["encrypt", "image", name, *create_options(form)], work)
        add(volume, form, GUEST_RESTORES_WHILE_RUNNING, volume, failure)
        changing = f"changing-{form.type}"
        add(changing, form, GUEST_CHANGES_WHILE_RUNNING, changing,
            made(["encrypt", "image", changing, *create_options(form)], work))

    results = uml.run(work, scripts, timeout_s=500)
    return {**results, **failures}


def main():
    # So that the guest ends with this process: subprocess ends its child when an exception passes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work = Path(sys.argv[1])
    work.mkdir()
    try:
        outcome = run_guest(work)
    except uml.Unavailable as error:
        outcome = error
    except BaseException as error:  # what pytest.fail raises in kit is no Exception
        outcome = RuntimeError(f"{type(error).__name__}: {error}")
    (work / "outcome").write_bytes(pickle.dumps(outcome))


if __name__ == "__main__":
    main()
