"""A folder of images without annotations, read recursively."""

from __future__ import annotations

from pipeline import imaging, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import read_image_size
from pipeline.sources.dataset import Counts, Dataset, stream_rows


def open_folder(uri: str, skip_invalid: bool = False) -> Dataset:
    """Open all images below a folder, in the order of their paths; `image_id` is the relative path.

    Args:
        uri: the folder, in any store.
        skip_invalid: skip files that are not images instead of raising an error.

    Raises:
        UnreadableDataset: the folder holds no images, or (while streaming) an image is unreadable.
        StorageError: there is no such folder, or the store cannot be reached.
    """
    root = uris.make_absolute(uri)
    paths = [
        path
        for path in storage.list_below(root)
        if imaging.is_image_name(path) and not path.rpartition("/")[2].startswith(".")
    ]
    if not paths:
        endings = " ".join(sorted(imaging.IMAGE_SUFFIXES))
        raise UnreadableDataset(
            f"{uris.redact_uri(root)} holds no images at any depth (expected file endings: {endings})"
        )

    def read_row(path: str) -> tuple[ManifestRow, int]:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise UnreadableDataset(
                f"{uris.redact_uri(root)}: the file name {path!r} is not UTF-8"
            ) from error
        image = uris.join(root, path)
        width, height = read_image_size(image)
        return ManifestRow(path, image, width, height, None), 0

    counts = Counts()
    return Dataset(None, None, stream_rows(paths, read_row, counts, skip_invalid), counts)
