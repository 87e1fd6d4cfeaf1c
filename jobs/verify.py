"""Verify an output of propose, detect or analyze: every image once, every row right, nothing left over.

python jobs/verify.py out/detections --manifest test.parquet

Reads every part whole, without Ray, and compares it with the manifest. Prints a table of checks and the first
faults of each by name. The exit code is 0 if all is right, 1 if something is not (a part that is missing
counts), and 2 if the output or the manifest cannot be read at all.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import json
import logging
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.entry import JobOptions, print_lines, run
from pipeline import uris
from pipeline.option_ranges import check_fields
from pipeline.printable import escape_unprintable
from pipeline.runs.verification import Verification, verify_output
from pipeline.runs.verification_faults import CHECKS

log = logging.getLogger(__name__)

LOG_EVERY = 30.0
"""Seconds between log lines."""
WRONG = 1
"""Exit code if a check found a fault."""


@dataclass(frozen=True, kw_only=True)
class Verify(JobOptions):
    """Options of the verify job."""

    output: Annotated[str, tyro.conf.Positional]
    """Folder that propose, detect or analyze wrote; any fsspec URI."""
    manifest: str
    """The manifest that the run had; any fsspec URI."""
    faults: int = 20
    """Faults of each check to print by name; all are counted."""
    processes: int | None = None
    """Processes that read parts, one part at a time; by default one per core, fewer for a small output."""
    json: bool = False
    """Print JSON in place of the table."""

    def __post_init__(self) -> None:
        check_fields(self, "faults", "processes", at_least=1)


class _ProgressLog:
    """Logs now and then how many images are verified."""

    def __init__(self) -> None:
        self._logged = monotonic()

    def __call__(self, done: int, total: int) -> None:
        if monotonic() - self._logged > LOG_EVERY:
            self._logged = monotonic()
            log.info("verified %d of %d images", done, total)


def main(options: Verify) -> None:
    """Verify the output, print the table of checks, and exit with 1 if a check fails."""
    began = monotonic()
    verification = verify_output(
        options.output,
        options.manifest,
        processes=options.processes,
        most_faults=options.faults,
        note_progress=_ProgressLog(),
    )
    seconds = monotonic() - began
    if options.json:
        content = verification.as_json() | {"seconds": round(seconds, 3)}
        print_lines(*json.dumps(content, indent=2, sort_keys=True).splitlines())
    else:
        Console(highlight=False).print(build_table(verification))
        print_lines(*describe(verification, seconds))
    if not verification.is_right:
        sys.stdout.flush()
        sys.exit(WRONG)


def build_table(verification: Verification) -> Table:
    """The checks, each with its number of faults."""
    table = Table("check", "faults", "what is checked", box=None)
    for name, title in CHECKS.items():
        count = verification.contents.faults.counts[name]
        reason = verification.skipped.get(name)
        text = f"not checked: {reason}" if reason and not count else title
        shown = "-" if reason and not count else str(count or "none")
        table.add_row(name, shown, Text(escape_unprintable(text)))
    return table


def describe(verification: Verification, seconds: float) -> list[str]:
    """The first faults by name, and the counts."""
    contents = verification.contents
    lines = [
        f"{fault.check}: {fault.file}"
        + (f", image {fault.image}" if fault.image is not None else "")
        + f": {fault.text}"
        for fault in contents.faults.kept
    ]
    left_out = contents.faults.counts.total() - len(lines)
    if left_out:
        lines.append(f"and {left_out} more faults (--faults)")
    if verification.others:
        count = len(verification.others)
        lines.append(f"{count} other files in the folder, the first is {verification.others[0]}")
    verdict = "all checks passed" if verification.is_right else "NOT RIGHT"
    lines.append(
        f"{verdict}: {contents.rows} rows in {contents.parts} of {verification.shards} parts, "
        f"{verification.images} images, {contents.failed.total()} failed, {seconds:.1f} s: "
        f"{uris.redact_uri(verification.output)}"
    )
    return lines


if __name__ == "__main__":
    run(Verify, main, __doc__)
