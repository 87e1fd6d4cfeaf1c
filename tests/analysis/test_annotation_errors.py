import pickle

import numpy as np
import pytest

from pipeline.analysis import annotation_errors
from pipeline.analysis.annotation_errors import AnnotationErrorCounts
from tests.analysis.scenes import draw_scenes, make_facts, make_scenes
from tests.benchmarks.annotation_errors import Find, count_errors
from tests.benchmarks.annotation_noise import NoisyBox

A, B = (0, 0, 100, 100), (200, 0, 300, 100)
NOWHERE = (0, 300, 50, 350)


def rank(scenes, facts=None):
    """Suspects by kind, after many good detections that make scores reliable."""
    counts = AnnotationErrorCounts(scenes.classes)
    counts.update(scenes.match(), facts)
    errors = counts.compute().errors
    return {k: [e for e in errors if e.kind == k] for k in ("missing", "label", "box", "spurious")}


def make_suspicious(*detections, objects=()):
    """Twenty images in which cats and dogs are detected well, and one with these."""
    good = [(image, label, A) for image in range(20) for label in ("cat",)]
    good += [(image, "dog", B) for image in range(20)]
    found = [(image, label, 0.9, box) for image, label, box in good]
    return make_scenes(
        21,
        ("cat", "dog"),
        [*good, *((20, *entry) for entry in objects)],
        [*found, *((20, *entry) for entry in detections)],
    )


def test_a_sure_detection_of_nothing_suggests_a_missing_object():
    errors = rank(
        make_suspicious(("dog", 0.95, NOWHERE), ("cat", 0.3, (400, 0, 450, 50))), make_facts(21)
    )
    first, second = errors["missing"]
    assert (first.label, first.row, first.image_id, first.object_index) == (
        "dog",
        20,
        "image 20",
        None,
    )
    assert first.box == NOWHERE
    assert first.suspicion > 0.5 > second.suspicion
    assert not errors["label"]
    assert not errors["spurious"]


def test_two_labels_of_one_place_are_one_suspect():
    errors = rank(make_suspicious(("dog", 0.95, NOWHERE), ("cat", 0.9, NOWHERE)))
    assert [error.label for error in errors["missing"]] == ["dog"]


def test_a_sure_detection_of_another_label_suggests_a_wrong_label():
    errors = rank(make_suspicious(("dog", 0.95, A), objects=[("cat", A)]))
    (error,) = errors["label"]
    assert (error.label, error.suggested_label, error.object_index) == ("cat", "dog", 0)
    assert error.suspicion > 0.5
    assert error.iou == 1


def test_a_label_that_another_detection_confirms_is_less_suspected():
    confirmed = rank(make_suspicious(("dog", 0.95, A), ("cat", 0.95, A), objects=[("cat", A)]))
    assert confirmed["label"][0].suspicion < 0.3


def test_a_sure_detection_beside_an_object_suggests_a_misplaced_box():
    errors = rank(make_suspicious(("cat", 0.95, (30, 0, 130, 100)), objects=[("cat", A)]))
    first = errors["box"][0]
    assert (first.row, first.object_index, first.suggested_box) == (20, 0, (30, 0, 130, 100))
    assert first.iou == pytest.approx(70 / 130)
    fitting = rank(
        make_suspicious(("cat", 0.95, (30, 0, 130, 100)), ("cat", 0.9, A), objects=[("cat", A)])
    )
    assert fitting["box"][0].suspicion < first.suspicion


def test_an_object_that_nothing_supports_is_suspected():
    errors = rank(make_suspicious(objects=[("cat", A), ("cat", (200, 200, 300, 300))]))
    assert [error.object_index for error in errors["spurious"]] == [0, 1]
    assert errors["spurious"][0].suspicion > 0.5
    supported = rank(make_suspicious(("dog", 0.95, (20, 0, 120, 100)), objects=[("cat", A)]))
    assert all(error.suspicion < 0.3 for error in supported["spurious"])


def test_difficult_objects_and_crowds_are_not_suspected():
    scenes = make_scenes(
        1,
        ("cat", "dog"),
        [(0, "cat", A), (0, "cat", B)],
        [(0, "dog", 0.9, A)],
        difficult=(0,),
        crowd=(1,),
    )
    errors = rank(scenes)
    assert not errors["label"]
    assert not errors["spurious"]


def test_results_do_not_depend_on_the_grouping():
    scenes = draw_scenes(images=60, seed=1, flags=True)
    facts = make_facts(scenes.images)
    whole, merged = AnnotationErrorCounts(scenes.classes), AnnotationErrorCounts(scenes.classes)
    whole.update(scenes.match(), facts)
    for part in reversed(scenes.match_parts([7, 8, 20])):
        counts = AnnotationErrorCounts(scenes.classes)
        counts.update(part, facts)
        merged.merge(counts)
    assert merged.compute() == whole.compute()
    assert merged.build_table().equals(whole.build_table())


def test_the_most_promising_suspects_are_kept_whatever_the_grouping(monkeypatch):
    scenes = draw_scenes(images=60, seed=1, flags=True)
    facts = make_facts(scenes.images)
    every = AnnotationErrorCounts(scenes.classes)
    every.update(scenes.match(), facts)
    monkeypatch.setattr(annotation_errors, "MAX_SUSPECTS", 4)
    whole, parts, merged = (AnnotationErrorCounts(scenes.classes) for _ in range(3))
    whole.update(scenes.match(), facts)
    for part in scenes.match_parts([*range(5, 60, 5)]):
        parts.update(part, facts)
        counts = AnnotationErrorCounts(scenes.classes)
        counts.update(part, facts)
        merged.merge(pickle.loads(pickle.dumps(counts)))
    assert whole.compute() == parts.compute() == merged.compute()
    assert whole.compute().totals == every.compute().totals
    for kind in range(4):
        suspects, _ = every.rank()
        promise = np.sort(suspects["promise"][suspects["kind"] == kind])[::-1]
        kept, _ = merged.rank()
        own = np.sort(kept["promise"][kept["kind"] == kind])[::-1]
        np.testing.assert_array_equal(own, promise[:4])


def test_tables_have_a_row_per_suspect_and_image():
    counts = AnnotationErrorCounts(("class 0", "class 1"))
    scenes = draw_scenes(images=30, classes=2)
    counts.update(scenes.match(), make_facts(30))
    table, images = counts.build_table(), counts.build_image_table()
    totals = counts.compute().totals
    assert len(table) == sum(totals.values())
    assert min(totals.values()) > 0
    suspicion = np.array(table.column("suspicion"))
    assert ((suspicion >= 0) & (suspicion <= 1)).all()
    kinds = table.column("kind").to_pylist()
    for kind in totals:
        own = suspicion[[name == kind for name in kinds]]
        assert (np.diff(own) <= 0).all()
    assert (np.diff(images.column("suspicion").to_numpy()) <= 0).all()
    assert sum(images.column("errors").to_pylist()) == len(table)
    assert images.column("image_id")[0].as_py().startswith("image ")


def test_the_benchmark_counts_an_error_once():
    wanted = [NoisyBox("missing", 3, None, A), NoisyBox("label", 4, 1, B)]
    finds = [
        Find(3, None, A),
        Find(3, None, A),
        Find(4, 1, None),
        Find(4, 2, None),
        Find(5, None, A),
    ]
    assert count_errors(finds, wanted) == 2
