"""Nodes that end with a notice, that fall silent for a while, and whose clocks are wrong."""

from __future__ import annotations

import signal
import subprocess
import time

from tests.chaos.outcome import Outcome
from tests.chaos.processes import wait_until
from tests.chaos.stage import AT_WORK, Stage
from tests.chaos.trial import Trial

NOTICE_SECONDS = 5
"""Between the notice and the end of a node; spot instances get 30 s to two minutes."""
CLOCK_SHIFT = 1_000_000
"""Seconds by which a node's clocks are ahead."""
UNSHARE = ("unshare", "--user", "--map-root-user")
SHIFTED = (
    *(*UNSHARE, "--time", "--fork", "--kill-child"),
    *("--monotonic", str(CLOCK_SHIFT), "--boottime", str(CLOCK_SHIFT)),
)


def preempt_node(stage: Stage) -> Outcome:
    """Drain a node with a notice, let a new one join, and terminate the first at its deadline."""
    trial = Trial(stage, "node_preempted")
    trial.wait_for_third()
    victim = stage.cluster.nodes[-1]
    with trial.hold_workers():
        stage.cluster.drain_node(victim, NOTICE_SECONDS)
        deadline = time.monotonic() + NOTICE_SECONDS
        stage.cluster.add_node()
        time.sleep(max(0.0, deadline - time.monotonic()))
        try:
            trial.check_at_work("the node did")
        finally:
            stage.cluster.terminate_node(victim)
    return _finish(trial)


def terminate_nodes(stage: Stage) -> Outcome:
    """SIGTERM one node without a notice, and the other one as soon as a new node has joined."""
    trial = Trial(stage, "nodes_terminated")
    trial.wait_for_third()
    first, second = stage.cluster.nodes[1:3]
    # The new node cannot end the run before `second` ends: its detector takes seconds to load.
    with trial.hold_workers():
        trial.check_at_work("the first node did")
        stage.cluster.terminate_node(first)
        stage.cluster.add_node()
        trial.check_at_work("the second node did")
        stage.cluster.terminate_node(second)
    stage.cluster.add_node()
    return _finish(trial)


def stop_node(stage: Stage) -> Outcome:
    """Stop all processes of a node until the others have finished, and continue them."""
    trial = Trial(stage, "node_stopped")
    trial.wait_for_third()
    victim = stage.cluster.nodes[-1]
    victim.send_signal(signal.SIGSTOP)
    try:
        trial.wait_for_end()
        trial.remember_parts()
    finally:
        victim.send_signal(signal.SIGCONT)
    # Its workers may write the parts on which they worked; then Ray ends the node, which it took for lost.
    wait_until(lambda: victim.process.poll() is not None, "end of the node that was lost", 120)
    stage.cluster.kill_node(victim)
    stage.cluster.add_node()
    trial.rerun_until_done()
    return trial.compare(note="its workers write late", allowed_redone=AT_WORK)


def shift_clocks(stage: Stage) -> Outcome | str:
    """Run on two nodes, one of which has other clocks: wall clock and monotonic clock are days ahead."""
    possible = subprocess.run([*SHIFTED, "true"], capture_output=True, check=False)
    if possible.returncode:
        return "this machine does not allow a time namespace (unshare --time)"
    other = stage.cluster.nodes[-1]
    shifted = stage.cluster.add_node(
        before=SHIFTED, environment={"CHAOS_CLOCK_SHIFT": str(CLOCK_SHIFT)}
    )
    stage.cluster.kill_node(other)
    try:
        trial = Trial(stage, "clocks_apart")
        used: set[str] = set()

        def uses_shifted_node() -> bool:
            titles = ("read_piece", "DetectorActor")
            used.update(title for title in titles if shifted.list_workers(title))
            return len(used) == len(titles) or trial.driver.process.poll() is not None

        wait_until(uses_shifted_node, "tasks and a detector on the shifted node", 300, interval=0.0)
        outcome = _finish(trial)
        if len(used) < 2:
            raise AssertionError(f"the node with other clocks only had {used}")
        return outcome
    finally:
        stage.cluster.kill_node(shifted)
        stage.cluster.add_node()


def _finish(trial: Trial) -> Outcome:
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare()
