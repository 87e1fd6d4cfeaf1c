"""The cluster launcher's files, by Ray's own checks, which need neither network nor credentials."""

from __future__ import annotations

import copy
import re
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.cluster_files import CLUSTER, read_yaml

FILES = ("aws.yaml", "gcp.yaml")


def _validate(config: dict[str, Any]) -> dict[str, Any]:
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    prepared = _validate(read_yaml(CLUSTER / name))
    types = prepared["available_node_types"]
    assert set(types) == {"head", "cpu", "gpu"}
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["head"]["max_workers"] == 0
    assert types["cpu"]["min_workers"] == types["gpu"]["min_workers"] == 0
    assert sum(node["max_workers"] for node in types.values()) <= prepared["max_workers"]


@pytest.mark.parametrize("name", FILES)
def test_ray_rejects_a_misspelled_field(name: str) -> None:
    config = read_yaml(CLUSTER / name)
    config["idle_timeout_minute"] = config.pop("idle_timeout_minutes")
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        _validate(config)


@pytest.mark.parametrize("name", FILES)
def test_only_cpu_nodes_are_spot_and_images_are_targets(name: str) -> None:
    config = read_yaml(CLUSTER / name)
    types = config["available_node_types"]
    is_spot = {
        key: bool(re.search("(?i)spot", str(node["node_config"]))) for key, node in types.items()
    }
    assert is_spot == {"head": False, "cpu": True, "gpu": False}
    images = {key: node.get("docker", {}).get("worker_image") for key, node in types.items()}
    assert config["docker"]["image"].endswith("/fast-rcnn-pipeline:cpu")
    assert images["cpu"].endswith("/fast-rcnn-pipeline:proposals")
    assert images["gpu"].endswith("/fast-rcnn-pipeline:gpu")


def test_a_google_gpu_node_waits_for_its_driver() -> None:
    prepared = _validate(read_yaml(CLUSTER / "gcp.yaml"))
    gpu = prepared["available_node_types"]["gpu"]
    assert {"key": "install-nvidia-driver", "value": "True"} in gpu["node_config"]["metadata"][
        "items"
    ]
    (command,) = gpu["initialization_commands"]
    assert command == "timeout 900 bash -c 'until nvidia-smi; do sleep 5; done'"


@pytest.mark.parametrize("name", FILES)
def test_nodes_use_the_token_and_the_dashboard_stays_private(name: str) -> None:
    config = read_yaml(CLUSTER / name)
    assert "~/.ray/auth_token" in config["file_mounts"]
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
