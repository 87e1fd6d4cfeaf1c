"""Jobs submitted as a person submits them: `ray job submit`, `logs`, `stop`, each a process."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.chaos.processes import kill_tree
from tests.chaos.raylets import Raylets

AGENT_SECONDS = 180
"""How long the head's agent, which starts jobs, may take to come up after the dashboard."""
JOB_SECONDS = 1500
_COLOUR = re.compile(r"\x1b\[\d+m")
_RAY_LOG = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\s+[A-Z]+ \S+\.py:\d+ -- ")
_JOB_ID = re.compile(r"Job '(raysubmit_\w+)' submitted successfully")

Echo = Callable[[str], None]


def _ignore(line: str) -> None:
    pass


def select_line(line: str) -> str | None:
    """The line if a job printed it, what Ray says of the job's state, or None for Ray's other lines."""
    plain = _COLOUR.sub("", line).rstrip()
    match = _RAY_LOG.match(plain)
    if match is not None:
        state = plain[match.end() :]
        return state if state.startswith("Job '") else None
    return None if not plain or plain.startswith("Running entrypoint for job") else plain


def list_submit_words(*words: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What follows `ray job` to run a command on a cluster with the code of this folder.

    Args:
        words: the command.
        options: further options of `ray job submit`.
    """
    return ("submit", *options, "--working-dir", ".", "--", *words)


class Submission:
    """A `ray job submit` process and what it has printed so far; a `with` block ends it."""

    def __init__(self, process: subprocess.Popen[str], echo: Echo) -> None:
        """Read the process's output in a thread, and pass on the lines that the job itself prints."""
        self.process = process
        self._lines: list[str] = []
        self._echo = echo
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *reason: object) -> None:
        if self.process.poll() is None:
            kill_tree(self.process)

    @property
    def text(self) -> str:
        """Everything that was printed, Ray's own lines included."""
        return "".join(self._lines)

    @property
    def job_id(self) -> str:
        """The id that Ray gave the job.

        Raises:
            RuntimeError: Ray accepted no job.
        """
        match = _JOB_ID.search(self.text)
        if match is None:
            raise RuntimeError(f"Ray accepted no job:\n{self.text[-3000:]}")
        return match[1]

    def wait(self) -> int:
        """Wait until the process ends, and return its exit code.

        Raises:
            RuntimeError: it does not end.
        """
        try:
            code = self.process.wait(JOB_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the job did not end:\n{self.text[-3000:]}") from None
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            _pass_on(line, self._echo)


def _pass_on(line: str, echo: Echo) -> None:
    selected = select_line(line)
    if selected is not None:
        echo(selected)


class RayJobs:
    """The `ray job` commands for one cluster, typed in one folder."""

    def __init__(self, cluster: Raylets, folder: Path, echo: Echo = _ignore) -> None:
        """Prepare the commands.

        Args:
            cluster: a cluster with a dashboard.
            folder: the clone that `--working-dir .` sends.
            echo: called with each command, after `$ `, and with what `select_line` selects.
        """
        self.folder = folder
        self.echo = echo
        own = {k: v for k, v in cluster.environment.items() if k != "RAY_ADDRESS"}
        address = f"http://127.0.0.1:{cluster.dashboard_port}"
        self.environment: Mapping[str, str] = os.environ | own | {"RAY_API_SERVER_ADDRESS": address}

    def start(self, *words: str, options: tuple[str, ...] = ()) -> Submission:
        """Start `ray job submit`, which follows the job's log until the job ends.

        Args:
            words: the command that the cluster is to run.
            options: further options of `ray job submit`.
        """
        command = list_submit_words(*words, options=options)
        self.echo(f"$ ray job {shlex.join(command)}")
        process = subprocess.Popen(
            _build_command(*command),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return Submission(process, self.echo)

    def submit(self, *words: str, options: tuple[str, ...] = ()) -> Submission:
        """As `start`, but wait for the end; submit again while the head's agent is not up."""
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            with self.start(*words, options=options) as submission:
                submission.wait()
            if "No available agent" not in submission.text or time.monotonic() > deadline:
                return submission

    def read_log(self, job_id: str) -> str:
        """What `ray job logs` prints: the log of a job so far."""
        return self._run("logs", job_id)

    def stop(self, job_id: str) -> str:
        """Run `ray job stop`, which waits until the job has ended; returns what it prints."""
        return self._run("stop", job_id)

    def is_active(self, job_id: str) -> bool:
        """Whether a job waits or runs, as the dashboard says; `ray job status` would load Ray each time."""
        request = urllib.request.Request(
            f"{self.environment['RAY_API_SERVER_ADDRESS']}/api/jobs/{job_id}",
            headers={"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["status"] in ("PENDING", "RUNNING")

    def _run(self, *words: str) -> str:
        self.echo(f"$ ray job {shlex.join(words)}")
        ended = subprocess.run(
            _build_command(*words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            errors="replace",
            timeout=300,
        )
        if ended.returncode:
            raise RuntimeError(f"ray job {' '.join(words)} failed:\n{ended.stdout[-3000:]}")
        for line in ended.stdout.splitlines():
            _pass_on(line, self.echo)
        return ended.stdout


def _build_command(*words: str) -> list[str]:
    """`ray job WORDS`, by this environment's Ray."""
    return [sys.executable, "-m", "ray.scripts.scripts", "job", *words]
