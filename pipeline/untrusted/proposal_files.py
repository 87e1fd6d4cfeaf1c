"""Girshick's `.mat` and detectron2's `.pkl`: image ids, boxes and scores, checked for their form.

The `.mat` files of R-CNN and Fast R-CNN hold `images`, a cell array of names, and `boxes`, a cell array
of y1 x1 y2 x2, counted from 1 and inclusive at both ends. detectron2's pickle is a dict of the lists
`ids`, `boxes` (x1 y1 x2 y2, half open as here, or x y w h, depending on `bbox_mode`) and
`objectness_logits`; Detectron 1 called the first and last `indexes` and `scores`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.errors import UnreadableDataset
from pipeline.untrusted.plain_pickle import NumericArray, load_plain_pickle

_XYXY, _XYWH = 0, 1
_BYTES_PER_BOX = 4
"""Bytes that a box takes in a file at least; more boxes than that are one list in many places."""


class ImageProposals(NamedTuple):
    """One image's proposals, best first."""

    image_id: str
    boxes: NDArray[np.float32]
    """x1, y1, x2, y2 half open, `(N, 4)`; a file's boxes may be empty, inverted or not finite."""
    scores: NDArray[np.float32] | None
    """Falling scores `(N,)`, NaN at the end, or None where the file has only the order."""


def parse_mat(data: bytes) -> Iterator[ImageProposals]:
    """Yield the proposals of a `.mat` file in its order.

    Raises:
        UnreadableDataset: not a MATLAB file before version 7.3, or one without these two cell arrays.
    """
    from scipy.io import loadmat  # noqa: PLC0415 (takes 0.3 s, and only this function needs it)

    try:
        content = loadmat(io.BytesIO(data), variable_names=["boxes", "images"])
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise UnreadableDataset(f"it is not a MATLAB file up to version 7.2: {error}") from error
    for name in ("boxes", "images"):
        if name not in content or content[name].dtype != object:
            raise UnreadableDataset(f"it has no cell array {name!r}")
    boxes, names = content["boxes"].ravel(), content["images"].ravel()
    if len(boxes) != len(names):
        raise UnreadableDataset(f"it has {len(boxes)} box lists for {len(names)} images")
    for index, (name, rows) in enumerate(zip(names, boxes, strict=True)):
        image_id = _parse_name(name, index)
        corners = _parse_boxes(image_id, rows)[:, (1, 0, 3, 2)]
        yield ImageProposals(image_id, _as_float32(geometry.from_inclusive(corners, 1)), None)


def _parse_name(name: Any, index: int) -> str:
    characters = np.asarray(name).ravel()
    if characters.size == 0 or not isinstance(characters[0], str) or not characters[0]:
        raise UnreadableDataset(f"image {index} has no name")
    return _check_text(str(characters[0]))


def parse_pickle(data: bytes) -> Iterator[ImageProposals]:
    """Yield the proposals of a detectron2 (or Detectron) pickle in its order, each image's best first.

    Raises:
        UnreadableDataset: not such a pickle, lists of unequal length, or boxes that are no numbers.
    """
    content = load_plain_pickle(data)
    if not isinstance(content, dict):
        raise UnreadableDataset(
            f"it holds a {type(content).__name__}, expected a dict of proposals"
        )
    ids = _get_column(content, "ids", "indexes")
    boxes = _get_column(content, "boxes", "boxes")
    logits = _get_column(content, "objectness_logits", "scores")
    if not len(ids) == len(boxes) == len(logits):
        raise UnreadableDataset(
            f"it has {len(ids)} ids, {len(boxes)} box lists, {len(logits)} score lists; "
            "expected equal numbers"
        )
    mode = content.get("bbox_mode", _XYXY)
    if mode not in (_XYXY, _XYWH) or isinstance(mode, bool | float):
        raise UnreadableDataset(f"bbox_mode is {mode!r:.40}, expected XYXY_ABS (0) or XYWH_ABS (1)")
    box_count = 0
    for number, rows, values in zip(ids, boxes, logits, strict=True):
        image_id = _parse_id(number)
        corners = _parse_boxes(image_id, rows)
        box_count += len(corners)
        if box_count * _BYTES_PER_BOX > len(data):
            raise UnreadableDataset(
                "it has the same boxes for many images: they are repeated, not stored"
            )
        scores = _as_float32(_parse_numbers(image_id, values, "scores")).reshape(-1)
        if len(scores) != len(corners):
            raise UnreadableDataset(
                f"image {image_id!r} has {len(corners)} boxes and {len(scores)} scores"
            )
        order = np.argsort(-scores, kind="stable")
        if mode == _XYWH:
            corners = geometry.from_xywh(corners)
        yield ImageProposals(image_id, _as_float32(corners)[order], scores[order])


PARSERS: Mapping[str, Callable[[bytes], Iterator[ImageProposals]]] = {
    "mat": parse_mat,
    "pkl": parse_pickle,
}
"""Girshick's `.mat` and detectron2's `.pkl`."""


def _get_column(content: Mapping[Any, Any], name: str, older_name: str) -> Sequence[Any]:
    for key in (name, older_name):
        if key not in content:
            continue
        column = content[key]
        if isinstance(column, NumericArray) and column.values.ndim:
            column = list(column.values)
        if not isinstance(column, list | tuple):
            raise UnreadableDataset(f"{key} is a {type(column).__name__}, expected a list")
        return column
    names = [str(key)[:40] for key in list(content)[:10] if isinstance(key, str)]
    raise UnreadableDataset(f"it lacks {name!r}; it has {', '.join(names)}")


def _parse_id(number: Any) -> str:
    if isinstance(number, str) and number:
        return _check_text(number)
    if isinstance(number, int | np.integer) and not isinstance(number, bool):
        if abs(int(number)) < 2**63:
            return str(int(number))
        raise UnreadableDataset("an image id has more than 64 bits")
    raise UnreadableDataset(
        f"an image id is a {type(number).__name__}, expected a number or a text"
    )


def _check_text(image_id: str) -> str:
    try:
        image_id.encode()
    except UnicodeEncodeError as error:
        raise UnreadableDataset(f"image id {image_id!a:.60} holds half a character") from error
    return image_id


def _parse_boxes(image_id: str, rows: Any) -> NDArray[np.float64]:
    boxes = _parse_numbers(image_id, rows, "boxes")
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UnreadableDataset(
            f"boxes of image {image_id!r} have shape {boxes.shape}, expected (N, 4)"
        )
    return boxes


def _parse_numbers(image_id: str, values: Any, name: str) -> NDArray[np.float64]:
    """The numbers of an array, or of lists and tuples up to two deep, as float64."""
    if isinstance(values, NumericArray):
        values = values.values
    elif isinstance(values, list | tuple):
        values = [
            item.values if isinstance(item, NumericArray) else _check_row(image_id, item, name)
            for item in values
        ]
    elif not isinstance(values, np.ndarray):
        raise UnreadableDataset(
            f"{name} of image {image_id!r} are a {type(values).__name__}, expected a list"
        )
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise UnreadableDataset(
            f"{name} of image {image_id!r} are no array of numbers, expected (N, 4)"
        ) from error
    if array.size and array.dtype.kind not in "iuf":
        raise UnreadableDataset(f"{name} of image {image_id!r} are {array.dtype}, expected numbers")
    return array.astype(np.float64) if array.size else np.empty(0)


def _check_row(image_id: str, item: Any, name: str) -> Any:
    """A number, or a short list of them: deeper lists could be one list in many places."""
    numbers = item if isinstance(item, list | tuple) else (item,)
    is_plain = len(numbers) <= 8 and all(type(number) in (int, float) for number in numbers)
    if not is_plain or not all(type(n) is float or abs(n) < 2**63 for n in numbers):
        raise UnreadableDataset(f"{name} of image {image_id!r} are no lists of numbers")
    return item


def _as_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinite boxes are dropped later, and counted
        return values.astype(np.float32)
