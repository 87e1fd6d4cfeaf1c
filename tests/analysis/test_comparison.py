import math
from dataclasses import astuple

import numpy as np
import pytest

from pipeline.analysis.comparison import compare
from pipeline.analysis.evaluation import evaluate
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from tests.outputs import Failure, an_object, write_annotations, write_detections

BOX, AWAY = (0, 0, 10, 10), (50, 50, 90, 90)


@pytest.fixture
def dataset(tmp_path):
    """Writes a manifest of images with one cat each, and runs that find some of them."""

    def written(count, *runs, **options):
        names = [f"{i:03d}" for i in range(count)]
        manifest = write_annotations(
            str(tmp_path / "m.parquet"), {name: [an_object("cat", BOX)] for name in names}, ("cat",)
        )
        made = []
        for number, finds in enumerate(runs):
            rows = {n: [("cat", 0.5, BOX)] if i in finds else [] for i, n in enumerate(names)}
            place = str(tmp_path / f"run{number}")
            made.append(write_detections(place, manifest, rows, ("cat",), **options))
        return manifest, made

    return written


def test_two_images_by_hand(dataset):
    # The first run finds one cat of two, the second both. A resample holds both images (difference
    # 1/2), the one that both find twice (0), or the other twice (1), a quarter of the time each of these.
    manifest, runs = dataset(2, {0}, {0, 1})
    found = compare(*runs, manifest)
    assert astuple(found.voc_map50) == (0.5, 1.0, 0.5, 0.0, 1.0)
    assert found.voc07_map50.first == pytest.approx(6 / 11)
    assert found.voc07_map50.difference == pytest.approx(5 / 11)
    assert (found.images, found.resamples, found.confidence) == (2, 1000, 0.95)
    (cat,) = found.per_class
    assert (cat.label, cat.objects) == ("cat", 2)
    assert cat.ap_area == found.voc_map50


def test_the_interval_is_the_binomial_one(dataset):
    # Without false detections area AP is the share of the cats found, and over resamples of 100
    # images, of which one run finds 60 and the other none, it is binomial.
    manifest, runs = dataset(100, set(), set(range(60)), shard_size=64)
    found = compare(*runs, manifest, resamples=4000).voc_map50
    pmf = [math.comb(100, k) * 0.6**k * 0.4 ** (100 - k) for k in range(101)]
    cumulated = np.cumsum(pmf)
    low, high = (np.searchsorted(cumulated, tail) / 100 for tail in (0.025, 0.975))
    assert found.difference == pytest.approx(0.6)
    assert found.low == pytest.approx(low, abs=0.011)
    assert found.high == pytest.approx(high, abs=0.011)


def test_it_is_paired(dataset):
    # One image makes the difference: drawn k times, it is k / 100, where two runs drawn apart would
    # differ by 0.13 either way.
    manifest, runs = dataset(100, set(range(50)), set(range(51)), shard_size=64)
    found = compare(*runs, manifest).voc_map50
    assert found.difference == pytest.approx(0.01)
    assert found.low == 0
    assert 0.02 <= found.high <= 0.04


def test_equal_runs_do_not_differ(dataset):
    manifest, (run,) = dataset(5, {1, 2})
    found = compare(run, run, manifest, resamples=50)
    assert astuple(found.voc_map50)[2:] == (0, 0, 0)
    assert astuple(found.voc07_map50)[2:] == (0, 0, 0)


def test_the_order_is_the_sign_and_the_seed_decides(dataset):
    manifest, runs = dataset(9, {0, 1, 2}, {0, 4, 5, 6, 7})
    forth, back = compare(*runs, manifest, seed=5), compare(*runs[::-1], manifest, seed=5)
    assert forth == compare(*runs, manifest, seed=5)
    assert forth.voc_map50.difference == -back.voc_map50.difference
    assert forth.voc_map50.low == pytest.approx(-back.voc_map50.high)
    assert forth.voc_map50 != compare(*runs, manifest, seed=6, resamples=999).voc_map50


def test_scores_are_those_of_evaluate(tmp_path):
    rng = np.random.default_rng(0)
    classes = ("cat", "dog", "emu")
    names = [f"{i:02d}" for i in range(30)]
    objects = {n: [an_object(classes[rng.integers(2)], BOX)] for n in names}
    objects["03"], objects["04"] = [], [an_object("dog", BOX, difficult=True)]
    objects["05"] = None  # unlabelled: not scored, not drawn
    objects["06"] = [an_object("dog", BOX, crowd=True)]
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
        rows["07"] = Failure()
        size = (2, 7)[number]  # cuts may differ
        runs.append(
            write_detections(str(tmp_path / f"{number}"), manifest, rows, classes, shard_size=size)
        )
    found = compare(*runs, manifest, resamples=20)
    for which, run in zip(("first", "second"), runs, strict=True):
        metrics = evaluate(run, manifest)
        assert getattr(found.voc07_map50, which) == pytest.approx(metrics.voc07_map50)
        assert getattr(found.voc_map50, which) == pytest.approx(metrics.voc_map50)
        for ours, theirs in zip(found.per_class, metrics.per_class, strict=True):
            assert (ours.label, ours.objects) == (theirs.label, theirs.objects)
            assert getattr(ours.ap11, which) == pytest.approx(theirs.ap11)
            assert getattr(ours.ap_area, which) == pytest.approx(theirs.ap_area)
    assert found.per_class[2].ap11.low is None
    assert found.images == 29
    assert found.notes == ("1 images without annotations are left out",)


def test_runs_of_other_classes_are_told(dataset, tmp_path):
    manifest, (run,) = dataset(2, {0})
    other = write_detections(str(tmp_path / "o"), manifest, {"000": [], "001": []}, ("cat", "owl"))
    (note,) = compare(run, other, manifest, resamples=1).notes
    assert note.startswith("second: the manifest has no class owl")


def test_what_cannot_be_compared(dataset, tmp_path):
    manifest, (run,) = dataset(3, {0})
    fewer = write_detections(str(tmp_path / "f"), manifest, {"000": [], "001": []}, ("cat",))
    with pytest.raises(UnreadableDataset, match=r"row 2, '002', is in .*run0 alone"):
        compare(run, fewer, manifest)
    with pytest.raises(UnreadableDataset, match=r"row 2, '002', is in .*run0 alone"):
        compare(fewer, run, manifest)
    both = compare(fewer, fewer, manifest, resamples=1)
    assert both.notes == ("scored over the first 2 of the manifest's 3 images",)
    swapped = {name: [an_object("cat", BOX)] for name in ("000", "002", "001")}
    another = write_annotations(str(tmp_path / "a.parquet"), swapped, ("cat",))
    elsewhere = write_detections(str(tmp_path / "e"), another, dict.fromkeys(swapped, ()), ("cat",))
    with pytest.raises(UnreadableDataset, match=r"row 1 is '001' in .*run0 and '002' in .*/e"):
        compare(run, elsewhere, manifest)
    with pytest.raises(UnreadableDataset, match=r"row 1 is '001' in .*run0 and '002' in .*a\.parq"):
        compare(run, run, another)
    with pytest.raises(InvalidConfiguration, match="0 resamples"):
        compare(run, run, manifest, resamples=0)
