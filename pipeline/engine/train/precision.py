"""`--precision auto` of a training, settled once: whoever resumes it computes in the same precision."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.run_record import RunRecord
from pipeline.runs.resume import check_not_taken_over
from pipeline.training.specification import TrainingSpec

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def settle_precision(
    spec: TrainingSpec, record: RunRecord, *, rank: int, device: torch.device
) -> TrainingSpec:
    """The specification with a precision that is not `auto`; every worker calls it.

    The first worker takes what run.json has as `resolved`. If that is empty, the precision is the one that
    the devices of all workers support, and run.json gets it.

    Raises:
        TakenOver: another run started in the output.
        StorageError: the store does not answer.
    """
    if spec.recipe.precision != "auto":
        return spec
    from torch import distributed  # noqa: PLC0415  drivers do not load torch

    from pipeline.detector.device_selection import (  # noqa: PLC0415
        get_precision_name,
        select_dtype,
    )

    supported = [get_precision_name(select_dtype("auto", device))] * spec.workers
    if spec.workers > 1:
        distributed.all_gather_object(supported, supported[0])
    settled = [_record_precision(spec, record, supported) if rank == 0 else None]
    if spec.workers > 1:
        distributed.broadcast_object_list(settled, src=0)
    precision = settled[0]
    assert precision is not None, "worker 0 settles it"
    if rank == 0:
        log.info("the network trains in %s", precision)
    return replace(spec, recipe=replace(spec.recipe, precision=precision))  # type: ignore[arg-type]


def _record_precision(spec: TrainingSpec, record: RunRecord, supported: list[str]) -> str:
    stored = check_not_taken_over(spec.output, record)
    recorded = stored.resolved.get("precision")
    if recorded is not None:
        return str(recorded)
    common = supported[0] if len(set(supported)) == 1 else "fp32"
    replace(stored, resolved={**stored.resolved, "precision": common}).write(spec.output)
    return common
