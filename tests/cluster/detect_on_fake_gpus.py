"""The detect job, with GPUs that Ray counts but that do not exist: detectors compute on cores.

python -m tests.cluster.detect_on_fake_gpus --manifest ... (the options of jobs/detect.py)
"""

from __future__ import annotations

from typing import Literal
from unittest.mock import patch

from jobs import entry
from jobs.detect import Detect, main
from pipeline.engine.capacity import Capacity
from pipeline.engine.detect.resources import (
    ActorOptions,
    ActorResources,
    choose_actor_resources,
)


class FakeGpuResources(ActorResources):
    """Takes GPUs of its node, but computes on a core."""

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        return "cpu"


def _choose(capacity: Capacity, options: ActorOptions) -> ActorResources:
    return FakeGpuResources(**vars(choose_actor_resources(capacity, options)))


if __name__ == "__main__":
    with patch("pipeline.engine.detect.run.choose_actor_resources", _choose):
        entry.run(Detect, main, __doc__)
