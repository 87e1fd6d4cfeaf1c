"""What the launcher asks Ray for, with a class that replaces the actor's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.engine.detect.launcher import ActorLauncher
from pipeline.engine.detect.resources import ActorResources
from pipeline.runs.placement import Placement
from tests.engine.detect.fake_launcher import make_host


class RecordingClass:
    """A remote class that records how actors are created."""

    def __init__(self) -> None:
        self.created: list[tuple[dict[str, Any], tuple[Any, ...]]] = []

    def options(self, **options: Any) -> Any:
        def create(*arguments: Any) -> Any:
            self.created.append((options, arguments))
            method = SimpleNamespace(remote=lambda: None)
            return SimpleNamespace(__ray_ready__=method, load=method)

        return SimpleNamespace(remote=create)


def test_an_actor_is_created_on_its_node_with_plan_and_precision() -> None:
    actor_class = RecordingClass()
    resources = ActorResources(0.5, 2, placement=Placement({"fast": 0.01}, {"market": "!spot"}))
    launcher = ActorLauncher("plan", resources, actor_class)  # type: ignore[arg-type]
    host = make_host("a" * 56, cpus=8, gpus=2)
    launcher.launch(host, 1.0, "bf16")
    ((options, arguments),) = actor_class.created
    assert arguments == ("plan", "bf16")
    assert (options["num_cpus"], options["num_gpus"]) == (1.0, 0.5)
    assert options["resources"] == {"fast": 0.01}
    assert options["scheduling_strategy"].node_id == host.node
    assert options["scheduling_strategy"].soft is False
