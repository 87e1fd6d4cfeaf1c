"""How a manifest is cut: as the output does already, as stored proposals do, else by size."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import shards
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import Manifest, ManifestRow, open_manifest
from pipeline.runs.cut_planning import choose_shard_size, plan_cut, read_cut
from pipeline.runs.options import RunOptions

IMAGES = 20


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(uri, (ManifestRow(f"p{i}", f"/{i}", 1, 1, None) for i in range(IMAGES)), None)
    return open_manifest(uri)


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 8), (5_000, 9), (100_000, 195), (200_000, 256), (10**9, 256)]
)
def test_the_shard_size_grows_with_the_dataset_up_to_256(rows: int, size: int) -> None:
    assert choose_shard_size(rows) == size


@pytest.mark.parametrize(
    ("options", "inherited", "sizes"),
    [
        (RunOptions(), None, (8, 8, 4)),
        (RunOptions(shard_size=10), None, (10, 10)),
        (RunOptions(shard_size=10), [15, 5], (15, 5)),
        (RunOptions(limit=9), None, (8, 1)),
    ],
)
def test_a_new_output(
    options: RunOptions,
    inherited: list[int] | None,
    sizes: tuple[int, ...],
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    assert plan_cut(manifest, str(tmp_path / "out"), options, inherited).rows == sizes


def test_an_output_keeps_its_cut_unless_it_is_overwritten_or_holds_another_dataset(
    manifest: Manifest, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    assert read_cut(output) is None
    shards.write_shard_table(output, shards.cut_manifest(manifest, 7).build_shards("key"))
    assert read_cut(output) == [7, 7, 6]
    by_options = {
        RunOptions(shard_size=10): (7, 7, 6),
        RunOptions(shard_size=10, overwrite=True): (10, 10),
        RunOptions(shard_size=10, limit=15): (10, 5),
    }
    for options, sizes in by_options.items():
        assert (
            plan_cut(manifest, output, options, [10, 10] if not options.limit else None).rows
            == sizes
        )
