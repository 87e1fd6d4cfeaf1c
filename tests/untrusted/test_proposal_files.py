"""Both formats of proposals are parsed as their tools write them; other content is rejected by name."""

import io
import pickle
import warnings
from types import ModuleType

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.errors import UnreadableDataset
from pipeline.untrusted.proposal_files import parse_mat, parse_pickle


def make_cells(values):
    cells = np.empty((1, len(values)), object)
    for index, value in enumerate(values):
        cells[0, index] = value
    return cells


def encode_mat(names, boxes, **more):
    buffer = io.BytesIO()
    images = make_cells([np.array([name]) if isinstance(name, str) else name for name in names]).T
    savemat(buffer, {"images": images, "boxes": make_cells(boxes)} | more, do_compression=True)
    return buffer.getvalue()


def test_girshicks_boxes_are_read_as_y_x_inclusive_from_one():
    boxes = [np.array([[11, 21, 40, 80], [1, 1, 1, 1.0]]), np.empty((0, 4))]
    first, second = parse_mat(encode_mat(["000005", "000007"], boxes))
    assert first.image_id == "000005"
    assert first.boxes.tolist() == [[20, 10, 80, 40], [0, 0, 1, 1]]
    assert first.boxes.dtype == np.float32
    assert first.scores is None
    assert (second.image_id, second.boxes.shape) == ("000007", (0, 4))


EMPTY = np.zeros((0, 4))


@pytest.mark.parametrize(
    ("names", "boxes", "message"),
    [
        (["a", "b"], [EMPTY], "1 box lists for 2 images"),
        ([np.zeros((0, 0))], [EMPTY], "image 0 has no name"),
        (["a", np.array([5.0])], [EMPTY, EMPTY], "image 1 has no name"),
        (["a"], [np.array([[1, 1, 9, 9 + 5j]])], "boxes of image 'a' are complex128"),
        (["a"], [np.array([[[1, 1, 9, 9.0]]])], r"shape \(1, 1, 4\), expected \(N, 4\)"),
        (["a"], [np.array([[1, 1, 9, 9, 0.5]])], r"shape \(1, 5\), expected \(N, 4\)"),
        (["a"], [np.array(["text"])], "boxes of image 'a' are <U4, expected numbers"),
    ],
)
def test_a_mat_file_with_other_content_is_rejected(names, boxes, message):
    with pytest.raises(UnreadableDataset, match=message):
        list(parse_mat(encode_mat(names, boxes)))


def test_bytes_that_are_no_mat_file_are_rejected():
    buffer = io.BytesIO()
    savemat(buffer, {"boxes": np.zeros((3, 4))})
    with pytest.raises(UnreadableDataset, match="no cell array 'boxes'"):
        list(parse_mat(buffer.getvalue()))
    whole = encode_mat(["a"], [EMPTY])
    for data in (b"", b"not a matrix" * 40, whole[:-20], whole[:140] + b"\xff" + whole[141:]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(UnreadableDataset):
                list(parse_mat(data))


GOOD = {
    "ids": ["a"],
    "boxes": [np.array([[0, 0, 9, 9]], np.float32)],
    "objectness_logits": [np.array([1.0])],
    "bbox_mode": 0,
}


@pytest.mark.parametrize("protocol", range(6))
def test_detectrons_names_other_modes_and_any_order_are_read(protocol):
    content = {
        "indexes": [np.int64(7)],
        "boxes": [np.asfortranarray(np.array([[10, 20, 5, 6], [1, 2, 3, 4]], ">f8"))],
        "scores": [np.array([0.1, 0.9], np.float32)],
        "bbox_mode": 1,
    }
    (row,) = parse_pickle(pickle.dumps(content, protocol=protocol))
    assert row.image_id == "7"
    assert row.boxes.tolist() == [[1, 2, 4, 6], [10, 20, 15, 26]]
    np.testing.assert_allclose(row.scores, [0.9, 0.1])


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": [np.str_("a")]},
        {"ids": ("a",)},
        {"boxes": [[[0, 0, 9, 9]]]},
        {"boxes": [[np.array([0, 0, 9, 9], np.int16)]]},
        {"boxes": np.array([[[0, 0, 9, 9]]])},
        {"boxes": [[(0.0, 0.0, 9.0, 9.0)]], "objectness_logits": [(1,)]},
        {"objectness_logits": [[np.float32(1)]]},
        {"bbox_mode": np.int64(0)},
    ],
)
def test_lists_scalars_and_arrays_hold_the_same_boxes(changes):
    (row,) = parse_pickle(pickle.dumps(GOOD | changes))
    assert (row.image_id, row.boxes.tolist(), row.scores.tolist()) == ("a", [[0, 0, 9, 9]], [1])


def test_detectron2s_own_enum_is_read_without_detectron2(monkeypatch):
    import enum
    import sys

    names = ("detectron2", "detectron2.structures", "detectron2.structures.boxes")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    mode = enum.IntEnum("BoxMode", {"XYXY_ABS": 0, "XYWH_ABS": 1}, module=names[-1])
    sys.modules[names[-1]].BoxMode = mode
    content = {"ids": [1], "boxes": [[[1, 2, 3, 4]]], "objectness_logits": [[0.5]]}
    data = pickle.dumps(content | {"bbox_mode": mode.XYWH_ABS})
    monkeypatch.undo()
    (row,) = parse_pickle(data)
    assert row.boxes.tolist() == [[1, 2, 4, 6]]


def test_boxes_that_are_faulty_in_value_are_left_to_the_reader():
    boxes = np.array([[3, 2, 1, 4], [0, 0, np.nan, 4], [0, 0, 1e300, 4]])
    (row,) = parse_pickle(
        pickle.dumps(GOOD | {"boxes": [boxes], "objectness_logits": [np.array([np.nan, 1, 2])]})
    )
    expected = [[0, 0, np.inf, 4], [0, 0, np.nan, 4], [3, 2, 1, 4]]
    np.testing.assert_array_equal(row.boxes, np.array(expected, np.float32))
    np.testing.assert_array_equal(row.scores, [2, 1, np.nan])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": [1, 2]}, "2 ids, 1 box lists, 1 score lists"),
        ({"ids": 5}, "ids is a int, expected a list"),
        ({"boxes": None}, "boxes is a NoneType, expected a list"),
        ({"boxes": [None]}, "boxes of image 'a' are a NoneType, expected a list"),
        ({"boxes": [[[1, 2]]]}, r"shape \(1, 2\), expected \(N, 4\)"),
        ({"boxes": [[[1, 2, 3, 4], [1, 2, 3]]]}, r"expected \(N, 4\)"),
        ({"boxes": [[["0", "0", "9", "9"]]]}, "are no lists of numbers"),
        ({"boxes": [[[False, False, True, True]]]}, "are no lists of numbers"),
        ({"boxes": [np.array([[False, False, True, True]])]}, "are bool, expected numbers"),
        ({"boxes": [np.array([["0", "0", "9", "9"]])]}, "array of texts"),
        ({"boxes": [np.array([[0, 0, 9, 9j + 9]])]}, "type 'c16', expected numbers"),
        ({"boxes": [[[0, 0, 9, 10**50]]]}, "are no lists of numbers"),
        ({"objectness_logits": [[]]}, "1 boxes and 0 scores"),
        ({"objectness_logits": [["a"]]}, "are no lists of numbers"),
        ({"objectness_logits": [{"a": 1}]}, "scores of image 'a' are a dict"),
        ({"bbox_mode": 4}, "bbox_mode is 4"),
        ({"bbox_mode": None}, "bbox_mode is None"),
        ({"bbox_mode": float("nan")}, "bbox_mode is nan"),
        ({"bbox_mode": True}, "bbox_mode is True"),
        ({"ids": [2.5]}, "an image id is a float"),
        ({"ids": [["a"]]}, "an image id is a list"),
        ({"ids": [10**5000]}, "more than plain values|more than 64 bits"),
        ({"ids": ["\ud800"]}, "half a character"),
    ],
)
def test_a_pickle_with_other_content_is_rejected(changes, message):
    with pytest.raises(UnreadableDataset, match=message):
        list(parse_pickle(pickle.dumps(GOOD | changes)))


@pytest.mark.parametrize(("content", "message"), [([1, 2], "list"), ({"ids": []}, "lacks 'boxes'")])
def test_a_pickle_of_something_else_is_rejected(content, message):
    with pytest.raises(UnreadableDataset, match=message):
        list(parse_pickle(pickle.dumps(content)))


def test_lists_that_are_repeated_rather_than_stored_are_rejected():
    box, score = [[1, 2, 3, 4]] * 1000, [1] * 1000
    content = {"ids": [1] * 1000, "boxes": [box] * 1000, "objectness_logits": [score] * 1000}
    data = pickle.dumps(content)
    assert len(data) < 20_000  # and it would be a million boxes
    with pytest.raises(UnreadableDataset, match="repeated"):
        list(parse_pickle(data))
    nested = "x"
    for _ in range(40):
        nested = [nested, nested]
    for changes in ({"ids": [nested]}, {"boxes": [nested]}, {"objectness_logits": [nested]}):
        with pytest.raises(UnreadableDataset):
            list(parse_pickle(pickle.dumps(GOOD | changes)))
