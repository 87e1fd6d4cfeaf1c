"""The networks between the stages: initial, fine-tuned, and where their weights are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pipeline import storage, uris
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.errors import InvalidCheckpoint, MissingObject

if TYPE_CHECKING:
    from pipeline.baselines.networks import BaselineNetwork

FINE_TUNED = "fine-tuned.safetensors"
"""The fine-tuned network in the folder of the stages."""


def build_initial(plan: BaselinePlan) -> tuple[BaselineNetwork, frozenset[str]]:
    """The network before fine-tuning, and the names of its parameters with pretrained weights.

    Raises:
        InvalidCheckpoint: the weights belong to another network.
    """
    import torch  # noqa: PLC0415

    from pipeline.baselines.networks import SppNetwork, build_baseline_network  # noqa: PLC0415
    from pipeline.detector.weights import load_pretrained  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        network = build_baseline_network(plan.architecture, plan.regions)
    if plan.weights is None:
        return network, frozenset()
    if not isinstance(network, SppNetwork):
        return network, load_pretrained(network, plan.weights).parameters
    network.backbone.requires_grad_(True)  # its unused head may lack weights although it is fixed
    loaded = load_pretrained(network, plan.weights)
    network.backbone.requires_grad_(False)
    _check_trunk(loaded.missing, plan.weights)
    return network, loaded.parameters


def _check_trunk(missing: tuple[str, ...], weights: str) -> None:
    """Reject weights that leave a convolution of SPPnet random: it would stay so."""
    random = [name for name in missing if not name.startswith("fc.")]
    if random:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(weights)} lacks {', '.join(random[:6])}, which SPPnet would keep random"
        )


def load_trained(plan: BaselinePlan) -> BaselineNetwork:
    """The network that computes features: fine-tuned, or before that the initial one.

    Of `fast-rcnn-svm` it is that of the checkpoint.

    Raises:
        InvalidCheckpoint: a file is damaged.
    """
    if plan.system == "fast-rcnn-svm":
        from pipeline.detector.checkpoint import load_checkpoint  # noqa: PLC0415

        assert plan.weights is not None, "the inputs are checked"
        return load_checkpoint(plan.weights).network
    network, _ = build_initial(plan)
    weights = read_fine_tuned(plan)
    if weights is not None:
        import safetensors.torch  # noqa: PLC0415

        try:
            network.load_state_dict(safetensors.torch.load(weights))
        except Exception as error:  # a damaged file fails in many ways
            raise InvalidCheckpoint(
                f"{uris.redact_uri(plan.locate(FINE_TUNED))} is damaged: train again with --overwrite"
            ) from error
    return network.eval()


def read_fine_tuned(plan: BaselinePlan) -> bytes | None:
    """The fine-tuned weights, or None before that stage."""
    try:
        return storage.read(plan.locate(FINE_TUNED))
    except MissingObject:
        return None


def compute_network_digest(plan: BaselinePlan, content: str) -> str:
    """A digest of the weights that compute `features` or `maps`.

    Maps depend on the convolutions alone, which stay as the training found them.
    """
    weights = None if content == "maps" else read_fine_tuned(plan)
    if weights is None:
        return f"{plan.weights_digest}, seed {plan.seed}"
    return hashlib.sha256(weights).hexdigest()
