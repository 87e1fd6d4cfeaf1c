"""Manifests joined with proposals: what a shard holds, and which inputs are rejected."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.errors import InvalidConfiguration, MismatchedProposals, UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.training.annotated_dataset import (
    check_objects,
    open_annotated_datasets,
    open_annotated_manifests,
    read_annotations,
)
from tests.training.training_dataset import write_dataset, write_proposals


def write(folder, names, classes=("cat", "dog"), objects=()):
    uri = str(folder / f"{'-'.join(names)}.parquet")
    rows = [ManifestRow(name, f"/images/{name}.png", 10, 10, tuple(objects)) for name in names]
    write_manifest(uri, rows, classes)
    return uri


def open_dataset(manifest, proposals):
    (dataset,) = open_annotated_datasets(open_annotated_manifests([manifest]), [proposals])
    return dataset


def test_a_shard_joins_annotations_and_proposals(tmp_path):
    manifest, proposals, drawn = write_dataset(tmp_path, images=7, shard_size=3)
    dataset = open_dataset(manifest, proposals)
    shard = dataset.read(1)
    assert shard.image_ids == ["p3", "p4", "p5"]
    assert [len(boxes) > 0 for boxes in shard.proposals] == [True] * 3
    for image, annotations in zip(drawn[3:6], shard.annotations, strict=True):
        np.testing.assert_array_equal(annotations.boxes, image.boxes)
        assert tuple(dataset.classes[label - 1] for label in annotations.labels) == image.labels


def test_annotations_distinguish_null_from_empty():
    box = {"x1": 0.0, "y1": 1.0, "x2": 5.0, "y2": 6.0}
    dog = {"label": "dog", **box, "difficult": True, "crowd": False}
    cat = {"label": "cat", **box, "difficult": False, "crowd": True}
    column = pa.array([None, [dog, cat], [], [cat]], pa.list_(schema.OBJECT))
    unknown, two, none, one = read_annotations(pa.table({"objects": column}), ["cat", "dog"])
    assert unknown is None
    assert two.labels.tolist() == [2, 1]
    assert two.crowd.tolist() == [False, True]
    assert none.boxes.shape == (0, 4)
    np.testing.assert_array_equal(one.boxes, [[0, 1, 5, 6]])


def test_proposals_of_other_images_are_rejected_with_the_first_difference(tmp_path):
    manifest, other = write(tmp_path, ["a", "b", "c"]), write(tmp_path, ["a", "x", "c"])
    write_proposals(open_manifest(other), str(tmp_path / "p"), [None] * 3, 2)
    with pytest.raises(MismatchedProposals, match=r"row 1 is 'x' there and 'b' here"):
        open_dataset(manifest, str(tmp_path / "p"))


def test_proposals_still_match_images_that_were_moved(tmp_path):
    manifest = write(tmp_path, ["a", "b"])
    moved = str(tmp_path / "moved.parquet")
    rows = [ManifestRow(name, f"s3://bucket/{name}", 10, 10, ()) for name in ("a", "b")]
    write_manifest(moved, rows, ("cat", "dog"))
    write_proposals(open_manifest(moved), str(tmp_path / "p"), [None] * 2, 2)
    assert open_dataset(manifest, str(tmp_path / "p")).read(0).image_ids == ["a", "b"]


def test_proposals_of_fewer_images_are_rejected(tmp_path):
    manifest = write(tmp_path, ["a", "b", "c"])
    write_proposals(open_manifest(manifest), str(tmp_path / "p"), [None] * 2, 2)
    with pytest.raises(MismatchedProposals, match=r"for 2 images, but 3 of"):
        open_dataset(manifest, str(tmp_path / "p"))


def test_every_manifest_needs_proposals(tmp_path):
    manifests = open_annotated_manifests([write(tmp_path, ["a"]), write(tmp_path, ["b"])])
    with pytest.raises(InvalidConfiguration, match="2 manifests but 1 proposals"):
        open_annotated_datasets(manifests, [str(tmp_path / "p")])


def test_manifests_with_different_classes_are_rejected(tmp_path):
    with pytest.raises(UnreadableDataset, match="has the classes dog, but"):
        open_annotated_manifests([write(tmp_path, ["a"]), write(tmp_path, ["b"], ("dog",))])


def _write_filtered(tmp_path, name, *labels):
    """A manifest as pandas writes it: other metadata, and categories in place of strings."""
    objects = [AnnotatedObject(label, 1, 1, 9, 9) for label in labels]
    table = pq.read_table(write(tmp_path, [name], None, objects=objects))
    table = table.set_column(0, "image_id", table["image_id"].dictionary_encode())
    target = tmp_path / f"filtered-{name}.parquet"
    pq.write_table(table.replace_schema_metadata({"pandas": "{}"}), target)
    return str(target)


def test_manifests_without_a_list_take_all_their_labels_sorted(tmp_path):
    uris = [_write_filtered(tmp_path, "a", "dog", "bird"), _write_filtered(tmp_path, "b", "cat")]
    assert {m.classes for m in open_annotated_manifests(uris)} == {("bird", "cat", "dog")}


def test_given_classes_number_the_labels_of_a_manifest_without_a_list(tmp_path):
    uri = _write_filtered(tmp_path, "a", "dog", "cat")
    (manifest,) = open_annotated_manifests([uri], ["dog", "owl", "cat"])
    assert manifest.classes == ("dog", "owl", "cat")
    with pytest.raises(
        UnreadableDataset, match="of class 'cat', which is not among the classes dog"
    ):
        open_annotated_manifests([uri], ["dog"])
    with pytest.raises(InvalidConfiguration, match="names a class twice: dog, dog"):
        open_annotated_manifests([uri], ["dog", "dog"])


def test_a_manifest_without_a_list_follows_one_that_has_it(tmp_path):
    listed = write(tmp_path, ["b"], ("dog", "cat"))
    uris = [_write_filtered(tmp_path, "a", "cat"), listed]
    assert [m.classes for m in open_annotated_manifests(uris)] == [("dog", "cat")] * 2
    with pytest.raises(InvalidConfiguration, match=r"--classes is cat, dog, but .* lists dog, cat"):
        open_annotated_manifests(uris, ["cat", "dog"])
    with pytest.raises(UnreadableDataset, match="'owl', which is not among the classes dog, cat"):
        open_annotated_manifests([_write_filtered(tmp_path, "c", "owl"), listed])


def test_a_manifest_without_annotations_is_rejected(tmp_path):
    table = pq.read_table(write(tmp_path, ["a"], None))
    pq.write_table(table.drop_columns(["objects"]), tmp_path / "bare.parquet")
    with pytest.raises(UnreadableDataset, match="has no annotated objects"):
        open_annotated_manifests([str(tmp_path / "bare.parquet")])


def test_an_unknown_label_is_named():
    dog = {"label": "dog", "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0, "difficult": False}
    column = pa.array([[{**dog, "crowd": False}]], pa.list_(schema.OBJECT))
    with pytest.raises(UnreadableDataset, match="'dog'"):
        read_annotations(pa.table({"objects": column}), ["cat"])


def test_crowds_are_read_as_crowds(tmp_path):
    crowd = AnnotatedObject("cat", 1, 1, 9, 9, crowd=True)
    manifest = write(tmp_path, ["a"], objects=[crowd])
    write_proposals(open_manifest(manifest), str(tmp_path / "p"), [None], 1)
    assert open_dataset(manifest, str(tmp_path / "p")).read(0).annotations[0].crowd.tolist() == [
        True
    ]


def test_manifests_without_objects_are_rejected(tmp_path):
    crowd = AnnotatedObject("cat", 1, 1, 9, 9, crowd=True)
    without = open_annotated_manifests(
        [write(tmp_path, ["a"], objects=[crowd]), write(tmp_path, ["b"])]
    )
    with pytest.raises(UnreadableDataset, match=r"a\.parquet, .*b\.parquet: no image holds"):
        check_objects(without)
    cat = dataclasses.replace(crowd, crowd=False)
    check_objects(
        [*without, *open_annotated_manifests([write(tmp_path, ["c"], objects=[crowd, cat])])]
    )
