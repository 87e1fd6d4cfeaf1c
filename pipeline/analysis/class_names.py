"""The classes of a manifest, and how they match a checkpoint's: by name, not by number."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest


def list_annotated_classes(manifest: Manifest, images: int) -> tuple[str, ...]:
    """Return the manifest's classes in order, or, if it lists none, the sorted labels of its objects.

    Raises:
        UnreadableDataset: none of the first `images` rows is annotated.
    """
    labels: set[str] = set()
    is_annotated = False
    for first in range(0, images, 2048):
        table = manifest.read(first, min(2048, images - first), ["objects"])
        objects = table.column("objects").combine_chunks()
        is_annotated = is_annotated or objects.null_count < len(objects)
        if is_annotated and manifest.classes is not None:
            return manifest.classes
        labels.update(pc.unique(objects.flatten().field("label")).to_pylist())
    if not is_annotated:
        raise UnreadableDataset(
            f"{uris.redact_uri(manifest.uri)} has no annotated objects, so nothing can be scored "
            "against it: prepare it from a labelled dataset (prepare voc, prepare coco)"
        )
    return tuple(sorted(labels))


def compare_classes(detected: Sequence[str], annotated: Sequence[str]) -> list[str]:
    """Write a sentence for each side that has classes missing on the other.

    Raises:
        UnreadableDataset: the two sides have no class in common.
    """
    only_detected = [name for name in detected if name not in set(annotated)]
    only_annotated = [name for name in annotated if name not in set(detected)]
    if annotated and len(only_annotated) == len(annotated):
        raise UnreadableDataset(
            f"no class in common: the detections are of {_join_names(detected)}, "
            f"the manifest's objects of {_join_names(annotated)}; pass the manifest of the same dataset"
        )
    notes = []
    if only_detected:
        notes.append(
            f"the manifest has no class {_join_names(only_detected)}: its detections are left out"
        )
    if only_annotated:
        notes.append(
            f"the checkpoint has no class {_join_names(only_annotated)}: all its objects count as missed"
        )
    return notes


def _join_names(names: Sequence[str], limit: int = 10) -> str:
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
