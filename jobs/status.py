"""Tell how far a job came, from its output alone: nothing of Ray is needed, nor is the cluster.

python jobs/status.py out/detections

Works on outputs of propose, detect, train, analyze and export in any store. Prints what is committed, failed
and left, the rate, whether a driver seems to be alive, and the settings. For the driver it lists the output
again for some seconds, since a change is the only sign that needs no host's clock. The exit code is 0 if the
output is finished, 1 if it is not, and 2 if there is no output or it cannot be read.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from jobs.entry import JobOptions, print_lines, run
from pipeline import uris
from pipeline.engine.output_status import read_output_status
from pipeline.option_ranges import check_fields
from pipeline.runs.folder_watch import describe_activity, watch_changes
from pipeline.runs.run_status import OutputStatus

UNFINISHED = 1
"""Exit code of an output that is not finished."""
LONGEST_TEXT = 100
"""Characters of a setting's value that are printed."""


@dataclass(frozen=True, kw_only=True)
class Status(JobOptions):
    """Options of the status job."""

    output: Annotated[str, tyro.conf.Positional]
    """Output folder of propose, detect, train, analyze or export; any fsspec URI."""
    watch: float = 10.0
    """Seconds to watch an unfinished output for changes; it ends with the first change. 0 does not watch."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_fields(self, "watch", at_least=0, below=86_400)


def main(options: Status) -> None:
    """Print the state, and exit with 1 if the output is not finished."""
    status = read_output_status(options.output)
    is_finished = status.state == "finished"
    changed: frozenset[str] = frozenset()
    if is_finished:
        activity = "nothing is left to do"
    elif not options.watch:
        activity = "not watched"
    else:
        folder = uris.make_absolute(options.output)
        changed, seconds = watch_changes(folder, options.watch)
        has_logs = status.starts is not None
        activity = describe_activity(changed, seconds, has_logs=has_logs)
    if options.json:
        content = status.as_json() | {"driver": activity, "changed": sorted(changed)}
        print_lines(*json.dumps(content, indent=2, sort_keys=True).splitlines())
    else:
        print_lines(*describe(status, activity))
    if not is_finished:
        sys.stdout.flush()
        sys.exit(UNFINISHED)


def describe(status: OutputStatus, activity: str) -> list[str]:
    """The lines that a person reads."""
    lines = [f"{status.job}, {status.state}: {uris.redact_uri(status.output)}"]
    lines.append(_describe_progress(status))
    if status.failed:
        failed = ", ".join(f"{count} {reason}" for reason, count in status.failed.items())
        lines.append(f"failed: {sum(status.failed.values())} ({failed})")
    lines += [
        f"damaged part, to be done again: {name}: {why}" for name, why in status.faults.items()
    ]
    lines.append(_describe_rate(status))
    if status.starts is not None:
        lines.append(
            f"starts: {status.starts}; last line of the driver: {status.last_line or 'none'}"
        )
    lines += [f"note: {note}" for note in status.notes]
    lines.append(f"driver: {activity}")
    for title, values in (
        ("input", status.inputs),
        ("setting", status.settings),
        ("resolved", status.resolved),
    ):
        lines += [f"{title} {name}: {text}" for name, text in _flatten(values)]
    return lines


def _describe_progress(status: OutputStatus) -> str:
    total = "an unknown number" if status.total is None else str(status.total)
    text = f"committed: {status.committed} of {total} {status.unit}"
    if status.shards is not None:
        text += f", in {status.shards_committed} of {status.shards} shards"
    return text if status.left is None else f"{text}; left: {status.left}"


def _describe_rate(status: OutputStatus) -> str:
    rate = status.rate
    if rate is None:
        return "rate: cannot tell, the output has neither logs nor a summary with one"
    text = f"rate: {rate.per_second:.1f} {rate.unit}/s ({rate.source})"
    if status.left and status.unit == rate.unit:
        text += f"; {status.left} left take {status.left / rate.per_second:.0f} s at this rate"
    return text


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values by dotted name, shortened."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield (
                f"{prefix}{name}",
                text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...",
            )


if __name__ == "__main__":
    run(Status, main, __doc__)
