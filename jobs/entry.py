"""What every job does first and last: options from the command line, logging, errors in one line."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import tyro

from pipeline import storage, store_options
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.runs.summary import Summary


@dataclass(frozen=True)
class JobOptions:
    """Options that every job has."""

    debug: bool = False
    """Show the traceback of an error and log more."""
    storage_options: str | None = None
    """JSON file with fsspec options by URI prefix: {"s3://bucket": {"key": ..., "endpoint_url": ...}}."""


def run(options: Any, main: Callable[[Any], None], description: str | None = None) -> NoReturn:
    """Parse the command line into `options`, call `main` with them, exit.

    Args:
        options: a subclass of `JobOptions`, or a union of them for a job with subcommands.
        main: the job; it returns when all went well and raises a `PipelineError` otherwise.
        description: the help text above the options; usually the script's docstring.

    The exit code is 0, that of the `PipelineError`, 130 after Ctrl-C, 143 after SIGTERM, or 1 for a
    defect.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
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
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
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
        if chosen.storage_options is not None:
            told = storage.read(storage.absolute(chosen.storage_options))
            store_options.use(store_options.parse(told, storage.shown(chosen.storage_options)))
        for uri in remote_stores(chosen):
            storage.check_reachable(uri)
        main(chosen)
    except PipelineError as error:
        if chosen.debug:
            print(
                store_options.used().blotted(storage.cleared(traceback.format_exc())),
                file=sys.stderr,
            )
        _leave(f"error: {error}", error.exit_code)
    except KeyboardInterrupt as stopped:
        number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
        _leave("stopped", 128 + number)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM told the job to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    """End through the ways that put things in order; a second signal ends at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise Stopped(number)


def told(options: JobOptions, summary: Summary, *following: str) -> str:
    """What a job over shards prints at the end.

    Args:
        options: the job's.
        summary: of the run.
        following: the words after `python` of the command that a user would type next.
    """
    lines = summary.lines()
    if summary.images_failed:
        lines.append(f"failed images again, once mended: {summary.rerun}, with --retry-failed")
    if options.storage_options is not None and following[0].endswith(".py"):
        following += ("--storage-options", options.storage_options)
    return "\n".join([*lines, f"next: python {shlex.join(map(storage.cleared, following))}"])


def remote_stores(options: Any) -> list[str]:
    """One URI for each bucket, or host, of a remote store that the options name."""
    found = {"/".join(uri.split("/")[:3]): uri for uri in _remote_uris(options)}
    return list(found.values())


def _remote_uris(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if storage.protocol(value) not in ("file", "memory"):
            yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _remote_uris(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _remote_uris(item)


def _leave(message: str, code: int) -> NoReturn:
    print(" ".join(message.split("\n")), file=sys.stderr)
    sys.exit(code)
