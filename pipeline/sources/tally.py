"""What a source reads, and what it leaves out or repairs, counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

WITHOUT_ANNOTATION = "without an annotation: left out"
"""Outcome of the images in a dataset's folder that its annotations do not name."""
_ENDINGS_SHOWN = 8


class Repair(NamedTuple):
    """One thing that was left out, changed or assumed, such as a box without width."""

    noun: str
    """What it is, in the singular: `box`, `image`, `annotation`."""
    outcome: str
    """What happened to it and why: `dropped: no width`."""
    detail: str
    """The file, and the place in it."""
    is_loss: bool = False
    """Something of the dataset is missing afterwards; with `--strict` it is an error."""


@dataclass
class Tally:
    """The images and objects that a source has yielded so far, and its repairs."""

    images: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    """Objects by label."""
    difficult: int = 0
    crowd: int = 0
    invalid_images: int = 0
    """Images with errors, which are left out."""
    dropped_boxes: int = 0
    repairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Repairs by noun and outcome."""
    files_left_out: Counter[str] = field(default_factory=Counter)
    """Files of a folder that are not images, by ending."""

    def add_repairs(self, repairs: Iterable[Repair]) -> None:
        """Count repairs."""
        for repair in repairs:
            self.repairs[repair.noun, repair.outcome] += 1
            self.dropped_boxes += repair.noun == "box" and repair.is_loss

    def describe_repairs(self) -> str:
        """Everything that was left out or repaired, in one line; `nothing` if that is so."""
        parts = [describe_count(self.invalid_images, "image") + " invalid: left out"]
        parts = parts if self.invalid_images else []
        parts += [
            f"{describe_count(number, noun)} {outcome}"
            for (noun, outcome), number in self.repairs.items()
        ]
        if self.files_left_out:
            parts.append(_describe_files(self.files_left_out))
        return "; ".join(parts) or "nothing"


def describe_count(number: int, noun: str) -> str:
    """The number with its noun, such as `1 box` or `2 boxes`."""
    ending = "" if number == 1 else "es" if noun.endswith(("x", "s")) else "s"
    return f"{number} {noun}{ending}"


def _describe_files(by_ending: Counter[str]) -> str:
    common = by_ending.most_common(_ENDINGS_SHOWN)
    details = [f"{ending} {number}" for ending, number in common]
    rest = by_ending.total() - sum(number for _, number in common)
    details += [f"others {rest}"] if rest else []
    return f"{describe_count(by_ending.total(), 'file')} left out ({', '.join(details)})"
