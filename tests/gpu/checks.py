"""What a check of the GPU path receives, and what becomes of it: passed, failed or skipped."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch


class SkippedCheck(Exception):
    """What a check needs is not here; its message names it."""


@dataclass
class Setting:
    """Where and how the checks of one call run."""

    device: torch.device
    folder: Path
    """A scratch folder, which the checks of a call share."""
    is_quick: bool
    """Small inputs and short training, for a test on a CPU."""
    skipped_parts: list[str] = field(default_factory=list)
    """What the running check leaves out."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is one of CUDA's."""
        return self.device.type == "cuda"

    def require_gpu(self) -> None:
        """Skip the check on other devices.

        Raises:
            SkippedCheck: the device is not one of CUDA's.
        """
        if not self.on_gpu:
            raise SkippedCheck("needs CUDA")


Check = Callable[[Setting], dict[str, Any]]
"""Returns the values that it measured.

Raises:
    AssertionError: what it checks does not hold.
    SkippedCheck: it cannot run here.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a check."""

    name: str
    status: str
    """passed, failed or skipped."""
    seconds: float
    values: dict[str, Any]
    """What it measured."""
    skipped_parts: tuple[str, ...] = ()
    """What a check that passed left out."""
    reason: str = ""
    """Why it failed or was skipped."""


def run_checks(checks: Sequence[Check], setting: Setting) -> list[Outcome]:
    """Run the checks one after the other; a failed one does not stop the others."""
    outcomes = []
    for check in checks:
        outcome = _run_check(check, setting)
        outcomes.append(outcome)
        parts = f", without: {'; '.join(outcome.skipped_parts)}" if outcome.skipped_parts else ""
        reason = f": {outcome.reason.splitlines()[-1]}" if outcome.reason else ""
        print(
            f"{outcome.status:8} {outcome.seconds:6.1f} s  {outcome.name}{parts}{reason}",
            flush=True,
        )
    return outcomes


def _run_check(check: Check, setting: Setting) -> Outcome:
    name = check.__name__.removeprefix("check_")
    setting.skipped_parts = []
    began = perf_counter()
    values: dict[str, Any] = {}
    status, reason = "passed", ""
    try:
        values = check(setting)
    except SkippedCheck as error:
        status, reason = "skipped", str(error)
    except Exception:  # a check may fail in any way; the next ones still run
        status, reason = "failed", traceback.format_exc().strip()
    parts = tuple(setting.skipped_parts)
    return Outcome(name, status, perf_counter() - began, values, parts, reason)


def measure_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = float(expected.abs().max())
    return float((actual - expected).abs().max()) / max(scale, 1e-12)
