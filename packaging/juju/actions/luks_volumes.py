"""Finds the volumes that vaultlocker made on this machine.

vaultlocker formats a device with a UUID of its choice, opens it as /dev/mapper/crypt-UUID by the
unit vaultlocker-decrypt@UUID.service, and the charm mounts it by a line in /etc/fstab. It records
the device nowhere: udev's links or the mapping itself tell where the volume is now.
"""

import os
import re

UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_MAPPING = re.compile(rf"crypt-({UUID})")
_UNIT = re.compile(rf"vaultlocker-decrypt@({UUID})\.service")
VOLUMES_MAX = 64
_FSTAB_BYTES_MAX = 1 << 20
_ENTRIES_MAX = 10_000
_LINKS_MAX = 40


class Volume:
    def __init__(self, uuid):
        self.uuid = uuid
        self.found_by = []  # of "fstab", "unit", "mapping"
        self.device = ""  # path in the tree, or empty if nothing tells where it is
        self.is_open = False  # as /dev/mapper/crypt-UUID


class Tree:
    """The file system below `root`, links in it included."""

    def __init__(self, root="/"):
        self.root = os.path.realpath(root)

    def place(self, path):
        return os.path.join(self.root, path.lstrip("/"))

    def names(self, folder):
        try:
            return sorted(os.listdir(self.place(folder)))[:_ENTRIES_MAX]
        except OSError:
            return []

    def text(self, path, size=_FSTAB_BYTES_MAX):
        try:
            with open(self.place(path), "rb") as file:
                return file.read(size).decode(errors="replace")
        except OSError:
            return ""

    def resolve(self, path):
        """The path without a symbolic link at its end, inside the tree; empty if nothing is there."""
        for _ in range(_LINKS_MAX):
            path = os.path.normpath("/" + path.lstrip("/"))
            place = self.place(path)
            if not os.path.islink(place):
                return path if os.path.exists(place) else ""
            path = os.path.join(os.path.dirname(path), os.readlink(place))
        return ""


def find_volumes(tree):
    """All of them, at most VOLUMES_MAX, in the order of their UUIDs."""
    volumes = {}

    def note(uuid, source):
        volume = volumes.setdefault(uuid.lower(), Volume(uuid.lower()))
        if source not in volume.found_by:
            volume.found_by.append(source)

    for uuid in _fstab_uuids(tree.text("/etc/fstab")):
        note(uuid, "fstab")
    for name in _unit_names(tree):
        found = _UNIT.fullmatch(name)
        if found:
            note(found.group(1), "unit")
    for name in tree.names("/dev/mapper"):
        found = _MAPPING.fullmatch(name)
        if found:
            note(found.group(1), "mapping")
    chosen = [volumes[uuid] for uuid in sorted(volumes)][:VOLUMES_MAX]
    below = _devices_below_mappings(tree)
    for volume in chosen:
        volume.is_open = "mapping" in volume.found_by
        volume.device = device_of(tree, volume.uuid, below)
    return chosen


def device_of(tree, uuid, below=None):
    """Where the volume is now: by udev, and for a header that udev cannot read by the mapping."""
    device = tree.resolve(f"/dev/disk/by-uuid/{uuid}")
    if device:
        return device
    return (_devices_below_mappings(tree) if below is None else below).get(uuid, "")


def _fstab_uuids(text):
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[0].startswith("#"):
            continue
        options = fields[3].split(",")
        units = [found.group(1) for found in map(_UNIT.search, options) if found]
        marked = any(option == "comment=vaultlocker" or option.startswith("x-vaultlocker")
                     for option in options)
        source = _MAPPING.fullmatch(os.path.basename(fields[0]))
        yield from units
        if marked and source:
            yield source.group(1)


def _unit_names(tree):
    for folder in ("/etc/systemd/system", "/run/systemd/system"):
        for name in tree.names(folder):
            yield name
            if name.endswith((".wants", ".requires")):
                yield from tree.names(f"{folder}/{name}")


def _devices_below_mappings(tree):
    """UUID -> the one device that its open mapping stands on, as sysfs knows it."""
    below = {}
    for name in tree.names("/sys/class/block"):
        folder = tree.resolve(f"/sys/class/block/{name}")
        found = _MAPPING.fullmatch(tree.text(f"{folder}/dm/name", 256).strip())
        slaves = tree.names(f"{folder}/slaves") if found else []
        if len(slaves) == 1:
            # Slashes in a device's name are exclamation marks in sysfs.
            device = tree.resolve("/dev/" + slaves[0].replace("!", "/"))
            if device:
                below[found.group(1).lower()] = device
    return below
