"""Nodes for an autoscaler on one machine: Ray's fake ones, of which some types cannot be had."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE


class FakeNodes(FakeMultiNodeProvider):  # type: ignore[misc]
    """Starts raylets on this machine, as a cloud's provider starts instances.

    The autoscaler's process loads this class by its path, and its raylets are descendants of that process.
    """

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        """Start nodes of a type.

        Raises:
            RuntimeError: the type is in `unavailable` of the provider's configuration.
        """
        node_type = tags[TAG_RAY_USER_NODE_TYPE]
        if node_type in self.provider_config["unavailable"]:
            raise RuntimeError(f"quota exceeded for {node_type}")
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
