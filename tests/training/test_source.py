"""Manifest joined with proposals: what is read, and what is refused."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.errors import InvalidConfiguration, MismatchedProposals, UnreadableDataset
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest, write_manifest
from pipeline.training.source import annotated_objects, check_objects, open_manifests, open_sources
from tests.training.drawn import make_dataset, write_proposals


def write(folder, names, classes=("cat", "dog"), objects=()):
    uri = str(folder / f"{'-'.join(names)}.parquet")
    rows = [ManifestRow(name, f"/images/{name}.png", 10, 10, tuple(objects)) for name in names]
    write_manifest(uri, rows, classes)
    return uri


def joined(manifest, proposals):
    (source,) = open_sources(open_manifests([manifest]), [proposals])
    return source


def test_a_slice_joins_rows_of_one_shard(tmp_path):
    manifest, proposals, drawn = make_dataset(tmp_path, images=7, shard_size=3)
    source = joined(manifest, proposals)
    part = source.read(1)
    assert part.image_ids == ["p3", "p4", "p5"]
    assert [len(boxes) > 0 for boxes in part.proposals] == [True] * 3
    for image, known in zip(drawn[3:6], part.annotations, strict=True):
        np.testing.assert_array_equal(known.boxes, image.boxes)
        assert tuple(source.classes[label - 1] for label in known.labels) == image.labels


def test_annotations_keep_null_apart_from_empty():
    box = {"x1": 0.0, "y1": 1.0, "x2": 5.0, "y2": 6.0}
    dog = {"label": "dog", **box, "difficult": True, "crowd": False}
    cat = {"label": "cat", **box, "difficult": False, "crowd": True}
    column = pa.array([None, [dog, cat], [], [cat]], pa.list_(schema.OBJECT))
    unknown, two, none, one = annotated_objects(pa.table({"objects": column}), ["cat", "dog"])
    assert unknown is None
    assert two.labels.tolist() == [2, 1]
    assert two.crowd.tolist() == [False, True]
    assert none.boxes.shape == (0, 4)
    np.testing.assert_array_equal(one.boxes, [[0, 1, 5, 6]])


def test_proposals_of_other_images_name_the_first_that_differs(tmp_path):
    ours, theirs = write(tmp_path, ["a", "b", "c"]), write(tmp_path, ["a", "x", "c"])
    write_proposals(open_manifest(theirs), str(tmp_path / "p"), [None] * 3, 2)
    with pytest.raises(MismatchedProposals, match=r"row 1 is 'x' there and 'b' here"):
        joined(ours, str(tmp_path / "p"))


def test_the_same_images_elsewhere_are_the_same(tmp_path):
    ours = write(tmp_path, ["a", "b"])
    moved = str(tmp_path / "moved.parquet")
    rows = [ManifestRow(name, f"s3://bucket/{name}", 10, 10, ()) for name in ("a", "b")]
    write_manifest(moved, rows, ("cat", "dog"))
    write_proposals(open_manifest(moved), str(tmp_path / "p"), [None] * 2, 2)
    assert joined(ours, str(tmp_path / "p")).read(0).image_ids == ["a", "b"]


def test_proposals_of_fewer_images_are_refused(tmp_path):
    manifest = write(tmp_path, ["a", "b", "c"])
    write_proposals(open_manifest(manifest), str(tmp_path / "p"), [None] * 2, 2)
    with pytest.raises(MismatchedProposals, match=r"for 2 images, but 3 of"):
        joined(manifest, str(tmp_path / "p"))


def test_each_manifest_needs_its_proposals(tmp_path):
    manifests = open_manifests([write(tmp_path, ["a"]), write(tmp_path, ["b"])])
    with pytest.raises(InvalidConfiguration, match="2 manifests but 1 proposals"):
        open_sources(manifests, [str(tmp_path / "p")])


def test_manifests_of_other_classes_are_refused(tmp_path):
    with pytest.raises(UnreadableDataset, match="has the classes dog, but"):
        open_manifests([write(tmp_path, ["a"]), write(tmp_path, ["b"], ("dog",))])


def test_a_manifest_without_classes_is_refused(tmp_path):
    with pytest.raises(UnreadableDataset, match="lists no classes"):
        open_manifests([write(tmp_path, ["a"], None)])


def test_a_label_that_is_no_class_is_named():
    dog = {"label": "dog", "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0, "difficult": False}
    column = pa.array([[{**dog, "crowd": False}]], pa.list_(schema.OBJECT))
    with pytest.raises(UnreadableDataset, match="'dog'"):
        annotated_objects(pa.table({"objects": column}), ["cat"])


def test_crowds_and_difficult_objects_pass(tmp_path):
    crowd = AnnotatedObject("cat", 1, 1, 9, 9, crowd=True)
    manifest = write(tmp_path, ["a"], objects=[crowd])
    write_proposals(open_manifest(manifest), str(tmp_path / "p"), [None], 1)
    assert joined(manifest, str(tmp_path / "p")).read(0).annotations[0].crowd.tolist() == [True]


def test_no_object_to_learn_from_is_an_error(tmp_path):
    crowd = AnnotatedObject("cat", 1, 1, 9, 9, crowd=True)
    without = open_manifests([write(tmp_path, ["a"], objects=[crowd]), write(tmp_path, ["b"])])
    with pytest.raises(UnreadableDataset, match=r"a\.parquet, .*b\.parquet: no image holds"):
        check_objects(without)
    cat = dataclasses.replace(crowd, crowd=False)
    check_objects([*without, *open_manifests([write(tmp_path, ["c"], objects=[crowd, cat])])])
