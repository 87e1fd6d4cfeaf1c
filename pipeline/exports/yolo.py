"""Ultralytics YOLO: one text file per image beside a folder of images, and `data.yaml` with the classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import image_formats
from pipeline.errors import UnreadableDataset
from pipeline.exports.export_format import ReadStream
from pipeline.exports.file_names import name_file
from pipeline.exports.image_batch import ImageBatch, format_numbers
from pipeline.exports.image_root import get_relative_path

FOLDER = "labels"
CONFIGURATION_NAME = "data.yaml"


def name_labels(uri: str, image_id: str, root: str | None) -> str:
    """The path, without an ending, of an image's labels: that of its image, as Ultralytics expects.

    Args:
        uri: the image's.
        image_id: names the labels if there is no root.
        root: the folder that holds all images; it is to be linked as `images`.
    """
    path = get_relative_path(uri, root) or image_id
    return name_file(path.rpartition(".")[0] if image_formats.is_image_name(path) else path)


@dataclass(frozen=True)
class YoloFolder:
    """`labels/<image>.txt` with a line `class x y width height` per box, in shares of the image's sides.

    With `has_scores`, a line ends with the score, as `yolo predict` writes it; training reads lines without.
    """

    classes: tuple[str, ...]
    root: str | None
    has_scores: bool

    @property
    def streams(self) -> tuple[str, ...]:
        """None: an image is a file."""
        return ()

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:  # noqa: ARG002
        """Nothing."""
        return {}

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:
        """The labels of each image; empty for an image without boxes.

        Raises:
            UnreadableDataset: the size of an image is unknown.
        """
        shares = batch.normalise_boxes()
        sides = shares[:, 2:] - shares[:, :2]
        columns = list(map(_format_shares, (*(shares[:, :2] + sides / 2).T, *sides.T)))
        if self.has_scores and batch.scores is not None:
            columns.append(format_numbers(batch.scores))
        numbers = zip(*columns, strict=True)
        lines = [
            f"{class_id} {' '.join(row)}\n"
            for class_id, row in zip(batch.class_ids.tolist(), numbers, strict=True)
        ]
        for index in batch.iterate_kept():
            if batch.sizes[index] is None:
                raise UnreadableDataset(
                    f"image {batch.image_ids[index]!r} has no width and height, which YOLO's boxes need"
                )
            name = name_labels(batch.uris[index], batch.image_ids[index], self.root)
            yield f"{FOLDER}/{name}.txt", "".join(lines[batch.slice_boxes(index)]).encode()

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:  # noqa: ARG002
        """The classes and where the images belong."""
        names = [f"  {index}: {quote_yaml(label)}" for index, label in enumerate(self.classes)]
        lines = ["path: .", "train: images", "val: images", "names:", *names]
        yield CONFIGURATION_NAME, ["\n".join([*lines, ""]).encode()]


def _format_shares(values: NDArray[np.float64]) -> Sequence[str]:
    """Seven decimals: a thousandth of a pixel in an image of 10,000."""
    return format_numbers(np.round(values, 7))


def quote_yaml(text: str) -> str:
    """The text as a double-quoted YAML scalar in ASCII."""
    return '"' + "".join(map(_escape_yaml, text)) + '"'


def _escape_yaml(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if " " <= letter <= "~":
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
