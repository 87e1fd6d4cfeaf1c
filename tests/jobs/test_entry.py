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
def test_the_command_to_retry_failed_images_can_be_run_as_printed(
    options: RunOptions, command: str
) -> None:
    failed = Counter({"read: MissingObject": 1})
    summary = Summary("/out", 2, 1, 0, failed=failed, rerun=options.rerun)
    message = entry.closing_message(
        entry.JobOptions(), summary, "jobs/next.py", "--manifest", "s3://k:s@b/m?q=1"
    )
    assert message.splitlines()[-2] == f"to retry failed images, once repaired: {command}"
    assert message.splitlines()[-1] == "next: python jobs/next.py --manifest s3://b/m"


def test_the_next_job_gets_the_storage_options() -> None:
    options = entry.JobOptions(storage_options="stores.json")
    summary = Summary("/out", 2, 1, 0)
    assert entry.closing_message(options, summary, "jobs/next.py").endswith(
        "next: python jobs/next.py --storage-options stores.json"
    )
    assert "storage-options" not in entry.closing_message(options, summary, "-c", "print()")
