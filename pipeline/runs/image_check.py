"""A look at some images before a run: that they have not moved, and how large their files are."""

from __future__ import annotations

import contextlib
import threading
from time import monotonic

from pipeline import storage
from pipeline.errors import PipelineError, StorageError, UnreadableDataset
from pipeline.manifests import Manifest

IMAGES = 16
"""How many are looked up, spread over the manifest."""
SECONDS = 20.0
"""How long that may take; the rest is taken to be there."""


class FirstLook:
    """Looks at some of a run's images, from the driver."""

    def __init__(
        self, manifest: Manifest, rows: int, *, all_may_fail: bool, own_disk: bool
    ) -> None:
        """Prepare it.

        Args:
            manifest: the images.
            rows: only the first so many are meant.
            all_may_fail: the user does not mind if none is there.
            own_disk: the workers read this machine's disk: a local path that is missing here is missing.
        """
        self.manifest = manifest
        self.rows = rows
        self.all_may_fail = all_may_fail
        self.own_disk = own_disk
        self.mean_size = 0.0
        """Mean bytes of the files that were looked at; 0 where no store told."""

    def __call__(self) -> None:
        """Look.

        Raises:
            UnreadableDataset: not one of them exists; the message names the first.
        """
        rows = sorted({index * self.rows // IMAGES for index in range(IMAGES)})
        found: list[int | storage.MissingObject | None] = [None] * len(rows)

        def look_up(index: int) -> None:
            with contextlib.suppress(PipelineError):  # the manifest's store has trouble since
                uri = self.manifest.read(rows[index], 1, ["uri"])["uri"][0].as_py()
                found[index] = _looked_up(uri, self.own_disk)

        # Daemons: a store that hangs must not keep the process when the run has ended.
        threads = [
            threading.Thread(target=look_up, args=(index,), daemon=True)
            for index in range(len(rows))
        ]
        deadline = monotonic() + SECONDS
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        gone = [one for one in found if isinstance(one, storage.MissingObject)]
        if len(gone) == len(found) and not self.all_may_fail:
            raise UnreadableDataset(
                f"{storage.shown(self.manifest.uri)}: none of {len(found)} images that were looked up "
                f"exists, have they moved? The first: {gone[0]} (--max-failed-fraction 1 runs all the same)"
            )
        sizes = [one for one in found if isinstance(one, int)]
        self.mean_size = sum(sizes) / len(sizes) if sizes else 0.0


def _looked_up(uri: str, own_disk: bool) -> int | storage.MissingObject | None:
    """A file's bytes, that it is missing, or None where that cannot be said from here."""
    try:
        return storage.size(uri)
    except StorageError:  # a link that is signed for reading may not be asked for its size
        pass
    if storage.protocol(uri) == "file" and not own_disk:
        return None  # the nodes may have disks that the driver has not
    try:
        storage.read_start(uri, 1)
    except storage.MissingObject as error:
        return error
    except StorageError:  # the tasks will try again and say what is wrong
        pass
    return None
