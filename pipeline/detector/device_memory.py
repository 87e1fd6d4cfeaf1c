"""A device that runs out of memory gets smaller parts of the work; a process may be limited to its share."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

CONTEXT_BYTES = 800_000_000
"""Memory of a GPU that a process takes outside of torch's allocator: CUDA's context, kernels, workspaces."""
_MESSAGES = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "unable to find an engine to execute this computation",  # cuDNN, with no memory for any of them
)
"""Of errors that are not torch's own; the device works on after them."""


BYTES_PER_VALUE = 64
"""Of a GPU's memory, for each value that is pooled at once: pooled features and what a head makes of them."""
FEWEST_ROIS, MOST_ROIS = 256, 16_384


class PartLimit:
    """The number of rows that go through a function at once; it halves when the device's memory is full.

    It stays at the number that fitted, so that later calls do not fail first. Memory that another process
    of the same device takes for a while therefore leaves smaller parts, which cost little.
    """

    def __init__(self, name: str) -> None:
        """`name` is of the rows, in the plural, for the log."""
        self.rows: int | None = None
        """None until memory was full for the first time."""
        self._name = name

    def compute(self, function: Callable[[Tensor], Tensor], rows: Tensor, at_once: int) -> Tensor:
        """Apply `function` to `rows`, at most `at_once` of them at a time, and join the results.

        Raises:
            torch.OutOfMemoryError: a single row does not fit, also after all unused memory was released.
        """
        results: list[Tensor] = []
        done, was_released = 0, False
        while not results or done < len(rows):
            size = at_once if self.rows is None else min(at_once, self.rows)
            part = rows[done : done + size]
            try:
                results.append(function(part))
            except RuntimeError as error:
                if not is_out_of_memory(error) or (len(part) <= 1 and was_released):
                    raise
            else:
                done += len(part)
                continue
            # Here, not above: the error holds the tensors of the function that failed.
            was_released = True
            self._halve(len(part), rows.device)
        return results[0] if len(results) == 1 else torch.cat(results)

    def _halve(self, failed: int, device: torch.device) -> None:
        self.rows = max(1, failed // 2)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "%s is out of memory with %d %s at once: now %d", device, failed, self._name, self.rows
        )


def choose_rois_at_once(memory: int, values: int) -> int:
    """Choose how many RoIs go through a head at once on a GPU: a power of two.

    Each further part of a batch costs the host a millisecond; `PartLimit` halves what does not fit.

    Args:
        memory: bytes of the GPU.
        values: that are pooled for a RoI.
    """
    fitting = max(1, memory // (BYTES_PER_VALUE * values))
    return max(FEWEST_ROIS, min(MOST_ROIS, 1 << (fitting.bit_length() - 1)))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device's memory is full; torch and CUDA's libraries each say it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    message = str(error)
    return any(text in message for text in _MESSAGES)


def limit_memory(device: torch.device, share: float) -> None:
    """Let this process allocate no more than its share of a GPU's memory, context included.

    Without a limit, the process that starts first may take all, as torch keeps what it once allocated.

    Args:
        device: a GPU.
        share: of its memory, above 0 and at most 1.
    """
    set_memory_fraction(device, compute_fraction(share, read_total_memory(device)))


def read_total_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def set_memory_fraction(device: torch.device, fraction: float) -> None:
    """Let torch allocate no more than a fraction of a GPU's memory in this process.

    Args:
        device: a GPU; one without a number is the current one, which torch's function does not take.
        fraction: of its memory, 0 to 1.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.set_per_process_memory_fraction(fraction, index)


def compute_fraction(share: float, total: int) -> float:
    """The fraction of `total` bytes that torch may allocate so that the process stays within its share."""
    return max(share - CONTEXT_BYTES / total, share / 2)
