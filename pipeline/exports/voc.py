"""PASCAL VOC: one XML file per image, a list of the images, and the classes in order."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import escape

from pipeline import geometry
from pipeline.errors import InvalidConfiguration
from pipeline.exports.export_format import ReadStream
from pipeline.exports.file_names import name_file
from pipeline.exports.image_batch import ImageBatch, format_numbers

FOLDER = "Annotations"
LIST_NAME = "ImageSets/Main/all.txt"
CLASSES_NAME = "classes.txt"


def check_labels(classes: Sequence[str]) -> None:
    """Reject classes that VOC's XML and lists cannot hold.

    Raises:
        InvalidConfiguration: a class has a control character, blanks at an end, or no character at all.
    """
    for label in classes:
        if label != label.strip() or not label or any(map(_is_control, label)):
            raise InvalidConfiguration(
                f"VOC cannot hold the class {label!r}: names have no control characters, and no blanks at "
                "their ends"
            )


def _is_control(letter: str) -> bool:
    """Whether XML 1.0 forbids a character or readers change it."""
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in "\ufffe\uffff"


@dataclass(frozen=True)
class VocFolder:
    """`Annotations/<image_id>.xml`, `ImageSets/Main/all.txt` and `classes.txt`, as `prepare voc` reads them.

    Boxes count pixels from 1 and include their last pixel; they keep fractions. VOC has no crowds: these
    become difficult objects, which its rule ignores likewise. Detections have `confidence`.
    """

    classes: tuple[str, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        """The lines of the list."""
        return ("list",)

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:
        """The name of each image."""
        names = [b""] * len(batch)
        for index in batch.iterate_kept():
            names[index] = name_file(batch.image_ids[index]).encode() + b"\n"
        return {"list": names}

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:
        """An annotation for each image."""
        objects = self._format_objects(batch)
        for index in batch.iterate_kept():
            name = name_file(batch.image_ids[index])
            text = self._format_image(batch, index, objects[batch.slice_boxes(index)])
            yield f"{FOLDER}/{name}.xml", text.encode()

    def _format_image(self, batch: ImageBatch, index: int, objects: Sequence[str]) -> str:
        filename = batch.uris[index].rpartition("/")[2]
        readable = "".join(quote(c, safe="") if _is_control(c) else c for c in filename)
        size = batch.sizes[index]
        lines = ["<annotation>", f"  <filename>{escape(readable)}</filename>"]
        if size is not None:
            sides = f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth>"
            lines.append(f"  <size>{sides}</size>")
        return "\n".join([*lines, *objects, "</annotation>", ""])

    def _format_objects(self, batch: ImageBatch) -> list[str]:
        names = list(map(escape, self.classes))
        if batch.scores is None:
            extras = [f"<difficult>{flag:d}</difficult>" for flag in batch.difficult | batch.crowd]
        else:
            scores = format_numbers(batch.scores)
            extras = [f"<difficult>0</difficult><confidence>{s}</confidence>" for s in scores]
        corners = zip(*map(format_numbers, geometry.to_inclusive(batch.boxes, 1).T), strict=True)
        return [
            f"  <object><name>{names[class_id]}</name>{extra}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for class_id, extra, (x1, y1, x2, y2) in zip(
                batch.class_ids.tolist(), extras, corners, strict=True
            )
        ]

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The list of the images, and the classes."""
        yield LIST_NAME, read("list")
        yield CLASSES_NAME, ["".join(f"{label}\n" for label in self.classes).encode()]
