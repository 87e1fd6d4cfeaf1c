"""What a fault came to, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from tests.chaos import outputs
from tests.chaos.stage import Driver, Inputs, Stage

MOST_RERUNS = 3
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
    """Images whose part was committed when the fault struck and that were written again nevertheless."""
    failed: tuple[str, ...]
    poison: tuple[str, ...]
    seconds: float
    note: str = ""
    allowed_reruns: int = 0
    """Those that no driver can do without."""
    allowed_redone: int = 0

    @property
    def right(self) -> bool:
        """Whether every image is there once, as undisturbed, only poison failed, and at no cost but due."""
        wrong = self.lost + self.doubled + self.differing
        spared = self.reruns <= self.allowed_reruns and self.redone <= self.allowed_redone
        return wrong == 0 and spared and sorted(self.failed) == sorted(self.poison)

    def line(self) -> str:
        """The row of the Markdown table."""
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

    def as_json(self) -> dict[str, Any]:
        """The same for a machine."""
        return asdict(self) | {"right": self.right}


def table(outcomes: Sequence[Outcome]) -> str:
    """The Markdown table."""
    rule = "|---" * (HEADER.count("|") - 1) + "|"
    return "\n".join([HEADER, rule, *(outcome.line() for outcome in outcomes)]) + "\n"


class Trial:
    """One output under one fault, from the first start of the job to the comparison."""

    def __init__(
        self,
        stage: Stage,
        fault: str,
        *options: str,
        inputs: Inputs | None = None,
        begin: bool = True,
    ) -> None:
        """Start the job, unless told not to `begin`."""
        self.stage = stage
        self.fault = fault
        self.options = options
        self.inputs = inputs
        self.output = stage.output(fault, inputs)
        self.began = monotonic()
        self.reruns = 0
        self.before: dict[str, Any] = {}
        self.codes: list[int] = []
        if begin:
            self.driver = self.start()

    def start(self, *more: str) -> Driver:
        """Start the job into the output."""
        return self.stage.start(self.output, *self.options, *more, inputs=self.inputs)

    def await_a_third(self) -> None:
        """Wait until the fault may strike, and remember what is committed."""
        self.before = self.driver.await_parts(self.stage.a_third)

    def remember(self) -> None:
        """What is committed now is not to be done again."""
        self.before = outputs.parts(self.output)

    def ended(self) -> int:
        """Wait for the job's end; its exit code."""
        self.codes.append(self.driver.wait())
        return self.codes[-1]

    def rerun_until_done(self) -> None:
        """Start the same command again until it ends well.

        Raises:
            RuntimeError: it does not.
        """
        while self.codes[-1]:
            if self.reruns == MOST_RERUNS:
                raise RuntimeError(f"{self.fault}: still not done:\n{self.driver.told()[-3000:]}")
            self.reruns += 1
            self.driver = self.start()
            self.ended()

    def outcome(
        self,
        poison: Sequence[str] = (),
        note: str = "",
        *,
        allowed_reruns: int = 0,
        allowed_redone: int = 0,
    ) -> Outcome:
        """Compare with the undisturbed run."""
        stored = self.inputs is not None and self.inputs is self.stage.stored
        expected = self.stage.stored_expected if stored else self.stage.expected
        found = outputs.rows(self.output)
        difference = outputs.difference(found, expected, poison)
        after = outputs.parts(self.output)
        again = [name for name, written in self.before.items() if after.get(name) != written]
        lost = difference.lost
        if not lost and not outputs.is_whole(self.output):
            lost = ("unreadable",)
        per_part = len(expected) / max(1, len(after))
        return Outcome(
            self.fault,
            self.reruns,
            len(expected),
            len(lost),
            len(difference.doubled),
            len(difference.differing),
            round(len(again) * per_part),
            difference.failed,
            tuple(poison),
            round(monotonic() - self.began, 1),
            note,
            allowed_reruns,
            allowed_redone,
        )
