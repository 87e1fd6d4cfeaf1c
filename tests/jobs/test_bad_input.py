"""Wrong input of each job: one line that names it, exit code 2, before Ray starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.shards import open_parts
from tests.jobs.broken_inputs import (
    COCO,
    COMPARE,
    DETECT,
    FOLDER,
    PROPOSE,
    RECALL,
    SCORE,
    TRAIN,
    VOC,
    write_world,
)
from tests.jobs.command import read_error_output, run_job
from tests.outputs import write_annotations

ROOT = Path(__file__).parents[2]

MANIFESTS = {
    "{w}/none.parquet": "{w}/none.parquet does not exist",
    "{w}/folder": "{w}/folder holds no *.parquet file, so it is not a manifest",
    "{w}/zero.parquet": "{w}/zero.parquet is not readable Parquet",
    "{w}/garbage.parquet": "{w}/garbage.parquet is not readable Parquet",
    "{w}/cut.parquet": "{w}/cut.parquet is not readable Parquet",
    "{w}/columns.parquet": "{w}/columns.parquet has no column uri; a manifest has the columns image_id, uri",
    "{w}/types.parquet": "{w}/types.parquet: column image_id is int64, expected string",
    "{w}/rows.parquet": "{w}/rows.parquet is a manifest without images",
    "{w}/commas.parquet": "{w}/commas.parquet: the schema's metadata 'classes' is not JSON: b'cat,dog'",
    "{w}/five.parquet": "{w}/five.parquet: the schema's metadata 'classes' is 5, expected a list of",
    "{w}/mixed.parquet": "{w}/mixed.parquet: the schema's metadata 'classes' is ['cat', 5], expected",
    "{w}/disagree": "{w}/disagree/b.parquet lists other classes than {w}/disagree/a.parquet",
    "nostore://x/m.parquet": "nostore://x/m.parquet cannot be opened: Protocol not known",
}
UNDECODABLE = {
    "{w}/latin.parquet": "{w}/latin.parquet: an image_id or uri in rows 0 to 1 is not UTF-8"
}
MOVED = {"{w}/moved.parquet": "{w}/moved.parquet: none of the 4 images checked exist"}
CHECKPOINTS = {
    "{w}/none": "{w}/none is no checkpoint: {w}/none/model.json does not exist",
    "{w}/folder": "{w}/folder is no checkpoint",
    "{w}/m.parquet": "{w}/m.parquet is no checkpoint",
    "{w}/json": "{w}/json/model.json is not a checkpoint's record",
    "{w}/fields": "{w}/fields/model.json cannot be used",
    "{w}/version": "{w}/version/model.json has version 9, this program reads 1",
}
PROPOSALS = {
    "{w}/none": "{w}/none holds no shards.parquet: it is not the output of a propose or detect run",
    "{w}/folder": "{w}/folder holds no shards.parquet",
    "{w}/m.parquet": "{w}/m.parquet holds no shards.parquet",
    "{w}/incomplete": "{w}/incomplete lacks 1 of 2 shards: rerun the job that writes it",
    "{w}/detections": "{w}/detections holds no proposals",
    "{w}/others": "{w}/others was made for other images than {w}/m.parquet: row 0 is 'o0' there",
    "{w}/fewer": "{w}/fewer has proposals for 2 images, but 4 of {w}/m.parquet are needed",
}
OUTPUTS = {
    "{w}/m.parquet/out": "{w}/m.parquet/out cannot be written",
    "{w}/garbage.parquet": "{w}/garbage.parquet cannot be written",
    "/proc/out": "/proc/out cannot be written: No such file or directory",
    "nostore://x": "nostore://x cannot be opened: Protocol not known",
}
RUN_VALUES = {
    "--limit 0": "--limit is 0, expected at least 1",
    "--shard-size -1": "--shard-size is -1, expected at least 1",
    "--image-seconds 0": "--image-seconds is 0.0, expected more than 0",
    "--image-seconds inf": "--image-seconds is inf, expected more than 0 and less than 1000000000",
    "--no-capacity-after nan": "--no-capacity-after is nan, expected more than 0",
    "--max-failed-fraction 2": "--max-failed-fraction is 2.0, expected 0 to 1",
    "--overwrite --retry-failed": "--overwrite removes what --retry-failed would retry",
}
DETECT_VALUES = {
    "--actors 0": "--actors is 0, expected at least 1",
    "--actors -2": "--actors is -2, expected at least 1",
    "--gpus-per-actor -1": "--gpus-per-actor is -1.0, expected a share between 0 and 1 or a whole",
    "--gpus-per-actor 1.5": "--gpus-per-actor is 1.5, expected a share between 0 and 1 or a whole",
    "--gpus-per-actor inf": "--gpus-per-actor is inf, expected a share between 0 and 1 or a whole",
    "--nms-iou 2": "--nms-iou is 2.0, expected 0 to 1",
    "--max-per-image 0": "--max-per-image is 0, expected at least 1",
    "--scales 300 --scale-cap 200": "--scales, --scale-cap: short side 300 and cap 200",
    "--max-proposals 9": "--max-proposals takes the best of stored --proposals",
    "--proposals {w}/proposals --shard-size 2": "--proposals come with their shards: leave out",
    "--proposals {w}/proposals --max-proposals 0": "--max-proposals is 0, expected at least 1",
}
TRAIN_VALUES = {
    "--flip 2": "--flip is 2.0, expected 0 to 1",
    "--foreground-fraction 0": "--foreground-fraction is 0.0, expected enough for one foreground RoI",
    "--network vgg": "no backbone 'vgg'",
    "--freeze-until conv1": "--freeze-until conv1 without --weights would freeze layers at random values",
    "--weights {w}/none.pth": "{w}/none.pth does not exist",
    "--weights {w}/garbage.parquet": "{w}/garbage.parquet",
    "--propose.strategy quality": "leave out the options --propose.*",
    "--validation.manifest {w}/m.parquet": "--validation.manifest needs --validation.proposals",
    "--validation.manifest {w}/dogs.parquet --validation.proposals {w}/proposals": (
        "{w}/dogs.parquet has other classes than the network"
    ),
}


def _vary(command: str, option: str, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The command with each wrong value of one option, and a part of the expected message."""
    words = command.split()
    position = words.index(option) + 1
    for value, message in values.items():
        yield " ".join([*words[:position], value, *words[position + 1 :]]), message


CASES = [
    *_vary(PROPOSE, "--manifest", MANIFESTS | UNDECODABLE | MOVED),
    *_vary(DETECT, "--manifest", MANIFESTS | UNDECODABLE | MOVED),
    *_vary(SCORE, "--manifest", MANIFESTS),
    *_vary(RECALL, "--manifest", MANIFESTS),
    *_vary(COMPARE, "--manifest", MANIFESTS),
    *_vary(COMPARE, "--output", OUTPUTS),
    *_vary(DETECT, "--checkpoint", CHECKPOINTS),
    *_vary(f"{DETECT} --proposals x", "--proposals", PROPOSALS),
    *_vary(PROPOSE, "--output", OUTPUTS),
    *_vary(DETECT, "--output", OUTPUTS),
    *_vary(SCORE, "--output", OUTPUTS),
    *_vary(VOC, "--output", {k: v for k, v in OUTPUTS.items() if k != "{w}/garbage.parquet"}),
    *((f"{PROPOSE} {value}", message) for value, message in RUN_VALUES.items()),
    (f"{PROPOSE} --strategy foo", "unknown strategy 'foo'; choose single, fast, quality"),
    (f"{DETECT} --strategy HSV:X:50", "similarity 'X' is not a subset of CTSF"),
    *_vary(
        f"{DETECT} --proposals {{w}}/proposals --overwrite",
        "--output",
        {
            "{w}/proposals": "--output {w}/proposals is the --proposals: choose another folder",
            "{w}/folder/../proposals/": "is the --proposals: choose another folder",
            "{w}/checkpoint": "--output {w}/checkpoint is the --checkpoint: choose another folder",
            "{w}/m.parquet": "--output {w}/m.parquet is the --manifest: choose another folder",
        },
    ),
    *((f"{DETECT} {value}", message) for value, message in (RUN_VALUES | DETECT_VALUES).items()),
    (f"{DETECT} --proposals {{w}}/proposals --seed 1", "--proposals takes stored boxes as they"),
    *_vary(TRAIN, "--manifest", MANIFESTS),
    *_vary(
        TRAIN,
        "--manifest",
        {
            "{w}/unlabelled.parquet": "{w}/unlabelled.parquet has no annotated objects",
            "{w}/empty.parquet": "{w}/empty.parquet: no image holds an object to learn from",
            "{w}/flat.parquet": "{w}/flat.parquet: column objects, row 0",
            "{w}/m.parquet {w}/m.parquet": "2 manifests but 1 proposals",
            "{w}/m.parquet {w}/dogs.parquet": "{w}/dogs.parquet has the classes dog, but",
        },
    ),
    *_vary(
        TRAIN,
        "--proposals",
        PROPOSALS,
    ),
    *_vary(TRAIN, "--output", OUTPUTS),
    *((f"{TRAIN} {value}", message) for value, message in TRAIN_VALUES.items()),
    *_vary(
        SCORE,
        "--detections",
        {
            "{w}/none": "{w}/none holds no shards.parquet",
            "{w}/incomplete": "{w}/incomplete lacks 1 of 2 shards",
            "{w}/proposals": "{w}/proposals has no column detections, so no detect run wrote it",
            "{w}/others_detections": "row 0 is 'o0' in {w}/others_detections and '000' in {w}/m.parquet",
            "{w}/cut_detections": "it does not end as a Parquet file does; rerun the job that writes it",
        },
    ),
    *_vary(
        SCORE,
        "--manifest",
        {
            "{w}/other.parquet": "row 0 is '000' in {w}/detections and 'o0' in {w}/other.parquet",
            "{w}/dogs.parquet": "no class in common: the detections are of cat",
        },
    ),
    *_vary(f"{SCORE} --proposals x", "--proposals", PROPOSALS),
    (f"{SCORE} --slices {{w}}/detections/shards.parquet", "has no column image_id"),
    (f"{SCORE} --slices {{w}}/none.csv", "{w}/none.csv does not exist"),
    (f"{SCORE} --slices {{w}}/zero.parquet", "{w}/zero.parquet is neither Parquet nor CSV"),
    (f"{SCORE} --score 2", "--score is 2.0, expected 0 to 1"),
    (f"{SCORE} --iou nan", "--iou is nan, expected 0 to 1"),
    (f"{SCORE} --report-images -1", "--report-images is -1, expected at least 0"),
    *_vary(
        COMPARE,
        "--detections",
        {
            "{w}/none": "{w}/none holds no shards.parquet",
            "{w}/proposals": "{w}/proposals has no column detections, so no detect run wrote it",
            "{w}/fewer_detections": "of different images: row 1, '001', is in {w}/detections alone",
            "{w}/others_detections": "row 0 is 'o0' in {w}/others_detections and '000' in {w}/detections",
        },
    ),
    *_vary(
        COMPARE,
        "--manifest",
        {
            "{w}/other.parquet": "row 0 is '000' in {w}/detections and 'o0' in {w}/other.parquet",
            "{w}/unlabelled.parquet": "{w}/unlabelled.parquet has no annotated objects",
        },
    ),
    (f"{COMPARE} --resamples 0", "--resamples is 0, expected at least 1"),
    (f"{COMPARE} --report-images -1", "--report-images is -1, expected at least 0"),
    *_vary(
        RECALL,
        "--proposals",
        {
            "{w}/none": "{w}/none holds no shards.parquet",
            "{w}/incomplete": "{w}/incomplete lacks 1 of 2 shards",
            "{w}/detections": "{w}/detections has no column boxes, so no propose run wrote it",
            "{w}/others": "{w}/others",
        },
    ),
    *_vary(
        VOC,
        "--root",
        {
            "{w}/none": "{w}/none is not a VOC dataset: it has no folder JPEGImages, ImageSets",
            "{w}/folder": "{w}/folder is not a VOC dataset",
            "{w}/m.parquet": "{w}/m.parquet is not a VOC dataset",
        },
    ),
    (VOC.replace("train", "trian"), "trian.txt does not exist in {w}/voc; lists here: test, train"),
    (f"{VOC} --year 2007", "{w}/voc holds JPEGImages itself: omit the year"),
    *_vary(
        COCO,
        "--annotations",
        {
            "{w}/none.json": "{w}/none.json does not exist",
            "{w}/garbage.parquet": "{w}/garbage.parquet",
        },
    ),
    *_vary(COCO, "--images", {"{w}/none": "{w}/none is not a folder"}),
    *_vary(
        FOLDER,
        "--images",
        {
            "{w}/none": "{w}/none is not a folder",
            "{w}/folder": "{w}/folder holds no images at any depth",
            "{w}/m.parquet": "{w}/m.parquet is not a folder",
            "{w}/noimages": "{w}/noimages/text.jpg: not an image in an accepted format",
        },
    ),
    *_vary(
        PROPOSE,
        "--manifest",
        {
            "{w}/page.parquet": "{w}/page.parquet is not readable Parquet",
            "{w}/null.parquet": "{w}/null.parquet: row 1 has a null uri",
            "{w}/twice.parquet": "{w}/twice.parquet: image_id 'a' occurs twice",
        },
    ),
    *_vary(
        PROPOSE,
        "--output",
        {"{w}/detections": "{w}/detections was written by a run with other settings (job: detect"},
    ),
    *_vary(
        DETECT,
        "--manifest",
        {
            "{w}/page.parquet": "{w}/page.parquet is not readable Parquet",
            "{w}/null.parquet": "{w}/null.parquet: row 1 has a null uri",
            "{w}/noid.parquet": "{w}/noid.parquet: row 0 has a null image_id",
            "{w}/twice.parquet": "{w}/twice.parquet: image_id 'a' occurs twice",
            "{w}/zebras.parquet": "the checkpoint has no class of {w}/zebras.parquet: it detects "
            "cat, dog, the images show zebra; use another checkpoint",
        },
    ),
    *_vary(
        DETECT,
        "--checkpoint",
        {
            "{w}/truncated": "{w}/truncated/model.safetensors has 1000 bytes, model.json says",
            "{w}/weightless": "{w}/weightless/model.safetensors does not exist, though model.json",
        },
    ),
]
USAGE = [
    (f"{PROPOSE} --limit few", "--limit"),
    (f"{DETECT} --precision fp64", "precision"),
    (f"{DETECT} --nonsense 1", "--nonsense"),
    ("propose --manifest {w}/m.parquet", "--output"),
    ("prepare zip --output x", "zip"),
    ("analyze", "detections"),
    ("analyze compare --detections {w}/detections --manifest x --output y", "--detections"),
    ("train --manifest {w}/m.parquet", "--recipe"),
    (f"{TRAIN} --learning-rat 1", "--learning-rat"),
    (f"{TRAIN} --optimiser adam", "--optimiser"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root)
    return root


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(("command", "message"), CASES, ids=[command for command, _ in CASES])
def test_wrong_input_is_one_line_and_exit_code_2(
    command: str, message: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_job(*command.format(w=world).split()) == 2
    error = read_error_output(capsys)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message.format(w=world) in error
    assert not list((world / "out").glob("*"))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("job", ["propose", "detect"])
def test_missing_images_are_failed_rows_and_exit_code_1(
    job: str,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    uri_by_image = {"a": f"{tmp_path}/a.jpg", "b": f"{tmp_path}/b.jpg", "folder": str(tmp_path)}
    uri_by_image |= {"there": f"{world}/images/000.png"}
    uri_by_image |= {"bucket": "nostore://user:secret@bucket/c.jpg", "null": "/x\0y"}
    manifest = f"{tmp_path}/m.parquet"
    write_annotations(manifest, dict.fromkeys(uri_by_image), uris=uri_by_image)
    output = f"{tmp_path}/out"
    more = ("--checkpoint", f"{world}/checkpoint") if job == "detect" else ()
    assert run_job(job, "--manifest", manifest, "--output", output, *more) == 1
    reason = "5 read: MissingObject" if job == "detect" else "5 propose: MissingObject"
    assert f"6 images in 1 shards, 5 failed ({reason})" in caplog.messages
    assert f"output: {output}" in caplog.messages
    assert read_error_output(capsys).splitlines()[-1] == (
        f"error: 5 of 6 images failed ({reason}), more than the allowed fraction of 0.05; "
        f"the output {output} is complete"
    )
    rows = [row for table in open_parts(output).read_tables() for row in table.to_pylist()]
    assert [(row["image_id"], row["status"]) for row in rows] == [
        (name, "ok" if name == "there" else "failed") for name in uri_by_image
    ]
    assert rows[0]["error_message"] == f"{tmp_path}/a.jpg does not exist"
    assert "secret" not in f"{rows} {caplog.text}"
    if job == "detect":
        assert rows[4]["uri"] == "nostore://bucket/c.jpg"


def test_a_job_runs_as_a_script_and_as_a_module(world: Path) -> None:
    arguments = f"--manifest {world}/none.parquet --output {world}/out".split()
    for start, folder in ((["jobs/propose.py"], ROOT), (["-m", "jobs.propose"], world)):
        process = subprocess.run(
            [sys.executable, *start, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 2
        assert process.stderr == f"error: {world}/none.parquet does not exist\n"


@pytest.mark.parametrize(("command", "message"), USAGE, ids=[command for command, _ in USAGE])
def test_wrong_usage_names_the_option(
    command: str, message: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(*command.format(w=world).split()) == 2
    error = read_error_output(capsys)
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("job", ["prepare", "propose", "train", "detect", "analyze", "compress"])
def test_every_job_prints_its_help(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(job, "--help") == 0
    assert "usage" in capsys.readouterr().out.lower()
