"""Whether a job would write over what it reads: inputs and output compared by where they really are."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline import log_files, uris
from pipeline.errors import InvalidConfiguration

_ALIASES = {"local": "file", "s3a": "s3", "gcs": "gs", "adl": "abfs", "az": "abfs", "abfss": "abfs"}
"""Protocols that name the same store."""

PART_WRITES = (
    *("run.json", "shards.parquet", "summary.json", "candidate_thresholds.json"),
    "part-*.parquet",
)
"""What a run over shards writes into the folder of its parts, or removes from it."""
RUN_WRITES = (*PART_WRITES, "plan.json", "README.md", *log_files.WRITES)
"""What a run over shards writes into its output, or removes from it."""
CHECKPOINT_WRITES = ("model.json", "model.safetensors")
"""The files of a checkpoint."""


def check_apart(
    output: str,
    inputs: Mapping[str, str | Sequence[str] | None],
    writes: Sequence[str] = (),
    *,
    may_share_folder: bool = False,
) -> None:
    """Reject a job that would write over what it reads, however the two are named.

    Links, `..`, slashes at the end and the several names of a store are followed.

    Args:
        output: the folder or file to write.
        inputs: the URIs that the job reads, by the names of their options; None is left out.
        writes: glob patterns, below the output, of what the job writes or removes; `*` crosses folders.
        may_share_folder: an input may be the output folder itself, as long as no file is written over.

    Raises:
        InvalidConfiguration: an input is the output, or is among what the job writes there.
    """
    target = resolve_place(output)
    for option, value in inputs.items():
        for uri in [value] if isinstance(value, str) else value or ():
            place = resolve_place(uri)
            if _is_same(place, target) and not may_share_folder:
                raise InvalidConfiguration(
                    f"--output {uris.redact_uri(output)} is the --{option}: choose another folder"
                )
            written = _find_written(place, target, writes)
            if written is not None:
                raise InvalidConfiguration(
                    f"--output {uris.redact_uri(output)} would overwrite the --{option} "
                    f"{uris.redact_uri(uri)}, since the job writes {written} there: choose another folder"
                )


def resolve_place(uri: str) -> str:
    """Where a URI leads: links and `..` of a local path are followed, other stores have one name each."""
    absolute = uris.make_absolute(uri)
    protocol = _ALIASES.get(uris.get_protocol(absolute), uris.get_protocol(absolute))
    if protocol == "file":
        path = absolute.partition("://")[2] or absolute
        with contextlib.suppress(ValueError):  # a null byte: no such file
            path = os.path.realpath(path)
        return path
    path = absolute.partition("://")[2].rstrip("/")
    return f"{protocol}://{path}"


def _is_same(place: str, target: str) -> bool:
    if place == target:
        return True
    if "://" in place or "://" in target:
        return False
    try:  # a bind mount, or another spelling on a file system that ignores case
        return Path(place).samefile(target)
    except (OSError, ValueError):
        return False


def _find_written(place: str, target: str, writes: Sequence[str]) -> str | None:
    """The first pattern of `writes` that an input below the output falls under, or None."""
    below = _get_path_below(place, target)
    if below is None:
        return None
    parts = below.split("/")
    ancestors = [posixpath.join(*parts[:count]) for count in range(1, len(parts) + 1)]
    for pattern in writes:
        folder = pattern.removesuffix("/*")
        if any(fnmatch.fnmatchcase(name, p) for name in ancestors for p in (pattern, folder)):
            return pattern
    return None


def _get_path_below(place: str, target: str) -> str | None:
    prefix = target.rstrip("/") + "/"
    return place[len(prefix) :] if place.startswith(prefix) else None
