"""Seconds of a call on the device, the memory that it takes, and how long the device computes in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tests.gpu.checks import Setting

WARM_UP = 1
MOST_CALLS = 1000


def synchronise(setting: Setting) -> None:
    """Wait until the device has done all its work."""
    if setting.on_gpu:
        torch.cuda.synchronize(setting.device)


def time_call(setting: Setting, call: Callable[[], Any], seconds: float = 0.8) -> float:
    """Seconds per call, as the mean over about `seconds`, after calls that do not count."""
    for _ in range(WARM_UP):
        call()
    synchronise(setting)
    began = perf_counter()
    call()
    synchronise(setting)
    once = perf_counter() - began
    # A fixed number: the calls of a CUDA graph are queued far faster than they run.
    calls = 1 if setting.is_quick else min(MOST_CALLS, max(1, round(seconds / max(once, 1e-6))))
    began = perf_counter()
    for _ in range(calls):
        call()
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


def measure_busy_share(setting: Setting, call: Callable[[], Any], calls: int = 1) -> float:
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
    if setting.on_gpu:
        ranges = [
            (event.time_range.start, event.time_range.end)
            for event in profiler.events()
            if event.device_type == DeviceType.CUDA
        ]
        return measure_union(ranges) / 1e6 / spent
    return sum(event.self_cpu_time_total for event in profiler.key_averages()) / 1e6 / spent


def measure_union(ranges: Iterable[tuple[float, float]]) -> float:
    """The length of all ranges together; where they overlap, as kernels of several streams do, once."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(ranges):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
