"""Outputs that would overwrite an input, by every way to name the same place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.runs.input_places import (
    CHECKPOINT_WRITES,
    RUN_WRITES,
    check_apart,
    resolve_place,
)
from pipeline.training import training_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `input`, a link to it, and a link to the folder that holds it."""
    (tmp_path / "input" / "steps").mkdir(parents=True)
    (tmp_path / "link").symlink_to("input")
    (tmp_path / "up").symlink_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "output",
    [
        "input",
        "input/",
        "input//",
        "./input",
        "link",
        "link/",
        "up/input",
        "up/up/link",
        "input/../input",
        "input/steps/..",
        "missing/../input",
        "link/../input",
    ],
)
@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
def test_an_output_that_is_an_input_is_rejected_however_it_is_named(
    folder: Path, output: str, prefix: str
) -> None:
    message = "is the --manifest: choose another folder"
    with pytest.raises(InvalidConfiguration, match=message):
        check_apart(f"{prefix}{folder}/{output}", {"manifest": f"{folder}/input"})
    inputs = {"manifest": f"{prefix}{folder}/{output}", "proposals": None}
    with pytest.raises(InvalidConfiguration, match=message):
        check_apart(f"{folder}/input", inputs)


def test_a_relative_output_is_resolved_from_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "input")
    for output in (".", "steps/..", "../link"):
        with pytest.raises(InvalidConfiguration, match="is the --proposals"):
            check_apart(output, {"proposals": str(folder / "input")})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("s3://b/x", "s3://b/x/"),
        ("s3://b/x", "s3a://b/x"),
        ("gs://b/x//", "gcs://b/x"),
        ("abfss://c@a.host/x", "abfs://c@a.host/x"),
        ("memory://x", "memory://x/"),
    ],
)
def test_the_names_of_a_store_are_one_place(first: str, second: str) -> None:
    assert resolve_place(first) == resolve_place(second)
    with pytest.raises(InvalidConfiguration, match="is the --checkpoint"):
        check_apart(first, {"checkpoint": second})


@pytest.mark.parametrize(
    ("first", "second"),
    [("s3://b/x", "s3://b/xy"), ("s3://b/x", "gs://b/x"), ("/b/x", "s3://b/x"), ("/x", "/x\0")],
)
def test_other_places_stay_apart(first: str, second: str) -> None:
    check_apart(first, {"manifest": second}, ("*",))


@pytest.mark.parametrize(
    ("writes", "input_name"),
    [
        (RUN_WRITES, "shards.parquet"),
        (RUN_WRITES, "part-000000-abc.parquet"),
        (RUN_WRITES, "README.md"),
        (RUN_WRITES, "logs/progress-0001-01234567.jsonl"),
        (CHECKPOINT_WRITES, "model.safetensors"),
        (training_files.WRITES, "model.safetensors"),
        (training_files.WRITES, "best"),
        (training_files.WRITES, "best/model.safetensors"),
        (training_files.WRITES, "steps/state-000000250.pt"),
        (("metrics.json",), "metrics.json"),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_an_input_among_what_the_job_writes_is_rejected(
    folder: Path, writes: tuple[str, ...], input_name: str, shared: bool
) -> None:
    for output in ("input", "link", "up/input/"):
        with pytest.raises(InvalidConfiguration, match=r"would overwrite the --weights .* writes"):
            check_apart(
                f"{folder}/{output}",
                {"weights": f"{folder}/input/{input_name}"},
                writes,
                may_share_folder=shared,
            )


def test_a_link_to_a_file_that_the_job_writes_is_rejected(folder: Path) -> None:
    (folder / "input" / "model.safetensors").write_bytes(b"")
    (folder / "pretrained").symlink_to("input/model.safetensors")
    with pytest.raises(InvalidConfiguration, match="would overwrite the --weights"):
        check_apart(f"{folder}/input", {"weights": f"{folder}/pretrained"}, training_files.WRITES)


def test_inputs_beside_what_the_job_writes_are_accepted(folder: Path) -> None:
    output = f"{folder}/input"
    inputs = {"manifest": f"{output}/train.parquet", "checkpoint": f"{output}/best"}
    inputs |= {"weights": f"{output}/logs/weights.pt"}
    check_apart(output, inputs, RUN_WRITES)
    check_apart(output, {"proposals": f"{output}/proposals"}, training_files.WRITES)
    check_apart(f"{output}/detections", {"checkpoint": output}, RUN_WRITES)
    check_apart(output, {"detections": output}, ("metrics.json",), may_share_folder=True)


def test_each_of_several_inputs_is_compared(folder: Path) -> None:
    inputs = [f"{folder}/one", f"{folder}/input"]
    with pytest.raises(InvalidConfiguration, match=r"is the --validation\.manifest"):
        check_apart(f"{folder}/link", {"validation.manifest": inputs})


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_a_loop_of_links_is_a_place_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    check_apart(f"{tmp_path}/a", {"manifest": f"{tmp_path}/m.parquet"})
