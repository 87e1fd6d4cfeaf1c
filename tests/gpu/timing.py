"""Seconds of a call on the device, the memory that it takes, and how long the device computes in it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from tests.gpu.checks import Setting

WARM_UP = 2


def synchronise(setting: Setting) -> None:
    """Wait until the device has done all its work."""
    if setting.on_gpu:
        torch.cuda.synchronize(setting.device)


def time_call(setting: Setting, call: Callable[[], Any], seconds: float = 1.5) -> float:
    """Seconds per call, as the mean over at least `seconds`, after two calls that do not count."""
    least = 0.0 if setting.is_quick else seconds
    for _ in range(WARM_UP):
        call()
    synchronise(setting)
    calls, began = 0, perf_counter()
    while calls == 0 or perf_counter() - began < least:
        call()
        calls += 1
    synchronise(setting)
    return (perf_counter() - began) / calls


def measure_peak_bytes(setting: Setting, call: Callable[[], Any]) -> int | None:
    """The most memory that torch allocates on the device at once; None on a CPU."""
    if not setting.on_gpu:
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setting.device)
    call()
    synchronise(setting)
    return int(torch.cuda.max_memory_allocated(setting.device))


def measure_busy_share(setting: Setting, call: Callable[[], Any], calls: int = 3) -> float:
    """The share of the time in which the device computes; on a CPU, the share inside torch's operators.

    The profiler itself costs time between the kernels, so the share without it is larger.
    """
    call()
    synchronise(setting)
    activity = ProfilerActivity.CUDA if setting.on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        began = perf_counter()
        for _ in range(calls):
            call()
        synchronise(setting)
        spent = perf_counter() - began
    events = profiler.key_averages()
    name = "self_device_time_total" if setting.on_gpu else "self_cpu_time_total"
    return sum(getattr(event, name) for event in events) / 1e6 / spent
