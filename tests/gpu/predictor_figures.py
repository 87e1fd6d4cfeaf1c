"""Images/s of the predictor by network, precision and batch, beside the plain loop on the same device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.predictor import Predictor
from pipeline.errors import InvalidConfiguration
from tests.gpu.checks import Setting
from tests.gpu.figure_inputs import Load, build_trained, draw_load, list_networks
from tests.gpu.plain_loop import PlainLoop, has_plain_loop
from tests.gpu.timing import measure_busy_share, measure_peak_bytes, synchronise, time_call

GROUP_ON_GPU = 128
"""Images of a call, as in a job (`engine/detect/chunk_detector.py`, which needs Ray)."""
PAPER_SECONDS = 0.32
"""Of L per image with 2000 RoIs, without proposals (Fast R-CNN, table 4)."""


def measure_predictors(setting: Setting) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and figures for each network, precision and batch; images are decoded."""
    load = draw_load(setting, 2 if setting.is_quick else GROUP_ON_GPU)
    for network in list_networks(setting):
        trained = build_trained(setting, network)
        if has_plain_loop(network):
            yield from _measure_plainly(setting, trained, load)
        for precision, batches in _list_batches(setting, network).items():
            # A batch is prepared while the one before is computed: several are needed to keep a GPU busy.
            few = load.take(16) if precision == "fp32" else load
            for batch in batches:
                name = f"{network} {precision} batch {batch}"
                yield name, _measure_or_explain(setting, trained, precision, batch, few)


def _measure_or_explain(
    setting: Setting, trained: TrainedNetwork, precision: str, batch: int, load: Load
) -> dict[str, Any]:
    """The figures, or why there are none: the others still count."""
    try:
        predictor = Predictor(
            trained,
            device=str(setting.device),
            precision=precision,
            max_images_per_batch=batch,
        )
        figures = _measure(setting, predictor, load)
        if trained.network.architecture.backbone == "vgg16":
            figures["over_paper"] = PAPER_SECONDS / figures["seconds_per_image"]
        return figures
    except InvalidConfiguration as error:
        return {"skipped": str(error)}
    except Exception as error:  # such as full memory, or fp16 out of its range
        synchronise(setting)
        return {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def _list_batches(setting: Setting, network: str) -> dict[str, tuple[int, ...]]:
    """Images per batch by precision: fp32 takes most of the time and is no one's choice for speed."""
    if not setting.is_quick:
        return {"fp32": (4,), "bf16": (1, 8, 16, 32), "fp16": (8,)}
    if network == "tiny":
        return {"fp32": (1, 2), "bf16": (2,), "fp16": (2,)}
    return {"fp32": (2,)}  # without bf16 in hardware, a large network takes seconds per image


def _measure(setting: Setting, predictor: Predictor, load: Load) -> dict[str, Any]:
    def detect() -> None:
        predictor(load.images, load.proposals)

    counts: list[int] = []

    def detect_and_count() -> None:
        counts.extend(len(of.scores) for of in predictor(load.images, load.proposals))

    seconds = time_call(setting, detect) / len(load.images)
    return {
        "images_per_second": 1 / seconds,
        "seconds_per_image": seconds,
        "busy_share": measure_busy_share(setting, detect_and_count),
        "peak_bytes": measure_peak_bytes(setting, detect),
        "detections_per_image": sum(counts) / len(counts),
        "images_at_once": predictor.network.image_limit.rows or predictor.max_images_per_batch,
        "rois_at_once": predictor.network.roi_limit.rows or predictor.max_rois_per_batch,
    }


def _measure_plainly(
    setting: Setting, trained: TrainedNetwork, load: Load
) -> Iterator[tuple[str, dict[str, Any]]]:
    name = trained.network.architecture.backbone
    few = load.take(8)
    for autocast in (False,) if setting.is_quick else (False, True):
        plain = PlainLoop(setting, trained, autocast=autocast)
        seconds = time_call(setting, lambda: plain(few.images, few.proposals)) / len(few.images)  # noqa: B023
        figures = {"images_per_second": 1 / seconds, "seconds_per_image": seconds}
        yield f"{name} plain {'bf16 autocast' if autocast else 'fp32'}", figures
