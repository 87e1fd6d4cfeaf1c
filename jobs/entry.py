"""What every job does first and last: options from the command line, logging, errors in one line."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import tyro

from pipeline.errors import InvalidConfiguration, PipelineError


@dataclass(frozen=True)
class JobOptions:
    """Options that every job has."""

    debug: bool = False
    """Show the traceback of an error and log more."""


@dataclass(frozen=True)
class ShardOptions:
    """Options of the jobs that run over shards."""

    shard_size: int | None = None
    """Pictures per shard; by default 256, fewer for a small dataset. A rerun keeps the cut there is."""
    limit: int | None = None
    """Only the first so many pictures, for a trial."""
    overwrite: bool = False
    """Remove what a run with other settings wrote into the output."""
    image_seconds: float = 120.0
    """A picture that takes longer is given up and becomes a failed row."""
    max_failed_fraction: float = 0.05
    """Exit with an error if more of the pictures failed."""
    no_capacity_after: float = 300.0
    """Seconds to wait for a node that can hold what the run needs."""

    def arguments(self) -> dict[str, Any]:
        """The options as keyword arguments of a run.

        Raises:
            InvalidConfiguration: a number out of its range.
        """
        for name in ("shard_size", "limit", "image_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                option = name.replace("_", "-")
                raise InvalidConfiguration(f"--{option} is {value}, expected more than 0")
        return asdict(self)


def run(options: Any, main: Callable[[Any], None], description: str | None = None) -> NoReturn:
    """Parse the command line into `options`, call `main` with them, exit.

    Args:
        options: a subclass of `JobOptions`, or a union of them for a job with subcommands.
        main: the job; it returns when all went well and raises a `PipelineError` otherwise.
        description: the help text above the options; usually the script's docstring.

    The exit code is 0, that of the `PipelineError`, 130 after Ctrl-C, or 1 for a defect.
    """
    try:
        chosen = tyro.cli(
            options,
            description=description,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes),
        )
    except PipelineError as error:  # options that check their own values
        _leave(f"error: {error}", error.exit_code)
    logging.basicConfig(
        level=logging.DEBUG if chosen.debug else logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    for chatty in (
        "botocore",
        "aiobotocore",
        "s3fs",
        "fsspec",
        "numba",
        "urllib3",
        "asyncio",
        "PIL",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        main(chosen)
    except PipelineError as error:
        if chosen.debug:
            traceback.print_exc()
        _leave(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _leave(message: str, code: int) -> NoReturn:
    print(" ".join(message.split("\n")), file=sys.stderr)
    sys.exit(code)
