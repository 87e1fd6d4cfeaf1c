"""Proposals of other projects: reads Girshick's `.mat` and detectron2's `.pkl`, writes the latter.

A crafted or damaged file can crash or exhaust the readers of both formats, so `untrusted` parses them in a
child process; its `proposal_files` describes the formats.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.untrusted.child_process import parse_in_child
from pipeline.untrusted.proposal_files import ImageProposals

_XYXY = 0


def read_girshick_mat(uri: str) -> Iterator[ImageProposals]:
    """Yield the proposals of a `.mat` file in its order; boxes are not yet checked against their image.

    Raises:
        UnreadableDataset: not a MATLAB file before version 7.3, or one without these two cell arrays.
    """
    return _read(uri, "mat")


def read_detectron2_pickle(uri: str) -> Iterator[ImageProposals]:
    """Yield the proposals of a detectron2 (or Detectron) pickle in its order, each image's best first.

    The pickle may hold plain containers, numbers, strings and numeric numpy arrays. Nothing that it names
    is called, because loading a pickle otherwise runs any code that it carries.

    Raises:
        UnreadableDataset: not such a pickle, lists of unequal length, or boxes that are no numbers.
    """
    return _read(uri, "pkl")


def _read(uri: str, file_format: str) -> Iterator[ImageProposals]:
    try:
        yield from parse_in_child(file_format, storage.read(uri))
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{uris.redact_uri(uri)}: {error}") from error


class WrittenCounts(NamedTuple):
    """What a writer put into its file or folder."""

    images: int
    boxes: int


def write_detectron2_pickle(uri: str, proposals: Iterable[ImageProposals]) -> WrittenCounts:
    """Write proposals for detectron2's `load_proposals_into_dataset`.

    detectron2 orders by logit, so boxes without scores get 0, -1, -2 ... in their order.
    """
    ids: list[int | str] = []
    boxes, logits = [], []
    for image_id, rows, scores in proposals:
        # In detectron2 COCO's image ids are integers, other datasets' are strings.
        is_integer = (
            len(image_id) < 19
            and image_id.isascii()
            and image_id.isdigit()
            and str(int(image_id)) == image_id
        )
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
    return WrittenCounts(len(ids), sum(map(len, boxes)))
