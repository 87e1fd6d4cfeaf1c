"""Inspections: what is found in two small splits, in this process and on Ray alike, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.engine.inspect.dataset_summary import report_dataset, summarize_dataset
from pipeline.engine.inspect.run import inspect_dataset
from pipeline.errors import InvalidConfiguration, MismatchedOutput, UnreadableDataset
from pipeline.excluded_images import read_excluded_images
from pipeline.manifests import open_manifest
from pipeline.report.dataset_report import count_dataset
from tests.engine.inspect.small_dataset import write_splits
from tests.outputs import write_annotations


def _read(uri: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(uri).read().to_pylist()


def _inspect(manifest: str, output: Path, *against: str, **options: Any) -> dict[str, Any]:
    findings = inspect_dataset(manifest, str(output), against, **options)
    findings.write(str(output))
    dataset = report_dataset(findings)
    return summarize_dataset(findings, dataset, count_dataset(dataset))


def test_what_is_wrong_with_two_splits(tmp_path: Path) -> None:
    train, test = write_splits(tmp_path)
    summary = _inspect(train, tmp_path / "out", test)
    first, second = summary["splits"]
    assert (first["images"], first["objects"], first["without_objects"]) == (6, 12, 1)
    assert {k: v for k, v in first["images_with"].items() if v} == {
        "unreadable images": 1,
        "black images": 1,
    }
    assert {k: v for k, v in first["suspicious_boxes"].items() if v} == {
        "boxes that reach outside": 1,
        "tiny boxes": 1,
        "boxes of two classes": 2,
    }
    assert (first["leaks"], first["repeated"], second["leaks"], second["repeated"]) == (1, 1, 1, 0)
    assert [row["pairs"] for row in summary["duplicates"]] == [1, 1, 0]
    assert summary["duplicates"][1]["copies"]["mirrored"] == 1
    excluded = _read(tmp_path / "out" / "exclude.parquet")
    assert [(row["split"], row["image_id"], row["reason"]) for row in excluded] == [
        ("train", "1", "leak"),
        ("train", "3", "duplicate"),
        ("test", "0", "leak"),
    ]


def test_the_list_names_the_images_of_each_manifest(tmp_path: Path) -> None:
    """Image 1 of train and image 1 of test have one image_id; only the first one leaks."""
    train, test = write_splits(tmp_path)
    _inspect(train, tmp_path / "out", test)
    excluded = read_excluded_images(str(tmp_path / "out" / "exclude.parquet"))
    assert excluded.find_rows(open_manifest(train)).tolist() == [1, 3]
    assert excluded.find_rows(open_manifest(test)).tolist() == [0]


def test_a_rerun_hashes_nothing_and_another_manifest_is_rejected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, test = write_splits(tmp_path)
    first = _inspect(train, tmp_path / "out")
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/signatures/part-*")}
    assert _inspect(train, tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    with pytest.raises(MismatchedOutput):
        inspect_dataset(test, str(tmp_path / "out"))


@pytest.mark.usefixtures("ray_cluster")
def test_on_ray_the_same_is_found(tmp_path: Path) -> None:
    train, test = write_splits(tmp_path)
    here = _inspect(train, tmp_path / "here", test)
    assert _inspect(train, tmp_path / "there", test, most_local_images=0) == here


def test_nothing_is_written_if_no_image_can_be_read(tmp_path: Path) -> None:
    uri = write_annotations(str(tmp_path / "m.parquet"), {"a": [], "b": []}, ["x"])
    with pytest.raises(
        UnreadableDataset, match="none of the 2 images tried can be read; the first"
    ):
        inspect_dataset(uri, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_manifest_is_not_compared_with_itself(tmp_path: Path) -> None:
    train, _ = write_splits(tmp_path)
    with pytest.raises(InvalidConfiguration, match="given twice"):
        inspect_dataset(train, str(tmp_path / "out"), [str(tmp_path / "." / "train.parquet")])


def test_images_without_annotations_are_inspected_too(tmp_path: Path) -> None:
    train, _ = write_splits(tmp_path)
    paths = {str(n): str(tmp_path / "train" / f"{n}.png") for n in range(3)}
    uri = write_annotations(
        str(tmp_path / "m.parquet"), dict.fromkeys(paths), None, uris=paths, size=None
    )
    summary = _inspect(uri, tmp_path / "out", train)
    assert (summary["splits"][0]["unlabelled"], summary["splits"][0]["leaks"]) == (3, 3)
    assert "train has classes that m has not" in summary["notes"][0]
