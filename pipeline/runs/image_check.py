"""A check of some images before a run: whether they still exist, and how large their files are."""

from __future__ import annotations

import contextlib
import threading
from time import monotonic

from pipeline import storage, uris
from pipeline.errors import (
    MissingObject,
    PipelineError,
    StorageError,
    UnreadableDataset,
    UnusableObject,
)
from pipeline.image_members import Member, read_members
from pipeline.manifests import Manifest

SAMPLE_SIZE = 16
"""Images checked, spread over the manifest."""
TIME_LIMIT = 20.0
"""Seconds that the check may take; images that it does not reach are assumed to exist."""


def check_sampled_images(
    manifest: Manifest, rows: int, *, all_may_fail: bool, own_disk: bool
) -> float:
    """Check from the driver that some of a run's images exist, and return their mean size.

    Args:
        manifest: the images.
        rows: only the first `rows` images belong to the run.
        all_may_fail: the user accepts a run whose images are all missing.
        own_disk: the workers read this machine's disk, so a local path that is missing here is missing.

    Returns:
        The mean size of their files in bytes; 0 if no store says a size.

    Raises:
        UnreadableDataset: none of them exists; the message names the first.
    """
    sample = sorted({index * rows // SAMPLE_SIZE for index in range(SAMPLE_SIZE)})
    sizes: list[int | MissingObject | None] = [None] * len(sample)

    def check_image(index: int) -> None:
        with contextlib.suppress(PipelineError):  # the manifest's store fails by now
            row = manifest.read(sample[index], 1, manifest.image_columns)
            (member,) = read_members(row, manifest.uri, sample[index])
            if (
                member is None or member.failure is None
            ):  # else the dataset says that it has no image
                sizes[index] = _find_size(row["uri"][0].as_py(), member, own_disk)

    # Daemons: a store that hangs must not keep the process alive after the run.
    threads = [
        threading.Thread(target=check_image, args=(index,), daemon=True)
        for index in range(len(sample))
    ]
    deadline = monotonic() + TIME_LIMIT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    missing = [error for error in sizes if _is_missing(error)]
    if len(missing) == len(sizes) and not all_may_fail:
        raise UnreadableDataset(
            f"{uris.redact_uri(manifest.uri)}: none of the {len(sizes)} images checked exist; have they "
            f"moved? The first: {missing[0]} (--max-failed-fraction 1 runs all the same)"
        )
    readable = [size for size in sizes if isinstance(size, int)]
    return sum(readable) / len(readable) if readable else 0.0


def _is_missing(outcome: object) -> bool:
    """Whether an image does not exist; one that is a FIFO or device exists."""
    return isinstance(outcome, MissingObject) and not isinstance(outcome, UnusableObject)


def _find_size(uri: str, member: Member | None, own_disk: bool) -> int | MissingObject | None:
    """An image's size in bytes, the error if it is missing, or None if that is unknown from here."""
    try:
        size = storage.get_size(uri)
        return size if member is None else member.length
    except StorageError:  # a link that is signed for reading may not give its size
        pass
    if uris.get_protocol(uri) == "file" and not own_disk:
        return None  # the nodes may have disks that the driver lacks
    try:
        storage.read_start(uri, 1)
    except MissingObject as error:
        return error
    except StorageError:  # the tasks try again and report what is wrong
        pass
    return None
