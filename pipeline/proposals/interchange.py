"""Proposals of other projects: reads Girshick's `.mat` and detectron2's `.pkl`, writes the latter.

The `.mat` files of R-CNN and Fast R-CNN hold `images`, a cell array of names, and `boxes`, a cell array
of y1 x1 y2 x2, counted from 1 and inclusive at both ends. detectron2's pickle is a dict of the lists
`ids`, `boxes` (x1 y1 x2 y2, half open as here, or x y w h, depending on `bbox_mode`) and
`objectness_logits`; Detectron 1 called the first and last `indexes` and `scores`.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, storage, uris
from pipeline.errors import UnreadableDataset

_XYXY, _XYWH = 0, 1


class ImageProposals(NamedTuple):
    """One image's proposals, best first."""

    image_id: str
    boxes: NDArray[np.float32]
    """x1, y1, x2, y2 half open, `(N, 4)`."""
    scores: NDArray[np.float32] | None
    """Falling scores `(N,)`, or None where the file has only the order."""


def read_girshick_mat(uri: str) -> Iterator[ImageProposals]:
    """Yield the proposals of a `.mat` file in its order.

    Raises:
        UnreadableDataset: not a MATLAB file before version 7.3, or one without these two cell arrays.
    """
    from scipy.io import loadmat  # noqa: PLC0415 (takes 0.3 s, and only this function needs it)

    encoded = storage.read(uri)
    try:
        content = loadmat(io.BytesIO(encoded), variable_names=["boxes", "images"])
    except (ValueError, NotImplementedError, TypeError, IndexError, KeyError) as error:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} is not a MATLAB file up to version 7.2: {error}"
        ) from error
    for name in ("boxes", "images"):
        if name not in content or content[name].dtype != object:
            raise UnreadableDataset(f"{uris.redact_uri(uri)} has no cell array {name!r}")
    boxes, names = content["boxes"].ravel(), content["images"].ravel()
    if len(boxes) != len(names):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} has {len(boxes)} box lists for {len(names)} images"
        )
    for name, rows in zip(names, boxes, strict=True):
        image_id = str(np.asarray(name).ravel()[0])
        corners = _parse_boxes(uri, image_id, rows)[:, (1, 0, 3, 2)]
        yield _check_proposals(uri, image_id, geometry.from_inclusive(corners, 1), None)


def read_detectron2_pickle(uri: str) -> Iterator[ImageProposals]:
    """Yield the proposals of a detectron2 (or Detectron) pickle in its order, each image's best first.

    The pickle may hold plain containers, numbers, strings and numpy arrays. Any other name in it is
    rejected before it is loaded, because loading a pickle otherwise runs any code that it carries.

    Raises:
        UnreadableDataset: not such a pickle, lists of unequal length, or malformed boxes.
    """
    content = _load_pickle(uri)
    ids = _get_column(uri, content, "ids", "indexes")
    boxes = _get_column(uri, content, "boxes", "boxes")
    logits = _get_column(uri, content, "objectness_logits", "scores")
    if not len(ids) == len(boxes) == len(logits):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} has {len(ids)} ids, {len(boxes)} box lists, "
            f"{len(logits)} score lists; expected equal numbers"
        )
    mode = int(content.get("bbox_mode", _XYXY))
    if mode not in (_XYXY, _XYWH):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: bbox_mode is {mode}, expected XYXY_ABS (0) or XYWH_ABS (1)"
        )
    for number, rows, values in zip(ids, boxes, logits, strict=True):
        image_id = str(number)
        corners = _parse_boxes(uri, image_id, rows)
        scores = np.asarray(values, np.float32).reshape(-1)
        if len(scores) != len(corners):
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)}: image {image_id!r} has {len(corners)} boxes "
                f"and {len(scores)} scores"
            )
        order = np.argsort(-scores, kind="stable")
        if mode == _XYWH:
            corners = geometry.from_xywh(corners)
        yield _check_proposals(uri, image_id, corners[order], scores[order])


def write_detectron2_pickle(uri: str, proposals: Iterable[ImageProposals]) -> int:
    """Write proposals for detectron2's `load_proposals_into_dataset`; returns the number of images.

    detectron2 orders by logit, so boxes without scores get 0, -1, -2 ... in their order.
    """
    ids: list[int | str] = []
    boxes, logits = [], []
    for image_id, rows, scores in proposals:
        # In detectron2 COCO's image ids are integers, other datasets' are strings.
        is_integer = image_id.isascii() and image_id.isdigit() and str(int(image_id)) == image_id
        ids.append(int(image_id) if is_integer else image_id)
        boxes.append(np.asarray(rows, np.float32).reshape(-1, 4))
        logits.append(
            -np.arange(len(rows), dtype=np.float32)
            if scores is None
            else np.asarray(scores, np.float32)
        )
    content = {"ids": ids, "boxes": boxes, "objectness_logits": logits, "bbox_mode": _XYXY}
    with storage.write_whole(uri) as scratch, scratch.open("wb") as file:
        pickle.dump(content, file, protocol=4)
    return len(ids)


class _PlainUnpickler(pickle.Unpickler):
    """Loads containers, numbers, strings and numpy arrays; rejects every other name."""

    _NUMPY = frozenset(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ) | {"numpy.ndarray", "numpy.dtype", "collections.OrderedDict", "_codecs.encode"}

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name in self._NUMPY:
            return super().find_class(module, name)
        if full_name == "detectron2.structures.boxes.BoxMode":
            return int
        raise UnreadableDataset(f"it refers to {full_name}, which proposals do not need")


def _load_pickle(uri: str) -> Mapping[str, Any]:
    encoded = storage.read(uri)
    try:
        content = _PlainUnpickler(io.BytesIO(encoded), encoding="latin1").load()
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{uris.redact_uri(uri)} is rejected: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} is not a readable pickle: {error}"
        ) from error

    if not isinstance(content, Mapping):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} holds a {type(content).__name__}, expected a dict of proposals"
        )
    return content


def _get_column(uri: str, content: Mapping[str, Any], name: str, older_name: str) -> Any:
    for key in (name, older_name):
        if key in content:
            return content[key]
    raise UnreadableDataset(
        f"{uris.redact_uri(uri)} lacks {name!r}; it has {', '.join(map(str, content))}"
    )


def _parse_boxes(uri: str, image_id: str, rows: Any) -> NDArray[np.float32]:
    try:
        boxes = np.asarray(rows, np.float32)
        return boxes.reshape(0, 4) if boxes.size == 0 else boxes.reshape(len(boxes), 4)
    except (TypeError, ValueError) as error:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: boxes of image {image_id!r} are not numbers of shape (N, 4)"
        ) from error


def _check_proposals(
    uri: str, image_id: str, boxes: NDArray[np.float32], scores: NDArray[np.float32] | None
) -> ImageProposals:
    if not (np.isfinite(boxes).all() and geometry.is_nonempty(boxes).all()):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: image {image_id!r} has an empty, inverted or non-finite box"
        )
    return ImageProposals(image_id, np.asarray(boxes, np.float32), scores)
