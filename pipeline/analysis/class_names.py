"""How the classes of detections match those of annotations: by name, not by number."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest


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


def describe_federation(manifest: Manifest) -> list[str]:
    """Write a sentence if images are annotated for some classes only."""
    if not manifest.is_federated:
        return []
    return [
        "the manifest is federated (LVIS): detections of classes that an image is not annotated for count "
        "neither as true nor as false, and neither do those behind the 300 best of an image"
    ]


def _join_names(names: Sequence[str], limit: int = 10) -> str:
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
