"""How training workers meet: where, and without torch in the processes that only wait for them."""

import subprocess
import sys

import pytest
import ray

from pipeline.engine.train import process_group

BUILD_A_TRAINER = """
import pickle, sys
from unittest.mock import Mock, patch
from pipeline.engine.train import fit
from pipeline.engine.train.workers import Workers
workers = Mock(Workers, count=2, gpu=False, cpus=1, resources={"CPU": 1.0})
workers.placement.labels = ()
with patch("ray.put"):
    trainer = fit._build_trainer(Mock(), workers, None, Mock(), board=None, run_config=None)
config = pickle.loads(pickle.dumps(trainer.backend_config))
print(config.backend, config.timeout_seconds, config.backend_cls.__name__, "torch" in sys.modules)
"""


def test_driver_and_controller_do_not_load_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILD_A_TRAINER], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["gloo", "600", "ProcessGroupBackend", "False"], done.stderr


@pytest.mark.parametrize(
    ("host", "start"), [("127.0.0.1", "tcp://127.0.0.1:"), ("::1", "tcp://[::1]:")]
)
def test_workers_meet_at_a_port_of_the_first_ones_node(
    host: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: host)
    address = process_group.choose_address()
    assert address.startswith(start)
    assert 1024 <= int(address.removeprefix(start)) < 65536
