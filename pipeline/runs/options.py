"""What a user may say of any run over shards."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from pipeline.errors import InvalidConfiguration

LONGEST = 1e9
"""Seconds that a limit stays under: the watchdog takes no more."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run over shards; none of them changes what an image's row says."""

    shard_size: int | None = None
    """Images per shard; by default 256, fewer for a small dataset. A rerun keeps the cut that is there, and
    stored proposals come with theirs."""
    limit: int | None = None
    """Only the first so many images, for a trial."""
    overwrite: bool = False
    """Remove what an earlier run wrote into the output and start anew."""
    retry_failed: bool = False
    """Do the failed images of an earlier run again, and nothing else of what is committed."""
    image_seconds: float = 120.0
    """An image that takes longer to decode, propose or detect in is given up and becomes a failed row; those
    that a GPU is given together, up to 16, share the limit until they are done one by one."""
    max_failed_fraction: float = 0.05
    """Exit with an error if more of the images failed."""
    no_capacity_after: float = 300.0
    """Seconds to wait for a node that can hold what the run needs, and at first for a core that is free."""

    def __post_init__(self) -> None:
        for name in ("shard_size", "limit", "image_seconds", "no_capacity_after"):
            value = getattr(self, name)
            most = LONGEST if name in ("image_seconds", "no_capacity_after") else inf
            if value is not None and not 0 < value < most:
                option = name.replace("_", "-")
                limit = "" if value <= 0 else f" and less than {most:.0f}"
                raise InvalidConfiguration(f"--{option} is {value}, expected more than 0{limit}")
        if self.overwrite and self.retry_failed:
            raise InvalidConfiguration(
                "--overwrite removes what --retry-failed would do again: leave out one of them"
            )
        if not 0 <= self.max_failed_fraction <= 1:
            raise InvalidConfiguration(
                f"--max-failed-fraction is {self.max_failed_fraction}, expected 0 to 1"
            )

    @property
    def rerun(self) -> str:
        """The command that goes on with this run, in words."""
        return "the same command" + (" without --overwrite" if self.overwrite else "")
