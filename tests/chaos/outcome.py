"""The outcome of a fault, and the table of all outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

HEADER = (
    "| fault | images | reruns needed | images lost | doubled | differing | redone | failed | s |"
)


@dataclass(frozen=True)
class Outcome:
    """One line of the table."""

    fault: str
    reruns: int
    images: int
    lost: int
    doubled: int
    differing: int
    redone: int
    """Images that were written again although their part was committed when the fault struck; of a training,
    steps that were done again although a state held them."""
    failed: tuple[str, ...]
    poison: tuple[str, ...]
    seconds: float
    note: str = ""
    allowed_reruns: int = 0
    """Reruns that the fault makes necessary."""
    allowed_redone: int = 0

    @property
    def is_right(self) -> bool:
        """Whether each image is there once and unchanged, only poison failed and nothing ran needlessly."""
        wrong = self.lost + self.doubled + self.differing
        is_frugal = self.reruns <= self.allowed_reruns and self.redone <= self.allowed_redone
        return wrong == 0 and is_frugal and sorted(self.failed) == sorted(self.poison)

    def format_row(self) -> str:
        """Format the row of the Markdown table."""
        name = self.fault.replace("_", " ") + (f" ({self.note})" if self.note else "")
        counts = (
            self.images,
            self.reruns,
            self.lost,
            self.doubled,
            self.differing,
            self.redone,
            len(self.failed),
        )
        return f"| {name} | " + " | ".join(map(str, counts)) + f" | {self.seconds:.0f} |"

    def to_json(self) -> dict[str, Any]:
        """All fields and `right`, as values for JSON."""
        return asdict(self) | {"right": self.is_right}


def format_table(outcomes: Sequence[Outcome]) -> str:
    """Format the Markdown table."""
    rule = "|---" * (HEADER.count("|") - 1) + "|"
    return "\n".join([HEADER, rule, *(outcome.format_row() for outcome in outcomes)]) + "\n"
