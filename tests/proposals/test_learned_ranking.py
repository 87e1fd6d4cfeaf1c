"""Features worked out by hand, and rankings that depend on nothing but the image and the model."""

import numpy as np
import pytest

from pipeline.proposals.boundary_votes import LONGEST_GRID, BoundaryVotes, choose_step
from pipeline.proposals.box_agreement import count_agreement
from pipeline.proposals.feature_names import FEATURES
from pipeline.proposals.hierarchy import Segmentation, build_hierarchies
from pipeline.proposals.image_sums import sum_image
from pipeline.proposals.learned_ranking import describe_boxes, rank_by_model
from pipeline.proposals.node_evidence import collect_evidence
from pipeline.proposals.ranking_model import load_packaged_model
from pipeline.proposals.strategy import resolve_strategy
from pipeline.proposals.workspace import Workspace
from tests.proposals.sample_images import draw_blocks, draw_noise


def make_segmentation():
    """Three regions in a row on 8x4 pixels: 2, 2 and 4 wide; 0 and 1 are merged, then 2 joins them."""
    labels = np.repeat(np.array([[0, 0, 1, 1, 2, 2, 2, 2]], np.int32), 4, axis=0)
    return Segmentation(
        space="HSV",
        k=50.0,
        labels=labels,
        boxes=np.array([[0, 0, 2, 4], [2, 0, 4, 4], [4, 0, 8, 4]], np.int32),
        merges=(np.array([[0, 1], [3, 2]], np.int32),),
        merged_boxes=(np.array([[0, 0, 4, 4], [0, 0, 8, 4]], np.int32),),
        merged_sizes=(np.array([16, 32], np.int32),),
        similarities=(np.array([3.0, 1.0], np.float32),),
        sizes=np.array([8, 8, 16], np.int32),
        measures=(4,),
    )


def describe(image, segmentations, least=1):
    boxes, features = describe_boxes(image, segmentations, (least, least))
    return boxes.tolist(), [dict(zip(FEATURES, row.tolist(), strict=True)) for row in features]


def test_features_of_a_hierarchy_of_three_regions():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 255
    boxes, rows = describe(image, [make_segmentation()])
    assert boxes == [[0, 0, 2, 4], [2, 0, 4, 4], [0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 8, 4]]
    first, _, merged, last, whole = rows
    # Of 2 merges, the first is at level 1/2, the last, the whole image, at 0; regions are at 1.
    assert [row["level"] for row in rows] == [1, 1, 0.5, 1, 0]
    # Similarities of 3 and 1, of at most 4.
    assert (merged["birth"], merged["death"]) == (0.75, 0.25)
    assert (first["birth"], first["death"], whole["death"]) == (1, 0.75, 0)
    assert (first["growth"], merged["growth"], whole["growth"]) == (0.5, 0.5, 1)
    assert [row["fill"] for row in rows] == [1] * 5
    assert (last["width"], last["height"], last["aspect"]) == (0.5, 1, 0.5)
    assert last["size"] == pytest.approx(0.5**0.5)
    assert (last["centre_x"], last["centre_y"], last["borders"]) == (0.5, 0.5, 3)
    # Every side is a boundary or the image's border, and no region is cut.
    assert (last["aligned"], last["straddling"]) == (1, 0)
    # Two boundaries, between columns 1 and 2 and between 3 and 4: 8 votes of 32 pixels in 2 directions.
    assert (last["votes_inside"], whole["votes_inside"]) == (0, 8 / 32 / 2)
    # Only the left side of the last region has a neighbour, which is black.
    assert (last["side_contrast"], last["least_side_contrast"]) == pytest.approx(
        (0.999, 0.999), abs=2e-3
    )
    assert (merged["side_contrast"], first["side_contrast"]) == (last["side_contrast"], 0)
    assert (last["spread"], last["contrast"]) == (0, pytest.approx(0.999, abs=2e-3))
    assert whole["contrast"] == 0


def test_straddling_is_what_a_box_cuts_off():
    whole = make_segmentation()
    # A second segmentation, coarser: two regions of 4x4.
    coarse = Segmentation(
        space="Lab",
        k=100.0,
        labels=np.repeat(np.array([[0] * 4 + [1] * 4], np.int32), 4, axis=0),
        boxes=np.array([[0, 0, 4, 4], [4, 0, 8, 4]], np.int32),
        merges=(np.array([[0, 1]], np.int32),),
        merged_boxes=(np.array([[0, 0, 8, 4]], np.int32),),
        merged_sizes=(np.array([32], np.int32),),
        similarities=(np.array([1.0], np.float32),),
        sizes=np.array([16, 16], np.int32),
        measures=(1,),
    )
    boxes, rows = describe(np.zeros((4, 8, 3), np.uint8), [whole, coarse])
    by_box = {tuple(box): row for box, row in zip(boxes, rows, strict=True)}
    # 8 of the 16 pixels of the coarse left region lie inside, 8 outside: 8 of the box's 8.
    assert by_box[0, 0, 2, 4]["straddling"] == 1
    assert by_box[0, 0, 4, 4]["straddling"] == 0
    # The right side is a boundary in one of two segmentations; three sides are the image's.
    assert by_box[0, 0, 2, 4]["aligned"] == (1 + 1 + 1 + 0.5) / 4
    # Both hierarchies have the box: once as a merge of full similarity 3 / 4, once as a region.
    assert by_box[0, 0, 4, 4]["birth"] == (0.75 + 1) / 2
    assert by_box[0, 0, 4, 4]["level"] == (0.5 + 1) / 2


def test_agreement_counts_the_boxes_that_overlap():
    # By area: 90, 100, 100 (elsewhere), 130. IoU of the first two .9, of the first and last 90 / 130 = .69,
    # of the second and last 100 / 130 = .77.
    boxes = np.array([[0, 0, 9, 10], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 13, 10]], np.int32)
    agreement = np.empty((4, 2), np.float32)
    count_agreement(boxes, np.array([1, 2, 4, 8], np.int32), agreement)
    assert agreement.tolist() == [[2, 2], [1 + 8, 1], [0, 0], [2, 0]]


def test_integral_images_are_sums():
    image = draw_blocks(3, 20, 30)
    votes = BoundaryVotes(20, 30)
    votes.add((np.arange(600, dtype=np.int32).reshape(20, 30) // 7) % 5)
    sums = sum_image(image, votes)
    expected = image[:7, :11].astype(int)
    assert sums.inside[7, 11, :3].tolist() == expected.sum(axis=(0, 1)).tolist()
    assert sums.inside[7, 11, 3] == ((expected**2).sum(axis=2) >> 8).sum()
    assert sums.inside[7, 11, 5] == votes.across[:7, :11].sum() + votes.down[:7, :11].sum()
    assert (sums.across[20] == votes.across.sum(axis=0)).all()
    assert (sums.down[:, 30] == votes.down.sum(axis=1)).all()
    assert votes.across[:, -1].sum() == votes.down[-1].sum() == 0


def test_large_images_are_sampled():
    assert choose_step(LONGEST_GRID, 1) == 1
    assert choose_step(1, LONGEST_GRID + 1) == 2
    votes = BoundaryVotes(3 * LONGEST_GRID, 5)
    labels = np.zeros((3 * LONGEST_GRID, 5), np.int32)
    labels[3:] = 1
    votes.add(labels)
    assert votes.across.shape == (LONGEST_GRID, 2)
    assert (votes.down[0] == 1).all()
    assert votes.down.sum() == 2


def test_the_order_of_hierarchies_does_not_matter():
    image = draw_blocks(1, 60, 90)
    strategy = resolve_strategy("HSV,Lab:CTSF,S:50,100")
    segmentations = list(build_hierarchies(image, strategy, Workspace()))
    labels = [segmentation.labels.copy() for segmentation in segmentations]
    boxes = [collect_evidence(order, 1, 1).boxes for order in (segmentations, segmentations[::-1])]
    assert (boxes[0] == boxes[1]).all()
    assert len(np.unique(boxes[0], axis=0)) == len(boxes[0])
    assert len(labels) == 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 900), (700, 3), (40, 50)])
def test_any_shape_is_ranked_and_features_are_finite(shape):
    image = draw_noise(0, *shape)
    strategy = resolve_strategy("lean")
    boxes, features = describe_boxes(image, build_hierarchies(image, strategy, Workspace()), (1, 1))
    assert np.isfinite(features).all()
    assert [0, 0, shape[1], shape[0]] in boxes.tolist()
    model, _ = load_packaged_model()
    ranked = rank_by_model(image, build_hierarchies(image, strategy, Workspace()), (1, 1), model)
    assert sorted(ranked.tolist()) == sorted(boxes.tolist())


def test_only_boxes_of_the_least_sides_are_described():
    image = draw_blocks(2, 60, 90)
    hierarchies = build_hierarchies(image, resolve_strategy("lean"), Workspace())
    boxes, _ = describe_boxes(image, hierarchies, (30, 20))
    assert (boxes[:, 2] - boxes[:, 0]).min() >= 30
    assert (boxes[:, 3] - boxes[:, 1]).min() >= 20
    hierarchies = build_hierarchies(image, resolve_strategy("lean"), Workspace())
    boxes, features = describe_boxes(image, hierarchies, (91, 1))
    assert (boxes.shape, features.shape) == ((0, 4), (0, len(FEATURES)))
