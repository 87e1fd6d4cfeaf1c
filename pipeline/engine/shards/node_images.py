"""Notes in a worker's report on which node images went through a stage, and that node's versions."""

from __future__ import annotations

import ray

from pipeline.engine.capacity import NODE_DIGITS
from pipeline.engine.node_versions import read_own_versions
from pipeline.runs.report import Report


def count_on_node(report: Report, stage: str, images: int) -> None:
    """Add images that went through a stage in this process, if it is a worker of Ray."""
    if ray.is_initialized():
        node = ray.get_runtime_context().get_node_id()[:NODE_DIGITS]
        report.images_by_node[f"{stage} {node}"] += images
        own = read_own_versions()
        report.versions_by_node[own.address] = own.versions
