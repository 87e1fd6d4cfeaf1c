"""What a job over shards prints at the end."""

from __future__ import annotations

from collections import Counter

import pytest

from jobs import entry
from pipeline.runs.options import RunOptions
from pipeline.runs.summary import Summary


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (RunOptions(), "the same command, with --retry-failed"),
        (RunOptions(overwrite=True), "the same command without --overwrite, with --retry-failed"),
    ],
)
def test_failed_images_are_done_again_by_a_command_that_is_taken(
    options: RunOptions, command: str
) -> None:
    failed = Counter({"read: MissingObject": 1})
    summary = Summary("/out", 2, 1, 0, failed=failed, rerun=options.rerun)
    told = entry.told(entry.JobOptions(), summary, "jobs/next.py", "--manifest", "s3://k:s@b/m?q=1")
    assert told.splitlines()[-2] == f"failed images again, once mended: {command}"
    assert told.splitlines()[-1] == "next: python jobs/next.py --manifest s3://b/m"


def test_storage_options_go_on_to_the_next_job() -> None:
    options = entry.JobOptions(storage_options="stores.json")
    summary = Summary("/out", 2, 1, 0)
    assert entry.told(options, summary, "jobs/next.py").endswith(
        "next: python jobs/next.py --storage-options stores.json"
    )
    assert "storage-options" not in entry.told(options, summary, "-c", "print()")
