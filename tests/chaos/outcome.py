"""The outcome of a fault, and the table of all outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from tests.chaos import outputs
from tests.chaos.outputs import Row
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
    """Images that were written again although their part was committed when the fault struck."""
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


class Trial:
    """One output under one fault, from the first start of the job to the comparison."""

    def __init__(
        self,
        stage: Stage,
        fault: str,
        *options: str,
        inputs: Inputs | None = None,
        expected: Sequence[Row] | None = None,
        begin: bool = True,
    ) -> None:
        """Prepare the output, and start the job if `begin`.

        Args:
            stage: where it runs.
            fault: its name.
            options: more options of the job.
            inputs: images, checkpoint and folder of outputs; by default those on disk.
            expected: the rows of an undisturbed run; by default those of the stage for these inputs.
            begin: start the job at once.
        """
        self.stage = stage
        is_in_store = inputs is not None and inputs is stage.stored
        default = stage.stored_expected if is_in_store else stage.expected
        self.expected = default if expected is None else expected
        self.fault = fault
        self.options = options
        self.inputs = inputs
        self.output = stage.locate_output(fault, inputs)
        self.began = monotonic()
        self.reruns = 0
        self.committed: dict[str, Any] = {}
        """The parts that must not be rewritten."""
        self.codes: list[int] = []
        if begin:
            self.driver = self.start_job()

    def start_job(self, *more: str) -> Driver:
        """Start the job into the output."""
        return self.stage.start_job(self.output, *self.options, *more, inputs=self.inputs)

    def wait_for_third(self) -> None:
        """Wait until a third of the parts is committed, and remember these parts."""
        self.committed = self.driver.wait_for_parts(self.stage.third_of_parts)

    def remember_parts(self) -> None:
        """Remember the parts that are committed now."""
        self.committed = outputs.list_parts(self.output)

    def wait_for_end(self) -> int:
        """Wait until the job ends, and return its exit code."""
        self.codes.append(self.driver.wait())
        return self.codes[-1]

    def rerun_until_done(self) -> None:
        """Run the same command again until it succeeds.

        Raises:
            RuntimeError: it still fails after several reruns.
        """
        while self.codes[-1]:
            if self.reruns == MOST_RERUNS:
                raise RuntimeError(
                    f"{self.fault}: still fails after {MOST_RERUNS} reruns:\n"
                    f"{self.driver.read_log()[-3000:]}"
                )
            self.reruns += 1
            self.driver = self.start_job()
            self.wait_for_end()

    def compare(
        self,
        poison: Sequence[str] = (),
        note: str = "",
        *,
        allowed_reruns: int = 0,
        allowed_redone: int = 0,
    ) -> Outcome:
        """Compare the output with the undisturbed run."""
        expected = self.expected
        rows = outputs.read_rows(self.output)
        difference = outputs.compare_rows(rows, expected, poison)
        after = outputs.list_parts(self.output)
        rewritten = [name for name, stamp in self.committed.items() if after.get(name) != stamp]
        lost = difference.lost
        manifest = (self.inputs or self.stage.local).manifest
        if not lost and (fault := outputs.find_fault(self.output, manifest)):
            lost = (fault,)
        per_part = len(expected) / max(1, len(after))
        return Outcome(
            self.fault,
            self.reruns,
            len(expected),
            len(lost),
            len(difference.doubled),
            len(difference.differing),
            round(len(rewritten) * per_part),
            difference.failed,
            tuple(poison),
            round(monotonic() - self.began, 1),
            note,
            allowed_reruns,
            allowed_redone,
        )
