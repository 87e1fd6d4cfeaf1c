"""What the demo does to running jobs: stop one with `ray job stop`, kill a node under another."""

from __future__ import annotations

import re
import time

from tests.chaos import outputs
from tests.chaos.processes import wait_until
from tests.cluster.demo.local_cluster import LocalCluster
from tests.cluster.demo.outcome import StoppedJob
from tests.cluster.submission import RayJobs, Submission

LOOK_EVERY = 5.0
"""Seconds between looks at whether a job that nobody follows still runs."""
PART_SECONDS = 600
"""How long a job may take to commit its first parts."""


def submit_without_waiting(jobs: RayJobs, output: str, *words: str, parts: int) -> str:
    """Submit a job with --no-wait, wait until it has committed `parts` parts, and return its id.

    Raises:
        RuntimeError: the job could not be submitted, or ended before.
    """
    job_id = jobs.submit(*words, options=("--no-wait",)).job_id
    next_look = time.monotonic() + LOOK_EVERY

    def has_parts() -> bool:
        nonlocal next_look
        if time.monotonic() > next_look:
            next_look = time.monotonic() + LOOK_EVERY
            if not jobs.is_active(job_id):
                raise RuntimeError(f"the job ended too early:\n{jobs.read_log(job_id)[-3000:]}")
        return len(outputs.list_parts(output)) >= parts

    wait_until(has_parts, f"{parts} parts", PART_SECONDS, 0.25)
    return job_id


def stop_job(jobs: RayJobs, output: str, job_id: str) -> tuple[StoppedJob, str]:
    """Stop a job, and read from its log what it reports as committed; returns the log too.

    Raises:
        RuntimeError: it does not report that, or Ray had to end it.
    """
    began = time.monotonic()
    jobs.stop(job_id)
    seconds = time.monotonic() - began
    stored = len(outputs.read_rows(output))
    log = jobs.read_log(job_id)
    reported, images = _find_numbers(r"stopped: (\d+) of (\d+) images are committed in ", log)
    if log.split()[-1] != "stopped":
        raise RuntimeError(f"the job did not end by itself:\n{log[-3000:]}")
    return StoppedJob(images, reported, stored, round(seconds, 1)), log


def find_resumed_from(submission: Submission) -> int:
    """How many images a resumed job did not do again, as it says at its end.

    Raises:
        RuntimeError: it does not say so.
    """
    return _find_numbers(r"; (\d+) were done before", submission.text)[0]


def _find_numbers(pattern: str, text: str) -> tuple[int, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"the job did not say {pattern!r}:\n{text[-3000:]}")
    return tuple(map(int, match.groups()))


def lose_node(
    jobs: RayJobs, cluster: LocalCluster, output: str, *words: str, parts: int
) -> tuple[Submission, int]:
    """Submit a job, kill a node once `parts` more parts are committed, and wait for the job's end.

    Returns:
        The submission, and the number of parts that were committed when the node was killed.

    Raises:
        RuntimeError: the job ended before.
    """
    before = len(outputs.list_parts(output))
    committed = 0

    def has_parts() -> bool:
        nonlocal committed
        if submission.process.poll() is not None:
            submission.wait()
            raise RuntimeError(f"the job ended too early:\n{submission.text[-3000:]}")
        committed = len(outputs.list_parts(output))
        return committed >= before + parts

    with jobs.start(*words) as submission:
        wait_until(has_parts, f"{parts} parts", PART_SECONDS, 0.25)
        node = cluster.kill_node()
        jobs.echo(f"# {node.name} is killed: SIGKILL of its raylet and workers")
        submission.wait()
    return submission, committed
