"""The sample of a plan: large images have their share, and the seed decides alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.runs.image_strata import interleave, list_rows, read_pixel_counts, stratify
from pipeline.shards import Shard


def test_strata_have_about_equal_pixels_and_give_equally_many_images() -> None:
    pixels = np.array([100] * 80 + [1000] * 8)  # both kinds have 8000 pixels in all
    strata = stratify(pixels, np.arange(88), count=8, seed=1)
    assert [stratum.images for stratum in strata] == [80, 8]
    small, large = strata
    assert len(small.sample) == len(large.sample) == 4
    assert all(row < 80 for row in small.sample)
    assert all(row >= 80 for row in large.sample)


def test_a_stratum_of_few_images_is_measured_as_a_whole() -> None:
    pixels = np.array([100] * 50 + [50_000])
    strata = stratify(pixels, np.arange(51), count=16, seed=0)
    assert [(stratum.images, len(stratum.sample)) for stratum in strata] == [(50, 15), (1, 1)]


def test_images_of_unknown_size_form_one_stratum() -> None:
    (stratum,) = stratify(np.zeros(30, np.int64), np.arange(30), count=16, seed=0)
    assert (stratum.images, len(stratum.sample), len(set(stratum.sample))) == (30, 16, 16)


def test_all_images_are_drawn_if_there_are_no_more_than_asked_for() -> None:
    strata = stratify(np.arange(1, 6), np.arange(5), count=64, seed=0)
    assert sorted(row for stratum in strata for row in stratum.sample) == [0, 1, 2, 3, 4]


def test_the_seed_decides_the_sample() -> None:
    pixels = np.arange(1, 101)
    first, again, other = (stratify(pixels, np.arange(100), 8, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_images_that_stand_for_more_scale_the_strata() -> None:
    strata = stratify(np.ones(10, np.int64), np.arange(10), count=4, images=1000, seed=0)
    assert sum(stratum.images for stratum in strata) == 1000


def test_wherever_measuring_ends_all_strata_have_their_share() -> None:
    strata = stratify(np.array([1] * 100 + [100]), np.arange(101), count=8, seed=0)
    assert [row == 100 for row in interleave(strata)] == [False, True] + [False] * 6


def test_only_the_rows_of_the_shards_that_are_left_are_listed() -> None:
    shards = [Shard(1, "1" * 24, 3, 2), Shard(4, "4" * 24, 9, 3)]
    assert list_rows(shards, seed=0).tolist() == [3, 4, 9, 10, 11]


def test_stated_sizes_are_read_from_the_manifest(tmp_path: Path) -> None:
    rows = [
        ManifestRow("a", "/a.jpg", 10, 20, None),
        ManifestRow("b", "/b.jpg", None, None, None),
        ManifestRow("c", "/c.jpg", 3, 4, None),
    ]
    write_manifest(str(tmp_path / "m.parquet"), rows, None)
    manifest = open_manifest(str(tmp_path / "m.parquet"))
    assert read_pixel_counts(manifest, np.array([0, 1, 2])).tolist() == [200, 0, 12]
    assert read_pixel_counts(manifest, np.array([2])).tolist() == [12]
