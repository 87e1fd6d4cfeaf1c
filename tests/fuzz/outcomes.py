"""What one case can end in, and the table of all outcomes by kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of one input; the value is the table's column."""

    RIGHT = "accepted and right"
    SKIPPED = "skipped and counted"
    NAMED = "named errors"
    UNNAMED = "unnamed exceptions"
    CRASHED = "crashes"
    WRONG = "wrong acceptances"
    OVER_TIME = "over 10 s"
    OVER_MEMORY = "over 1 GB"

    @property
    def is_bad(self) -> bool:
        """Whether the project must not do this, whatever the input is."""
        return self not in (Outcome.RIGHT, Outcome.SKIPPED, Outcome.NAMED)


@dataclass(frozen=True)
class Case:
    """One input, which these three determine."""

    kind: str
    seed: int
    number: int

    @property
    def command(self) -> str:
        """What runs this case alone."""
        return f"python -m tests.fuzz --kind {self.kind} --seed {self.seed} --case {self.number} --keep"


@dataclass(frozen=True)
class CaseResult:
    """A case that was run."""

    case: Case
    outcome: Outcome
    change: str = ""
    """How the input differs from a valid one."""
    detail: str = ""
    """The exception, or what is wrong with the answer."""
    seconds: float = 0.0

    def format(self) -> str:
        """The result in a few lines, with the command that repeats it."""
        return (
            f"{self.case.kind}: {self.outcome.value}: {self.detail or 'no detail'}\n"
            f"    input: {self.change or 'unknown'}\n    {self.case.command}"
        )


def format_table(results: Iterable[CaseResult]) -> str:
    """One line per kind with the number of cases of each outcome, and their sum."""
    counts: dict[str, Counter[Outcome]] = defaultdict(Counter)
    for result in results:
        counts[result.case.kind][result.outcome] += 1
    rows = [["kind", "tried", *(outcome.value for outcome in Outcome)]]
    rows += [_build_row(kind, counts[kind]) for kind in counts]
    rows.append(_build_row("all", sum(counts.values(), Counter())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [rows[0], ["-" * width for width in widths], *rows[1:]]
    )


def _build_row(name: str, counts: Counter[Outcome]) -> list[str]:
    return [name, str(counts.total()), *(str(counts[outcome]) for outcome in Outcome)]
