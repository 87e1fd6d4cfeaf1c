"""Imported boxes become an output of propose that the other jobs read, and can be exported again."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipeline import schema, shards
from pipeline.manifests import open_manifest
from pipeline.proposals.stored_proposals import open_stored_proposals
from tests.jobs.command import read_error_output, run_job
from tests.outputs import FailedImage, make_object, write_annotations, write_proposals

BOXES: dict[str, list[list[float]]] = {
    "a": [[0, 0, 10, 20], [5, 5, 100, 100]],
    "b": [],
    "c": [[1, 2, 3, 4]],
}


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    images = {name: [make_object("cat", (0, 0, 10, 20))] for name in BOXES}
    return write_annotations(str(tmp_path / "m.parquet"), images, ("cat",))


def write_pickle(path: Path, boxes: dict[str, list[list[float]]], **changes: object) -> str:
    content = {
        "ids": list(boxes),
        "boxes": [np.array(rows, np.float32).reshape(-1, 4) for rows in boxes.values()],
        "objectness_logits": [-np.arange(len(rows), dtype=np.float32) for rows in boxes.values()],
        "bbox_mode": 0,
    }
    path.write_bytes(pickle.dumps(content | changes))
    return str(path)


def write_mat(path: Path, boxes: dict[str, list[list[float]]]) -> str:
    images, cells = np.empty((len(boxes), 1), object), np.empty((1, len(boxes)), object)
    for index, (name, rows) in enumerate(boxes.items()):
        corners = np.array(rows, float).reshape(-1, 4)
        images[index, 0] = np.array([name])
        cells[0, index] = corners[:, (1, 0, 3, 2)] + [1, 1, 0, 0]
    savemat(path, {"images": images, "boxes": cells})
    return str(path)


def read_boxes(folder: Path) -> dict[str, list[list[float]]]:
    boxes_by_image = {}
    for table in shards.open_parts(str(folder)).read_tables():
        boxes = [rows.tolist() for rows in schema.split_box_column(table["boxes"])]
        boxes_by_image.update(zip(table["image_id"].to_pylist(), boxes, strict=True))
    return boxes_by_image


def import_boxes(source: str, manifest: str, output: Path, *more: str) -> int:
    arguments = ("--source", source, "--manifest", manifest, "--output", str(output))
    return run_job("exchange", "import", *arguments, *more)


@pytest.mark.parametrize("kind", ["mat", "pkl"])
def test_imported_boxes_are_an_output_of_propose(
    kind: str, tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write = write_mat if kind == "mat" else write_pickle
    source = write(
        tmp_path / f"boxes.{kind}", dict(reversed(BOXES.items())) | {"more": [[1, 1, 2, 2]]}
    )
    output = tmp_path / "proposals"
    assert import_boxes(source, manifest, output) == 0
    assert (
        "3 images, 3 boxes; 1 images of the file are not in the manifest" in capsys.readouterr().out
    )
    assert read_boxes(output) == BOXES
    stored = open_stored_proposals(str(output), open_manifest(manifest))
    assert stored.provenance["stored"]["format"] == kind
    recall = (
        "--proposals",
        str(output),
        "--manifest",
        manifest,
        "--output",
        str(tmp_path / "recall"),
    )
    assert run_job("analyze", "proposals", *recall) == 0
    metrics = json.loads((tmp_path / "recall/metrics.json").read_text())
    assert metrics["recall50"] == pytest.approx(1 / 3)


def test_max_boxes_keeps_the_first_boxes(tmp_path: Path, manifest: str) -> None:
    source = write_pickle(tmp_path / "boxes.pkl", BOXES)
    assert import_boxes(source, manifest, tmp_path / "proposals", "--max-boxes", "1") == 0
    assert read_boxes(tmp_path / "proposals")["a"] == BOXES["a"][:1]


FAULTY = {
    "a": [[0, 0, 10, 20], [5, 5, 5, 9], [9, 9, 5, 5], [5, 5, 100.5, 100], [40, 40, 140, 60]],
    "b": [[200, 200, 210, 210], [0, 0, float("nan"), 4], [1, 1, 2, 2]],
    "c": [[1, 2, 3, 4]],
}
SCORES = [np.array([9, 8, 7, 6, 5.0]), np.array([3, 2, np.nan]), np.array([1.0])]


@pytest.mark.parametrize("kind", ["mat", "pkl"])
def test_faulty_boxes_are_dropped_or_clipped_and_counted(
    kind: str, tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "mat":
        source = write_mat(tmp_path / "faulty.mat", FAULTY)
    else:
        source = write_pickle(tmp_path / "faulty.pkl", FAULTY, objectness_logits=SCORES)
    output = tmp_path / "proposals"
    for options in ([], ["--strict"], ["--max-invalid", "0.5"]):
        assert import_boxes(source, manifest, output, *options) == 2
        assert "1 box dropped: no area" in read_error_output(capsys)
        assert not list(output.glob("part-*"))
    assert import_boxes(source, manifest, output, "--skip-invalid") == 0
    printed = capsys.readouterr().out
    assert "1 box clipped to the image, 1 box dropped: inverted, 1 box dropped: no area" in printed
    assert "1 box dropped: not finite, 1 box dropped: outside the image" in printed
    assert ("1 box dropped: no score" in printed) == (kind == "pkl")
    assert read_boxes(output) == {
        "a": [[0, 0, 10, 20], [5, 5, 100, 100], [40, 40, 100, 60]],
        "b": [[1, 1, 2, 2]] if kind == "mat" else [],
        "c": [[1, 2, 3, 4]],
    }


def test_a_few_faulty_boxes_do_not_stop_an_import(
    tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = {
        "a": [[0, 0, 10, 20]] * 40 + [[3, 3, 3, 3]],
        "b": [],
        "c": [[0, 0, 5, 5], [1, 1, 99, 101]],
    }
    source = write_pickle(tmp_path / "boxes.pkl", boxes)
    output = tmp_path / "proposals"
    assert import_boxes(source, manifest, output, "--max-boxes", "1") == 0
    assert "left out or repaired: 1 box dropped: no area" in capsys.readouterr().out
    assert import_boxes(source, manifest, tmp_path / "strict", "--strict") == 2
    assert "1 box dropped: no area of 43, and --strict allows none" in read_error_output(capsys)
    assert read_boxes(output) == {"a": [[0, 0, 10, 20]], "b": [], "c": [[0, 0, 5, 5]]}
    assert import_boxes(source, manifest, output, "--strict", "--skip-invalid") == 2
    assert "--strict fails at what --skip-invalid leaves out" in read_error_output(capsys)


def test_a_second_import_must_be_of_the_same_file(
    tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pickle(tmp_path / "boxes.pkl", BOXES)
    output = tmp_path / "proposals"
    assert import_boxes(source, manifest, output) == 0
    (part,) = output.glob("part-*")
    before = part.stat().st_mtime_ns
    assert import_boxes(source, manifest, output) == 0
    assert part.stat().st_mtime_ns == before
    write_pickle(tmp_path / "boxes.pkl", BOXES | {"b": [[1, 1, 9, 9]]})
    assert import_boxes(source, manifest, output) == 2
    assert "proposals.digest" in read_error_output(capsys)
    assert import_boxes(source, manifest, output, "--overwrite") == 0
    assert read_boxes(output)["b"] == [[1, 1, 9, 9]]


def test_exported_boxes_are_the_stored_ones(
    tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = write_proposals(str(tmp_path / "stored"), manifest, BOXES | {"b": FailedImage()})
    target = tmp_path / "stored.pkl"
    assert run_job("exchange", "export", "--proposals", stored, "--output", str(target)) == 0
    assert "2 images, 3 boxes; 1 images failed and are left out" in capsys.readouterr().out
    content = pickle.loads(target.read_bytes())
    assert content["ids"] == ["a", "c"]
    assert content["boxes"][0].tolist() == BOXES["a"]
    assert content["objectness_logits"][0].tolist() == [0, -1]


def test_exports_for_other_projects_name_images_by_their_files(
    tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = write_proposals(str(tmp_path / "stored"), manifest, BOXES | {"b": FailedImage()})

    def export(peer_format: str, target: Path, *more: str) -> int:
        arguments = ("--proposals", stored, "--output", str(target), "--format", peer_format)
        return run_job("exchange", "export", *arguments, *more)

    # The manifest's images are /images/a.jpg, /images/b.jpg and /images/c.jpg.
    assert export("detreg", tmp_path / "cache", "--manifest", manifest, "--max-boxes", "1") == 0
    assert "2 images, 2 boxes" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["a.npy", "c.npy"]
    assert np.load(tmp_path / "cache" / "a.npy").tolist() == BOXES["a"][:1]
    assert export("soco", tmp_path / "train_none.json") == 0
    # Boxes with a side under 32 pixels are left out there, and not counted.
    assert "2 images, 1 boxes; 1 images failed" in capsys.readouterr().out
    assert json.loads((tmp_path / "train_none.json").read_text()) == {
        "a": [[5, 5, 95, 95]],
        "c": [],
    }
    assert export("girshick", tmp_path / "voc.mat") == 0
    capsys.readouterr()
    other = write_annotations(
        str(tmp_path / "other.parquet"), {"x": [], "y": [], "z": []}, ("cat",)
    )
    fewer = write_annotations(str(tmp_path / "fewer.parquet"), {"a": [], "b": []}, ("cat",))
    for arguments, message in (
        (("wetectron", tmp_path / "w.pkl"), "image_id 'a' is none"),
        (("soco", tmp_path / "s.pkl"), "the format soco is written to a .json file"),
        (("detreg", tmp_path / "cache"), "is not empty"),
        (("soco", tmp_path / "s.json", "--manifest", other), "was made for other images"),
        (("soco", tmp_path / "s.json", "--manifest", fewer), "for 3 images, but"),
        (("soco", tmp_path / "s.json", "--max-boxes", "0"), "--max-boxes is 0"),
    ):
        assert export(*arguments) == 2
        assert message in read_error_output(capsys)


def test_unusable_files_are_rejected(
    tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "proposals"

    def check_rejected(source: str, message: str) -> None:
        assert import_boxes(source, manifest, output) == 2
        error = read_error_output(capsys)
        assert message in error
        assert error.count("\n") == 1
        assert not list(output.glob("part-*"))

    fewer = write_pickle(tmp_path / "fewer.pkl", {"a": [], "x": []})
    check_rejected(fewer, "fewer.pkl has no boxes for 2 of the 3 images of")
    larger = write_pickle(tmp_path / "larger.pkl", BOXES | {"b": [[0, 0, 300, 50]]})
    check_rejected(
        larger,
        "larger.pkl: 1 box clipped to the image of 4, and 5% may be; the first is (0, 0, 300, 50) of image "
        "'b', which is 100x100: were the boxes made at another size?",
    )
    twice = write_pickle(tmp_path / "twice.pkl", BOXES, ids=["a", "b", "a"])
    check_rejected(twice, "names image 'a' twice")
    check_rejected(str(tmp_path / "boxes.json"), "boxes.json is neither a .mat")
    check_rejected(str(tmp_path / "none.pkl"), "none.pkl does not exist")
    (tmp_path / "broken.mat").write_bytes(b"no matrix" * 50)
    check_rejected(str(tmp_path / "broken.mat"), "broken.mat: it is not a MATLAB file")
    for proposals, target, message in (
        (str(tmp_path / "none"), "o.pkl", "holds no shards.parquet"),
        (
            write_proposals(str(tmp_path / "p"), manifest, BOXES),
            "o.mat",
            "the format detectron2 is written to a .pkl file",
        ),
    ):
        arguments = ("--proposals", proposals, "--output", str(tmp_path / target))
        assert run_job("exchange", "export", *arguments) == 2
        assert message in read_error_output(capsys)
