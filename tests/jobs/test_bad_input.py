"""What a user may get wrong, job by job: one line that names the input, exit code 2, before Ray starts."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.engine import cluster
from pipeline.manifest import ManifestRow, write_manifest
from pipeline.shards import open_parts
from tests.engine.pictures import draw_pictures, random_checkpoint
from tests.jobs.command import run_job
from tests.outputs import an_object, write_annotations, write_detections, write_proposals
from tests.sources.small_datasets import coco_content, write_voc
from tests.swift import forget_clients, free_port

ROOT = Path(__file__).parents[2]
BOX = (10, 10, 40, 40)

MANIFESTS = {
    "{w}/none.parquet": "{w}/none.parquet does not exist",
    "{w}/folder": "{w}/folder holds no *.parquet file, so it is no manifest",
    "{w}/zero.parquet": "{w}/zero.parquet is not readable Parquet",
    "{w}/garbage.parquet": "{w}/garbage.parquet is not readable Parquet",
    "{w}/cut.parquet": "{w}/cut.parquet is not readable Parquet",
    "{w}/columns.parquet": "{w}/columns.parquet has no column uri; a manifest has image_id, uri",
    "{w}/types.parquet": "{w}/types.parquet: column image_id is int64, expected string",
    "{w}/rows.parquet": "{w}/rows.parquet is a manifest of no pictures",
    "{w}/disagree": "{w}/disagree/b.parquet lists other classes than {w}/disagree/a.parquet",
    "nostore://x/m.parquet": "nostore://x/m.parquet cannot be opened: Protocol not known",
}
CHECKPOINTS = {
    "{w}/none": "{w}/none is no checkpoint: {w}/none/model.json does not exist",
    "{w}/folder": "{w}/folder is no checkpoint",
    "{w}/m.parquet": "{w}/m.parquet is no checkpoint",
    "{w}/json": "{w}/json/model.json is not a checkpoint's record",
    "{w}/fields": "{w}/fields/model.json cannot be used",
    "{w}/version": "{w}/version/model.json has version 9, this program reads 1",
}
PROPOSALS = {
    "{w}/none": "{w}/none holds no shards.parquet: no propose or detect run wrote here",
    "{w}/folder": "{w}/folder holds no shards.parquet",
    "{w}/m.parquet": "{w}/m.parquet holds no shards.parquet",
    "{w}/incomplete": "{w}/incomplete lacks 1 of 2 shards: run the job that writes it again",
    "{w}/detections": "{w}/detections holds no proposals",
    "{w}/others": "{w}/others was made for other images than {w}/m.parquet: row 0 is 'o0' there",
    "{w}/fewer": "{w}/fewer has proposals for 2 images, but 4 of {w}/m.parquet are asked for",
}
OUTPUTS = {
    "{w}/m.parquet/out": "{w}/m.parquet/out cannot be written",
    "{w}/m.parquet": "{w}/m.parquet cannot be written",
    "/proc/out": "/proc/out cannot be written: No such file or directory",
    "nostore://x": "nostore://x cannot be opened: Protocol not known",
}
RUN_VALUES = {
    "--limit 0": "--limit is 0, expected more than 0",
    "--shard-size -1": "--shard-size is -1, expected more than 0",
    "--image-seconds 0": "--image-seconds is 0.0, expected more than 0",
    "--max-failed-fraction 2": "--max-failed-fraction is 2.0, expected 0 to 1",
}
DETECT_VALUES = {
    "--actors 0": "--actors is 0, expected more than 0",
    "--actors -2": "--actors is -2, expected more than 0",
    "--gpus-per-actor -1": "--gpus-per-actor is -1.0, expected 0 or more",
    "--nms-iou 2": "score threshold and NMS IoU lie between 0 and 1",
    "--max-per-image 0": "at most 0 detections per picture",
}

PROPOSE = "propose --manifest {w}/m.parquet --output {w}/out"
DETECT = "detect --manifest {w}/m.parquet --checkpoint {w}/checkpoint --output {w}/out"
SCORE = "analyze detections --detections {w}/detections --manifest {w}/m.parquet --output {w}/out"
RECALL = "analyze proposals --proposals {w}/proposals --manifest {w}/m.parquet --output {w}/out"
VOC = "prepare voc --root {w}/voc --split train --output {w}/out"
COCO = "prepare coco --annotations {w}/coco.json --images {w}/voc --output {w}/out"
FOLDER = "prepare folder --images {w}/pictures --output {w}/out"


def _replaced(command: str, option: str, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The command with each wrong value of one option, and what is to be said."""
    words = command.split()
    at = words.index(option) + 1
    for value, told in values.items():
        yield " ".join([*words[:at], value, *words[at + 1 :]]), told


CASES = [
    *_replaced(PROPOSE, "--manifest", MANIFESTS),
    *_replaced(DETECT, "--manifest", MANIFESTS),
    *_replaced(SCORE, "--manifest", MANIFESTS),
    *_replaced(RECALL, "--manifest", MANIFESTS),
    *_replaced(DETECT, "--checkpoint", CHECKPOINTS),
    *_replaced(f"{DETECT} --proposals x", "--proposals", PROPOSALS),
    *_replaced(PROPOSE, "--output", OUTPUTS),
    *_replaced(DETECT, "--output", OUTPUTS),
    *_replaced(SCORE, "--output", OUTPUTS),
    *_replaced(VOC, "--output", {k: v for k, v in OUTPUTS.items() if k != "{w}/m.parquet"}),
    *((f"{PROPOSE} {value}", told) for value, told in RUN_VALUES.items()),
    *((f"{DETECT} {value}", told) for value, told in (RUN_VALUES | DETECT_VALUES).items()),
    (f"{DETECT} --proposals {{w}}/proposals --seed 1", "--proposals takes stored boxes as they"),
    *_replaced(
        SCORE,
        "--detections",
        {
            "{w}/none": "{w}/none holds no shards.parquet",
            "{w}/incomplete": "{w}/incomplete lacks 1 of 2 shards",
            "{w}/proposals": "{w}/proposals has no column detections, so no detect run wrote it",
        },
    ),
    *_replaced(
        SCORE,
        "--manifest",
        {
            "{w}/other.parquet": "{w}/other.parquet",
            "{w}/unlabelled.parquet": "{w}/unlabelled.parquet has no annotated objects",
        },
    ),
    *_replaced(
        RECALL,
        "--proposals",
        {
            "{w}/none": "{w}/none holds no shards.parquet",
            "{w}/incomplete": "{w}/incomplete lacks 1 of 2 shards",
            "{w}/detections": "{w}/detections has no column boxes, so no propose run wrote it",
            "{w}/others": "{w}/others",
        },
    ),
    *_replaced(
        VOC,
        "--root",
        {
            "{w}/none": "{w}/none is no VOC dataset, it has no folder JPEGImages, ImageSets",
            "{w}/folder": "{w}/folder is no VOC dataset",
            "{w}/m.parquet": "{w}/m.parquet is no VOC dataset",
        },
    ),
    (VOC.replace("train", "trian"), "trian.txt does not exist in {w}/voc; lists here: test, train"),
    (f"{VOC} --year 2007", "{w}/voc holds JPEGImages itself: leave the year out"),
    *_replaced(
        COCO,
        "--annotations",
        {
            "{w}/none.json": "{w}/none.json does not exist",
            "{w}/garbage.parquet": "{w}/garbage.parquet",
        },
    ),
    *_replaced(COCO, "--images", {"{w}/none": "{w}/none is not a folder"}),
    *_replaced(
        FOLDER,
        "--images",
        {
            "{w}/none": "{w}/none is not a folder",
            "{w}/folder": "{w}/folder holds no pictures, at no depth",
            "{w}/m.parquet": "{w}/m.parquet is not a folder",
            "{w}/nopictures": "{w}/nopictures/text.jpg: not a picture in a known format",
        },
    ),
]
WITH_RAY = [
    *_replaced(
        PROPOSE,
        "--manifest",
        {
            "{w}/page.parquet": "{w}/page.parquet is not readable Parquet",
            "{w}/null.parquet": "{w}/null.parquet: row 1 has a null uri",
            "{w}/twice.parquet": "{w}/twice.parquet: image_id 'a' occurs twice",
        },
    ),
    *_replaced(
        PROPOSE,
        "--output",
        {"{w}/detections": "{w}/detections was written by a run with other settings (job: detect"},
    ),
    *_replaced(
        DETECT,
        "--checkpoint",
        {
            "{w}/truncated": "{w}/truncated/model.safetensors has 1000 bytes, model.json says",
            "{w}/weightless": "{w}/weightless/model.safetensors does not exist, though model.json",
        },
    ),
]
USAGE = [
    (f"{PROPOSE} --strategy foo", "strategy"),
    (f"{PROPOSE} --limit few", "--limit"),
    (f"{DETECT} --precision fp64", "precision"),
    (f"{DETECT} --nonsense 1", "--nonsense"),
    ("propose --manifest {w}/m.parquet", "--output"),
    ("prepare zip --output x", "zip"),
    ("analyze", "detections"),
    ("train --manifest {w}/m.parquet", "--recipe"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything, good and bad."""
    root = tmp_path_factory.mktemp("world")
    paths = draw_pictures(root / "pictures", 4)
    places = {path.stem: str(path) for path in paths}
    objects = {name: [an_object("cat", BOX)] for name in places}
    good = write_annotations(f"{root}/m.parquet", objects, ("cat",), size=(80, 60), uris=places)
    _write_bad_manifests(root, Path(good).read_bytes())
    write_voc(root / "voc")
    (root / "coco.json").write_text(json.dumps(coco_content()))
    (root / "folder").mkdir()
    (root / "nopictures").mkdir()
    (root / "nopictures" / "text.jpg").write_text("text")
    write_proposals(f"{root}/proposals", good, dict.fromkeys(places, (BOX,)))
    write_proposals(f"{root}/incomplete", good, dict.fromkeys(places, (BOX,)))
    next((root / "incomplete").glob("part-*")).unlink()
    write_proposals(f"{root}/fewer", good, dict.fromkeys(("000", "001"), (BOX,)))
    write_proposals(f"{root}/others", f"{root}/other.parquet", {f"o{i}": [BOX] for i in range(4)})
    write_detections(f"{root}/detections", good, dict.fromkeys(places, ()), ("cat",))
    record = root / "detections" / "run.json"
    record.write_text(record.read_text().replace('"test"', '"detect"'))
    _write_checkpoints(root)
    return root


def _write_bad_manifests(root: Path, good: bytes) -> None:
    write_annotations(f"{root}/other.parquet", {f"o{i}": [] for i in range(4)}, ("cat",))
    write_annotations(f"{root}/unlabelled.parquet", {f"{i:03d}": None for i in range(4)})
    (root / "zero.parquet").write_bytes(b"")
    (root / "garbage.parquet").write_bytes(b"PAR1 garbage PAR1")
    (root / "cut.parquet").write_bytes(good[: len(good) // 2])
    (root / "page.parquet").write_bytes(good[:4] + bytes(200) + good[204:])
    pq.write_table(pa.table({"image_id": ["a"]}), root / "columns.parquet")
    pq.write_table(pa.table({"image_id": [1], "uri": ["a"]}), root / "types.parquet")
    pq.write_table(schema.MANIFEST.empty_table(), root / "rows.parquet")
    pq.write_table(pa.table({"image_id": ["a", "b"], "uri": ["a", None]}), root / "null.parquet")
    pq.write_table(pa.table({"image_id": ["a", "a"], "uri": ["a", "b"]}), root / "twice.parquet")
    for name, label in (("a", "cat"), ("b", "dog")):
        rows = [ManifestRow(name, name, 9, 9, ())]
        write_manifest(f"{root}/disagree/{name}.parquet", rows, (label,))


def _write_checkpoints(root: Path) -> None:
    good = Path(random_checkpoint(root))
    record = json.loads((good / "model.json").read_text())
    told = {
        "json": "{",
        "fields": json.dumps(record | {"architecture": {"backbone": 7}}),
        "version": json.dumps(record | {"version": 9}),
    }
    for name, text in told.items():
        shutil.copytree(good, root / name)
        (root / name / "model.json").write_text(text)
    shutil.copytree(good, root / "truncated")
    shutil.copytree(good, root / "weightless")
    weights = (good / "model.safetensors").read_bytes()
    (root / "truncated" / "model.safetensors").write_bytes(weights[:1000])
    (root / "weightless" / "model.safetensors").unlink()


@contextlib.contextmanager
def _no_ray() -> Iterator[None]:
    pytest.fail("Ray was started before the input was checked")
    yield


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Ray is a failure of the test."""
    monkeypatch.setattr(cluster, "connected", _no_ray)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(("command", "told"), CASES, ids=[command for command, _ in CASES])
def test_one_line_and_code_2(
    command: str, told: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_job(*command.format(w=world).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told.format(w=world) in error
    assert not list((world / "out").glob("*"))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("command", "told"), WITH_RAY, ids=[command for command, _ in WITH_RAY])
def test_one_line_and_code_2_from_the_work(
    command: str, told: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    command = command.replace("{w}/out", f"{tmp_path}/out")
    assert run_job(*command.format(w=world).split()) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert told.format(w=world) in line
    assert not list(tmp_path.glob("out/part-*"))


@pytest.mark.usefixtures("ray_cluster")
def test_pictures_that_are_all_gone_are_rows_and_code_1(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"a": f"{tmp_path}/a.jpg", "b": f"{tmp_path}/b.jpg", "folder": str(tmp_path)}
    places |= {"bucket": "nostore://bucket/c.jpg", "null": "/x\0y"}
    manifest = f"{tmp_path}/m.parquet"
    write_annotations(manifest, dict.fromkeys(places), uris=places)
    output = f"{tmp_path}/out"
    assert run_job("propose", "--manifest", manifest, "--output", output) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: 5 of 5 images failed (5 read: MissingObject), more than the allowed fraction of 0.05; "
        f"the output {output} is complete"
    )
    rows = [row for table in open_parts(output).tables() for row in table.to_pylist()]
    assert [(row["image_id"], row["status"]) for row in rows] == [(i, "failed") for i in places]
    assert rows[0]["error_message"] == f"{tmp_path}/a.jpg does not exist"


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "s3://no-such-bucket/"),
        ({"AWS_SECRET_ACCESS_KEY": "hunter2"}, "access denied"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"}, "Could not connect to the endpoint URL"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials"),
    ],
    ids=["bucket", "keys", "endpoint", "credentials"],
)
@pytest.mark.parametrize("command", [PROPOSE, DETECT, SCORE, RECALL, VOC, FOLDER])
def test_a_store_that_cannot_be_used(
    command: str,
    change: dict[str, str],
    told: str,
    world: Path,
    s3_folder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value.format(port=free_port()))
    forget_clients()
    folder = s3_folder if change else "s3://no-such-bucket/folder"
    capsys.readouterr()
    start = time.monotonic()
    assert run_job(*command.format(w=folder).split()) == 2
    assert time.monotonic() - start < 30
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}/")
    assert error.count("\n") == 1
    assert told in error
    assert "hunter2" not in error


def test_as_a_script(world: Path) -> None:
    arguments = f"--manifest {world}/none.parquet --output {world}/out".split()
    for start, folder in ((["jobs/propose.py"], ROOT), (["-m", "jobs.propose"], world)):
        done = subprocess.run(
            [sys.executable, *start, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr == f"error: {world}/none.parquet does not exist\n"


@pytest.mark.parametrize(("command", "told"), USAGE, ids=[command for command, _ in USAGE])
def test_wrong_usage_names_the_option(
    command: str, told: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(*command.format(w=world).split()) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize("job", ["prepare", "propose", "train", "detect", "analyze"])
def test_help(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(job, "--help") == 0
    assert "usage" in capsys.readouterr().out.lower()
