"""`analyze dataset`, `prepare split`, `merge`, `filter`, `--check` and `--exclude` as command lines."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.manifests import open_manifest
from tests.engine.inspect.small_dataset import write_splits
from tests.jobs.command import read_error_output, run_job
from tests.outputs import make_object, write_annotations, write_detections
from tests.sources.small_datasets import write_voc

A, B = (0, 0, 10, 10), (50, 50, 90, 90)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    images = {f"{n:03d}": [make_object("dog" if n % 2 else "cat", A)] for n in range(40)}
    uri = write_annotations(str(tmp_path / "m.parquet"), images, ["cat", "dog"])
    table = pq.ParquetFile(uri).read()
    table = table.append_column("video", pa.array([f"v{n // 4}" for n in range(40)]))
    table = table.append_column("camera", pa.array([None, *["c"] * 39]))
    pq.write_table(table, uri)
    return uri


def _read_ids(uri: Path) -> list[str]:
    return pq.ParquetFile(uri).read()["image_id"].to_pylist()


def test_a_dataset_is_checked_against_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = write_splits(tmp_path)
    arguments = (
        "dataset",
        "--manifest",
        train,
        "--against",
        test,
        "--output",
        str(tmp_path / "out"),
    )
    assert run_job("analyze", *arguments, "--report-images", "20") == 0
    printed = capsys.readouterr().out
    assert "duplicates, train and test: 1 pair (mirrored 1)" in printed
    assert (
        "to leave out of train (--exclude): 1 image that another split has, 1 repeated" in printed
    )
    summary = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert [split["name"] for split in summary["splits"]] == ["train", "test"]
    assert (tmp_path / "out" / "dataset" / "index.html").exists()


def test_prepare_checks_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    write_voc(root)
    target = tmp_path / "out" / "train.parquet"
    arguments = ("voc", "--root", str(root), "--output", str(target), "--check")
    assert run_job("prepare", *arguments) == 0, read_error_output(capsys)
    assert (tmp_path / "out" / "train-check" / "dataset.json").exists()
    assert "train: " in capsys.readouterr().out
    assert open_manifest(str(target)).rows > 0


def test_prepare_writes_nothing_if_no_image_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    write_voc(root)
    for path in (root / "JPEGImages").iterdir():
        path.write_text("<!doctype html>not here")
    target = tmp_path / "out" / "train.parquet"
    arguments = ("voc", "--root", str(root), "--output", str(target), "--check")
    assert run_job("prepare", *arguments) == 2
    error = read_error_output(capsys)
    assert "images tried can be read; the first: image " in error
    assert error.count("\n") == 1
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("options", [(), ("--stratify",), ("--by", "video")])
def test_a_split_has_every_image_once(
    tmp_path: Path, manifest: str, options: tuple[str, ...]
) -> None:
    words = ("--manifest", manifest, "--fractions", "0.6", "0.2", "0.2", *options)
    assert run_job("prepare", "split", *words, "--output", str(tmp_path / "s")) == 0
    parts = [_read_ids(tmp_path / "s" / f"{name}.parquet") for name in ("train", "val", "test")]
    assert sorted(image for part in parts for image in part) == _read_ids(Path(manifest))
    if "video" in options:
        videos = [{int(image) // 4 for image in part} for part in parts]
        assert sum(map(len, videos)) == 10
    if "--stratify" in options:
        assert [len(part) for part in parts] == [24, 8, 8]


def test_an_earlier_split_is_kept_and_duplicates_stay_together(
    tmp_path: Path, manifest: str
) -> None:
    ids = _read_ids(Path(manifest))
    first = str(tmp_path / "first.parquet")
    pq.write_table(pq.ParquetFile(manifest).read().slice(0, 30), first)
    base = ("--fractions", "0.5", "0.5", "--stratify")
    early = str(tmp_path / "early")
    assert run_job("prepare", "split", "--manifest", first, *base, "--output", early) == 0
    groups = str(tmp_path / "groups.parquet")
    pq.write_table(pa.table({"image_id": ids[30:33], "group": ["same"] * 3}), groups)
    late = tmp_path / "late"
    words = ("--manifest", manifest, *base, "--by", "group", "--groups", groups, "--earlier", early)
    assert run_job("prepare", "split", *words, "--output", str(late)) == 0
    for name in ("train", "test"):
        assert set(_read_ids(tmp_path / "early" / f"{name}.parquet")) <= set(
            _read_ids(late / f"{name}.parquet")
        )
    together = [
        set(ids[30:33]) & set(_read_ids(late / f"{name}.parquet")) for name in ("train", "test")
    ]
    assert sorted(map(len, together)) == [0, 3]


def test_a_merge_and_a_filter_are_manifests(
    tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_annotations(
        str(tmp_path / "o.parquet"), {"x": [make_object("Hund", B)]}, ["Hund"]
    )
    (tmp_path / "map.json").write_text('{"Hund": "dog"}')
    words = ("--manifests", manifest, other, "--class-map", "-", str(tmp_path / "map.json"))
    merged = str(tmp_path / "merged.parquet")
    assert run_job("prepare", "merge", *words, "--output", merged) == 0
    assert "41 images, 41 objects, 2 classes" in capsys.readouterr().out
    words = ("--manifest", merged, "--where", "list_contains(labels, 'dog')")
    assert run_job("prepare", "filter", *words, "--output", str(tmp_path / "dogs")) == 0
    dogs = open_manifest(str(tmp_path / "dogs"))
    assert (dogs.rows, dogs.classes) == (21, ("cat", "dog"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("split", "--fractions", "0.5", "0.4"), "add up to 0.9, expected 1"),
        (("split", "--fractions", "0.5", "0.5", "--names", "a"), "expected 2 different names"),
        (("split", "--fractions", "0.5", "0.5", "--names", "../a", "b"), "cannot be the name of a file"),
        (("split", "--fractions", "0.5", "0.5", "--by", "patient"), "has no column 'patient'"),
        (("split", "--fractions", "0.5", "0.5", "--by", "camera"), "column 'camera' is null for image '000'"),
        (("split", "--fractions", "0.5", "0.5", "--by", "objects"), "expected texts or numbers"),
        (("split", "--fractions", "0.5", "0.5", "--groups", "g"), "--groups needs --by"),
        (("split", "--fractions", "0.999", "0.001"), "split 'test' gets none of the 40 images"),
        (("filter", "--where", "wdth > 3"), 'column "wdth" not found'),
        (("filter", "--where", "width < 0"), "holds for none of the 40 images"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    manifest: str,
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    assert run_job("prepare", *words, "--manifest", manifest, "--output", str(output)) == 2
    error = read_error_output(capsys)
    assert message in error
    assert error.count("\n") == 1
    assert not list(output.glob("*"))


def test_an_input_is_not_written_over(
    tmp_path: Path, manifest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(manifest).read_bytes()
    words = ("--fractions", "0.5", "0.5", "--names", "m", "n", "--output", str(tmp_path))
    assert run_job("prepare", "split", "--manifest", manifest, *words) == 2
    assert (
        run_job("prepare", "filter", "--manifest", manifest, "--where", "1", "--output", manifest)
        == 2
    )
    assert run_job("prepare", "merge", "--manifests", manifest, manifest, "--output", manifest) == 2
    assert read_error_output(capsys).count("would overwrite\n") == 0
    assert Path(manifest).read_bytes() == before


def test_scores_without_excluded_images_are_those_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Image one is found, two is not: .5 with both (two classes), and 1 without two."""
    images = {"one": [make_object("cat", A)], "two": [make_object("dog", B)]}
    manifest = write_annotations(str(tmp_path / "m.parquet"), images, ("cat", "dog"))
    found = {"one": [("cat", 0.9, A)], "two": [("dog", 0.8, A)]}
    detections = write_detections(str(tmp_path / "d"), manifest, found, ("cat", "dog"))
    excluded = str(tmp_path / "list.parquet")
    pq.write_table(pa.table({"image_id": ["two", "unknown"]}), excluded)
    words = ("--detections", detections, "--manifest", manifest, "--exclude", excluded)
    assert run_job("analyze", "detections", *words, "--output", str(tmp_path / "out")) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["voc_map50"] == 0.5
    block = metrics["excluded"]
    assert (block["images"], block["listed"]) == (1, 2)
    assert (block["without"]["voc_map50"], block["without"]["objects"]) == (1.0, 1)
    assert "without 1 excluded image: voc07_map50 0.5000 -> 1.0000" in capsys.readouterr().out
    index = (tmp_path / "out" / "report" / "index.html").read_text()
    assert 'href="galleries/excluded.html" data-count="1"' in index


def test_a_list_that_is_no_parquet_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_annotations(
        str(tmp_path / "m.parquet"), {"one": [make_object("cat", A)]}, ("cat",)
    )
    detections = write_detections(str(tmp_path / "d"), manifest, {"one": []}, ("cat",))
    (tmp_path / "list.csv").write_text("image_id\none\n")
    words = ("--detections", detections, "--manifest", manifest, "--output", str(tmp_path / "out"))
    assert run_job("analyze", "detections", *words, "--exclude", str(tmp_path / "list.csv")) == 2
    assert "list.csv is not readable Parquet" in read_error_output(capsys)
    assert not list(tmp_path.glob("out/*"))
