"""Values that programs write, or that break readers: numbers at the limits, words, control characters."""

from __future__ import annotations

import math
from random import Random
from typing import Any

NUMBERS: tuple[float, ...] = (
    *(0, 1, 2, 3, -1, 5, 7, 8, 9, 30, 40, 41, 100, 255, 256, 65_536),
    *(-0.0, 0.5, 1.5, 1e-9, 1e-45, 1e9, 1e30, 3.5e38, 1e308),
    *(math.nan, math.inf, -math.inf),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63)),
    10**30,
)
TEXTS: tuple[str, ...] = (
    *(
        "",
        " ",
        "0",
        "1",
        "1.0",
        "0.0",
        "-1",
        "7",
        "007",
        "false",
        "True",
        "Unspecified",
        "null",
        "nan",
    ),
    *(
        "inf",
        "1e5",
        "1_0",
        "1e400",
        "0x10",
        "١",
        "a",
        "cat",
        "dog",
        "a.jpg",
        "./a.jpg",
        "sub\\a.jpg",
    ),
    *(
        "a\nb",
        "a\x00b",
        "\x1b[2J",
        "\u202e",
        "\ufeff",
        "\ud800",
        "e\u0301",
        "é",
        "../a",
        "/etc/passwd",
    ),
    *(
        "a::b",
        "s3://user:secret@host/x",
        "%00",
        "~root",
        "a" * 300,
        "9" * 400,
        "9" * 5000,
        "x" * 50_000,
    ),
)


def draw_number(random: Random) -> float:
    """A number that is special in some format, or an ordinary one."""
    if random.random() < 0.3:
        return random.choice((random.randint(-50, 50), random.uniform(-50, 50)))
    return random.choice(NUMBERS)


def draw_text(random: Random) -> str:
    """A text that is special in some format."""
    return random.choice(TEXTS)


def draw_scalar(random: Random) -> Any:
    """A number, text, boolean or None."""
    return random.choice((draw_number, draw_number, draw_text, _draw_constant))(random)


def draw_value(random: Random) -> Any:
    """A scalar, or a small list or object of them."""
    kind = random.random()
    if kind < 0.8:
        return draw_scalar(random)
    if kind < 0.92:
        return [draw_scalar(random) for _ in range(random.randint(0, 5))]
    return {draw_text(random): draw_scalar(random) for _ in range(random.randint(0, 3))}


def _draw_constant(random: Random) -> Any:
    return random.choice((True, False, None))


def shorten(value: object) -> str:
    """A value in the description of a case."""
    try:
        text = ascii(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a {type(value).__name__} with a long integer"
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"
