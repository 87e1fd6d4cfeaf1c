"""The device and the arithmetic that a network computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import InvalidConfiguration

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtypes of trunk and head by name."""


def select_device(name: str) -> torch.device:
    """Return the device with this name; `auto` is a GPU if there is one, else the CPU.

    Raises:
        InvalidConfiguration: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfiguration(f"device {name!r} cannot be used: {reason}") from error
    return device


def select_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of trunk and head; `auto` is bf16 if the device supports it, else fp32.

    Raises:
        InvalidConfiguration: an unknown precision, or fp16 on a processor without fp16 arithmetic: torch
            would convert back and forth around every product, at a tenth of fp32's speed.
    """
    if precision == "auto":
        return torch.bfloat16 if _supports_bf16(device) else torch.float32
    if precision not in PRECISIONS:
        raise InvalidConfiguration(
            f"precision is {precision!r}, expected auto, {', '.join(PRECISIONS)}"
        )
    if precision == "fp16" and not _supports_fp16(device):
        raise InvalidConfiguration(
            "precision is 'fp16', but this processor has no fp16 arithmetic (AVX512-FP16 or AMX-FP16): "
            "use auto, bf16 or fp32, or a GPU"
        )
    return PRECISIONS[precision]


@contextmanager
def compute_in_ieee(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Compute the block's convolutions of float32 in float32.

    By default cuDNN rounds their factors to the 10 bits of TF32, in which fp32 would be no more exact than
    fp16. In other dtypes and on other devices nothing changes.
    """
    if device.type != "cuda" or dtype != torch.float32:
        yield
        return
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def get_precision_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype: fp32, bf16 or fp16."""
    return next(name for name, named_dtype in PRECISIONS.items() if named_dtype == dtype)


def _supports_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _supports_fp16(device: torch.device) -> bool:
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
