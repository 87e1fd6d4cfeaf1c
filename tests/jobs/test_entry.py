"""What a job prints at the end, and its exit code after a signal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter

import pytest

from jobs import entry
from pipeline.runs.options import RunOptions
from pipeline.runs.summary import RunInterrupted, Summary
from tests.jobs.command import read_error_output


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_sets_the_exit_code_even_if_another_interrupt_replaces_its_exception(
    number: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ray raises a plain KeyboardInterrupt, and a run over shards one with its count of images."""

    def wait(options: entry.JobOptions) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt as interrupt:
            raise RunInterrupted(3) from interrupt

    monkeypatch.setattr(sys, "argv", ["jobs/test.py"])
    handlers = {handled: signal.getsignal(handled) for handled in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as exit_info:
            entry.run(entry.JobOptions, wait)
    finally:
        for handled, handler in handlers.items():
            signal.signal(handled, handler)
    assert exit_info.value.code == code
    assert read_error_output(capsys) == "stopped\n"
