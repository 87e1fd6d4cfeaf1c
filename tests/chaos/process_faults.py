"""Processes that are killed: the driver, workers, whole nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from tests.chaos import outputs
from tests.chaos.outcome import Outcome, Trial
from tests.chaos.processes import awaited, send
from tests.chaos.raylets import QUIET
from tests.chaos.stage import Stage


def driver_killed(stage: Stage) -> Outcome:
    """SIGKILL of the driver at a third of the way; the same command does the rest."""
    return _driver_killed(Trial(stage, "driver_killed"))


def driver_killed_stored_proposals(stage: Stage) -> Outcome:
    """The same of a job that takes stored proposals."""
    name = "driver_killed_stored_proposals"
    return _driver_killed(Trial(stage, name, "--proposals", stage.proposals()))


def _driver_killed(trial: Trial) -> Outcome:
    trial.await_a_third()
    os.kill(trial.driver.process.pid, signal.SIGKILL)
    trial.ended()
    time.sleep(3)  # what was in flight may still be written
    trial.remember()
    trial.rerun_until_done()
    return trial.outcome(allowed_reruns=1)


def proposal_worker_killed(stage: Stage) -> Outcome:
    """SIGKILL of a CPU worker while it reads and proposes."""
    return _worker_killed(stage, "proposal_worker_killed", "_read_piece")


def detector_killed(stage: Stage) -> Outcome:
    """SIGKILL of a detector actor."""
    return _worker_killed(stage, "detector_killed", "DetectorActor")


def _worker_killed(stage: Stage, fault: str, title: str) -> Outcome:
    trial = Trial(stage, fault)
    trial.await_a_third()
    victims: list[int] = []

    def found() -> bool:
        victims.extend(stage.cluster.workers(title)[:1])
        return bool(victims)

    awaited(found, f"a worker at {title} to kill", every=0.0)
    send(victims, signal.SIGKILL)
    trial.ended()
    trial.rerun_until_done()
    return trial.outcome()


def node_killed_another_joins(stage: Stage) -> Outcome:
    """SIGKILL of one of two raylets; a new one joins while the run is at work and is used."""
    trial = Trial(stage, "node_killed_another_joins")
    trial.await_a_third()
    stage.cluster.kill(stage.cluster.nodes[-1])
    # The workers that are left stand still, so that the run cannot end before the new node is there.
    left = stage.cluster.workers("")
    send(left, signal.SIGSTOP)
    joined = stage.cluster.join()
    used: set[str] = set()

    def both() -> bool:
        used.update(title for title in ("_read_piece", "DetectorActor") if joined.workers(title))
        return len(used) == 2

    try:
        awaited(both, "the new node to be given tasks and a detector", 300, every=0.0)
        trial.remember()
    finally:
        send(left, signal.SIGCONT)
    trial.ended()
    trial.rerun_until_done()
    return trial.outcome()


def all_nodes_killed(stage: Stage) -> Outcome:
    """No node is left for longer than the run's patience; with new ones the same command goes on."""
    trial = Trial(stage, "all_nodes_killed", "--no-capacity-after", "20")
    trial.await_a_third()
    count = len(stage.cluster.nodes) - 1
    for node in stage.cluster.nodes[1:]:
        stage.cluster.kill(node)
    code = trial.ended()
    told = trial.driver.told()
    for _ in range(count):
        stage.cluster.join()
    if code != 1 or ("lacked CPU 1" not in told and "missing is CPU 1" not in told):
        raise AssertionError(f"exit code {code}, and no word of the missing core:\n{told[-2000:]}")
    trial.remember()
    trial.rerun_until_done()
    return trial.outcome(
        note="ends with an error that names the missing resource", allowed_reruns=1
    )


def two_drivers(stage: Stage) -> Outcome:
    """Two drivers on one output at once."""
    trial = Trial(stage, "two_drivers")
    second = trial.start()
    codes = [trial.ended(), second.wait()]
    if any(codes):
        raise AssertionError(
            f"exit codes {codes}:\n{second.told()[-1500:]}{trial.driver.told()[-1500:]}"
        )
    return trial.outcome()


def overwrite_killed(stage: Stage) -> Outcome:
    """An output of other settings is overwritten; the driver is killed on the way, then run again plainly."""
    output = stage.output("overwrite_killed")
    stage.run(output, "--seed", "7")
    trial = Trial(stage, "overwrite_killed", begin=False)
    old = outputs.parts(output)
    trial.driver = trial.start("--overwrite")
    trial.driver.await_parts(stage.a_third, beside=old)
    os.kill(trial.driver.process.pid, signal.SIGKILL)
    trial.ended()
    time.sleep(3)
    trial.remember()
    trial.rerun_until_done()
    return trial.outcome(allowed_reruns=1)


def disk_full(stage: Stage) -> Outcome | str:
    """An output on a disk that is full half way; the same command goes on once there is room."""
    mounting = ("unshare", "--user", "--map-root-user", "--mount")
    possible = subprocess.run([*mounting, "true"], capture_output=True, check=False)
    if possible.returncode:
        return "needs a mount of its own (unshare), which is not allowed here"
    trial = Trial(stage, "disk_full", begin=False)
    size = _size_of_half(stage)
    # A file system of its own, seen by this job and its own Ray only; what it holds is kept at the end.
    script = (
        f"mkdir -p {trial.output} {trial.output}-kept && "
        f"mount -t tmpfs -o size={size} tmpfs {trial.output} && "
        f'"$@"; code=$?; cp -a {trial.output}/. {trial.output}-kept/; exit $code'
    )
    local_ray = QUIET | {"RAY_ADDRESS": ""}
    before = (*mounting, "sh", "-c", script, "sh")
    trial.driver = stage.start(trial.output, environment=local_ray, before=before)
    trial.ended()
    told = trial.driver.told()
    if trial.codes != [1] or "No space left on device" not in told:
        raise AssertionError(f"exit code {trial.codes[0]}, expected 1:\n{told[-3000:]}")
    subprocess.run(["cp", "-a", f"{trial.output}-kept/.", f"{trial.output}/"], check=True)
    trial.remember()
    if not trial.before:
        raise AssertionError("nothing was committed before the disk was full")
    trial.rerun_until_done()
    return trial.outcome(note="ends with an error that says so", allowed_reruns=1)


def _size_of_half(stage: Stage) -> int:
    """Bytes, in pages, for half of the parts."""
    undisturbed = stage.folder / "undisturbed"
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in undisturbed.iterdir()) // 2
