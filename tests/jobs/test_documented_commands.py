"""Commands in README.md and docs/ parse by the options of the jobs; `tests/cluster` checks cluster/."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import entry
from tests.cluster.cluster_files import split_commands
from tests.jobs.command import get_options_and_main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEREDOC = re.compile(r"^cat .*<<END\n.*?^END\n", re.DOTALL | re.MULTILINE)
JOB = re.compile(r"jobs/(\w+)\.py")


def list_commands() -> Iterator[tuple[str, str, list[str]]]:
    """The page, the job and the arguments of each command in a code block."""
    for page in PAGES:
        for language, block in BLOCK.findall(page.read_text()):
            text = HEREDOC.sub("", block) if language == "sh" else ""
            for words in split_commands(text):
                job = JOB.fullmatch(words[1]) if words[:1] == ["python"] else None
                if job:
                    yield page.name, job[1], words[2:]


COMMANDS = list(list_commands())


def test_the_commands_are_found() -> None:
    jobs = {job for _, job, _ in COMMANDS}
    assert {"prepare", "propose", "train", "detect", "analyze", "export", "exchange"} <= jobs
    assert {"compress", "rank", "status", "verify"} <= jobs
    pages = {page for page, _, _ in COMMANDS}
    assert {"README.md", "tutorial.md", "training.md", "dataset-checks.md"} <= pages


@pytest.mark.parametrize("page", sorted({page for page, _, _ in COMMANDS}))
def test_a_page_shows_options_that_the_jobs_have(page: str) -> None:
    for place, job, arguments in COMMANDS:
        if place != page:
            continue
        complete = [word for word in arguments if word != "..."]
        options, _ = get_options_and_main(job, tuple(complete))
        if complete == arguments:
            entry.parse(options, arguments)
        else:  # the reader fills in the rest
            shown = {word for word in complete if word.startswith("--")}
            assert shown <= set(re.findall(r"--[\w.-]+", _read_help(options, complete)))


def _read_help(options: type, arguments: list[str]) -> str:
    subcommand = [word for word in arguments[:1] if not word.startswith("-")]
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        entry.parse(options, [*subcommand, "--help"])
    return text.getvalue()
