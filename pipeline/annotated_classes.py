"""The classes of an annotated manifest, whether it lists them or only its objects have labels.

A manifest that other tools filtered, such as pandas, Polars or DuckDB, has lost its list.
"""

from __future__ import annotations

import pyarrow.compute as pc

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ROW_GROUP, Manifest


class NotAnnotated(UnreadableDataset):
    """A manifest without annotations where some are needed."""


def list_annotated_classes(manifest: Manifest, images: int) -> tuple[str, ...]:
    """Return the manifest's classes in order, or, if it lists none, the sorted labels of its objects.

    Args:
        manifest: the images and their objects.
        images: the number of rows to read, from the first.

    Raises:
        NotAnnotated: none of these rows is annotated.
    """
    labels: set[str] = set()
    is_annotated = False
    for first in range(0, images, ROW_GROUP):
        table = manifest.read(first, min(ROW_GROUP, images - first), ["objects"])
        objects = table.column("objects").combine_chunks()
        is_annotated = is_annotated or objects.null_count < len(objects)
        if is_annotated and manifest.classes is not None:
            return manifest.classes
        labels.update(pc.unique(objects.flatten().field("label")).to_pylist())
    if not is_annotated:
        raise NotAnnotated(
            f"{uris.redact_uri(manifest.uri)} has no annotated objects: "
            "prepare it from a labelled dataset (prepare voc, prepare coco)"
        )
    return tuple(sorted(labels))
