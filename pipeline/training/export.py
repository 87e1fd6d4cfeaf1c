"""The checkpoints that a training writes: its final network, and the one that validates best."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from pipeline import uris
from pipeline.detector.checkpoint import save_checkpoint
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.detector.network import FastRCNN
from pipeline.detector.targets import fold_targets
from pipeline.errors import InvalidCheckpoint
from pipeline.json_reader import is_finite_number
from pipeline.training.specification import TrainingSpec
from pipeline.training.training_files import BEST

log = logging.getLogger(__name__)


def copy_with_raw_deltas(network: FastRCNN, spec: TrainingSpec, step: int) -> FastRCNN:
    """A copy of the network after `step` steps that predicts deltas, not normalised targets."""
    exported = FastRCNN(network.architecture)
    exported.load_state_dict(network.state_dict())
    if spec.recipe.box_loss_weight > 0 or step > spec.joint_steps:
        fold_targets(exported, spec.survey.statistics.means, spec.survey.statistics.stds)
    else:  # the box layer was never trained: deltas of 0 keep the proposals' boxes
        nn.init.zeros_(exported.bbox_pred.weight)
        nn.init.zeros_(exported.bbox_pred.bias)
    return exported.eval()


def save_best(exported: FastRCNN, spec: TrainingSpec, step: int, score: float) -> None:
    """Put the network with the best validation score so far into OUTPUT/best."""
    extra = {
        "recipe": spec.recipe.as_settings(),
        "steps": step,
        "voc07_map50": score,
        "validation": spec.validation,
    }
    save_checkpoint(uris.join(spec.output, BEST), exported, spec.preprocessing, extra=extra)


def read_best_score(spec: TrainingSpec) -> float | None:
    """The score of the network in OUTPUT/best; None if there is none, or it was validated on other images."""
    try:
        extra = read_checkpoint_record(uris.join(spec.output, BEST)).extra
    except InvalidCheckpoint:
        return None
    score: Any = extra.get("voc07_map50")
    validation = extra.get("validation")
    if not is_finite_number(score):
        return None
    if validation not in (None, spec.validation):  # networks of earlier releases do not name it
        log.info("%s was validated on other images: its score does not count", BEST)
        return None
    return float(score)


def save_final(exported: FastRCNN, spec: TrainingSpec) -> None:
    """Put the final network into the output."""
    extra = {"recipe": spec.recipe.as_settings(), "steps": spec.steps, "seed": spec.seed}
    save_checkpoint(spec.output, exported, spec.preprocessing, extra=extra)
