"""SkyPilot's file against the fields of its documentation; `check_skypilot.py` asks the package itself."""

from __future__ import annotations

import copy

import jsonschema
import pytest

from tests.cluster.cluster_files import CLUSTER, read_pinned_versions, read_yaml

TEXT = {"type": "string"}
VALUES = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["resources", "run"],
    "properties": {
        "name": TEXT,
        "workdir": TEXT,
        "num_nodes": {"type": "integer", "minimum": 1},
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "infra": TEXT,
                "cpus": {"type": ["string", "number"]},
                "memory": {"type": ["string", "number"]},
                "accelerators": TEXT,
                "use_spot": {"type": "boolean"},
                "disk_size": {"type": "integer"},
                "autostop": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "idle_minutes": {"type": "integer"},
                        "down": {"type": "boolean"},
                    },
                },
            },
        },
        "envs": VALUES,
        "secrets": VALUES,
        "setup": TEXT,
        "run": TEXT,
    },
}
TASK = read_yaml(CLUSTER / "skypilot.yaml")


def test_the_task_has_documented_fields_only() -> None:
    jsonschema.validate(TASK, SCHEMA)
    misspelled = copy.deepcopy(TASK)
    misspelled["resources"]["accelerator"] = misspelled["resources"].pop("accelerators")
    with pytest.raises(jsonschema.ValidationError, match="accelerator"):
        jsonschema.validate(misspelled, SCHEMA)


def test_secrets_have_no_values() -> None:
    assert TASK["secrets"]
    assert all(value is None for value in TASK["secrets"].values())


def test_the_machines_install_the_pinned_versions() -> None:
    assert "--constraint constraints.txt" in TASK["setup"]
    assert "--python 3.11" in TASK["setup"]
    assert "ray" in read_pinned_versions()
