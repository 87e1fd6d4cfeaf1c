"""The card of an output: its header, its text, its examples run as they stand, and what it never replaces."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pyarrow as pa
import pytest
import yaml

from pipeline import schema, shards, storage
from pipeline.candidate_thresholds import CANDIDATE_SCORES
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.manifests import open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.card_texts import KINDS, MEANINGS
from pipeline.runs.dataset_card import CARD_NAME, MARK, format_card, put_card, remove_card
from pipeline.runs.input_places import RUN_WRITES
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from tests.fuzz.targets.run_outputs import write_output
from tests.jobs.command import run_job
from tests.outputs import FailedImage, write_annotations, write_detections

JOBS = ("propose", "detect", "analyze")
SUMMARY = {"images": 5, "images_failed": 1, "failed": {"read: MissingObject": 1}}
ROOT = Path(__file__).parents[2]


def _read_header(text: str) -> Any:
    _, header, body = text.split("---\n", 2)
    assert body.startswith(f"\n{MARK}\n")
    return yaml.safe_load(header)


def _make_card(job: str, **changes: Any) -> str:
    columns = KINDS[job].columns
    return format_card(RunRecord(job, {}, **changes), SUMMARY, columns)


@pytest.mark.parametrize("job", JOBS)
def test_the_header_lets_load_dataset_read_the_parts_and_nothing_else(job: str) -> None:
    (config,) = _read_header(_make_card(job))["configs"]
    assert config["default"] is True
    (files,) = config["data_files"]
    assert re.fullmatch(r"\w+", files["split"])
    part = shards.Shard(1_234_567, "0" * 24, 0, 1).part_name
    others = [pattern.replace("*", "0001-01234567") for pattern in RUN_WRITES]
    read = [name for name in (part, *others) if fnmatch.fnmatchcase(name, files["path"])]
    assert [name for name in read if name != part] == ["part-0001-01234567.parquet"]
    assert part in read


@pytest.mark.parametrize(
    ("images", "category"),
    [(999, "n<1K"), (1_000, "1K<n<10K"), (999_999, "100K<n<1M"), (10**9, "n>1M")],
)
def test_the_category_of_size(images: int, category: str) -> None:
    card = format_card(RunRecord("detect", {}), {"images": images}, schema.DETECTIONS)
    assert _read_header(card)["size_categories"] == [category]


def test_every_column_has_a_meaning() -> None:
    columns = [
        *schema.PROPOSALS,
        *schema.DETECTIONS,
        *schema.MATCHES,
        *schema.IMAGE_FACTS,
        CANDIDATE_SCORES,
    ]
    lacking = {field.name for field in columns} - MEANINGS.keys()
    assert not lacking


def test_counts_places_and_failures_are_listed_and_escaped() -> None:
    hostile = "/data/`<script>`|\n---\nconfigs: []\x1b[31m"
    card = _make_card("detect", inputs={"manifest": hostile, "proposals": None})
    assert "| images | `5` |" in card
    assert "| failed, read: MissingObject | `1` |" in card
    assert r"| manifest | `/data/'<script>'\|\n---\nconfigs: []\x1b[31m` |" in card
    assert "proposals |" not in card
    assert list(_read_header(card)) == ["task_categories", "tags", "size_categories", "configs"]


def test_by_the_paper_s_rule_the_card_names_the_thresholds() -> None:
    assert "candidate_thresholds.json" not in _make_card("detect")
    settings = DetectionSettings(PostprocessingSettings(rule="paper"))
    record = RunRecord("detect", settings.to_record())
    assert "candidate_thresholds.json" in format_card(record, SUMMARY, schema.DETECTIONS)


def _get_code(card: str, title: str) -> str:
    match = re.search(rf"^{title}[^\n]*\n\n```\w+\n(.*?)\n```", card, re.DOTALL | re.MULTILINE)
    assert match, title
    return match[1]


@pytest.mark.parametrize("job", ["propose", "detect"])
def test_the_examples_run_as_they_stand(
    tmp_path: Path,
    job: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, planned = write_output(tmp_path, job)
    put_card(output, RunRecord(job, {}), SUMMARY, planned[0].part_name)
    card = (Path(output) / CARD_NAME).read_text()
    monkeypatch.chdir(output)
    rows = duckdb.sql(_get_code(card, "DuckDB")).fetchall()
    assert len(rows) == {"propose": 5, "detect": 5 * 2}[job]
    values: dict[str, Any] = {}
    exec(_get_code(card, "pandas"), values)
    assert sorted(values["rows"]["image_id"]) == ["a", "b", "c", "d", "e"]
    own = _get_code(card, "fast-rcnn-pipeline").replace("OUTPUT", output)
    if job == "propose":
        exec(own, values)
        assert [len(boxes) for boxes in values["boxes"]] == [3]
    else:
        python, script, *arguments = shlex.split(own.replace("\\\n", ""))
        assert (python, script) == ("python", "jobs/analyze.py")
        assert run_job("analyze", *arguments) == 0
        assert re.search(r"cat\W+5", capsys.readouterr().out)


@pytest.mark.parametrize("job", ["propose", "detect"])
def test_hugging_face_reads_the_rows_of_the_parts_alone(
    tmp_path: Path, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example as it stands, without a network; shards.parquet lies beside the parts."""
    output, planned = write_output(tmp_path, job)
    put_card(output, RunRecord(job, {}), SUMMARY, planned[0].part_name)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    example = _get_code((Path(output) / CARD_NAME).read_text(), "Hugging Face")
    assert "load_dataset" in example
    values: dict[str, Any] = {}
    exec(example.replace("OUTPUT", output), values)
    rows = values["rows"]
    assert isinstance(rows, datasets.Dataset)
    assert sorted(rows["image_id"]) == ["a", "b", "c", "d", "e"]
    if job == "propose":
        assert rows[0]["boxes"] == [[10, 10, 40, 40], [50, 50, 90, 90], [0, 0, 100, 100]]
    else:
        assert [found["label"] for found in rows[0]["detections"]] == ["cat", "dog"]


def test_the_columns_are_those_of_the_part(tmp_path: Path) -> None:
    table = pa.table({"image_id": ["a"], "status": ["ok"], "vendor": [1.5]})
    storage.put(f"{tmp_path}/part.parquet", shards.encode_part(table))
    put_card(str(tmp_path), RunRecord("detect", {}), SUMMARY, "part.parquet")
    card = (tmp_path / CARD_NAME).read_text()
    assert "| `vendor` | double |  |" in card
    assert "`detections`" not in card.partition("## How")[0]


@pytest.mark.parametrize("text", ["# Mine\n", "", f"as in {MARK} here"])
def test_a_readme_of_the_user_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / CARD_NAME
    path.write_text(text)
    put_card(str(tmp_path), RunRecord("detect", {}), SUMMARY)
    remove_card(str(tmp_path))
    assert path.read_text() == text


def test_a_folder_in_the_place_of_the_card_stays(tmp_path: Path) -> None:
    (tmp_path / CARD_NAME).mkdir()
    put_card(str(tmp_path), RunRecord("detect", {}), SUMMARY)
    remove_card(str(tmp_path))
    assert (tmp_path / CARD_NAME).is_dir()


def test_a_card_is_replaced_and_other_jobs_get_none(tmp_path: Path) -> None:
    put_card(str(tmp_path), RunRecord("export", {}), SUMMARY)
    assert not (tmp_path / CARD_NAME).exists()
    for images in (5, 7):
        put_card(str(tmp_path), RunRecord("detect", {}), {**SUMMARY, "images": images})
        assert f"| images | `{images}` |" in (tmp_path / CARD_NAME).read_text()
    remove_card(str(tmp_path))
    assert not (tmp_path / CARD_NAME).exists()


def test_a_run_finishes_with_its_card_and_overwriting_removes_it_with_the_logs(
    tmp_path: Path,
) -> None:
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"a": [], "b": []}, ("cat",))
    outcomes = {"a": [("cat", 0.9, (1, 1, 5, 5))], "b": FailedImage("decode", "X", "no")}
    output = write_detections(str(tmp_path / "out"), manifest, outcomes, ["cat"], shard_size=1)
    cut = shards.cut_manifest(open_manifest(manifest), 1)
    record = RunRecord("detect", {"dataset": cut.dataset})
    record.write(output)
    planned = cut.build_shards(record.fingerprint)
    for old, new in zip(sorted(Path(output).glob("part-*")), planned, strict=True):
        old.rename(old.with_name(new.part_name))
    shards.write_shard_table(output, planned)
    storage.put(f"{output}/logs/driver-0001-01234567.log", b"")
    storage.put(f"{output}/logs/notes.txt", b"mine")
    ready = open_run(output, record, cut, RunOptions())
    ready.finish(SUMMARY)
    assert MARK in (Path(output) / CARD_NAME).read_text()
    open_run(output, record, cut, RunOptions(overwrite=True))
    left = sorted(path.name for path in Path(output).rglob("*") if path.is_file())
    assert left == ["notes.txt", "run.json", "shards.parquet"]
