"""COCO: the results of a detector, or an instances file of images, annotations and categories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline import geometry
from pipeline.csv_cells import escape_cell, format_rows
from pipeline.exports.export_format import ReadStream, group_texts, join_texts
from pipeline.exports.image_batch import ImageBatch, format_numbers
from pipeline.exports.image_root import get_relative_path

RESULTS_NAME = "results.json"
INSTANCES_NAME = "instances.json"
IDS_NAME = "image_ids.csv"


def list_category_ids(
    classes: Sequence[str], annotated: Sequence[str], category_ids: Sequence[int] | None
) -> tuple[int, ...]:
    """COCO's id of each class: the manifest's, else from 1 on; further classes follow the largest.

    Args:
        classes: all classes; the manifest's come first.
        annotated: the manifest's classes.
        category_ids: their ids, if the manifest has any.
    """
    known = tuple(category_ids or range(1, len(annotated) + 1))
    first = max(known, default=0) + 1
    return known + tuple(range(first, first + len(classes) - len(known)))


@dataclass(frozen=True)
class CocoResults:
    """`results.json`: one record per detection, as `COCO.loadRes` reads it."""

    category_ids: tuple[int, ...]
    """Of the selection's classes."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Records, and the numbers of images whose id is not their number."""
        return ("results", "image_ids")

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:
        """The records of each image."""
        assert batch.scores is not None
        scores = format_numbers(batch.scores)
        texts = [
            f'{{{start}, {box}, "score": {score}}}'
            for start, box, score in zip(
                _list_starts(batch, self.category_ids), _list_boxes(batch), scores, strict=True
            )
        ]
        return {"results": group_texts(batch, texts, ",\n"), "image_ids": _encode_ids(batch)}

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:  # noqa: ARG002
        """No image has files of its own."""
        return iter(())

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The results, and the numbers of the images."""
        yield RESULTS_NAME, join_texts(read("results"), b"[\n", b",\n", b"\n]\n")
        yield IDS_NAME, _assemble_ids(read)


@dataclass(frozen=True)
class CocoInstances:
    """`instances.json`: annotated objects, or detections in their place, as `prepare coco` reads it.

    A difficult object has `ignore`, as in VOC's annotations for COCO's tools. Images that failed or are not
    annotated are not in the file, since COCO cannot distinguish them from images without objects.
    """

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """Of the classes."""
    root: str | None
    """The folder that `file_name` is relative to."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Images, annotations, and the numbers of images whose id is not their number."""
        return ("images", "annotations", "image_ids")

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:
        """The record of each image, and its annotations as lines that lack their id."""
        flags = _list_flags(batch)
        areas = format_numbers(geometry.area(batch.boxes))
        texts = [
            f'{start}, {box}, "area": {area}, {flag}}}'
            for start, box, area, flag in zip(
                _list_starts(batch, self.category_ids),
                _list_boxes(batch),
                areas,
                flags,
                strict=True,
            )
        ]
        images = [b""] * len(batch)
        for index in batch.iterate_kept():
            images[index] = self._encode_image(batch, index)
        return {
            "images": images,
            "annotations": group_texts(batch, texts, "\n"),
            "image_ids": _encode_ids(batch),
        }

    def _encode_image(self, batch: ImageBatch, index: int) -> bytes:
        assert batch.numbers is not None
        uri = batch.uris[index]
        record: dict[str, int | str] = {
            "id": int(batch.numbers[index]),
            "file_name": get_relative_path(uri, self.root) or uri,
        }
        if batch.sizes[index] is not None:
            record["width"], record["height"] = batch.sizes[index] or (0, 0)
        return json.dumps(record, ensure_ascii=False).encode()

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:  # noqa: ARG002
        """No image has files of its own."""
        return iter(())

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The instances, and the numbers of the images."""
        yield INSTANCES_NAME, self._assemble_instances(read)
        yield IDS_NAME, _assemble_ids(read)

    def _assemble_instances(self, read: ReadStream) -> Iterator[bytes]:
        categories = [
            {"id": number, "name": name, "supercategory": ""}
            for number, name in zip(self.category_ids, self.classes, strict=True)
        ]
        stored = json.dumps(categories, ensure_ascii=False).encode()
        yield from join_texts(read("images"), b'{"images": [\n', b",\n", b"\n],\n")
        yield from join_texts(
            _number_annotations(read("annotations")), b'"annotations": [\n', b",\n", b"\n],\n"
        )
        yield b'"categories": ' + stored + b"}\n"


def _number_annotations(texts: Iterable[bytes]) -> Iterator[bytes]:
    number = 0
    for text in texts:
        for line in text.split(b"\n"):
            number += 1
            yield b'{"id": %d, %b' % (number, line)


def _list_starts(batch: ImageBatch, category_ids: tuple[int, ...]) -> list[str]:
    assert batch.numbers is not None
    image_numbers = batch.numbers[batch.image].tolist()
    return [
        f'"image_id": {number}, "category_id": {category_ids[class_id]}'
        for number, class_id in zip(image_numbers, batch.class_ids.tolist(), strict=True)
    ]


def _list_boxes(batch: ImageBatch) -> list[str]:
    """x, y, width and height, exact: a reader that adds them has the same corners."""
    columns = geometry.to_xywh(batch.boxes).T
    return [
        f'"bbox": [{x}, {y}, {width}, {height}]'
        for x, y, width, height in zip(*map(format_numbers, columns), strict=True)
    ]


def _list_flags(batch: ImageBatch) -> list[str]:
    if batch.scores is not None:
        return [f'"iscrowd": 0, "score": {score}' for score in format_numbers(batch.scores)]
    return [
        f'"iscrowd": {crowd:d}, "ignore": {difficult:d}'
        for crowd, difficult in zip(batch.crowd, batch.difficult, strict=True)
    ]


def _encode_ids(batch: ImageBatch) -> list[bytes]:
    assert batch.numbers is not None
    return [
        b"" if str(number) == image_id else format_rows([[escape_cell(image_id), number]])
        for image_id, number in zip(batch.image_ids, batch.numbers.tolist(), strict=True)
    ]


def _assemble_ids(read: ReadStream) -> Iterator[bytes]:
    yield b"image_id,id\n"
    yield from read("image_ids")
