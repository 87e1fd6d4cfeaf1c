"""What every job does first and last: parse options, set up logging, print an error as one line."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import tyro

from pipeline import storage, store_options, uris
from pipeline.errors import PipelineError
from pipeline.printable import LineFormatter, describe_in_one_line, escape_unprintable
from pipeline.runs.run_logs import EarlyRecords
from pipeline.secret_mask import SecretMask

if TYPE_CHECKING:
    from pipeline.runs.summary import Summary


@dataclass(frozen=True)
class JobOptions:
    """Options that every job has."""

    debug: bool = False
    """Print the traceback of an error, and log more."""
    storage_options: str | None = None
    """JSON file of fsspec options by URI prefix: {"s3://bucket": {"key": ..., "endpoint_url": ...}}."""


_PROTOCOL = re.compile(r"[\w+.-]+")
"""What comes before `://` in a URI; in a statement of SQL, more does."""
_QUIET_LOGGERS = ("botocore", "aiobotocore", "s3fs", "fsspec", "numba", "urllib3", "asyncio", "PIL")


def run(options: Any, main: Callable[[Any], None], description: str | None = None) -> NoReturn:
    """Parse the command line into `options`, call `main` with them, exit.

    Args:
        options: a subclass of `JobOptions`, or a union of them for a job with subcommands.
        main: the job; it returns on success and raises a `PipelineError` otherwise.
        description: the help text above the options; usually the script's docstring.

    The exit code is 0, that of the `PipelineError`, 130 after Ctrl-C, 143 after SIGTERM, or 1 for a
    defect.
    """
    stop = StopHandler()
    stop.install()
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack letters that names have
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        chosen = parse(options, sys.argv[1:], description)
    except PipelineError as error:  # options that check their own values
        _leave(describe_in_one_line(error), error.exit_code)
    except (SystemExit, BrokenPipeError) as error:  # the help is printed, or usage
        _leave_after_help(error)
    _configure_logging(chosen.debug)
    try:
        if chosen.storage_options is not None:
            _load_storage_options(chosen.storage_options)
        for uri in list_remote_stores(chosen):
            storage.check_reachable(uri)
        main(chosen)
        sys.stdout.flush()  # a closed pipe shows here, not after the end
    except PipelineError as error:
        if chosen.debug:
            for line in SecretMask().hide(traceback.format_exc()).split("\n"):
                print(escape_unprintable(line), file=sys.stderr)
        _leave(describe_in_one_line(error), error.exit_code)
    except KeyboardInterrupt:
        _leave("stopped", 128 + stop.number)
    except BrokenPipeError:
        _leave_closed_pipe()
    sys.exit(0)


def parse(options: Any, arguments: Sequence[str], description: str | None = None) -> Any:
    """Parse a command line into an instance of `options`; print usage and exit if it is wrong.

    Raises:
        PipelineError: the options reject their values.
    """
    return tyro.cli(
        options,
        args=arguments,
        description=description,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes),
    )


def _configure_logging(debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, handlers=[handler, EarlyRecords()])
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    if not debug:  # a request that failed raises its error; asyncio logs that of its task as well
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _load_storage_options(uri: str) -> None:
    content = storage.read(uris.make_absolute(uri))
    store_options.set_options(store_options.parse_options(content, uris.redact_uri(uri)))


class StopHandler:
    """Raises KeyboardInterrupt on SIGINT or SIGTERM; a second signal ends the process at once.

    It remembers the signal, because the exception cannot carry it: Ray replaces an exception that a
    signal raises inside its calls by a plain KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.number: int = signal.SIGINT
        """The signal that stopped the job."""

    def install(self) -> None:
        """Handle both signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG002
        self.number = number
        for handled in (signal.SIGINT, signal.SIGTERM):
            signal.signal(handled, signal.SIG_DFL)
        raise KeyboardInterrupt


def print_lines(*lines: str) -> None:
    """Print lines of a job's results; names in them cannot command the terminal or start a line."""
    for line in lines:
        print(escape_unprintable(line))


def build_closing_lines(options: JobOptions, summary: Summary, *next_command: str) -> list[str]:
    """What a job over shards prints at the end.

    Args:
        options: the job's options.
        summary: the run's summary.
        next_command: the words after `python` of the command that a user would type next.
    """
    lines = summary.format_lines()
    if summary.images_failed:
        lines.append(f"to retry failed images, once repaired: {summary.rerun}, with --retry-failed")
    if options.storage_options is not None and next_command[0].endswith(".py"):
        next_command += ("--storage-options", options.storage_options)
    return [*lines, f"next: python {shlex.join(map(uris.redact_text, next_command))}"]


def list_remote_stores(options: Any) -> list[str]:
    """One URI for each bucket, or host, of a remote store that the options name."""
    uri_by_store = {"/".join(uri.split("/")[:3]): uri for uri in _iterate_remote_uris(options)}
    return list(uri_by_store.values())


def _iterate_remote_uris(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        protocol = uris.get_protocol(value)
        if _PROTOCOL.fullmatch(protocol) and protocol not in ("file", "memory"):
            yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _iterate_remote_uris(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _iterate_remote_uris(item)


def _leave_after_help(error: SystemExit | BrokenPipeError) -> NoReturn:
    """Leave with the parser's exit code; a reader that has closed the pipe has read enough."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_closed_pipe()
    if isinstance(error, BrokenPipeError):
        _leave_closed_pipe()
    raise error


def _leave_closed_pipe() -> NoReturn:
    """Leave without the traceback of Python's own flush at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _leave(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
