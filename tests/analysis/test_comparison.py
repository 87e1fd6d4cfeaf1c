import math
from dataclasses import astuple

import numpy as np
import pytest

from pipeline.analysis.comparison import compare
from pipeline.analysis.evaluation import evaluate
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from tests.outputs import FailedImage, make_object, write_annotations, write_detections

BOX, AWAY = (0, 0, 10, 10), (50, 50, 90, 90)


@pytest.fixture
def write_dataset(tmp_path):
    """Writes a manifest of images with one cat each, and runs that find some of them."""

    def write_runs(count, *runs, **options):
        names = [f"{i:03d}" for i in range(count)]
        manifest = write_annotations(
            str(tmp_path / "m.parquet"),
            {name: [make_object("cat", BOX)] for name in names},
            ("cat",),
        )
        outputs = []
        for number, finds in enumerate(runs):
            rows = {n: [("cat", 0.5, BOX)] if i in finds else [] for i, n in enumerate(names)}
            place = str(tmp_path / f"run{number}")
            outputs.append(write_detections(place, manifest, rows, ("cat",), **options))
        return manifest, outputs

    return write_runs


def test_a_comparison_of_two_images_matches_a_hand_calculation(write_dataset):
    # The first run finds one cat of two, the second both. A resample holds both images (difference
    # 1/2), or with probability 1/4 twice the image that both find (0), or twice the other (1).
    manifest, runs = write_dataset(2, {0}, {0, 1})
    comparison = compare(*runs, manifest)
    assert astuple(comparison.voc_map50) == (0.5, 1.0, 0.5, 0.0, 1.0)
    assert comparison.voc07_map50.first == pytest.approx(6 / 11)
    assert comparison.voc07_map50.difference == pytest.approx(5 / 11)
    assert (comparison.images, comparison.resamples, comparison.confidence) == (2, 1000, 0.95)
    (cat,) = comparison.per_class
    assert (cat.label, cat.objects) == ("cat", 2)
    assert cat.ap_area == comparison.voc_map50


def test_the_interval_equals_the_binomial_one(write_dataset):
    # Without false detections area AP is the share of the cats that are found. One run finds 60 of
    # 100 and the other none, so over resamples the difference is binomial.
    manifest, runs = write_dataset(100, set(), set(range(60)), shard_size=64)
    comparison = compare(*runs, manifest, resamples=4000).voc_map50
    pmf = [math.comb(100, k) * 0.6**k * 0.4 ** (100 - k) for k in range(101)]
    cumulated = np.cumsum(pmf)
    low, high = (np.searchsorted(cumulated, tail) / 100 for tail in (0.025, 0.975))
    assert comparison.difference == pytest.approx(0.6)
    assert comparison.low == pytest.approx(low, abs=0.011)
    assert comparison.high == pytest.approx(high, abs=0.011)


def test_the_bootstrap_is_paired(write_dataset):
    # One image makes the difference: if it is drawn k times, the difference is k / 100. Unpaired draws
    # of the two runs would differ by 0.13 in either direction.
    manifest, runs = write_dataset(100, set(range(50)), set(range(51)), shard_size=64)
    comparison = compare(*runs, manifest).voc_map50
    assert comparison.difference == pytest.approx(0.01)
    assert comparison.low == 0
    assert 0.02 <= comparison.high <= 0.04


def test_equal_runs_do_not_differ(write_dataset):
    manifest, (run,) = write_dataset(5, {1, 2})
    comparison = compare(run, run, manifest, resamples=50)
    assert astuple(comparison.voc_map50)[2:] == (0, 0, 0)
    assert astuple(comparison.voc07_map50)[2:] == (0, 0, 0)


def test_swapped_runs_swap_the_sign_and_equal_seeds_give_equal_results(write_dataset):
    manifest, runs = write_dataset(9, {0, 1, 2}, {0, 4, 5, 6, 7})
    forth, back = compare(*runs, manifest, seed=5), compare(*runs[::-1], manifest, seed=5)
    assert forth == compare(*runs, manifest, seed=5)
    assert forth.voc_map50.difference == -back.voc_map50.difference
    assert forth.voc_map50.low == pytest.approx(-back.voc_map50.high)
    assert forth.voc_map50 != compare(*runs, manifest, seed=6, resamples=999).voc_map50


def test_scores_equal_those_of_evaluate(tmp_path):
    rng = np.random.default_rng(0)
    classes = ("cat", "dog", "emu")
    names = [f"{i:02d}" for i in range(30)]
    objects = {n: [make_object(classes[rng.integers(2)], BOX)] for n in names}
    objects["03"], objects["04"] = [], [make_object("dog", BOX, difficult=True)]
    objects["05"] = None  # unlabelled: not scored, not drawn
    objects["06"] = [make_object("dog", BOX, crowd=True)]
    manifest = write_annotations(str(tmp_path / "m.parquet"), objects, classes)
    runs = []
    for number in range(2):
        rows = {
            name: [
                (classes[rng.integers(3)], float(rng.random()), (BOX, AWAY)[rng.integers(2)])
                for _ in range(rng.integers(4))
            ]
            for name in names
        }
        rows["07"] = FailedImage()
        size = (2, 7)[number]  # cuts may differ
        runs.append(
            write_detections(str(tmp_path / f"{number}"), manifest, rows, classes, shard_size=size)
        )
    comparison = compare(*runs, manifest, resamples=20)
    for which, run in zip(("first", "second"), runs, strict=True):
        metrics = evaluate(run, manifest)
        assert getattr(comparison.voc07_map50, which) == pytest.approx(metrics.voc07_map50)
        assert getattr(comparison.voc_map50, which) == pytest.approx(metrics.voc_map50)
        for compared, evaluated in zip(comparison.per_class, metrics.per_class, strict=True):
            assert (compared.label, compared.objects) == (evaluated.label, evaluated.objects)
            assert getattr(compared.ap11, which) == pytest.approx(evaluated.ap11)
            assert getattr(compared.ap_area, which) == pytest.approx(evaluated.ap_area)
    assert comparison.per_class[2].ap11.low is None
    assert comparison.images == 29
    assert comparison.notes == ("1 images without annotations are left out",)


def test_a_note_names_classes_that_the_manifest_lacks(write_dataset, tmp_path):
    manifest, (run,) = write_dataset(2, {0})
    other = write_detections(str(tmp_path / "o"), manifest, {"000": [], "001": []}, ("cat", "owl"))
    (note,) = compare(run, other, manifest, resamples=1).notes
    assert note.startswith("second: the manifest has no class owl")


def test_a_note_counts_images_of_another_size_than_stated(write_dataset, tmp_path):
    manifest, (run,) = write_dataset(2, {0})
    mismatch = FailedImage("SizeMismatch", "decode", "annotated as 90x120, stored as 120x90")
    rows = {"000": [], "001": mismatch}
    other = write_detections(str(tmp_path / "o"), manifest, rows, ("cat",))
    (note,) = compare(run, other, manifest, resamples=1).notes
    assert note.startswith("second: 1 of the failed images have another size")


def test_runs_of_different_images_are_rejected(write_dataset, tmp_path):
    manifest, (run,) = write_dataset(3, {0})
    fewer = write_detections(str(tmp_path / "f"), manifest, {"000": [], "001": []}, ("cat",))
    with pytest.raises(UnreadableDataset, match=r"row 2, '002', is in .*run0 alone"):
        compare(run, fewer, manifest)
    with pytest.raises(UnreadableDataset, match=r"row 2, '002', is in .*run0 alone"):
        compare(fewer, run, manifest)
    both = compare(fewer, fewer, manifest, resamples=1)
    assert both.notes == ("scored over the first 2 of the manifest's 3 images",)
    swapped = {name: [make_object("cat", BOX)] for name in ("000", "002", "001")}
    another = write_annotations(str(tmp_path / "a.parquet"), swapped, ("cat",))
    elsewhere = write_detections(str(tmp_path / "e"), another, dict.fromkeys(swapped, ()), ("cat",))
    with pytest.raises(UnreadableDataset, match=r"row 1 is '001' in .*run0 and '002' in .*/e"):
        compare(run, elsewhere, manifest)
    with pytest.raises(UnreadableDataset, match=r"row 1 is '001' in .*run0 and '002' in .*a\.parq"):
        compare(run, run, another)
    with pytest.raises(InvalidConfiguration, match="--resamples is 0"):
        compare(run, run, manifest, resamples=0)
