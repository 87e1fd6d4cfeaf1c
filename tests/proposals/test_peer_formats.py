"""Each layout is read back by code that follows the loader of the project that it is for."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.proposals.interchange import read_girshick_mat
from pipeline.proposals.peer_formats import (
    write_detreg_folder,
    write_girshick_mat,
    write_soco_json,
    write_wetectron_pickle,
)
from pipeline.untrusted.proposal_files import ImageProposals

BOXES = np.array([[10, 20, 50, 80], [0, 0, 100, 60], [3, 4, 13, 60]], np.float32)


def make_rows(*names):
    return [ImageProposals(name, BOXES[number:], None) for number, name in enumerate(names)]


def test_wetectron_looks_boxes_up_by_integers(tmp_path):
    path = tmp_path / "proposals.pkl"
    rows = [*make_rows("000005", "2008_000001"), ImageProposals("7", BOXES[:0], None)]
    assert write_wetectron_pickle(str(path), rows) == (3, 5)
    # wetectron/data/datasets/voc.py: __init__ and __getitem__
    with path.open("rb") as file:
        proposals = pickle.load(file, encoding="latin1")
    id_field = "indexes" if "indexes" in proposals else "ids"
    rois = proposals["boxes"][proposals[id_field].index(int("2008_000001"))]
    hashes = np.round(rois).dot(np.array([1, 1e3, 1e6, 1e9]))  # its unique_boxes
    assert len(np.unique(hashes)) == 2
    # A BoxList's width is x2 - x1 + 1 there.
    assert (rois[:, 2] - rois[:, 0] + 1).tolist() == [100, 10]
    assert proposals["boxes"][proposals[id_field].index(7)].shape == (0, 4)


@pytest.mark.parametrize("names", [("a1",), ("7", "007"), ("1" * 5000,)])
def test_wetectron_needs_distinct_integers(tmp_path, names):
    with pytest.raises(InvalidConfiguration, match="integer"):
        write_wetectron_pickle(str(tmp_path / "p.pkl"), make_rows(*names))
    assert not (tmp_path / "p.pkl").exists()


def test_detreg_finds_an_images_boxes_by_its_file_name(tmp_path):
    files = ["train/n01/n01_1.JPEG", "b.tar.png"]
    assert write_detreg_folder(str(tmp_path / "cache"), make_rows(*files)) == (2, 5)
    for file, expected in zip(files, (BOXES, BOXES[1:]), strict=True):
        # datasets/selfdet.py: SelfDet.load_from_cache
        name = file.split("/")[-1].split(".")[0] + ".npy"
        with (tmp_path / "cache" / name).open("rb") as stream:
            boxes = np.load(stream)
        assert boxes.dtype == np.float32
        assert (boxes == expected).all()
    with pytest.raises(InvalidConfiguration, match="not empty"):
        write_detreg_folder(str(tmp_path / "cache"), make_rows("c.jpg"))


def test_soco_makes_inclusive_corners_of_its_rectangles(tmp_path):
    path = tmp_path / "train_none.json"
    counts = write_soco_json(str(path), make_rows("train/n01/n01_1.JPEG", "c.png"))
    assert counts == (2, 3)  # the box 10 pixels wide is in neither image
    # contrast/data/dataset.py: make_props_dataset_with_ann and convert_props
    props = json.loads(path.read_text())
    name = Path("n01/n01_1.JPEG").name.split(".")[0]
    converted = [[x, y, x + w - 1, y + h - 1] for x, y, w, h in props[name]]
    # The third box is only 10 pixels wide: SoCo's filter_none leaves it out.
    assert converted == [[10, 20, 49, 79], [0, 0, 99, 59]]
    assert props["c"] == [[0, 0, 100, 60]]


def test_two_images_of_one_file_name_are_rejected(tmp_path):
    rows = make_rows("a/1.jpg", "b/1.png")
    for write, target in ((write_detreg_folder, "cache"), (write_soco_json, "props.json")):
        with pytest.raises(
            InvalidConfiguration, match=r"'a/1.jpg' and 'b/1.png' have the same name"
        ):
            write(str(tmp_path / target), rows)
    with pytest.raises(InvalidConfiguration, match="no file name"):
        write_soco_json(str(tmp_path / "props.json"), make_rows("a/.jpg"))
    assert not (tmp_path / "props.json").exists()


def test_girshicks_layout_is_read_again(tmp_path):
    path = tmp_path / "boxes.mat"
    rows = [*make_rows("000005"), ImageProposals("7", BOXES[:0], None)]
    assert write_girshick_mat(str(path), rows) == (2, 3)
    first, second = read_girshick_mat(str(path))
    assert (first.image_id, second.image_id) == ("000005", "7")
    assert (first.boxes == BOXES).all()
    assert second.boxes.shape == (0, 4)
