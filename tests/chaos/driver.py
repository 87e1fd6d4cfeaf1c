"""A job of the fault suite in a process of its own, with its output and its log."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import outputs
from tests.chaos.processes import kill_tree, wait_until

DRIVER_SECONDS = 1500


@dataclass
class Driver:
    """A job in a separate process."""

    process: subprocess.Popen[bytes]
    output: str
    log: Path

    def wait_for_parts(self, count: int, beside: Collection[str] = ()) -> dict[str, Any]:
        """Wait until `count` parts are committed besides old ones, and return all parts.

        Raises:
            RuntimeError: the job ended earlier.
        """
        parts: dict[str, Any] = {}

        def has_enough() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the job ended too early:\n{self.read_log()[-3000:]}")
            parts.clear()
            parts.update(outputs.list_parts(self.output))
            return len(parts.keys() - set(beside)) >= count

        wait_until(
            has_enough, f"{count} parts; the job printed {self.read_log()[-2000:]}", DRIVER_SECONDS
        )
        return dict(parts)

    def wait(self) -> int:
        """Wait until the job ends, and return its exit code."""
        try:
            return self.process.wait(DRIVER_SECONDS)
        except subprocess.TimeoutExpired:
            kill_tree(self.process)
            raise RuntimeError(f"the job did not end:\n{self.read_log()[-3000:]}") from None

    def read_log(self) -> str:
        """The job's output so far."""
        return self.log.read_text(errors="replace")
