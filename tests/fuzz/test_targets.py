"""Oracles against answers that are wrong: what readers without checks would give."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.sources.tally import Tally
from tests.fuzz.targets import coco, get_target, manifests, proposals, shard_tables
from tests.fuzz.targets.run_outputs import IMAGES, write_output
from tests.fuzz.targets.source_answers import SourceAnswer, find_fault_in_box
from tests.fuzz.targets.tensor_changes import find_fault_in_tensors
from tests.sources.small_datasets import coco_content, write_coco

BOX = {"x1": 1.0, "y1": 2.0, "x2": 4.5, "y2": 6.0}


def _read_without_checks(folder: Path, change: dict[str, Any]) -> str | None:
    """The oracle's word on a reader that takes annotation 1 as it was before the change."""
    content = coco_content()
    content["annotations"][0] |= change
    write_coco(folder, content)
    uri = str(folder / "images" / "seven.jpg")
    item = {"label": "dog", **BOX, "difficult": False, "crowd": False}
    crowd = {
        "label": "person",
        "x1": 0,
        "y1": 0,
        "x2": 40,
        "y2": 30,
        "difficult": False,
        "crowd": True,
    }
    row = {"image_id": "7", "uri": uri, "width": 40, "height": 30, "objects": [item, crowd]}
    other = {
        "image_id": "3",
        "uri": str(folder / "images" / "three.png"),
        "width": 20,
        "height": 10,
    }
    answer = SourceAnswer([row, {**other, "objects": []}], ("person", "dog"), Tally(images=2))
    return coco._find_fault(folder, answer)


def test_the_right_answer_has_no_fault(tmp_path):
    assert _read_without_checks(tmp_path, {}) is None


@pytest.mark.parametrize(
    "change",
    [
        *({"bbox": "1234"}, {"bbox": {"1": 0}}, {"bbox": [True, 2, 3.5, 4]}, {"bbox": [1, 2, 3.5]}),
        *(
            {"iscrowd": "1"},
            {"ignore": 1},
            {"category_id": 1},
            {"image_id": 3},
            {"bbox": [1, 2, 9, 4]},
        ),
    ],
)
def test_an_annotation_that_was_misread_is_found(tmp_path, change):
    assert _read_without_checks(tmp_path, change) is not None


def test_a_size_that_is_not_the_images_is_found(tmp_path):
    write_coco(tmp_path, coco_content())
    uri = str(tmp_path / "images" / "seven.jpg")
    row = {"image_id": "7", "uri": uri, "width": 400, "height": 300, "objects": []}
    fault = coco._find_fault(tmp_path, SourceAnswer([row], ("dog",), Tally(images=1)))
    assert fault is not None
    assert "its row says 400x300" in fault


@pytest.mark.parametrize(
    "box",
    [(0, 0, float("nan"), 1), (0, 0, float("inf"), 1), (5, 0, 1, 9), (0, 0, 0, 9), (0, 0, None, 1)],
)
def test_a_box_that_is_none_is_found(box):
    assert find_fault_in_box((0, 0, 1, 1)) is None
    assert find_fault_in_box(box) is not None


def test_a_footer_that_is_believed_is_found(tmp_path):
    target = get_target("manifest")
    target.write(tmp_path, Random(1))
    rows = [
        {"image_id": name, "uri": "u", "width": 9, "height": 9, "objects": []}
        for name in IMAGES[:4]
    ]
    stated = SimpleNamespace(rows=12, classes=("cat",), category_ids=None)
    fault = manifests._find_fault(tmp_path, manifests._Answer(stated, rows, 12))
    assert fault == "12 rows are stated, 4 read, 12 cut"


def test_boxes_shifted_into_the_next_image_are_found(tmp_path):
    write_output(tmp_path, "propose")
    right = proposals._read(tmp_path)
    assert proposals._find_fault(tmp_path, right) is None
    shifted = replace(right, boxes=[right.boxes[0][:2], *right.boxes[1:]])
    assert proposals._find_fault(tmp_path, shifted) is not None


def test_a_part_that_is_trusted_by_its_name_is_found(tmp_path):
    output, planned = write_output(tmp_path, "propose")
    ready = shard_tables._resume(tmp_path)
    assert shard_tables._find_fault_in_run(tmp_path, ready) is None
    first, second = (Path(output) / shard.part_name for shard in planned[:2])
    whole = first.read_bytes()
    for content in (
        second.read_bytes(),
        b"",
        b"\x02ok\x00\x00\x00junk",
        b"PAR1" + bytes(9) + b"PAR1",
    ):
        first.write_bytes(content)
        assert shard_tables._find_fault_in_run(tmp_path, ready) is not None, content[:20]
    first.write_bytes(whole)
    assert shard_tables._find_fault_in_run(tmp_path, ready) is None


def test_weights_that_are_not_finite_float32_are_found():
    assert find_fault_in_tensors({"w": torch.ones(3)}) is None
    assert find_fault_in_tensors({"w": torch.tensor([1.0, float("nan")])}) is not None
    assert find_fault_in_tensors({"w": torch.ones(3, dtype=torch.float16)}) is not None


def test_a_case_is_a_function_of_kind_seed_and_number(tmp_path):
    target = get_target("storage_options")
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        target.write(tmp_path / name, Random(f"storage_options/{seed}/5"))
        contents.append((tmp_path / name / "stores.json").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_most_inputs_differ_from_valid_ones(tmp_path):
    target = get_target("run_record")
    kinds: Counter[bool] = Counter()
    for number in range(30):
        folder = tmp_path / str(number)
        folder.mkdir()
        target.write(folder, Random(number))
        content = (folder / "run.json").read_bytes()
        try:
            kinds[json.loads(content)["settings"]["max_proposals"] == 2000] += 1
        except (ValueError, KeyError, TypeError):
            kinds[False] += 1
    assert kinds[False] >= 5
    assert kinds[True] >= 5
