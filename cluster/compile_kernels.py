"""Compile the kernels of all jobs, so that no node has to: the Dockerfile runs this once per image.

Numba keeps them in `NUMBA_CACHE_DIR`, by the digest of the package and the type of CPU, for each type of
arguments. So this calls every kernel through the functions that jobs call, with arrays of the same types.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from pipeline import proposals
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.intervals import score_class
from pipeline.analysis.matching import add_coverage, match_images
from pipeline.analysis.resampled_precision import LANES
from pipeline.proposals.strategy import COLOUR_SPACES


def compile_proposals() -> None:
    """Compile selective search in all colour spaces, and both orders of its boxes."""
    for strategy in (*proposals.STRATEGIES, proposals.Strategy(COLOUR_SPACES, ("CTSF",), (100.0,))):
        proposals.warm_up_kernels(strategy)


def compile_analysis() -> None:
    """Compile the matching of detections with objects, objects with proposals, and the intervals."""
    image, box = np.zeros(1, np.int64), np.array([[0.0, 0.0, 10.0, 10.0]])
    flags = np.zeros(1, np.bool_)
    ground_truth = GroundTruthArrays(image, image, box, flags, flags)
    detections = DetectionArrays(image, image, np.ones(1, np.float32), box)
    matches = match_images(ground_truth, detections, images=1)
    add_coverage(matches, ground_truth, [box.astype(np.float32)])
    masks = np.ones(1, np.uint16)
    score_class(image, masks, masks, image, [np.ones((1, LANES), np.float32)])


def compile_pooling() -> None:
    """Compile what precedes RoI pooling, and it and its gradient in the precisions that are used on CPUs."""
    import torch  # noqa: PLC0415  (an extra)

    from pipeline.detector.pooling import roi_max_pool  # noqa: PLC0415  (loads torch)
    from pipeline.detector.preprocessing import Preprocessing  # noqa: PLC0415
    from pipeline.detector.rois import build_roi_batch, clip_proposals  # noqa: PLC0415

    boxes = clip_proposals(np.array([[0.0, 0.0, 8.0, 8.0]]), 8, 8)
    build_roi_batch([boxes], [(8, 8)], (32, 32), 1 / 16, Preprocessing())
    rois = torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0], [0.0, 2.0, 2.0, 6.0, 6.0]])
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.zeros((2, 4, 8, 8), dtype=dtype, requires_grad=True)
        roi_max_pool(features, rois, 2, 1.0).sum().backward()
        roi_max_pool(features.detach(), rois, 2, 1.0)


if __name__ == "__main__":
    compile_proposals()
    compile_analysis()
    if find_spec("torch") is not None:
        compile_pooling()
