"""The survey_datasets: usable images and the targets' statistics."""

import numpy as np
import pytest

from pipeline import geometry
from pipeline.errors import UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.training.annotated_dataset import open_annotated_datasets, open_annotated_manifests
from pipeline.training.recipe import Recipe
from pipeline.training.survey import select_candidates, survey_datasets
from tests.training.training_dataset import open_drawn_datasets, write_proposals

CAT = AnnotatedObject("cat", 10, 10, 50, 50)


def write_datasets(folder, objects, proposals):
    manifest = str(folder / "m.parquet")
    rows = [ManifestRow(f"p{i}", f"/p{i}.png", 100, 100, o) for i, o in enumerate(objects)]
    write_manifest(manifest, rows, ("cat", "dog"))
    write_proposals(open_manifest(manifest), str(folder / "p"), proposals, 2)
    return open_annotated_datasets(open_annotated_manifests([manifest]), [str(folder / "p")])


def test_images_without_objects_are_used_unless_the_recipe_leaves_them_out(tmp_path):
    datasets = write_datasets(tmp_path, [(CAT,), (), None], [None] * 3)
    with_empty = survey_datasets(datasets, Recipe())
    assert [shard.rows.tolist() for shard in with_empty.shards] == [[0, 1], []]
    without = survey_datasets(datasets, Recipe(use_empty_images=False))
    assert [shard.rows.tolist() for shard in without.shards] == [[0], []]
    assert (with_empty.images, with_empty.objects, without.images) == (2, 1, 1)


def test_recall_counts_objects_that_a_proposal_covers(tmp_path):
    near = np.array([[12, 10, 50, 50]], np.float32)
    far = np.array([[60, 60, 90, 90]], np.float32)
    survey = survey_datasets(write_datasets(tmp_path, [(CAT,), (CAT,)], [near, far]), Recipe())
    assert survey.recall == 0.5


def test_statistics_cover_all_foreground_rois(tmp_path):
    datasets, drawn = open_drawn_datasets(tmp_path, images=12)
    statistics = survey_datasets(datasets, Recipe(flip=0.0)).statistics
    targets = {}
    for index, image in enumerate(drawn):
        shard = datasets[0].read(index // 3)
        rois = np.concatenate([shard.proposals[index % 3], image.boxes])
        overlap = geometry.iou(rois, image.boxes)
        for roi, best in zip(rois, overlap.argmax(axis=1), strict=True):
            if geometry.iou(roi[None], image.boxes[best][None])[0, 0] >= 0.5:
                coded = geometry.encode_deltas(image.boxes[best][None], roi[None])[0]
                targets.setdefault(image.labels[best], []).append(coded)
    for number, label in enumerate(datasets[0].classes, start=1):
        np.testing.assert_allclose(statistics.means[number], np.mean(targets[label], 0), atol=1e-5)
        np.testing.assert_allclose(statistics.stds[number], np.std(targets[label], 0), atol=1e-5)


def test_a_dataset_without_objects_is_rejected_by_name(tmp_path):
    crowd = AnnotatedObject("cat", 10, 10, 50, 50, crowd=True)
    datasets = write_datasets(tmp_path, [(crowd,), ()], [None, None])
    with pytest.raises(
        UnreadableDataset, match=r"none of 0 images of .*m\.parquet has a foreground RoI"
    ):
        survey_datasets(datasets, Recipe())


def test_objects_without_area_are_rejected_by_name(tmp_path):
    flat = AnnotatedObject("cat", 10, 10, 50, 10)
    with pytest.raises(UnreadableDataset, match=r"m\.parquet: .*image 'p1'.*\(10, 10, 50, 10\)"):
        write_datasets(tmp_path, [(CAT,), (CAT, flat)], [None, None])


def test_mirroring_centres_the_statistics_of_x(tmp_path):
    datasets, _ = open_drawn_datasets(tmp_path, images=6)
    statistics = survey_datasets(datasets, Recipe(flip=0.5)).statistics
    np.testing.assert_allclose(statistics.means[:, 0], 0, atol=1e-6)


def test_candidates_are_the_best_of_the_large_enough_proposals():
    boxes = np.array([[0, 0, 5, 50], [0, 0, 20, 20], [3, 3, 3, 9], [0, 0, 40, 40]], np.float32)
    candidates = select_candidates(boxes, Recipe(min_proposal_side=12, max_proposals=1))
    np.testing.assert_array_equal(candidates, boxes[1:2])
    assert len(select_candidates(boxes, Recipe())) == 3  # a box without area is none
