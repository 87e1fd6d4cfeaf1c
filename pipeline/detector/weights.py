"""Pretrained weights for a backbone: a state dict or safetensors at any URI, or torchvision's by name."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.error import URLError

import safetensors.torch
import torch
import torchvision
from torch import Tensor

from pipeline import storage, uris
from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.backbone import Backbone
from pipeline.detector.backbones.catalog import BACKBONES, is_torchvision_name
from pipeline.detector.tensor_checks import describe_unusable
from pipeline.errors import InvalidCheckpoint

TORCHVISION_CLASSES = 1000
"""Classes of ImageNet; TensorFlow's networks also have one for background."""


@dataclass(frozen=True)
class LoadedWeights:
    """Which tensors `load_pretrained` filled, by name; users see `missing` and `unused`."""

    loaded: tuple[str, ...] = ()
    """Tensors of the backbone that were filled."""
    missing: tuple[str, ...] = ()
    """Tensors of the backbone that keep their initial values."""
    unused: tuple[str, ...] = ()
    """Tensors of the source that the backbone does not have, such as an ImageNet classifier's."""
    doubt: str | None = None
    """Why the weights may expect other images than the network gets."""

    @property
    def parameters(self) -> frozenset[str]:
        """The filled tensors' names in the whole network."""
        return frozenset(f"backbone.{name}" for name in self.loaded)

    def describe(self) -> list[str]:
        """Describe the outcome for a person, in one to four lines."""
        lines = [f"{len(self.loaded)} tensors of the backbone come from the weights"]
        if self.missing:
            lines.append(
                f"{len(self.missing)} are not in the weights and start random: "
                f"{_shorten(self.missing)}"
            )
        if self.unused:
            lines.append(
                f"{len(self.unused)} tensors of the weights are unused: {_shorten(self.unused)}"
            )
        return [*lines, self.doubt] if self.doubt else lines


class PretrainedNetwork(Protocol):
    """A network with a backbone that pretrained weights fill."""

    architecture: Architecture
    backbone: Backbone


def load_pretrained(network: PretrainedNetwork, source: str) -> LoadedWeights:
    """Fill the network's backbone from pretrained weights, by name.

    Args:
        network: changed in place.
        source: a URI of a state dict (`.pth`, read with `weights_only=True`) or of `.safetensors`, or
            a name like `ResNet18_Weights.IMAGENET1K_V1`, which torchvision fetches.

    Raises:
        InvalidCheckpoint: not a state dict, the state dict of another network (no name or shape fits),
            tensors that are not dense and finite, or one that leaves a frozen layer random.
        StorageError: the URI cannot be read.
    """
    tensors = read_state_dict(source)
    backbone = network.backbone
    own = dict(backbone.state_dict())
    pretrained_names = backbone.get_pretrained_names()
    source_names = {name: pretrained_names.get(name, name) for name in own}
    loaded = {
        name: tensors[source_name]
        for name, source_name in source_names.items()
        if source_name in tensors
    }
    missing = [name for name in own if name not in loaded]
    mismatch = _describe_mismatch(
        network, loaded, source_names, list(tensors)
    ) or _describe_random_frozen(network, missing)
    if mismatch:
        raise InvalidCheckpoint(f"{uris.redact_uri(source)} {mismatch}")
    backbone.load_state_dict(loaded, strict=False)
    unused = sorted(
        name
        for name in set(tensors) - {source_names[name] for name in loaded}
        if not name.endswith(".num_batches_tracked")  # a BatchNorm's counter, of no use when frozen
    )
    doubt = None if is_torchvision_name(source) else _doubt_padding(network.architecture, tensors)
    return LoadedWeights(tuple(loaded), tuple(missing), tuple(unused), doubt)


def _doubt_padding(architecture: Architecture, tensors: Mapping[str, Tensor]) -> str | None:
    """Whether a file for TensorFlow's padding has a classifier without TensorFlow's class of background."""
    defaults = BACKBONES[architecture.backbone].paddings
    classifier = tensors.get("classifier.1.weight")
    if (architecture.padding or defaults[0]) != "same" or classifier is None:
        return None
    if len(classifier) != TORCHVISION_CLASSES:
        return None
    return (
        f"the weights have {TORCHVISION_CLASSES} classes, as torchvision's do (TensorFlow's have one more): "
        "torchvision's need --preprocessing torchvision --padding symmetric"
    )


def _describe_mismatch(
    network: PretrainedNetwork,
    loaded: Mapping[str, Tensor],
    source_names: Mapping[str, str],
    available: Sequence[str],
) -> str:
    """Say how tensors of the source do not fit the backbone; empty if they fit."""
    name_of_backbone = network.architecture.backbone
    if not loaded:
        return (
            f"holds nothing for {name_of_backbone}: it has {_shorten(available)}, expected names such "
            f"as {_shorten(list(source_names.values()))}"
        )
    own = network.backbone.state_dict()
    unusable = [
        f"{source_names[name]} {fault}"
        for name, tensor in loaded.items()
        if (fault := describe_unusable(tensor)) is not None
    ]
    if unusable:
        return f"has tensors that cannot be weights: {_shorten(unusable, '; ')}"
    misfits = [
        f"{source_names[name]} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in loaded.items()
        if tensor.shape != own[name].shape
    ]
    return f"does not fit {name_of_backbone}: {_shorten(misfits, '; ')}" if misfits else ""


def _describe_random_frozen(network: PretrainedNetwork, missing: Sequence[str]) -> str:
    """Say which missing tensors are frozen and would stay random; empty if there are none."""
    parameters = network.backbone.named_parameters()
    trained = {name for name, tensor in parameters if tensor.requires_grad}
    random = [name for name in missing if name not in trained]
    if not random:
        return ""
    return f"lacks {_shorten(random)}, which would stay random because they are frozen"


def read_state_dict(source: str) -> Mapping[str, Tensor]:
    """Read the tensors by name, on the CPU, from a source that `load_pretrained` describes.

    Raises:
        InvalidCheckpoint: the content is not a state dict.
        StorageError: the URI cannot be read.
    """
    if is_torchvision_name(source):
        return _fetch_from_torchvision(source)
    content, redacted = storage.read(source), uris.redact_uri(source)
    try:
        if source.endswith(".safetensors"):
            return safetensors.torch.load(content)
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch's unpickler fails in many ways on bytes that are no state dict
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InvalidCheckpoint(
            f"{redacted} is not a state dict ({len(content)} bytes): {reason}"
        ) from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise InvalidCheckpoint(f"{redacted} is not a mapping of names to tensors")
    return tensors


def _fetch_from_torchvision(name: str) -> Mapping[str, Tensor]:
    try:
        weights = torchvision.models.get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise InvalidCheckpoint(f"torchvision has no weights {name!r}") from error
    try:
        tensors: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InvalidCheckpoint(f"torchvision cannot fetch the weights {name}: {error}") from error
    return tensors


def _shorten(names: Iterable[str], separator: str = ", ") -> str:
    listed = list(names)
    rest = f"{separator}and {len(listed) - 6} more" if len(listed) > 6 else ""
    return separator.join(listed[:6]) + rest
