import pickle
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from pipeline.errors import UnreadableDataset
from pipeline.proposals.interchange import (
    ImageProposals,
    read_detectron2_pickle,
    read_girshick_mat,
    write_detectron2_pickle,
)
from pipeline.storage import MissingObject


def _make_cells(values):
    cells = np.empty((1, len(values)), object)
    cells[0] = values
    return cells


def _write_mat(path, names, boxes):
    images = _make_cells([np.array([name]) for name in names]).T
    savemat(path, {"images": images, "boxes": _make_cells([np.array(b, float) for b in boxes])})


def test_girshicks_boxes_are_read_as_y_x_inclusive_from_one(tmp_path):
    path = tmp_path / "voc.mat"
    _write_mat(path, ["000005", "000007"], [[[11, 21, 40, 80], [1, 1, 1, 1]], np.empty((0, 4))])
    first, second = read_girshick_mat(str(path))
    assert first.image_id == "000005"
    assert first.boxes.tolist() == [[20, 10, 80, 40], [0, 0, 1, 1]]
    assert first.boxes.dtype == np.float32
    assert first.scores is None
    assert (second.image_id, second.boxes.shape) == ("000007", (0, 4))


def test_a_malformed_mat_file_is_rejected_by_name(tmp_path):
    broken = tmp_path / "broken.mat"
    broken.write_bytes(b"not a matrix" * 40)
    with pytest.raises(UnreadableDataset, match=r"broken\.mat"):
        list(read_girshick_mat(str(broken)))
    other = tmp_path / "other.mat"
    savemat(other, {"boxes": np.zeros((3, 4))})
    with pytest.raises(UnreadableDataset, match="cell array 'boxes'"):
        list(read_girshick_mat(str(other)))
    uneven = tmp_path / "uneven.mat"
    _write_mat(uneven, ["a", "b"], [np.zeros((0, 4))])
    with pytest.raises(UnreadableDataset, match="1 box lists for 2 images"):
        list(read_girshick_mat(str(uneven)))
    inverted = tmp_path / "inverted.mat"
    _write_mat(inverted, ["a", "b"], [np.zeros((0, 4)), [[5, 5, 1, 1]]])
    with pytest.raises(UnreadableDataset, match="'b'"):
        list(read_girshick_mat(str(inverted)))
    with pytest.raises(MissingObject):
        list(read_girshick_mat(str(tmp_path / "missing.mat")))


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
def test_written_proposals_are_read_back(tmp_path_factory, rows):
    path = str(tmp_path_factory.mktemp("pickles") / "out.pkl")
    assert write_detectron2_pickle(path, rows) == len(rows)
    read_rows = list(read_detectron2_pickle(path))
    assert [row.image_id for row in read_rows] == [row.image_id for row in rows]
    for row, expected in zip(read_rows, rows, strict=True):
        assert (row.boxes == expected.boxes).all()
        assert (np.diff(row.scores) <= 0).all()
        if expected.scores is not None:
            assert (row.scores == expected.scores).all()


def test_the_written_dict_has_detectron2s_format(tmp_path):
    path = tmp_path / "out.pkl"
    boxes = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    names = ["42", "042", "a.jpg"]
    write_detectron2_pickle(str(path), [ImageProposals(name, boxes, None) for name in names])
    content = pickle.loads(path.read_bytes())
    assert content["ids"] == [42, "042", "a.jpg"]  # COCO's ids are integers
    assert content["bbox_mode"] == 0
    assert (content["boxes"][0] == boxes).all()
    assert content["objectness_logits"][0].tolist() == [0, -1]


def _write_pickle(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_detectrons_names_other_modes_and_any_order_are_read(tmp_path, protocol):
    content = {
        "indexes": [np.int64(7)],
        "boxes": [np.array([[10, 20, 5, 6], [1, 2, 3, 4]], np.float64)],
        "scores": [np.array([0.1, 0.9], np.float32)],
        "bbox_mode": 1,
    }
    (row,) = read_detectron2_pickle(_write_pickle(tmp_path / "old.pkl", content, protocol))
    assert row.image_id == "7"
    assert row.boxes.tolist() == [[1, 2, 4, 6], [10, 20, 15, 26]]
    np.testing.assert_allclose(row.scores, [0.9, 0.1])


def test_detectron2s_own_enum_is_read_without_detectron2(tmp_path, monkeypatch):
    import enum
    import sys

    names = ("detectron2", "detectron2.structures", "detectron2.structures.boxes")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    mode = enum.IntEnum("BoxMode", {"XYXY_ABS": 0, "XYWH_ABS": 1}, module=names[-1])
    sys.modules[names[-1]].BoxMode = mode
    content = {"ids": [1], "boxes": [[[1, 2, 3, 4]]], "objectness_logits": [[0.5]]}
    path = _write_pickle(tmp_path / "enum.pkl", content | {"bbox_mode": mode.XYWH_ABS})
    monkeypatch.undo()
    (row,) = read_detectron2_pickle(path)
    assert row.boxes.tolist() == [[1, 2, 4, 6]]


class _HarmfulPickle:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran code')",))


def test_a_pickle_with_code_is_rejected_and_the_code_does_not_run(tmp_path):
    with pytest.raises(UnreadableDataset, match=r"harmful\.pkl.*exec"):
        list(
            read_detectron2_pickle(
                _write_pickle(tmp_path / "harmful.pkl", {"ids": [_HarmfulPickle()]})
            )
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "list"),
        ({"ids": []}, "boxes"),
        ({"ids": [1], "boxes": [], "objectness_logits": []}, "1 ids, 0 box lists"),
        ({"ids": [1], "boxes": [[[1, 2]]], "objectness_logits": [[1]]}, r"\(N, 4\)"),
        ({"ids": [1], "boxes": [[[1, 2, 3, 4]]], "objectness_logits": [[]]}, "0 scores"),
        ({"ids": [1], "boxes": [[[3, 2, 1, 4]]], "objectness_logits": [[1]]}, "inverted"),
        ({"ids": [], "boxes": [], "objectness_logits": [], "bbox_mode": 4}, "bbox_mode is 4"),
    ],
)
def test_a_pickle_with_malformed_content_is_rejected(tmp_path, content, message):
    with pytest.raises(UnreadableDataset, match=message):
        list(read_detectron2_pickle(_write_pickle(tmp_path / "wrong.pkl", content)))


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"ids": []})[:-3]])
def test_a_damaged_pickle_is_rejected_by_name(tmp_path, content):
    path = tmp_path / "damaged.pkl"
    path.write_bytes(content)
    with pytest.raises(UnreadableDataset, match=r"damaged\.pkl"):
        list(read_detectron2_pickle(str(path)))
