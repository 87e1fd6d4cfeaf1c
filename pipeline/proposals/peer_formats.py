"""Writes proposals in the layouts that other projects' loaders read, best first as they are stored.

- `detectron2`: the pickle of `load_proposals_into_dataset` (`interchange.py`).
- `wetectron`: a pickle of the lists `indexes` (integers) and `boxes` (float32, both ends inclusive), which
  its VOC and COCO datasets look up by `int(image_id)`.
- `detreg`: a folder, DETReg's `cache_dir`, of one NAME.npy per image: float32 `(N, 4)`, x1 y1 x2 y2. NAME is
  the image's file name up to its first dot.
- `soco`: the JSON of SoCo's filtered proposals: NAME to a list of integers x y w h, of which SoCo makes
  inclusive corners; NAME as in `detreg`. Like SoCo's own filter, it leaves out sides under 32 pixels.
- `girshick`: the `.mat` of R-CNN and Fast R-CNN.

Pickles hold only lists, integers, strings and numpy arrays.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np
from scipy.io import savemat

from pipeline import storage, uris
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.interchange import WrittenCounts, write_detectron2_pickle
from pipeline.untrusted.proposal_files import ImageProposals

PeerFormat = Literal["detectron2", "detreg", "girshick", "soco", "wetectron"]

SOCO_LEAST_SIDE = 32
"""Pixels; `filter_none` of SoCo keeps boxes from this side on."""


def name_by_file(proposals: Iterable[ImageProposals]) -> Iterable[ImageProposals]:
    """Replace each image's name, a file name or URI, by the part that DETReg and SoCo look up.

    Raises:
        InvalidConfiguration: two images have the same one, or an image has none.
    """
    names: dict[str, str] = {}
    for image in proposals:
        name = image.image_id.rpartition("/")[2].partition(".")[0]
        if not name:
            raise InvalidConfiguration(f"image {image.image_id!r} has no file name before the dot")
        if name in names:
            raise InvalidConfiguration(
                f"images {uris.redact_uri(names[name])!r} and {uris.redact_uri(image.image_id)!r} have the "
                f"same name {name!r}, by which the format tells images apart"
            )
        names[name] = image.image_id
        yield image._replace(image_id=name)


def write_wetectron_pickle(uri: str, proposals: Iterable[ImageProposals]) -> WrittenCounts:
    """Write proposals for wetectron's `proposal_file`.

    Raises:
        InvalidConfiguration: an image_id is no integer.
    """
    indexes, boxes = [], []
    for image in proposals:
        try:
            indexes.append(int(image.image_id))
        except ValueError as error:
            raise InvalidConfiguration(
                f"wetectron looks images up by integers, and image_id {image.image_id[:60]!r} is none"
            ) from error
        rows = np.asarray(image.boxes, np.float32).reshape(-1, 4)
        boxes.append(rows - np.array([0, 0, 1, 1], np.float32))
    if len(set(indexes)) < len(indexes):
        raise InvalidConfiguration("two image ids are the same integer, as 7 and 007 are")
    with storage.write_whole(uri) as scratch, scratch.open("wb") as file:
        pickle.dump({"indexes": indexes, "boxes": boxes}, file, protocol=4)
    return WrittenCounts(len(indexes), sum(map(len, boxes)))


def write_detreg_folder(uri: str, proposals: Iterable[ImageProposals]) -> WrittenCounts:
    """Write DETReg's cache of boxes, a file per image into an empty folder.

    Raises:
        InvalidConfiguration: the folder holds anything.
    """
    if storage.is_folder(uri) and storage.list_names(uri):
        raise InvalidConfiguration(
            f"{uris.redact_uri(uri)} is not empty: DETReg would read what else it holds; "
            "choose another folder"
        )
    images = boxes = 0
    for image in name_by_file(proposals):
        content = io.BytesIO()
        rows = np.asarray(image.boxes, np.float32).reshape(-1, 4)
        np.save(content, rows, allow_pickle=False)
        storage.put(uris.join(uri, f"{image.image_id}.npy"), content.getvalue())
        images, boxes = images + 1, boxes + len(rows)
    return WrittenCounts(images, boxes)


def write_soco_json(uri: str, proposals: Iterable[ImageProposals]) -> WrittenCounts:
    """Write SoCo's JSON of proposals, image by image, without the boxes that its filter drops."""
    images = boxes = 0
    with storage.write_whole(uri) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.write("{")
        for image in name_by_file(proposals):
            corners = np.rint(np.asarray(image.boxes).reshape(-1, 4)).astype(np.int64)
            sides = corners[:, 2:] - corners[:, :2]
            keep = (sides >= SOCO_LEAST_SIDE).all(axis=1)
            rectangles = np.concatenate([corners[keep, :2], sides[keep]], axis=1)
            text = json.dumps(rectangles.tolist(), separators=(",", ":"))
            file.write(f"{',' if images else ''}\n{json.dumps(image.image_id)}: {text}")
            images, boxes = images + 1, boxes + len(rectangles)
        file.write("\n}\n")
    return WrittenCounts(images, boxes)


def write_girshick_mat(uri: str, proposals: Iterable[ImageProposals]) -> WrittenCounts:
    """Write the `.mat` of R-CNN and Fast R-CNN: boxes y1 x1 y2 x2, counted from 1, both ends inclusive."""
    names, boxes = [], []
    for image in proposals:
        rows = np.asarray(image.boxes, np.float64).reshape(-1, 4)
        names.append(image.image_id)
        boxes.append(rows[:, [1, 0, 3, 2]] + np.array([1, 1, 0, 0]))
    images, cells = np.empty((len(names), 1), object), np.empty((1, len(names)), object)
    for row, (name, rows) in enumerate(zip(names, boxes, strict=True)):
        images[row, 0], cells[0, row] = name, rows
    with storage.write_whole(uri) as scratch, scratch.open("wb") as file:
        savemat(file, {"images": images, "boxes": cells}, do_compression=True)
    return WrittenCounts(len(names), sum(map(len, boxes)))


Writer = Callable[[str, Iterable[ImageProposals]], WrittenCounts]

WRITERS: Mapping[PeerFormat, tuple[str, Writer]] = {
    "detectron2": (".pkl", write_detectron2_pickle),
    "detreg": ("", write_detreg_folder),
    "girshick": (".mat", write_girshick_mat),
    "soco": (".json", write_soco_json),
    "wetectron": (".pkl", write_wetectron_pickle),
}
"""For each format the end of its file's name, empty for a folder, and its writer."""

NAMED_BY_FILE = ("detreg", "soco")
"""Formats that tell images apart by their file names."""
