"""A ranking is trained on a small drawn dataset; its file then orders proposals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import proposals
from pipeline.errors import InvalidConfiguration
from pipeline.manifest_writer import write_manifest
from pipeline.proposals.ranking_choice import describe_ranking, load_ranking
from pipeline.sources.drawn_dataset import draw_dataset
from pipeline.sources.voc import open_voc
from tests.jobs.command import read_error_output, run_job
from tests.outputs import make_object, write_annotations
from tests.proposals.sample_images import draw_blocks

pytest.importorskip("lightgbm", reason="the extra `rank` is not installed")

QUICK = ("--trees", "3", "--depth", "3", "--smallest-leaf", "5", "--strategies", "single")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder / "voc", train=3, test=3)
    dataset = open_voc(str(folder / "voc"), "train")
    write_manifest(str(folder / "train.parquet"), dataset.rows, dataset.classes)
    return str(folder / "train.parquet")


def test_a_trained_model_orders_proposals(
    manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ranking.json"
    assert run_job("rank", "--manifest", manifest, "--output", str(path), *QUICK) == 0
    printed = capsys.readouterr().out
    assert "3 images, " in printed
    assert f"--strategy single --ranking {path}" in printed
    model = load_ranking(str(path))
    assert model is not None
    assert (model.depth, len(model.values)) == (3, 3)
    assert model.training["strategies"] == ["single"]
    assert "/" not in json.dumps(dict(model.training))  # no paths of this machine

    image = draw_blocks(1, 90, 120)
    ranked = proposals.selective_search(image, "single", ranking=str(path))
    again = proposals.selective_search(image, "single", seed=7, ranking=model)
    assert (ranked == again).all()
    authors = proposals.selective_search(image, "single")
    assert sorted(ranked.tolist()) == sorted(authors.tolist())
    described = describe_ranking(str(path))["ranking"]
    assert described["name"] == "trained"
    with pytest.raises(InvalidConfiguration, match="not the one that the run began with"):
        load_ranking(str(path), "0" * 64)

    first = path.read_bytes()
    assert run_job("rank", "--manifest", manifest, "--output", str(path), *QUICK) == 0
    assert path.read_bytes() == first


def test_wrong_inputs_are_rejected_by_name(
    manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_annotations(str(tmp_path / "e.parquet"), {"a": []}, ("cat",))
    missing = write_annotations(
        str(tmp_path / "m.parquet"), {"a": [make_object("cat", (0, 0, 9, 9))]}, ("cat",)
    )
    output = str(tmp_path / "ranking.json")
    cases = [
        ((manifest, str(tmp_path / "ranking.txt")), "does not end in .json"),
        ((empty, output), "no annotated object"),
        ((missing, output), "none of 1 images can be read"),
        ((manifest, output, "--trees", "0"), "--trees is 0"),
        ((manifest, output, "--strategies", "slow"), "unknown strategy 'slow'"),
        ((manifest, output, "--limit", "0"), "--limit is 0"),
    ]
    for (source, target, *more), message in cases:
        assert run_job("rank", "--manifest", source, "--output", target, *more) == 2
        assert message in read_error_output(capsys)
    assert not Path(output).exists()


def test_boxes_are_weighed_by_how_many_cover_their_object() -> None:
    from pipeline.proposals.ranking_training import RankingRecipe, select_boxes

    # Two boxes cover the first object, one the second, one only a difficult one, the last none.
    boxes = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [20, 20, 30, 30], [80, 80, 90, 90]],
        np.int32,
    )
    objects = np.array([[0, 0, 10, 10], [50, 50, 60, 70]], np.float32)
    ignored = np.array([[20, 20, 30, 30]], np.float32)
    features = np.arange(5, dtype=np.float32)[:, None]
    recipe = RankingRecipe(object_weight=20, sharing=0.5)
    chosen = [
        select_boxes(boxes, features, objects, ignored, recipe, np.random.default_rng(seed))
        for seed in range(40)
    ]
    for selected in chosen:
        assert selected.features[:3, 0].tolist() == [0, 1, 2]
        assert 3 not in selected.features[:, 0]
        assert selected.overlaps[:3] == pytest.approx([1, 0.9, 0.5])
        assert selected.weights[:3] == pytest.approx([20 / 2**0.5, 20 / 2**0.5, 20])
    with_negative = [selected for selected in chosen if len(selected.weights) == 4]
    assert 4 <= len(with_negative) <= 20  # three of ten
    assert with_negative[0].weights[3] == pytest.approx(1 / 0.3)
