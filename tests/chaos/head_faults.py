"""The head node dies. With its state in a store it restarts; without one the cluster is lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.chaos import outputs
from tests.chaos.driver import Driver
from tests.chaos.outcome import Outcome
from tests.chaos.raylets import Raylets
from tests.chaos.stage import Stage
from tests.chaos.state_store import SERVERS, find_server, keep_in_redis, keep_in_rocksdb
from tests.chaos.trial import Trial

DOWN_SECONDS = 10
"""Between the death of the head and its restart; nodes wait for it for a minute."""
PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "20"}
"""How long nodes and drivers wait for a head that does not come back; a minute by default."""


def restart_head(stage: Stage) -> Outcome:
    """SIGKILL the head, whose state is in a RocksDB, and start it again during the run."""
    with keep_in_rocksdb() as variables:
        return _restart(stage, "head_restarted", variables, "its state in RocksDB")


def restart_head_with_redis(stage: Stage) -> Outcome | str:
    """The same with a Redis server, which outlives the head; skipped where none is installed."""
    server = find_server()
    if server is None:
        return f"none of {', '.join(SERVERS)} is on the PATH"
    with keep_in_redis(server) as variables:
        return _restart(
            stage, "head_restarted_redis", variables, f"its state in {Path(server).name}"
        )


def _restart(stage: Stage, name: str, variables: Mapping[str, str], note: str) -> Outcome:
    cluster = Raylets(stage.store_environment, head_environment=variables)
    with stage.use_cluster(cluster):
        trial = Trial(stage, name, begin=False)
        trial.driver = _start_on_node(trial)
        trial.wait_for_third()
        with trial.hold_workers():  # else a short run ends without the head
            cluster.kill_node(cluster.head)
            time.sleep(DOWN_SECONDS)
            cluster.start_head()
            trial.check_at_work("the head was back")
            trial.remember_parts()
        trial.wait_for_end()
        committed = len(outputs.list_parts(trial.output)) - len(trial.committed)
        if committed <= 0:
            raise AssertionError(
                f"no part was committed after the head was back:\n{trial.driver.read_log()[-3000:]}"
            )
        trial.rerun_until_done()
        return trial.compare(
            note=f"{note}; {committed} of {trial.shards} parts after the head was back"
        )


def lose_head(stage: Stage) -> Outcome:
    """SIGKILL a head without such a store: the run ends; the same command goes on with another cluster."""
    cluster = Raylets(stage.store_environment | PATIENCE)
    trial = Trial(stage, "head_lost", begin=False)
    with stage.use_cluster(cluster):
        trial.driver = _start_on_node(trial)
        trial.wait_for_third()
        cluster.kill_node(cluster.head)
        code = trial.wait_for_end()
    if not code:
        raise AssertionError(f"the run did not notice:\n{trial.driver.read_log()[-3000:]}")
    trial.remember_parts()
    trial.rerun_until_done()
    return trial.compare(note=f"exit code {code}; done on another cluster", allowed_reruns=1)


def _start_on_node(trial: Trial) -> Driver:
    """Start the job with its driver on a node that is not the head."""
    node = trial.stage.cluster.nodes[1]
    before = (sys.executable, "-m", "tests.chaos.on_node", node.name)
    return trial.stage.start_job(trial.output, before=before)
