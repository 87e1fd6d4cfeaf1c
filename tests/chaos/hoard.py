"""A job that fills the object stores of all nodes and holds them: python -m tests.chaos.hoard BYTES."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CHUNK = 5_000_000


@ray.remote(num_cpus=0, max_restarts=0)
class Hoarder:
    """Holds objects on its node."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def put(self, count: int) -> str:
        """Put objects one by one until they are there, or until one does not fit; returns what came of it."""
        try:
            while len(self.held) < count:
                self.held.append(ray.put(np.ones(CHUNK, np.uint8)))
        except ray.exceptions.RayError as error:
            return f"{len(self.held)} of {count}: {type(error).__name__}"
        return f"{count} of {count}"


def main() -> None:
    """Fill the stores, say so, and wait to be killed."""
    count = int(sys.argv[1]) // CHUNK
    ray.init(logging_level="ERROR", log_to_driver=False)
    nodes = [
        node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")
    ]
    hoarders = []
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        hoarders.append(Hoarder.options(scheduling_strategy=strategy).remote())  # type: ignore[attr-defined]
    print("holding", ray.get([hoarder.put.remote(count) for hoarder in hoarders]), flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    main()
