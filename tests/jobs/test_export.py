"""prepare, export and prepare again give the same rows; wrong input is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.manifests import open_manifest
from tests.exports.worlds import World, write_world
from tests.jobs.command import read_error_output, run_job
from tests.outputs import make_object, write_annotations
from tests.sources.small_datasets import write_image

pytestmark = pytest.mark.usefixtures("no_ray")


def read_rows(uri: str) -> list[dict[str, object]]:
    manifest = open_manifest(uri)
    rows: list[dict[str, object]] = manifest.read(0, manifest.rows).to_pylist()
    return rows


def write_images(folder: Path, names: list[str]) -> dict[str, str]:
    """Write 100 x 100 images and return their paths by name without ending."""
    paths = {}
    for name in names:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, 100, 100)
        paths[name] = str(path)
    return paths


def test_coco_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_images(tmp_path / "images", ["a", "sub/b", "c"])
    uris = dict(zip(["139", "7", "8"], paths.values(), strict=True))
    objects = {
        "139": [
            make_object("dog", (1 / 3, 2.7, 40.1, 60.9)),
            make_object("cat", (0, 0, 100, 100), crowd=True),
        ],
        "7": [make_object("cat", (9.5, 10, 20, 30.123), difficult=True)],
        "8": [],
    }
    first = write_annotations(
        str(tmp_path / "m.parquet"), objects, ("dog", "cat"), uris=uris, category_ids=(4, 90)
    )
    output = tmp_path / "out"
    export = ("export", "--manifest", first, "--format", "coco", "--output", str(output))
    assert run_job(*export) == 0
    assert "python jobs/prepare.py coco --annotations" in capsys.readouterr().out
    second = str(tmp_path / "second.parquet")
    prepare = ("coco", "--annotations", f"{output}/instances.json", "--output", second)
    assert run_job("prepare", *prepare, "--images", str(tmp_path / "images"), "--strict") == 0
    assert read_rows(second) == read_rows(first)
    opened = open_manifest(second)
    assert (opened.classes, opened.category_ids) == (("dog", "cat"), (4, 90))


def test_voc_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = ["000012", "sub/x", "empty"]
    objects = {
        "000012": [
            make_object("tree", (1, 2.25, 40, 60)),
            make_object("cat", (0, 0, 100, 99.1), difficult=True),
        ],
        "sub/x": [make_object("cat", (1 / 3, 0, 20, 30))],
        "empty": [],
    }
    output = tmp_path / "out"
    uris = write_images(tmp_path / "images", ids)
    first = write_annotations(
        str(tmp_path / "m.parquet"), objects, ("tree", "cat", "unused"), uris=uris
    )
    assert run_job("export", "--manifest", first, "--format", "voc", "--output", str(output)) == 0
    assert "link or copy it to JPEGImages there" in capsys.readouterr().out
    (output / "JPEGImages").symlink_to(tmp_path / "images")
    second = str(tmp_path / "second.parquet")
    classes = (output / "classes.txt").read_text().split("\n")[:-1]
    prepare = ("voc", "--root", str(output), "--split", "all", "--output", second, "--strict")
    assert run_job("prepare", *prepare, "--classes", *classes) == 0
    rows = read_rows(second)
    for row in rows:
        row["uri"] = str(Path(str(row["uri"])).resolve())
    assert rows == read_rows(first)
    assert open_manifest(second).classes == ("tree", "cat", "unused")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--detections {w}/none", "{w}/none holds no shards.parquet"),
        ("--manifest {w}/none.parquet", "{w}/none.parquet does not exist"),
        ("--format yolo --as-annotations --detections {w}/m.parquet", "holds no shards.parquet"),
        ("--min-score 2", "--min-score is 2.0, expected 0 to 1"),
        ("--min-score nan", "--min-score is nan, expected 0 to 1"),
        ("--labels cat cow", "--labels 'cow' is no class of this export; its classes are 'cat'"),
        ("--thresholds {w}/none.json", "{w}/none.json does not exist"),
        ("--thresholds {w}/bad.json", "{w}/bad.json holds no thresholds"),
        ("--format csv --as-annotations", "--as-annotations is for --detections as coco or yolo"),
        ("--image-prefix /data", "--image-prefix is for --format label-studio"),
        ("--label-selector spot", "--label-selector"),
        ("--resources [1]", "--resources"),
        ("--output {w}/m.parquet/out", "{w}/m.parquet/out cannot be written"),
        ("--output /proc/out", "/proc/out cannot be written"),
        ("--output {w}/detections", "--output {w}/detections is the --detections"),
    ],
)
def test_wrong_input_is_one_line(
    options: str, message: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.folder / "bad.json").write_text("[]")
    arguments = {
        "--detections": world.detections,
        "--manifest": world.manifest,
        "--format": "coco",
        "--output": str(world.output),
    }
    words = options.format(w=world.folder).split()
    given = [word for name, value in arguments.items() for word in (name, value)]
    assert run_job("export", *given, *words) == 2
    error = read_error_output(capsys)
    assert message.format(w=world.folder) in error
    assert error.count("\n") == 1
    assert not world.output.exists()


def test_thresholds_select_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = write_world(tmp_path)
    thresholds = tmp_path / "thresholds.json"
    thresholds.write_text('{"overall": 0.95, "per_class": {"cat": 0.65}}')
    arguments = ("--detections", world.detections, "--manifest", world.manifest, "--format", "csv")
    options = ("--thresholds", str(thresholds), "--output", str(world.output))
    assert run_job("export", *arguments, *options) == 0
    printed = capsys.readouterr().out
    assert "4 images, 2 detections; 1 image left out, see left_out.csv" in printed
    assert run_job("export", *arguments, *options) == 0
    assert capsys.readouterr().out == f"already complete: {printed}"
