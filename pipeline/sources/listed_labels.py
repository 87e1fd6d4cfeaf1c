"""The labels of a dataset whose classes are not listed anywhere: a pass over all annotations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject


@dataclass
class ListedLabels:
    """The labels of a part of the annotations."""

    labels: set[str] = field(default_factory=set)
    fault: str | None = None
    """What was wrong with the first annotation that could not be read; reading the images reports all."""

    def add(self, objects: Sequence[AnnotatedObject] | None) -> None:
        """Take the labels of an image."""
        self.labels.update(item.label for item in objects or ())

    def take_fault(self, fault: str) -> None:
        """Take note of a fault, if it is the first."""
        self.fault = self.fault or fault


def collect_labels(parts: Iterable[ListedLabels], without: str) -> tuple[str, ...]:
    """All labels, sorted.

    Args:
        parts: the labels of the parts, in order.
        without: the message if there is neither a label nor a fault.

    Raises:
        UnreadableDataset: there is no label; the message is the first fault, if there is one.
    """
    whole = ListedLabels()
    for part in parts:
        whole.labels |= part.labels
        whole.take_fault(part.fault or "")
    if not whole.labels:
        raise UnreadableDataset(whole.fault or without)
    return tuple(sorted(whole.labels))
