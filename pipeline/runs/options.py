"""The options that all runs over shards share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields
from pipeline.runs.placement import Placement, parse_placement

ReuseCheck = Literal["name", "size", "content"]

MOST_SECONDS = 1e9
"""Time limits stay under this: the watchdog accepts no more."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run over shards; none of them changes an image's row."""

    shard_size: int | None = None
    """Images per shard; by default 256, fewer for a small dataset. A rerun keeps the output's shards, and a
    detection over stored proposals keeps theirs."""
    limit: int | None = None
    """Process only the first LIMIT images, for a trial."""
    overwrite: bool = False
    """Remove what an earlier run wrote into the output and start from nothing."""
    retry_failed: bool = False
    """Retry the failed images of an earlier run; leave all other committed images alone."""
    reuse: str | None = None
    """Output of an earlier run with the same settings: take over its rows for images that it has and that did
    not change, except those that failed there."""
    reuse_check: ReuseCheck = "size"
    """What shows that an image of --reuse did not change, beside image_id and uri. size: the size of its
    file, and its MD5 if the store states one; content: the MD5 of what is read; name: nothing."""
    image_seconds: float = 120.0
    """Seconds that an image may take to decode, to propose boxes for or to detect in; one that takes longer
    becomes a failed row. Images that a GPU processes together, up to 16, share the limit until they are
    redone one by one."""
    max_failed_fraction: float = 0.05
    """Exit with an error if a larger fraction of the images failed."""
    no_capacity_after: float = 300.0
    """Seconds to wait for a node that can hold what the run needs, and at the start for a free core."""
    resources: str | None = None
    """JSON with amounts of custom resources that a node must have for a task: {"cheap": 0.01}."""
    label_selector: str | None = None
    """JSON with conditions on the labels of nodes that run tasks: {"market": "!spot"} avoids spot nodes."""

    def __post_init__(self) -> None:
        check_fields(self, "shard_size", "limit", at_least=1)
        check_fields(self, "image_seconds", "no_capacity_after", above=0, below=MOST_SECONDS)
        check_fields(self, "max_failed_fraction", at_least=0, at_most=1)
        if self.overwrite and self.retry_failed:
            raise InvalidConfiguration(
                "--overwrite removes what --retry-failed would retry: leave out one of them"
            )
        parse_placement(self.resources, self.label_selector)  # rejects wrong values

    @property
    def placement(self) -> Placement:
        """Which nodes may run the tasks."""
        return parse_placement(self.resources, self.label_selector)

    @property
    def rerun(self) -> str:
        """The command that resumes this run, in words."""
        return "the same command" + (" without --overwrite" if self.overwrite else "")
