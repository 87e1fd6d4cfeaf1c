"""Tries damaged and crafted inputs: python -m tests.fuzz [--cases N] [--seed S] (or `make fuzz N=...`).

Prints a table with the outcomes by kind, after the cases that must not happen. The exit code is 0 if there
are none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.outcomes import Case, CaseResult, format_table
from tests.fuzz.runner import run_cases
from tests.fuzz.targets import KINDS, get_target

SHOWN = 12
"""Bad cases that are printed of each kind and outcome; all are counted."""


def plan_cases(kinds: list[str], count: int, seed: int) -> list[Case]:
    """`count` cases, as many of each kind, in the order of the kinds."""
    shares = [count // len(kinds) + (index < count % len(kinds)) for index in range(len(kinds))]
    return [
        Case(kind, seed, number)
        for kind, share in zip(kinds, shares, strict=True)
        for number in range(share)
    ]


def run_one(case: Case, folder: Path) -> None:
    """Run one case in this process, with its traceback, and leave its input in the folder."""
    from tests.fuzz.worker import read_input, write_input

    target = get_target(case.kind)
    result = read_input(target, case, folder, write_input(target, case, folder))
    print(f"{result.format()}\n    {folder} ({result.seconds:.1f} s)")
    if result.outcome.is_bad:
        target.read(folder)  # shows the traceback


def main() -> int:
    """Run the requested cases, print the table and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tests.fuzz", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--cases", type=int, default=1000, help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--case", type=int, help="run only this case of one kind")
    parser.add_argument(
        "--keep", action="store_true", help="with --case: run it in this process and keep its input"
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.case is not None:
        cases = [Case(kind, options.seed, options.case) for kind in options.kind]
        if options.keep:
            run_one(cases[0], Path(tempfile.mkdtemp(prefix="fuzz-")))
            return 0
    else:
        cases = plan_cases(options.kind, options.cases, options.seed)
    began = time.monotonic()
    results = []
    for result in run_cases(cases, options.workers):
        results.append(result)
        _report(result, results)
    results.sort(key=lambda result: KINDS.index(result.case.kind))
    print(f"\n{format_table(results)}\n{len(results)} cases in {time.monotonic() - began:.0f} s")
    return 1 if any(result.outcome.is_bad for result in results) else 0


def _report(result: CaseResult, results: list[CaseResult]) -> None:
    alike = sum(
        (other.case.kind, other.outcome) == (result.case.kind, result.outcome) for other in results
    )
    if result.outcome.is_bad and alike <= SHOWN:
        print(result.format(), flush=True)
    if len(results) % 500 == 0:
        print(f"{len(results)} cases", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
