"""FiftyOne: an image detection dataset in its JSON layout, of images where they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UnreadableDataset
from pipeline.exports.export_format import ReadStream, group_texts, join_texts
from pipeline.exports.file_names import name_file
from pipeline.exports.image_batch import ImageBatch, format_numbers

LABELS_NAME = "labels.json"
DATA_NAME = "data.json"


@dataclass(frozen=True)
class FiftyOneDataset:
    """`labels.json` and `data.json`: a `FiftyOneImageDetectionDataset` whose images are not copied.

    Boxes are x, y, width, height in shares of the image's sides. The keys are the image ids, escaped as file
    names, because FiftyOne takes them for paths; it removes the ending of a key of `data.json`.
    """

    classes: tuple[str, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        """The labels of the images, and where these are."""
        return ("labels", "data")

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:
        """The entries of each image.

        Raises:
            UnreadableDataset: the size of an image is unknown.
        """
        assert batch.scores is not None
        shares = batch.normalise_boxes()
        columns = [*shares[:, :2].T, *(shares[:, 2:] - shares[:, :2]).T]
        rows = zip(*(format_numbers(np.round(c, 9)) for c in columns), strict=True)
        names = [json.dumps(label, ensure_ascii=False) for label in self.classes]
        texts = [
            f'{{"label": {names[class_id]}, "bounding_box": [{", ".join(row)}], "confidence": {score}}}'
            for class_id, row, score in zip(
                batch.class_ids.tolist(), rows, format_numbers(batch.scores), strict=True
            )
        ]
        labels, data = [b""] * len(batch), [b""] * len(batch)
        for index, detections in enumerate(group_texts(batch, texts, ", ")):
            if index in batch.left_out:
                continue
            if batch.sizes[index] is None:
                raise UnreadableDataset(
                    f"image {batch.image_ids[index]!r} has no width and height, which shares need"
                )
            name = name_file(batch.image_ids[index])
            labels[index] = b"%b: [%b]" % (_quote(name), detections)
            data[index] = b"%b: %b" % (_quote(f"{name}.image"), _quote(batch.uris[index]))
        return {"labels": labels, "data": data}

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:  # noqa: ARG002
        """No image has files of its own."""
        return iter(())

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Labels and data."""
        classes = json.dumps(self.classes, ensure_ascii=False).encode()
        start = b'{"classes": %b,\n"labels": {\n' % classes
        yield LABELS_NAME, join_texts(read("labels"), start, b",\n", b"\n}}\n")
        yield DATA_NAME, join_texts(read("data"), b"{\n", b",\n", b"\n}\n")


def _quote(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
