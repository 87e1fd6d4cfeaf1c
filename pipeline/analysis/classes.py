"""Which classes a manifest is about, and which of a checkpoint's they meet: by name, not by number."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest


def annotated_classes(manifest: Manifest, images: int) -> tuple[str, ...]:
    """The manifest's classes in order, or, where it lists none, the sorted labels of its objects.

    Raises:
        UnreadableDataset: none of the first `images` rows is annotated.
    """
    labels: set[str] = set()
    annotated = False
    for first in range(0, images, 2048):
        table = manifest.read(first, min(2048, images - first), ["objects"])
        objects = table.column("objects").combine_chunks()
        annotated = annotated or objects.null_count < len(objects)
        if annotated and manifest.classes is not None:
            return manifest.classes
        labels.update(pc.unique(objects.flatten().field("label")).to_pylist())
    if not annotated:
        raise UnreadableDataset(
            f"{storage.shown(manifest.uri)} has no annotated objects, so nothing can be scored "
            "against it: prepare it from a labelled dataset (prepare voc, prepare coco)"
        )
    return tuple(sorted(labels))


def compare_classes(detected: Sequence[str], annotated: Sequence[str]) -> list[str]:
    """A sentence for each side that knows classes which the other does not.

    Raises:
        UnreadableDataset: they have no class in common.
    """
    only_detected = [name for name in detected if name not in set(annotated)]
    only_annotated = [name for name in annotated if name not in set(detected)]
    if annotated and len(only_annotated) == len(annotated):
        raise UnreadableDataset(
            f"no class in common: the detections are of {_listed(detected)}, "
            f"the manifest's objects of {_listed(annotated)}"
        )
    notes = []
    if only_detected:
        notes.append(
            f"the manifest has no class {_listed(only_detected)}: detections of it are left out"
        )
    if only_annotated:
        notes.append(
            f"the checkpoint has no class {_listed(only_annotated)}: all its objects count as missed"
        )
    return notes


def _listed(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
