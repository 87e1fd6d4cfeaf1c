"""The status and verify commands: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import storage
from tests.jobs.command import read_error_output, run_job
from tests.runs.reuse_outputs import write_images, write_output

NAMES = [f"i{row}" for row in range(10)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_output(str(tmp_path / "out"), write_images(tmp_path, NAMES))
    return tmp_path / "out"


def _remove_part(output: Path) -> None:
    min(output.glob("part-*")).unlink()


def test_status_of_a_finished_and_an_unfinished_output(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job("status", str(output)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"propose, finished: {output}",
        "committed: 10 of 10 images, in 3 of 3 shards; left: 0",
    ]
    assert "rate: 12.5 images/s (mean of the last start, summary.json)" in lines
    assert "driver: nothing is left to do" in lines
    assert "setting proposals.seed: 0" in lines
    _remove_part(output)
    assert run_job("status", str(output), "--watch", "0.1") == 1
    text = capsys.readouterr().out
    assert "committed: 6 of 10 images, in 2 of 3 shards; left: 4" in text
    assert "driver: cannot tell: nothing changed in 0.1 s" in text


def test_status_as_json(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _remove_part(output)
    assert run_job("status", str(output), "--watch", "0", "--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert (content["state"], content["left"], content["changed"]) == ("unfinished", 4, [])
    assert content["driver"] == "not watched"


def test_verify_prints_checks_and_faults(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = str(tmp_path / "manifest.parquet")
    assert run_job("verify", str(output), "--manifest", manifest) == 0
    assert "all checks passed: 10 rows in 3 of 3 parts" in capsys.readouterr().out
    _remove_part(output)
    assert run_job("verify", str(output), "--manifest", manifest) == 1
    text = capsys.readouterr().out
    assert "parts: part-000000-" in text
    assert "NOT RIGHT: 6 rows in 2 of 3 parts" in text


def test_verify_as_json_has_no_other_text(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _remove_part(output)
    manifest = str(tmp_path / "manifest.parquet")
    assert run_job("verify", str(output), "--manifest", manifest, "--json", "--faults", "1") == 1
    content = json.loads(capsys.readouterr().out)
    assert content["checks"]["parts"]["faults"] == 1
    assert content["right"] is False
    assert len(content["first_faults"]) == 2


@pytest.mark.parametrize("job", ["status", "verify"])
def test_what_is_no_output_is_one_line(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, NAMES)
    manifest = ("--manifest", str(tmp_path / "manifest.parquet")) if job == "verify" else ()
    assert run_job(job, str(tmp_path / "none"), *manifest) == 2
    error = read_error_output(capsys)
    assert error == f"error: {tmp_path / 'none'} does not exist\n"


def test_options_out_of_range_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job("status", str(tmp_path), "--watch", "-1") == 2
    assert "--watch is -1" in read_error_output(capsys)
    assert run_job("verify", str(tmp_path), "--manifest", "m", "--processes", "0") == 2
    assert "--processes is 0" in read_error_output(capsys)


def test_an_output_in_an_object_store(
    output: Path, tmp_path: Path, s3_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"{s3_folder}/status"
    for path in output.iterdir():
        if path.is_file():
            storage.put(f"{target}/{path.name}", path.read_bytes())
    manifest = str(tmp_path / "manifest.parquet")
    assert run_job("verify", target, "--manifest", manifest) == 0
    storage.remove(f"{target}/{min(output.glob('part-*')).name}")
    assert run_job("status", target, "--watch", "0.5") == 1
    assert "committed: 6 of 10 images" in capsys.readouterr().out
    assert run_job("status", f"{s3_folder}/none") == 2
    assert read_error_output(capsys) == f"error: {s3_folder}/none does not exist\n"
