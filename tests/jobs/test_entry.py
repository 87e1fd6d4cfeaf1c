"""What a job prints at the end, and its exit code after a signal."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from jobs import entry
from jobs.analyze_sql import AnalyzeSql
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
    lines = entry.build_closing_lines(
        entry.JobOptions(), summary, "jobs/next.py", "--manifest", "https://k:s@b/m?q=1"
    )
    assert lines[-2] == f"to retry failed images, once repaired: {command}"
    assert lines[-1] == "next: python jobs/next.py --manifest https://b/m"


def test_the_next_job_gets_the_storage_options() -> None:
    options = entry.JobOptions(storage_options="stores.json")
    summary = Summary("/out", 2, 1, 0)
    line = entry.build_closing_lines(options, summary, "jobs/next.py")[-1]
    assert line == "next: python jobs/next.py --storage-options stores.json"
    line = entry.build_closing_lines(options, summary, "-c", "print()")[-1]
    assert "storage-options" not in line


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


def test_names_in_results_neither_command_the_terminal_nor_start_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry.print_lines("classes: \x1b[2Jdog\nnext: rm", "caf\udce9")
    assert capsys.readouterr().out == "classes: \\x1b[2Jdog\\nnext: rm\ncaf\\udce9\n"


def test_a_reader_that_closes_the_pipe_ends_a_job_quietly() -> None:
    script = (
        "from jobs import entry\n"
        "def main(options):\n"
        "    for _ in range(100_000): entry.print_lines('a line of results')\n"
        "entry.run(entry.JobOptions, main)\n"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} | head -1"
    ended = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    assert ended.stdout == "a line of results\n"
    assert ended.stderr == ""


def test_a_reader_that_closes_the_pipe_ends_the_help_quietly() -> None:
    """The help is longer than the buffer of a pipe, so it is still being printed."""
    script = (
        "import sys\n"
        "from jobs import entry\n"
        "sys.argv[1:] = ['--help']\n"
        "entry.run(entry.JobOptions, print, 'word ' * 100_000)\n"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} | head -1"
    ended = subprocess.run(command, shell=True, check=False, capture_output=True, text=True)
    assert ended.stdout.startswith("usage: ")
    assert ended.stderr == ""


def test_a_statement_of_sql_is_no_uri() -> None:
    """It may name one."""
    options = AnalyzeSql(
        statement="SELECT * FROM images WHERE uri LIKE 's3://a/%'", manifest="s3://b/m.parquet"
    )
    assert entry.list_remote_stores(options) == ["s3://b/m.parquet"]
