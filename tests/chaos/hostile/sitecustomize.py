"""Hostile images and a wrong clock, for processes with this folder on their path.

Python imports a module of this name when it starts. It adds a format whose images end the process that
decodes them. The format takes the place of PPM, because the project lets Pillow open only the formats that it
names. Its decoder fails like compiled decoders: it crashes, allocates memory until the process is killed, or
holds the interpreter's lock and never returns. CHAOS_CLOCK_SHIFT sets the clock ahead by so many seconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

from PIL import Image, ImageFile, PpmImagePlugin

MAGIC = b"CHAOS-"
ALLOCATED = 400_000_000


def _crash() -> None:
    ctypes.string_at(0)


def _out_of_memory() -> None:
    memory = bytearray(ALLOCATED)
    memory[::4096] = b"x" * len(memory[::4096])  # touch the pages, so that they exist
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out


def _hang() -> None:
    ctypes.PyDLL(None).sleep(100_000)  # a PyDLL keeps the interpreter's lock


def _crash_detector() -> None:
    if "torch" in sys.modules:
        _crash()


_DEEDS = {"crash": _crash, "memory": _out_of_memory, "hang": _hang, "detector": _crash_detector}


class _ChaosFile(ImageFile.ImageFile):
    format = "CHAOS"

    def _open(self) -> None:
        self.deed = _DEEDS[self.fp.read(64).removeprefix(MAGIC).split(b"\n")[0].decode()]
        self._size, self._mode = (80, 60), "RGB"
        self.tile = []

    def load(self) -> Image.core.PixelAccess | None:
        self.deed()
        self.im = Image.new("RGB", self.size, (90, 120, 60)).im
        return super().load()


Image.register_open(
    PpmImagePlugin.PpmImageFile.format, _ChaosFile, lambda prefix: prefix.startswith(MAGIC)
)


def _shift_clock(seconds: int) -> None:
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_time_ns() + seconds * 10**9


if "CHAOS_CLOCK_SHIFT" in os.environ:
    _shift_clock(int(os.environ["CHAOS_CLOCK_SHIFT"]))
