"""The watch sees the memory and the seconds of a process and of its children, by stage."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.analysis_scale import name_ended_stage
from tests.benchmarks.process_watch import DRIVER, RAY, ProcessWatch, sum_stages

CHILD = "block = bytearray(50_000_000); print(flush=True); input()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE)
sum(range(5_000_000))
input()
child.communicate(b"end")
block = bytearray(80_000_000)
print(flush=True)
input()
"""


def test_each_stage_has_its_own_peaks_and_seconds() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watch = ProcessWatch(process.pid)
    process.stdout.readline()
    watch.end_stage("child")
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()
    watch.end_stage("parent")
    process.communicate("\n")
    watch.stop()
    first, second = watch.stages
    assert 50e6 < first.peaks[RAY] < 90e6
    assert first.peaks[DRIVER] < 60e6
    assert second.peaks[DRIVER] > 80e6
    whole = sum_stages(watch.stages)
    assert whole.seconds == first.seconds + second.seconds > 0
    assert whole.cpu_seconds == first.cpu_seconds + second.cpu_seconds > 0
    assert whole.peaks[DRIVER] == second.peaks[DRIVER]


def test_lines_of_the_log_end_stages() -> None:
    lines = {
        "05:22:12 50000 images with about 5000000 detections: analysing on Ray": "inputs opened",
        "05:24:12 matches: 70.1 s, /tmp/out/matches": "matches",
        "05:25:12 diagnostics: 12.0 s": "diagnostics",
        "05:23:06 analyze: 37120/50000 images, 1235.1 images/s": None,
    }
    assert {line: name_ended_stage(line) for line in lines} == lines
