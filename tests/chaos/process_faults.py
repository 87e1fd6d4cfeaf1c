"""Processes that are killed: the driver, workers, whole nodes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Collection

from tests.chaos import outputs
from tests.chaos.outcome import Outcome
from tests.chaos.processes import send_signal, wait_until
from tests.chaos.raylets import QUIET
from tests.chaos.stage import Stage
from tests.chaos.trial import Trial


def kill_driver(stage: Stage) -> Outcome:
    """SIGKILL the driver after a third of the parts; the same command does the rest."""
    return _kill_driver(Trial(stage, "driver_killed"))


def kill_driver_with_stored_proposals(stage: Stage) -> Outcome:
    """The same with a job that reads stored proposals."""
    name = "driver_killed_stored_proposals"
    return _kill_driver(Trial(stage, name, "--proposals", stage.ensure_proposals()))


def _kill_driver(trial: Trial) -> Outcome:
    trial.wait_for_third()
    trial.kill_driver()
    trial.rerun_until_done()
    return trial.compare(allowed_reruns=1)


def kill_proposal_worker(stage: Stage) -> Outcome:
    """SIGKILL a CPU worker while it reads and proposes."""
    return _kill_worker(stage, "proposal_worker_killed", "read_piece")


def kill_detector(stage: Stage) -> Outcome:
    """SIGKILL a detector actor."""
    return _kill_worker(stage, "detector_killed", "DetectorActor")


def _kill_worker(stage: Stage, fault: str, title: str) -> Outcome:
    trial = Trial(stage, fault)
    trial.wait_for_third()
    victims: list[int] = []

    def find_victim() -> bool:
        victims.extend(stage.cluster.list_workers(title)[:1])
        return bool(victims)

    wait_until(find_victim, f"start of a worker at {title}", interval=0.0)
    send_signal(victims, signal.SIGKILL)
    trial.check_at_work("its worker did")
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare()


def kill_node_and_add_another(stage: Stage) -> Outcome:
    """SIGKILL one of two raylets; a new one joins during the run, and the run uses it."""
    trial = Trial(stage, "node_killed_another_joins")
    trial.wait_for_third()
    replace_node(trial, ("read_piece", "DetectorActor"))
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare()


def replace_node(trial: Trial, titles: Collection[str]) -> None:
    """SIGKILL the last node of a run, and let a new one join that the run uses.

    Args:
        trial: the run, which is at work.
        titles: those of the workers that the new node must have had.

    Raises:
        AssertionError: the run has ended.
        TimeoutError: the new node did not have such workers.
    """
    cluster = trial.stage.cluster
    used: set[str] = set()
    with trial.hold_workers():
        trial.check_at_work("its node did")
        cluster.kill_node(cluster.nodes[-1])
        new_node = cluster.add_node()

        def uses_new_node() -> bool:
            used.update(title for title in titles if new_node.list_workers(title))
            return len(used) == len(titles)

        wait_until(uses_new_node, f"{', '.join(titles)} on the new node", 300, interval=0.0)
        trial.remember_parts()


def kill_all_nodes(stage: Stage) -> Outcome:
    """SIGKILL all nodes for longer than `--no-capacity-after`; the same command goes on with new nodes."""
    trial = Trial(stage, "all_nodes_killed", "--no-capacity-after", "20")
    trial.wait_for_third()
    count = len(stage.cluster.nodes) - 1
    with trial.hold_workers():  # else the last node may end a short run
        for node in stage.cluster.nodes[1:]:
            stage.cluster.kill_node(node)
    code = trial.wait_for_end()
    log = trial.driver.read_log()
    for _ in range(count):
        stage.cluster.add_node()
    if code != 1 or ("lacked CPU 1" not in log and "waiting for CPU 1" not in log):
        raise AssertionError(
            f"exit code {code}, and the log does not name the missing core:\n{log[-2000:]}"
        )
    trial.remember_parts()
    trial.rerun_until_done()
    return trial.compare(
        note="ends with an error that names the missing resource", allowed_reruns=1
    )


def run_two_drivers(stage: Stage) -> Outcome:
    """Run two drivers on one output at once."""
    trial = Trial(stage, "two_drivers")
    second = trial.start_job()
    codes = [trial.wait_for_end(), second.wait()]
    if any(codes):
        raise AssertionError(
            f"exit codes {codes}:\n{second.read_log()[-1500:]}{trial.driver.read_log()[-1500:]}"
        )
    return trial.compare()


def kill_overwriting_driver(stage: Stage) -> Outcome:
    """SIGKILL a driver that overwrites another run's output; rerun it without `--overwrite`."""
    output = stage.locate_output("overwrite_killed")
    stage.run_job(output, "--seed", "7")
    trial = Trial(stage, "overwrite_killed", begin=False)
    old = outputs.list_parts(output)
    trial.driver = trial.start_job("--overwrite")
    trial.driver.wait_for_parts(trial.third_of_parts, beside=old)
    trial.kill_driver()
    trial.rerun_until_done()
    return trial.compare(allowed_reruns=1)


def fill_disk(stage: Stage) -> Outcome | str:
    """Write to a disk with room for half of the parts; the same command goes on once there is more room."""
    mounting = ("unshare", "--user", "--map-root-user", "--mount")
    possible = subprocess.run([*mounting, "true"], capture_output=True, check=False)
    if possible.returncode:
        return "this machine does not allow the separate mount (unshare) that it needs"
    trial = Trial(stage, "disk_full", begin=False)
    size = _measure_half(stage)
    # Only this job and its own Ray see the file system, so the script copies its content at the end.
    script = (
        f"mkdir -p {trial.output} {trial.output}-kept && "
        f"mount -t tmpfs -o size={size} tmpfs {trial.output} && "
        f'"$@"; code=$?; cp -a {trial.output}/. {trial.output}-kept/; exit $code'
    )
    local_ray = QUIET | {"RAY_ADDRESS": ""}
    before = (*mounting, "sh", "-c", script, "sh")
    trial.driver = stage.start_job(trial.output, environment=local_ray, before=before)
    trial.wait_for_end()
    log = trial.driver.read_log()
    if trial.codes != [1] or "No space left on device" not in log:
        raise AssertionError(f"exit code {trial.codes[0]}, expected 1:\n{log[-3000:]}")
    subprocess.run(["cp", "-a", f"{trial.output}-kept/.", f"{trial.output}/"], check=True)
    trial.remember_parts()
    if not trial.committed:
        raise AssertionError("no part was committed before the disk was full")
    trial.rerun_until_done()
    return trial.compare(note="ends with an error that names the cause", allowed_reruns=1)


def _measure_half(stage: Stage) -> int:
    """Bytes, in whole pages, of half of the parts."""
    undisturbed = stage.folder / "undisturbed"
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in undisturbed.iterdir()) // 2
