"""A Ray cluster on one machine whose autoscaler starts and ends nodes, by Ray's fake multi-node provider.

    types = {"cpu": NodeType({"CPU": 1}, at_most=2)}
    with AutoscalingRay(types, idle_seconds=10) as cluster:
        subprocess.run(command, env=os.environ | cluster.environment)

`ray.cluster_utils.AutoscalingCluster` does the same but ends every Ray on the machine; this ends its own.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.chaos.processes import list_descendants, read_command
from tests.chaos.raylets import Raylets

ROOT = Path(__file__).parents[2]
STORE_BYTES = 100_000_000


@dataclass(frozen=True)
class NodeType:
    """A type of nodes that the autoscaler may start."""

    resources: Mapping[str, float]
    at_most: int
    labels: Mapping[str, str] = field(default_factory=dict)
    is_available: bool = True
    """Whether the provider can start it."""


class AutoscalingRay(Raylets):
    """A head without cores, whose autoscaler starts nodes for what waits and ends idle ones."""

    def __init__(self, types: Mapping[str, NodeType], idle_seconds: float) -> None:
        """Prepare a cluster; the `with` block starts its head.

        Args:
            types: what the autoscaler may start, by name.
            idle_seconds: how long a node may be idle before it is ended.
        """
        super().__init__({"PYTHONPATH": str(ROOT)})
        self._types = types
        self._idle_seconds = idle_seconds
        self._head_environment = {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }

    def count_nodes(self) -> Counter[str]:
        """How many nodes of each type are alive, by their raylets."""
        raylets = [
            pid
            for pid in list_descendants(self.head.process.pid)
            if "/raylet/raylet " in read_command(pid)
        ]
        types = map(_read_node_type, raylets)
        return Counter(node_type for node_type in types if node_type in self._types)

    def _head_options(self) -> list[str]:
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(self._build_configuration()))
        return [*super()._head_options(), f"--autoscaling-config={path}"]

    def _build_configuration(self) -> dict[str, object]:
        """What `ray up` takes, for nodes that are processes of this machine."""
        node_types: dict[str, object] = {
            name: {
                "resources": {**of_type.resources, "object_store_memory": STORE_BYTES},
                "labels": dict(of_type.labels),
                "node_config": {},
                "min_workers": 0,
                "max_workers": of_type.at_most,
            }
            for name, of_type in self._types.items()
        }
        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        return {
            "cluster_name": "fake",
            "max_workers": sum(of_type.at_most for of_type in self._types.values()),
            "idle_timeout_minutes": self._idle_seconds / 60,
            "upscaling_speed": 100.0,
            "provider": {
                "type": "external",
                "module": "tests.cluster.fake_nodes.FakeNodes",
                "gcs_address": self.address,
                "head_node_id": FAKE_HEAD_NODE_ID,
                "launch_multiple": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "unavailable": [name for name, t in self._types.items() if not t.is_available],
            },
            "auth": {},
            "file_mounts": {},
            **{f"{which}setup_commands": [] for which in ("", "head_", "worker_")},
            **{f"{which}_start_ray_commands": [] for which in ("head", "worker")},
            "initialization_commands": [],
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "available_node_types": {"ray.head.default": head, **node_types},
            "head_node_type": "ray.head.default",
        }


def _read_node_type(pid: int) -> str:
    with contextlib.suppress(OSError):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for variable in variables:
            name, _, value = variable.partition(b"=")
            if name == b"RAY_NODE_TYPE_NAME":
                return value.decode()
    return ""
