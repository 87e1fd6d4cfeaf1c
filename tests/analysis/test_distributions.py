import pytest

from pipeline import shards
from pipeline.analysis.distributions import DistributionCounts, build_distribution_table
from tests.outputs import FailedImage, write_annotations, write_detections

COLUMNS = ["status", "stage", "error_type", "detections"]


@pytest.fixture
def tables(tmp_path):
    images = {
        "a": [
            ("cat", 0.96, (0, 0, 10, 10)),
            ("cat", 0.5, (0, 0, 50, 50)),
            ("dog", 1.0, (0, 0, 99, 99)),
        ],
        "b": [],
        "c": FailedImage("UnreadableImage", "read"),
        "d": [("cow", 0.05, (0, 0, 10, 10))],
    }
    manifest = write_annotations(f"{tmp_path}/m.parquet", dict.fromkeys(images))
    uri = write_detections(f"{tmp_path}/d", manifest, images, ["cat", "dog", "cow"])
    parts = shards.open_parts(uri)
    return [parts.read(shard, COLUMNS) for shard in parts.shards]


def compute(tables):
    counts = DistributionCounts(("cat", "dog"))
    for table in tables:
        counts.update(table)
    return counts.compute()


def test_figures_by_hand(tables):
    distributions = compute(tables)
    assert (distributions.images, distributions.failed, distributions.without_detections) == (
        4,
        1,
        1,
    )
    assert distributions.failed_by_reason == {"read: UnreadableImage": 1}
    assert distributions.per_image == (0, 0, 1, 3, 3)
    assert distributions.per_image_counts == {0: 1, 1: 1, 2: 1}
    cat, dog = distributions.per_class
    assert (cat.detections, cat.images, dog.detections) == (2, 1, 1)
    assert cat.sizes == (1, 1, 0)
    assert (cat.scores[19], cat.scores[10], sum(cat.scores)) == (1, 1, 2)
    assert dog.scores[19] == 1
    assert distributions.overall.detections == 4  # a label that is not among the classes too
    assert distributions.overall.images == 2


def test_results_do_not_depend_on_the_grouping(tables):
    merged = DistributionCounts(("cat", "dog"))
    for table in reversed(tables):
        counts = DistributionCounts(("cat", "dog"))
        counts.update(table)
        merged.merge(counts)
    assert len(tables) == 2
    assert merged.compute() == compute(tables)


def test_the_table_counts_every_detection_by_score_and_by_size(tables):
    rows = build_distribution_table(compute(tables)).to_pylist()
    for figure in ("score", "size"):
        assert (
            sum(r["detections"] for r in rows if r["figure"] == figure and r["label"] is None) == 4
        )
