"""Damage of bytes, as disks, transfers and attackers do it."""

from __future__ import annotations

from random import Random

_WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def mutate_bytes(data: bytes, random: Random) -> tuple[bytes, str]:
    """The data with one to four changes, and their description."""
    changes = []
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        change = random.choice(
            (
                _flip_bit,
                _flip_bit,
                _set_byte,
                _set_byte,
                _write_word,
                _truncate,
                _remove,
                _repeat,
                _insert,
                _zero,
            )
        )
        data, text = change(data, random)
        changes.append(text)
    return data, ", ".join(changes)


def _pick(data: bytes, random: Random) -> int:
    """A place: half of the time near one end, where formats keep their headers and footers."""
    if random.random() < 0.5 and len(data) > 64:
        near = random.randrange(64)
        return near if random.random() < 0.5 else len(data) - 1 - near
    return random.randrange(len(data)) if data else 0


def _flip_bit(data: bytes, random: Random) -> tuple[bytes, str]:
    if not data:
        return data, "empty"
    at, bit = _pick(data, random), random.randrange(8)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[
        at + 1 :
    ], f"bit {bit} of byte {at} flipped"


def _set_byte(data: bytes, random: Random) -> tuple[bytes, str]:
    at, value = _pick(data, random), random.choice((0, 255, 127, 128, random.randrange(256)))
    return data[:at] + bytes([value]) + data[at + 1 :], f"byte {at} set to {value}"


def _write_word(data: bytes, random: Random) -> tuple[bytes, str]:
    at, word, size = _pick(data, random), random.choice(_WORDS), random.choice((2, 4, 8))
    word %= 1 << 8 * size
    order = random.choice(("little", "big"))
    text = f"byte {at} and following set to {word} ({size} bytes, {order})"
    return data[:at] + word.to_bytes(size, order) + data[at + size :], text


def _truncate(data: bytes, random: Random) -> tuple[bytes, str]:
    at = _pick(data, random)
    return data[:at], f"truncated to {at} of {len(data)} bytes"


def _remove(data: bytes, random: Random) -> tuple[bytes, str]:
    at, size = _pick(data, random), random.choice((1, 2, 4, 16, 100))
    return data[:at] + data[at + size :], f"{size} bytes removed at {at}"


def _repeat(data: bytes, random: Random) -> tuple[bytes, str]:
    at, size = _pick(data, random), random.choice((1, 4, 16, 100))
    return data[:at] + data[at : at + size] + data[at:], f"{size} bytes at {at} repeated"


def _insert(data: bytes, random: Random) -> tuple[bytes, str]:
    at, size = _pick(data, random), random.choice((1, 2, 4, 16))
    return data[:at] + random.randbytes(size) + data[at:], f"{size} bytes inserted at {at}"


def _zero(data: bytes, random: Random) -> tuple[bytes, str]:
    at, size = _pick(data, random), random.choice((4, 16, 100, 1000))
    size = min(size, len(data) - at)
    return data[:at] + bytes(size) + data[at + size :], f"{size} bytes at {at} set to 0"
