"""Writes luksmeta records as other programs do: docs/format/luksmeta.md."""

import struct

CLEVIS_RECORD = bytes.fromhex("cb6e890481ff40daa84a07ab9ab5715e")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def add_record(path, slot, kind, data):
    """As the luksmeta tool saves it, behind those that are there."""
    volume = bytearray(path.read_bytes())
    gap = volume.index(b"LUKSMETA")
    table = bytearray(volume[gap:gap + 272])
    rows = [struct.unpack_from(">16sIIII", table, 16 + 32 * i) for i in range(8)]
    start = max([4096] + [row[1] + -(-row[2] // 4096) * 4096 for row in rows])
    struct.pack_into(">16sIIII", table, 16 + 32 * slot, kind, start, len(data), crc32c(data), 0)
    struct.pack_into(">I", table, 12, 0)
    struct.pack_into(">I", table, 12, crc32c(bytes(table)))
    volume[gap:gap + 272] = table
    volume[gap + start:gap + start + len(data)] = data
    path.write_bytes(volume)


def records(path, slots):
    volume = path.read_bytes()
    gap = volume.index(b"LUKSMETA")
    found = []
    for slot in slots:
        row = struct.unpack_from(">16sIIII", volume, gap + 16 + 32 * slot)
        found.append((row, volume[gap + row[1]:gap + row[1] + row[2]]))
    return found
