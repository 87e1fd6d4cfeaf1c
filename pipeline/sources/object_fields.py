"""Objects as datasets of dictionaries hold them: labels and boxes in fields that the user names.

There is no convention for these fields, so nothing is guessed: names, format and units are options, with the
defaults that most datasets on the Hugging Face Hub have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.scalars import read_flag, read_id, read_number

BoxFormat = Literal["xyxy", "xywh", "cxcywh", "yolo"]
"""Corners; corner and sides; centre and sides; as the last, in shares of the image's sides."""
BoxUnits = Literal["pixels", "relative"]
_DIFFICULT, _CROWDS = "difficult", ("iscrowd", "crowd", "is_crowd")


@dataclass(frozen=True)
class ObjectFields:
    """Where the objects of an image are, and what their boxes mean."""

    label_field: str = "category"
    """Field of the label: a name, or a number that counts the classes from 0."""
    box_field: str = "bbox"
    """Field of the box: four numbers."""
    box_format: BoxFormat = "xywh"
    """xyxy: two corners; xywh: the top left corner, width and height; cxcywh: the centre, width and height;
    yolo: cxcywh with --box-units relative."""
    box_units: BoxUnits = "pixels"
    """pixels, or relative: shares of the image's width and height, from 0 to 1."""

    @property
    def is_relative(self) -> bool:
        """Whether boxes are shares of the image's sides."""
        return self.box_units == "relative" or self.box_format == "yolo"


def parse_objects(
    content: Any, fields: ObjectFields, classes: Sequence[str], where: str
) -> tuple[AnnotatedObject, ...]:
    """The objects of one image, with boxes in the units of `fields` and not yet clipped.

    Args:
        content: a list of objects with one label and one box each, or an object with a list of labels and
            one of boxes.
        fields: the names of these fields, and what a box means.
        classes: names for labels that are numbers; without them, numbers stay numbers.
        where: what errors name.

    Raises:
        UnreadableDataset: a field is missing or has another type, or the lists differ in length.
    """
    columns = _split(content, fields, where)
    labels, boxes = columns[fields.label_field], columns[fields.box_field]
    crowds = next((columns[name] for name in _CROWDS if name in columns), [None] * len(labels))
    difficult = columns.get(_DIFFICULT, [None] * len(labels))
    objects = []
    rows = zip(labels, boxes, difficult, crowds, strict=True)
    for index, (label, box, is_difficult, is_crowd) in enumerate(rows):
        place = f"{where}, object {index}"
        objects.append(
            AnnotatedObject(
                _name_label(label, fields.label_field, classes, place),
                *_read_corners(box, fields, place),
                difficult=bool(read_flag(is_difficult, _DIFFICULT, place)),
                crowd=bool(read_flag(is_crowd, "iscrowd", place)),
            )
        )
    return tuple(objects)


def _split(content: Any, fields: ObjectFields, where: str) -> dict[str, Sequence[Any]]:
    """One list per field, all of the same length."""
    required = (fields.label_field, fields.box_field)
    optional = (_DIFFICULT, *_CROWDS)
    if isinstance(content, Mapping):
        columns = {name: content[name] for name in (*required, *optional) if name in content}
    elif _is_list(content) and all(isinstance(item, Mapping) for item in content):
        names = [
            *required,
            *(name for name in optional if any(name in item for item in content)),
        ]
        _check_fields(content, required, where)
        columns = {name: [item.get(name) for item in content] for name in names}
    else:
        raise UnreadableDataset(
            f"{where}: the objects are {_describe(content)}, expected a list of objects, or an object with "
            f"the lists {' and '.join(required)}"
        )
    for name in required:
        if not _is_list(columns.get(name)):
            raise UnreadableDataset(
                f"{where}: field {name} of the objects is {_describe(columns.get(name))}, expected a list; "
                f"the fields are {', '.join(map(str, content))[:200] or 'none'}"
            )
    lengths = {name: len(values) for name, values in columns.items() if _is_list(values)}
    if len(set(lengths.values())) > 1:
        stated = ", ".join(f"{number} of {name}" for name, number in lengths.items())
        raise UnreadableDataset(f"{where}: the objects have {stated}")
    return {name: values for name, values in columns.items() if name in lengths}


def _check_fields(content: Sequence[Any], required: Sequence[str], where: str) -> None:
    for index, item in enumerate(content):
        for name in required:
            if name not in item:
                raise UnreadableDataset(
                    f"{where}, object {index} has no field {name}; its fields are "
                    f"{', '.join(map(str, item))[:200] or 'none'}"
                )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _describe(value: Any) -> str:
    return "missing" if value is None else f"{type(value).__name__} {value!r:.60}"


def _name_label(value: Any, field: str, classes: Sequence[str], where: str) -> str:
    label = read_id(value, field, where)
    if classes and isinstance(value, int | float) and not isinstance(value, bool):
        number = int(label) if label.lstrip("-").isdigit() else -1
        if not 0 <= number < len(classes):
            raise UnreadableDataset(
                f"{where}: field {field} is {value!r:.60}, expected a number from 0 to {len(classes) - 1}"
            )
        return classes[number]
    return label


def _read_corners(box: Any, fields: ObjectFields, where: str) -> tuple[float, float, float, float]:
    if not _is_list(box) or len(box) != 4:
        raise UnreadableDataset(
            f"{where}: field {fields.box_field} is {_describe(box)}, expected four numbers"
        )
    a, b, c, d = (read_number(value, fields.box_field, where) for value in box)
    if fields.box_format == "xyxy":
        return a, b, c, d
    if fields.box_format == "xywh":
        return a, b, a + c, b + d
    return a - c / 2, b - d / 2, a + c / 2, b + d / 2
