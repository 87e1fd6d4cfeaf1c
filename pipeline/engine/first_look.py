"""A look at some pictures before a run: that they have not moved, and how large their files are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pipeline import storage
from pipeline.engine import output
from pipeline.engine.run_options import RunOptions
from pipeline.errors import StorageError, UnreadableDataset
from pipeline.manifest import Manifest

PICTURES = 16
"""How many are looked up, spread over the manifest."""


def mean_size(manifest: Manifest, rows: int, target: str, options: RunOptions) -> float:
    """Mean bytes of some pictures' files; 0 where no store tells, or where nothing is left to do.

    Args:
        manifest: the pictures.
        rows: only the first so many are meant.
        target: the run's output.
        options: of the run; where all pictures may fail, none has to be there.

    Raises:
        UnreadableDataset: none of them can be read; the message has the first one's error.
    """
    if output.is_finished(target) and not (options.overwrite or options.retry_failed):
        return 0.0
    chosen = sorted({index * rows // PICTURES for index in range(PICTURES)})
    uris = [manifest.read(row, 1, ["uri"])["uri"][0].as_py() for row in chosen]
    with ThreadPoolExecutor(PICTURES) as threads:
        found = list(threads.map(_looked_up, uris))
    gone = [one for one in found if isinstance(one, StorageError)]
    if len(gone) == len(found) and options.max_failed_fraction < 1:
        raise UnreadableDataset(
            f"{storage.shown(manifest.uri)}: of {len(found)} pictures that were looked up none can be read, "
            f"have they moved? The first: {gone[0]}"
        )
    sizes = [one for one in found if isinstance(one, int)]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _looked_up(uri: str) -> int | StorageError | None:
    """A file's bytes, why it cannot be read, or None where its store has trouble or does not tell."""
    try:
        return storage.size(uri)
    except StorageError:  # a link that is signed for reading may not be asked for its size
        try:
            storage.read_start(uri, 1)
        except (storage.MissingObject, storage.AccessDenied) as error:
            return error
        except StorageError:  # the tasks will try again and say what is wrong
            return None
        return None
