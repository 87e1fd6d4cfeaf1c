"""The checkpoints that a training writes: its final network, and the one that validates best."""

from __future__ import annotations

from torch import nn

from pipeline import uris
from pipeline.detector.checkpoint import save_checkpoint
from pipeline.detector.network import FastRCNN
from pipeline.detector.targets import fold_targets
from pipeline.training.specification import TrainingSpec
from pipeline.training.training_files import BEST


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
    extra = {"recipe": spec.recipe.as_settings(), "steps": step, "voc07_map50": score}
    save_checkpoint(uris.join(spec.output, BEST), exported, spec.preprocessing, extra=extra)


def save_final(exported: FastRCNN, spec: TrainingSpec) -> None:
    """Put the final network into the output."""
    extra = {"recipe": spec.recipe.as_settings(), "steps": spec.steps, "seed": spec.seed}
    save_checkpoint(spec.output, exported, spec.preprocessing, extra=extra)
