"""Pretrained weights for a backbone: a state dict or safetensors at any URI, or torchvision's by name."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.error import URLError

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from pipeline import storage
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.detector.network import FastRCNN
from pipeline.errors import InvalidCheckpoint


@dataclass(frozen=True)
class LoadedWeights:
    """What became of a state dict, by name; `missing` and `unused` are for the user to see."""

    loaded: tuple[str, ...] = ()
    """Tensors of the backbone that were filled."""
    missing: tuple[str, ...] = ()
    """Tensors of the backbone that stay as they were initialised."""
    unused: tuple[str, ...] = ()
    """Tensors of the source that have no place, such as an ImageNet classifier's."""

    @property
    def parameters(self) -> frozenset[str]:
        """The filled tensors' names in the whole network."""
        return frozenset(f"backbone.{name}" for name in self.loaded)

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        told = [f"{len(self.loaded)} tensors of the network are taken from the weights"]
        if self.missing:
            told.append(
                f"{len(self.missing)} are not among them and start random: {_some(self.missing)}"
            )
        if self.unused:
            told.append(f"{len(self.unused)} of the weights have no place: {_some(self.unused)}")
        return told


def load_pretrained(model: FastRCNN, source: str) -> LoadedWeights:
    """Fill the model's backbone from pretrained weights, by name.

    Args:
        model: changed in place.
        source: a URI of a state dict (`.pth`, read with `weights_only=True`) or of `.safetensors`, or
            a name like `ResNet18_Weights.IMAGENET1K_V1`, which torchvision fetches.

    Raises:
        InvalidCheckpoint: no state dict, another network's (nothing fits, or shapes differ), or one
            that leaves a frozen layer random.
        StorageError: the URI cannot be read.
    """
    tensors = read_state_dict(source)
    shown = storage.shown(source)
    backbone = model.backbone
    own = dict(backbone.state_dict())
    names = backbone.renamed()
    wanted = {name: names.get(name, name) for name in own}
    loaded = {name: tensors[theirs] for name, theirs in wanted.items() if theirs in tensors}
    if not loaded:
        raise InvalidCheckpoint(
            f"{shown} holds nothing for {model.architecture.backbone}: it has {_some(tensors)}, "
            f"expected are names such as {_some(list(wanted.values()))}"
        )
    misfits = [
        f"{wanted[name]} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in loaded.items()
        if tensor.shape != own[name].shape
    ]
    if misfits:
        raise InvalidCheckpoint(
            f"{shown} does not fit {model.architecture.backbone}: {_some(misfits, '; ')}"
        )
    missing = [name for name in own if name not in loaded]
    trained = {name for name, tensor in backbone.named_parameters() if tensor.requires_grad}
    random = [name for name in missing if name not in trained]
    if random:
        raise InvalidCheckpoint(
            f"{shown} lacks {_some(random)}, which would stay random because they are frozen"
        )
    backbone.load_state_dict(loaded, strict=False)
    unused = sorted(
        name
        for name in set(tensors) - {wanted[name] for name in loaded}
        if not name.endswith(".num_batches_tracked")  # a BatchNorm's counter, of no use when frozen
    )
    return LoadedWeights(tuple(loaded), tuple(missing), tuple(unused))


def read_state_dict(source: str) -> Mapping[str, Tensor]:
    """The tensors by name, on the CPU; see `load_pretrained`.

    Raises:
        InvalidCheckpoint: the content is no state dict.
        StorageError: the URI cannot be read.
    """
    if is_torchvision_name(source):
        return _from_torchvision(source)
    data, shown = storage.read(source), storage.shown(source)
    try:
        if source.endswith(".safetensors"):
            return safetensors.torch.load(data)
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InvalidCheckpoint(
            f"{shown} is not a state dict ({len(data)} bytes): {reason}"
        ) from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise InvalidCheckpoint(f"{shown} is not a mapping of names to tensors")
    return tensors


def _from_torchvision(name: str) -> Mapping[str, Tensor]:
    try:
        weights = torchvision.models.get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise InvalidCheckpoint(f"torchvision has no weights {name!r}") from error
    try:
        tensors: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InvalidCheckpoint(f"the weights {name} cannot be fetched: {error}") from error
    return tensors


def _some(names: Iterable[str], separator: str = ", ") -> str:
    listed = list(names)
    rest = f"{separator}and {len(listed) - 6} more" if len(listed) > 6 else ""
    return separator.join(listed[:6]) + rest
