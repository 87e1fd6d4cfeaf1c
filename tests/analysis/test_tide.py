from dataclasses import asdict, fields

import pytest

from pipeline.analysis.tide import ErrorCounts, TideCounts, build_tide_table
from tests.analysis.scenes import draw_scenes, evaluate_with_hotcoco, make_scenes

A, B = (0, 0, 100, 100), (200, 0, 300, 100)
SHIFTED_A, SHIFTED_B = (50, 0, 150, 100), (250, 0, 350, 100)  # IoU 1/3
NOWHERE = (0, 300, 50, 350)


def compute(scenes):
    counts = TideCounts(scenes.classes)
    counts.update(scenes.match())
    return counts.compute()


@pytest.mark.parametrize("seed", range(3))
def test_gains_and_counts_are_hotcocos(seed):
    scenes = draw_scenes(images=60, seed=seed)
    expected = evaluate_with_hotcoco(scenes).tide_errors()
    errors = compute(scenes)
    assert errors.ap50 == pytest.approx(expected["ap_base"], abs=1e-12)
    gains = {name.lower(): gain for name, gain in expected["delta_ap"].items()}
    assert all(gain > 0.005 for gain in gains.values())  # hotcoco's streaming form gives zeros
    assert asdict(errors.dap) == pytest.approx(gains, abs=1e-12)
    assert asdict(errors.counts) == {name.lower(): n for name, n in expected["counts"].items()}


def test_gains_are_tidecvs():
    """Pinned figures of tidecv 1.0.1, which lays its recalls out with other roundings."""
    errors = compute(draw_scenes(images=200, seed=1))
    assert errors.ap50 == pytest.approx(0.310407, abs=1e-5)
    gains = asdict(errors.dap)
    expected = {
        "cls": 0.0625514,
        "loc": 0.1241990,
        "both": 0.0226315,
        "dupe": 0.0233307,
        "bkg": 0.0329272,
        "miss": 0.1095180,
        "fp": 0.2811767,
        "fn": 0.2088356,
    }
    assert gains == pytest.approx(expected, abs=1e-4)
    assert asdict(errors.counts) == {
        "cls": 70,
        "loc": 161,
        "both": 71,
        "dupe": 178,
        "bkg": 110,
        "miss": 134,
    }


def test_one_error_of_each_type_by_hand():
    scenes = make_scenes(
        1,
        ("cat", "dog"),
        [(0, "cat", A), (0, "cat", B)],
        [
            (0, "cat", 0.9, A),
            (0, "cat", 0.8, A),  # dupe
            (0, "cat", 0.7, SHIFTED_B),  # loc, the best detection of B
            (0, "dog", 0.6, B),  # cls, a worse one
            (0, "dog", 0.5, SHIFTED_A),  # both
            (0, "cat", 0.4, NOWHERE),  # bkg
        ],
    )
    errors = compute(scenes)
    assert errors.counts == ErrorCounts(cls=1, loc=1, both=1, dupe=1, bkg=1, miss=0)
    assert errors.per_class[1].ap50 is None  # there is no dog
    assert errors.ap50 == pytest.approx(51 / 101)
    # With B's best detection true, precision is 2/3 at recall 1; without the duplicate nothing changes.
    assert errors.dap.loc == pytest.approx(50 * (2 / 3) / 101)
    # The cls detection is not B's best, so it vanishes, like all others.
    assert (errors.dap.cls, errors.dap.dupe, errors.dap.both, errors.dap.bkg) == (0, 0, 0, 0)
    assert errors.dap.fn == pytest.approx(1 - 51 / 101)  # B need not be found


def test_a_corrected_label_counts_for_the_class_of_the_object():
    scenes = make_scenes(1, ("cat", "dog"), [(0, "cat", A)], [(0, "dog", 0.9, A)])
    errors = compute(scenes)
    assert (errors.ap50, errors.dap.cls) == (0, 1)
    assert errors.per_class[0].dap.cls == 1
    assert errors.per_class[1].counts.cls == 1


def test_results_do_not_depend_on_the_grouping():
    scenes = draw_scenes(images=30, seed=1, flags=True)
    merged = TideCounts(scenes.classes)
    for part in reversed(scenes.match_parts([7, 8, 20])):
        counts = TideCounts(scenes.classes)
        counts.update(part)
        merged.merge(counts)
    assert merged.compute() == compute(scenes)


def test_without_objects_nothing_is_defined():
    errors = compute(make_scenes(1, ("cat",), [], [(0, "cat", 0.9, A)]))
    assert errors.ap50 is None
    assert set(asdict(errors.dap).values()) == {None}
    assert errors.counts.bkg == 1


def test_the_table_has_a_row_per_class_and_type():
    scenes = draw_scenes(images=5, classes=2)
    table = build_tide_table(compute(scenes))
    assert len(table) == 3 * 8
    assert {field.name for field in fields(ErrorCounts)} <= set(table.column("error").to_pylist())
