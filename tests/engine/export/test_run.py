"""Exports in this process and in Ray tasks: same bytes, resumed, replaced or rejected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.engine.export import run as export_run
from pipeline.engine.export.run import ExportSettings, run_export
from pipeline.errors import InvalidConfiguration, MismatchedOutput, StorageError, UnreadableDataset
from pipeline.exports.construction import FORMATS, FormatName
from tests.exports.worlds import ANNOTATIONS, CLASSES, DETECTIONS, World, write_world
from tests.outputs import write_annotations, write_detections

COCO = ExportSettings("coco")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return write_world(tmp_path)


def read_files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_tasks_write_the_same_bytes(name: FormatName, world: World, ray_cluster: None) -> None:
    world.export(ExportSettings(name))
    here = read_files(world.output.rename(world.folder / "here"))
    result = world.export(ExportSettings(name), most_images_here=0)
    files = read_files(world.output)
    logs = sorted(path for path in files if path.startswith("logs/"))
    assert [path.partition("-")[0] for path in logs] == ["logs/driver", "logs/progress"]
    assert {path: files[path] for path in files if path not in logs} == here
    world.export(ExportSettings(name), overwrite=True)
    assert read_files(world.output) == here
    assert (result.counts.images, result.counts.left_out, result.counts.boxes) == (4, 1, 6)


def test_a_rerun_does_nothing_and_another_export_is_rejected(world: World) -> None:
    world.export(COCO)
    before = read_files(world.output)
    assert world.export(COCO).was_complete
    with pytest.raises(MismatchedOutput, match=r"min_score: 0\.0 there, 0\.5 now"):
        world.export(ExportSettings("coco", min_score=0.5))
    assert read_files(world.output) == before


def test_an_export_that_was_interrupted_is_completed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(export_run, "assemble_files", fail)
        with pytest.raises(StorageError):
            world.export(ExportSettings("yolo"))
    assert not (world.output / "summary.json").exists()
    assert not world.export(ExportSettings("yolo")).was_complete
    (world.output / "labels/7.txt").unlink()
    assert not world.export(ExportSettings("yolo")).was_complete
    assert (world.output / "labels/7.txt").exists()


def test_tasks_do_what_is_left(
    world: World, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(export_run, "assemble_files", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.export(COCO, most_images_here=0)
    parts = sorted((world.output / "parts").glob("part-*.parquet"))
    times = [path.stat().st_mtime_ns for path in parts]
    parts[1].unlink()
    done: list[list[int]] = []
    with monkeypatch.context() as patch:
        run_shards = export_run.run_shards

        def note_work(*arguments: object) -> object:
            done.append([path.stat().st_mtime_ns for path in parts if path.exists()])
            return run_shards(*arguments)  # type: ignore[arg-type]

        patch.setattr(export_run, "run_shards", note_work)
        world.export(COCO, most_images_here=0)
    assert done == [[times[0], times[2]]]
    assert len(world.read_json("results.json")) == 6
    assert not list((world.output / "parts").iterdir())


def test_overwrite_leaves_no_file_of_another_format(world: World) -> None:
    world.export(ExportSettings("voc"))
    (world.output / "Annotations/notes.txt").write_text("mine")
    world.export(ExportSettings("csv"), overwrite=True)
    assert read_files(world.output).keys() == {
        *("run.json", "summary.json", "left_out.csv", "detections.csv"),
        "Annotations/notes.txt",
    }


def test_files_of_unknown_origin_stay(world: World) -> None:
    world.output.mkdir()
    (world.output / "results.json").write_text("mine")
    with pytest.raises(MismatchedOutput, match=r"holds results\.json of an unknown run"):
        world.export(COCO)
    assert (world.output / "results.json").read_text() == "mine"


def test_detections_that_were_retried_are_another_export(world: World) -> None:
    world.export(COCO)
    repaired = {**DETECTIONS, "broken": [("tree", 0.9, (1, 1, 9, 9))]}
    write_detections(world.detections, world.manifest, repaired, CLASSES)
    with pytest.raises(MismatchedOutput, match=r"detections\.parts"):
        world.export(COCO)


def test_an_output_is_neither_an_input_nor_the_folder_of_the_images(world: World) -> None:
    inside = write_detections(
        str(world.folder / "flat_detections"), world.manifest, DETECTIONS, CLASSES
    )
    for settings, folder, detections in (
        (COCO, world.detections, world.detections),
        (ExportSettings("parquet"), str(world.folder), inside),
    ):
        with pytest.raises(InvalidConfiguration, match="choose another folder"):
            run_export(settings, world.manifest, folder, detections, overwrite=True)
    uris = {name: f"{world.output}/JPEGImages/{name}.jpg" for name in ANNOTATIONS}
    manifest = write_annotations(str(world.folder / "n.parquet"), ANNOTATIONS, CLASSES, uris=uris)
    with pytest.raises(InvalidConfiguration, match="holds the images of the manifest"):
        run_export(ExportSettings("voc"), manifest, str(world.output))


@pytest.mark.parametrize("name", FORMATS)
def test_a_manifest_alone_is_for_formats_of_annotations(name: FormatName, world: World) -> None:
    if name in ("coco", "voc"):
        assert world.export_manifest(ExportSettings(name)).counts.boxes == 6
    else:
        with pytest.raises(InvalidConfiguration, match=f"--format {name} needs --detections"):
            world.export_manifest(ExportSettings(name))


def test_a_detection_of_a_class_that_the_manifest_lacks_is_exported(tmp_path: Path) -> None:
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"1": None}, None)
    detections = write_detections(
        str(tmp_path / "d"), manifest, {"1": [("cow", 0.5, (1, 1, 5, 5))]}, ("cow",)
    )
    run_export(COCO, manifest, str(tmp_path / "out"), detections)
    (result,) = json.loads((tmp_path / "out/results.json").read_text())
    assert (result["image_id"], result["category_id"]) == (1, 1)


def test_images_without_annotations_are_listed(tmp_path: Path) -> None:
    images = {"1": [], "2": None}
    manifest = write_annotations(str(tmp_path / "m.parquet"), images, CLASSES)
    assert run_export(COCO, manifest, str(tmp_path / "out")).counts.left_out == 1
    lines = (tmp_path / "out/left_out.csv").read_text().splitlines()
    assert lines[1:] == ["2,annotate,Unlabelled,the image is not annotated"]


def test_the_manifest_of_other_images_is_an_error(world: World) -> None:
    other = write_annotations(
        str(world.folder / "o.parquet"), {f"o{k}": [] for k in range(5)}, CLASSES
    )
    with pytest.raises(UnreadableDataset, match="row 0 is '7' in"):
        run_export(COCO, other, str(world.output), world.detections)


def test_an_object_store_takes_every_format(world: World, s3_folder: str) -> None:
    for name in ("coco", "voc", "parquet"):
        target = f"{s3_folder}/{name}"
        run_export(ExportSettings(name), world.manifest, target, world.detections)
        here = world.folder / name
        run_export(ExportSettings(name), world.manifest, str(here), world.detections)
        for path, content in read_files(here).items():
            if path not in ("run.json", "summary.json"):
                assert storage.read(f"{target}/{path}") == content, path
