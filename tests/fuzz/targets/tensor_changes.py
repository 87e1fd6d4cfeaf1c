"""Changes of named tensors, as training gone wrong, conversions and attackers make them."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
_KINDS = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool),
    *(torch.complex64, torch.float8_e4m3fn),
)


def change_tensor(tensors: Tensors, random: Random, *, dense: bool) -> tuple[Tensors, str]:
    """A copy with one changed tensor, and the description.

    Args:
        tensors: by name.
        random: the source of choices.
        dense: only changes that safetensors can store.
    """
    changed, name = dict(tensors), random.choice(list(tensors))
    tensor = tensors[name]
    kind = random.choice(
        ("value", "value", "value", "type", "shape", "removed", "renamed", "added")
        + (() if dense else ("sparse", "quantised", "meta", "no tensor"))
    )
    if kind == "value":
        value = random.choice((float("nan"), float("inf"), -float("inf"), 1e30, 0.0))
        changed[name] = tensor.clone()
        changed[name].view(-1)[random.randrange(tensor.numel())] = value
        return changed, f"{name} has a {value}"
    if kind == "type":
        dtype = random.choice(_KINDS)
        changed[name] = tensor.to(dtype)
        return changed, f"{name} as {dtype}"
    if kind == "shape":
        shapes = (tensor.reshape(-1), tensor[:-1].contiguous(), tensor[None], tensor.new_zeros(0))
        changed[name] = random.choice(shapes)
        return changed, f"{name} of shape {tuple(changed[name].shape)}"
    if kind in ("removed", "renamed"):
        value = changed.pop(name)
        if kind == "renamed":
            changed[f"module.{name}"] = value
    elif kind == "added":
        changed[random.choice(("x", "", "fc.weight", "a\nb"))] = tensor.clone()
    else:
        changed[name] = _make_unusual(tensor, kind)
    return changed, f"{name} {kind}"


def _make_unusual(tensor: Tensor, kind: str) -> Tensor:
    if kind == "sparse":
        return tensor.to_sparse()
    if kind == "quantised":
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
    if kind == "meta":
        return torch.empty_like(tensor, device="meta")
    return [1, 2]  # type: ignore[return-value]


def find_fault_in_tensors(tensors: Tensors) -> str | None:
    """Which tensor cannot be weights; None if all can."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            return f"{name} is {tensor.dtype}"
        if not bool(torch.isfinite(tensor).all()):
            return f"{name} has values that are not finite"
    return None
