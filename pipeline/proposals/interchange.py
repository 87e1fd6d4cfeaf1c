"""Proposals made by others: Girshick's `.mat` and detectron2's `.pkl` in, detectron2's `.pkl` out.

The `.mat` files that came with R-CNN and Fast R-CNN hold `images`, a cell array of names, and `boxes`, a
cell array of y1 x1 y2 x2, counted from 1 and inclusive at both ends. detectron2's pickle is a dict of the
lists `ids`, `boxes` (x1 y1 x2 y2, half open as here, or x y w h as `bbox_mode` says) and
`objectness_logits`; Detectron 1 called the first and last `indexes` and `scores`.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, storage
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
        UnreadableDataset: no MATLAB file before version 7.3, or one without these two cell arrays.
    """
    from scipy.io import loadmat  # noqa: PLC0415 (takes 0.3 s, and only this function needs it)

    data = storage.read(uri)
    try:
        content = loadmat(io.BytesIO(data), variable_names=["boxes", "images"])
    except (ValueError, NotImplementedError, TypeError, IndexError, KeyError) as error:
        raise UnreadableDataset(
            f"{storage.shown(uri)} is no MATLAB file up to version 7.2: {error}"
        ) from error
    for name in ("boxes", "images"):
        if name not in content or content[name].dtype != object:
            raise UnreadableDataset(f"{storage.shown(uri)} has no cell array {name!r}")
    boxes, names = content["boxes"].ravel(), content["images"].ravel()
    if len(boxes) != len(names):
        raise UnreadableDataset(
            f"{storage.shown(uri)} has {len(boxes)} box lists for {len(names)} images"
        )
    for name, rows in zip(names, boxes, strict=True):
        image_id = str(np.asarray(name).ravel()[0])
        corners = _numbers(uri, image_id, rows)[:, (1, 0, 3, 2)]
        yield _checked(uri, image_id, geometry.from_inclusive(corners, 1), None)


def read_detectron2_pickle(uri: str) -> Iterator[ImageProposals]:
    """Yield the proposals of a detectron2 (or Detectron) pickle in its order, each best first.

    The pickle may hold plain containers, numbers, strings and numpy arrays; whatever else it names is
    refused unread, because loading a pickle otherwise runs any code that it carries.

    Raises:
        UnreadableDataset: no such pickle, lists of unequal length, or boxes of another kind.
    """
    content = _unpickled(uri)
    ids = _column(uri, content, "ids", "indexes")
    boxes = _column(uri, content, "boxes", "boxes")
    logits = _column(uri, content, "objectness_logits", "scores")
    if not len(ids) == len(boxes) == len(logits):
        raise UnreadableDataset(
            f"{storage.shown(uri)} has {len(ids)} ids, {len(boxes)} box lists, {len(logits)} score lists"
        )
    mode = int(content.get("bbox_mode", _XYXY))
    if mode not in (_XYXY, _XYWH):
        raise UnreadableDataset(
            f"{storage.shown(uri)}: bbox_mode {mode} is neither XYXY_ABS (0) nor XYWH_ABS (1)"
        )
    for number, rows, values in zip(ids, boxes, logits, strict=True):
        image_id = str(number)
        corners = _numbers(uri, image_id, rows)
        scores = np.asarray(values, np.float32).reshape(-1)
        if len(scores) != len(corners):
            raise UnreadableDataset(
                f"{storage.shown(uri)}: image {image_id!r} has {len(corners)} boxes and {len(scores)} scores"
            )
        order = np.argsort(-scores, kind="stable")
        if mode == _XYWH:
            corners = geometry.from_xywh(corners)
        yield _checked(uri, image_id, corners[order], scores[order])


def write_detectron2_pickle(uri: str, proposals: Iterable[ImageProposals]) -> int:
    """Write proposals as detectron2's `load_proposals_into_dataset` reads them; returns the images.

    detectron2 orders by logit, so boxes without scores get 0, -1, -2 ... in their order.
    """
    ids: list[int | str] = []
    boxes, logits = [], []
    for image_id, rows, scores in proposals:
        # COCO's image ids are integers there; other datasets' are strings.
        plain = image_id.isascii() and image_id.isdigit() and str(int(image_id)) == image_id
        ids.append(int(image_id) if plain else image_id)
        boxes.append(np.asarray(rows, np.float32).reshape(-1, 4))
        logits.append(
            -np.arange(len(rows), dtype=np.float32)
            if scores is None
            else np.asarray(scores, np.float32)
        )
    content = {"ids": ids, "boxes": boxes, "objectness_logits": logits, "bbox_mode": _XYXY}
    with storage.whole_file(uri) as scratch, scratch.open("wb") as file:
        pickle.dump(content, file, protocol=4)
    return len(ids)


class _PlainUnpickler(pickle.Unpickler):
    """Loads containers, numbers, strings and numpy arrays; refuses every other name."""

    _NUMPY = frozenset(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ) | {"numpy.ndarray", "numpy.dtype", "collections.OrderedDict", "_codecs.encode"}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self._NUMPY:
            return super().find_class(module, name)
        if full == "detectron2.structures.boxes.BoxMode":
            return int
        raise UnreadableDataset(f"it holds {full}, which proposals do not need")


def _unpickled(uri: str) -> Mapping[str, Any]:
    data = storage.read(uri)
    try:
        content = _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{storage.shown(uri)} is not loaded: {error}") from error
    except Exception as error:  # a damaged pickle raises whatever its opcodes run into
        raise UnreadableDataset(f"{storage.shown(uri)} is no readable pickle: {error}") from error
    if not isinstance(content, Mapping):
        raise UnreadableDataset(
            f"{storage.shown(uri)} holds a {type(content).__name__}, expected a dict of proposals"
        )
    return content


def _column(uri: str, content: Mapping[str, Any], name: str, older: str) -> Any:
    for key in (name, older):
        if key in content:
            return content[key]
    raise UnreadableDataset(
        f"{storage.shown(uri)} lacks {name!r}; it has {', '.join(map(str, content))}"
    )


def _numbers(uri: str, image_id: str, rows: Any) -> NDArray[np.float32]:
    try:
        found = np.asarray(rows, np.float32)
        return found.reshape(0, 4) if found.size == 0 else found.reshape(len(found), 4)
    except (TypeError, ValueError) as error:
        raise UnreadableDataset(
            f"{storage.shown(uri)}: boxes of image {image_id!r} are not numbers of shape (N, 4)"
        ) from error


def _checked(
    uri: str, image_id: str, boxes: NDArray[np.float32], scores: NDArray[np.float32] | None
) -> ImageProposals:
    if not (np.isfinite(boxes).all() and geometry.nonempty(boxes).all()):
        raise UnreadableDataset(
            f"{storage.shown(uri)}: image {image_id!r} has an empty, inverted or non-finite box"
        )
    return ImageProposals(image_id, np.asarray(boxes, np.float32), scores)
