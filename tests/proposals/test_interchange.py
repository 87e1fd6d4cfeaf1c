"""Proposals are written for detectron2 and read again; a child process reads files of other tools."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from pipeline.errors import UnreadableDataset
from pipeline.proposals.interchange import (
    read_detectron2_pickle,
    read_girshick_mat,
    write_detectron2_pickle,
)
from pipeline.storage import MissingObject
from pipeline.untrusted.proposal_files import ImageProposals, parse_pickle


def test_both_formats_are_read_through_the_child_process(tmp_path):
    cells = np.empty((1, 2), object)
    cells[0] = [np.array([[11, 21, 40, 80.0]]), np.empty((0, 4))]
    names = np.empty((2, 1), object)
    names[:, 0] = [np.array(["000005"]), np.array(["000007"])]
    savemat(tmp_path / "voc.mat", {"images": names, "boxes": cells})
    first, second = read_girshick_mat(str(tmp_path / "voc.mat"))
    assert (first.image_id, first.boxes.tolist(), first.scores) == (
        "000005",
        [[20, 10, 80, 40]],
        None,
    )
    assert (second.image_id, second.boxes.shape) == ("000007", (0, 4))

    boxes = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    write_detectron2_pickle(
        str(tmp_path / "d2.pkl"),
        [ImageProposals("5", boxes, np.array([0.5, 0.25], np.float32))],
    )
    (row,) = read_detectron2_pickle(str(tmp_path / "d2.pkl"))
    assert row.image_id == "5"
    assert row.boxes.tolist() == boxes.tolist()
    assert row.scores.tolist() == [0.5, 0.25]


def test_an_error_names_the_file(tmp_path):
    for name, read in (("broken.mat", read_girshick_mat), ("broken.pkl", read_detectron2_pickle)):
        (tmp_path / name).write_bytes(b"not a matrix" * 40)
        with pytest.raises(UnreadableDataset, match=f"{name}: it is "):
            list(read(str(tmp_path / name)))
        with pytest.raises(MissingObject):
            list(read(str(tmp_path / f"missing-{name}")))


@st.composite
def proposals(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for number in range(draw(st.integers(0, 4))):
        corners = random.integers(0, 500, (draw(st.integers(0, 6)), 2))
        boxes = np.concatenate([corners, corners + random.integers(1, 90, corners.shape)], axis=1)
        name = draw(st.sampled_from([str(number + 1), f"folder/{number}.jpg", f"00{number}"]))
        scored = draw(st.booleans())
        scores = -np.sort(random.random(len(boxes))).astype(np.float32) if scored else None
        rows.append(ImageProposals(name, boxes.astype(np.float32), scores))
    return rows


@given(rows=proposals())
def test_written_proposals_are_parsed_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pickles") / "out.pkl"
    assert write_detectron2_pickle(str(path), rows).images == len(rows)
    read_rows = list(parse_pickle(path.read_bytes()))
    assert [row.image_id for row in read_rows] == [row.image_id for row in rows]
    for row, expected in zip(read_rows, rows, strict=True):
        assert (row.boxes == expected.boxes).all()
        assert (np.diff(row.scores) <= 0).all()
        if expected.scores is not None:
            assert (row.scores == expected.scores).all()


def test_the_written_dict_has_detectron2s_format(tmp_path):
    path = tmp_path / "out.pkl"
    boxes = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    names = ["42", "042", "a.jpg", "1" * 5000]
    write_detectron2_pickle(str(path), [ImageProposals(name, boxes, None) for name in names])
    content = pickle.loads(path.read_bytes())
    assert content["ids"] == [42, "042", "a.jpg", "1" * 5000]  # COCO's ids are integers
    assert content["bbox_mode"] == 0
    assert (content["boxes"][0] == boxes).all()
    assert content["objectness_logits"][0].tolist() == [0, -1]
