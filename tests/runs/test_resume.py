"""Whether a run starts, resumes or is rejected, by what the output holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import MismatchedOutput
from pipeline.run_record import RunRecord
from pipeline.runs.resume import (
    TakenOver,
    check_not_taken_over,
    find_run_to_resume,
)

RECORD = RunRecord("train", {"steps": 10}, {"manifest": "s3://here"})
OTHER = RunRecord("train", {"steps": 20})


def test_an_empty_output_is_started(tmp_path: Path) -> None:
    assert find_run_to_resume(str(tmp_path), RECORD, overwrite=False) is None
    assert not list(tmp_path.iterdir())


def test_the_same_run_is_resumed_with_what_it_resolved_even_if_its_inputs_moved(
    tmp_path: Path,
) -> None:
    earlier = RunRecord("train", {"steps": 10}, {"manifest": "s3://there"}, {"precision": "bf16"})
    earlier.write(str(tmp_path))
    assert find_run_to_resume(str(tmp_path), RECORD, overwrite=False) == earlier


def test_another_run_is_rejected_with_the_differences_or_overwritten(tmp_path: Path) -> None:
    OTHER.write(str(tmp_path))
    message = r"other settings \(steps: 20 there, 10 now\): .* pass --overwrite"
    with pytest.raises(MismatchedOutput, match=message):
        find_run_to_resume(str(tmp_path), RECORD, overwrite=False)
    assert find_run_to_resume(str(tmp_path), RECORD, overwrite=True) is None


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_record_of_another_program_is_never_overwritten(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "run.json").write_text('{"their": "file"}')
    with pytest.raises(MismatchedOutput, match="not a run's record"):
        find_run_to_resume(str(tmp_path), RECORD, overwrite=overwrite)


def test_what_only_a_run_leaves_is_rejected_without_a_record(tmp_path: Path) -> None:
    folder, remains = str(tmp_path), ("model.json", "steps/latest.json", "model.safetensors")
    assert find_run_to_resume(folder, RECORD, overwrite=False) is None
    with pytest.raises(
        MismatchedOutput, match=r"holds model\.json and 2 more files .*run\.json is missing"
    ):
        find_run_to_resume(folder, RECORD, overwrite=False, list_remains=lambda: remains)
    assert find_run_to_resume(folder, RECORD, overwrite=True, list_remains=lambda: remains) is None
    RECORD.write(folder)
    assert (
        find_run_to_resume(folder, RECORD, overwrite=False, list_remains=lambda: remains) == RECORD
    )


def test_the_run_of_another_job_is_not_overwritten(tmp_path: Path) -> None:
    """Each job removes only its own files, so a mixture would remain."""
    RunRecord("propose", {}).write(str(tmp_path))
    with pytest.raises(MismatchedOutput, match=r"a run of propose, which --overwrite of train"):
        find_run_to_resume(str(tmp_path), RECORD, overwrite=True)


def test_a_record_may_come_from_another_file(tmp_path: Path) -> None:
    earlier = find_run_to_resume(
        str(tmp_path), RECORD, overwrite=False, read_record=lambda output: RECORD
    )
    assert earlier == RECORD


def test_a_run_notices_that_another_took_its_output_over(tmp_path: Path) -> None:
    with pytest.raises(TakenOver, match=r"run\.json is not of this run"):
        check_not_taken_over(str(tmp_path), RECORD)
    RECORD.write(str(tmp_path))
    assert check_not_taken_over(str(tmp_path), RECORD) == RECORD
    OTHER.write(str(tmp_path))
    with pytest.raises(TakenOver, match=r"run\.json is not of this run"):
        check_not_taken_over(str(tmp_path), RECORD)
