"""From the costs of sampled images to those of a run, by hand; and which runs cannot be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.engine.planning.image_costs import ImageCost, PartCost, SampleCosts
from pipeline.engine.planning.sampled_run import (
    StartSeconds,
    check_plannable,
    compute_totals,
    list_shards_to_plan,
    sample_images,
)
from pipeline.engine.planning.time_spent import TimeSpent
from pipeline.errors import InvalidConfiguration, MismatchedOutput, UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.image_strata import Stratum
from pipeline.runs.options import RunOptions
from pipeline.runs.plan_options import PlanOptions
from pipeline.shards import Shard, cut_manifest

SHARDS = [Shard(0, "0" * 24, 0, 6), Shard(1, "1" * 24, 6, 4)]


def _cost(row: int, cpu: float, items: int = 10, *, is_failed: bool = False) -> ImageCost:
    return ImageCost(
        row,
        TimeSpent(2 * cpu, cpu),
        bytes_read=100 * row,
        items=items,
        part_bytes=28.0 if row < 5 else 56.0,
        is_failed=is_failed,
    )


def test_totals_are_sums_over_strata_shards_and_rows() -> None:
    strata = [Stratum(8, (0, 1)), Stratum(2, (7, 8))]
    costs = [
        SampleCosts(
            [_cost(0, 1.0), _cost(7, 10.0)],
            shard=TimeSpent(0.4, 0.2),
            shards=2,
            part=PartCost(rows=2, items=20, groups=1, nbytes=128, empty_bytes=100),
        ),
        SampleCosts([_cost(1, 3.0), _cost(8, 12.0)], part=PartCost(empty_bytes=100)),
    ]
    measured = compute_totals(costs, strata, SHARDS, StartSeconds(1.5))
    per_shard = 0.1
    assert measured.propose_cpu[0] == pytest.approx(8 * 2.0 + 2 * 11.0 + 2 * per_shard)
    assert measured.propose_wall[0] == pytest.approx(2 * (8 * 2.0 + 2 * 11.0) + 2 * 2 * per_shard)
    assert measured.bytes_read[0] == pytest.approx(8 * 50 + 2 * 750)
    # The part has 28 bytes beyond an empty one for 20 boxes and 2 rows, which weigh 4 each: 1 per weight.
    # In small groups the four images, of weight 14 each, took 168 bytes, 3 per weight.
    assert measured.bytes_written[0] == pytest.approx(2 * 100 + (8 * 28 + 2 * 56) / 3)
    assert not measured.detect_cpu.any()
    assert (measured.start.tasks, measured.failed) == (1.5, 0)


def test_a_sample_that_failed_as_a_whole_plans_nothing() -> None:
    costs = [SampleCosts([_cost(0, 1.0, is_failed=True)], part=PartCost(empty_bytes=1))]
    with pytest.raises(UnreadableDataset, match="all 1 sampled images failed"):
        compute_totals(costs, [Stratum(10, (0,))], SHARDS, StartSeconds(0.0))


@pytest.mark.parametrize("option", ["overwrite", "retry_failed"])
def test_options_that_a_plan_cannot_account_for_are_rejected(option: str) -> None:
    name = option.replace("_", "-")
    with pytest.raises(InvalidConfiguration, match=f"--plan does not take --{name} into account"):
        check_plannable(RunOptions(**{option: True}))  # type: ignore[arg-type]


def _write_manifest(folder: Path) -> str:
    rows = [ManifestRow(f"{i}", f"/{i}.jpg", 10, 10 + i, None) for i in range(10)]
    uri = str(folder / "manifest.parquet")
    write_manifest(uri, rows, None)
    return uri


def test_only_shards_without_a_part_are_sampled_and_a_finished_run_is_rejected(
    tmp_path: Path,
) -> None:
    manifest = open_manifest(_write_manifest(tmp_path))
    output = tmp_path / "out"
    cut = cut_manifest(manifest, 5)
    record = RunRecord("propose", {"dataset": cut.dataset})
    record.write(str(output))
    first, second = cut.build_shards(record.fingerprint)
    (output / first.part_name).write_bytes(b"")
    (left,) = list_shards_to_plan(str(output), record, cut)
    assert left == second
    sampling = sample_images(manifest, [left], PlanOptions(plan=True, plan_images=8))
    assert {piece.shard for piece in sampling.pieces} == {second}
    assert sorted(piece.row or 0 for piece in sampling.pieces) == [0, 1, 2, 3, 4]
    (output / second.part_name).write_bytes(b"")
    with pytest.raises(MismatchedOutput, match="holds a finished run"):
        list_shards_to_plan(str(output), record, cut)


def test_a_run_that_would_be_rejected_is_not_planned(tmp_path: Path) -> None:
    cut = cut_manifest(open_manifest(_write_manifest(tmp_path)), 5)
    output = str(tmp_path / "out")
    RunRecord("propose", {"dataset": "another"}).write(output)
    with pytest.raises(MismatchedOutput, match="was written by a run with other settings"):
        list_shards_to_plan(output, RunRecord("propose", {"dataset": cut.dataset}), cut)
