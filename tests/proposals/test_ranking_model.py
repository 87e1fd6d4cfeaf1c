import json

import numpy as np
import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.proposals.feature_names import FEATURES
from pipeline.proposals.learned_ranking import LOWEST_SCORE, score_boxes
from pipeline.proposals.ranking_model import (
    PACKAGED,
    RankingModel,
    digest_model,
    load_packaged_model,
    parse_model,
)


def make_model(**changes):
    """Two trees of depth 2: of the first, feature 1 decides; of the second, feature 0, then feature 2."""
    arrays = {
        "questions": np.array([[1, 0, 0], [0, 2, 2]], np.int32),
        "thresholds": np.array([[0.5, 0, 0], [0.1, 2, 3]], np.float32),
        "values": np.array([[0.1, 0.1, 0.4, 0.4], [0.01, 0.02, 0.03, 0.04]], np.float32),
    }
    return RankingModel(**(arrays | changes), base=0.25, training={"images": 2})


def test_a_box_goes_left_up_to_the_threshold_and_the_values_add_up():
    rows = np.zeros((4, len(FEATURES)), np.float32)
    rows[:, :3] = [[0, 0, 0], [0.1, 0.5, 2], [0.2, 0.6, 3], [0.2, 0.5, 3.5]]
    expected = [0.25 + 0.1 + 0.01, 0.25 + 0.1 + 0.01, 0.25 + 0.4 + 0.03, 0.25 + 0.1 + 0.04]
    assert score_boxes(make_model(), rows) == pytest.approx(expected)
    assert score_boxes(make_model(), rows[:0]).shape == (0,)


def test_scores_of_many_boxes_are_those_of_single_ones():
    random = np.random.default_rng(0)
    model = make_model(questions=random.integers(0, len(FEATURES), (2, 3)).astype(np.int32))
    rows = random.random((150, len(FEATURES)), np.float32)
    together = score_boxes(model, rows)
    assert len(set(together.tolist())) > 2
    assert together.tolist() == [score_boxes(model, row[None])[0] for row in rows]


def test_a_score_is_never_zero_or_negative():
    model = make_model(values=np.full((2, 4), -5, np.float32))
    assert score_boxes(model, np.zeros((1, len(FEATURES)), np.float32)) == [LOWEST_SCORE]


def test_a_models_file_is_read_again():
    content = make_model().to_json().encode()
    model = parse_model(content, "m.json")
    for name in ("questions", "thresholds", "values"):
        assert (getattr(model, name) == getattr(make_model(), name)).all()
    assert (model.depth, model.base, model.training) == (2, 0.25, {"images": 2})
    assert model.to_json().encode() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "boxes"}, "format is not 'box ranking'"),
        ({"version": 2}, "version is 2, expected 1"),
        ({"features": ["size"]}, "train it again"),
        ({"depth": 11}, "2 trees of depth 11"),
        ({"trees": []}, "0 trees"),
        ({"depth": 3}, "questions is a list of 3|questions is .*expected a list of 7"),
        ({"base": None}, "base is null"),
        ({"trees": [{"questions": [0, 99, 0], "thresholds": [0] * 3, "values": [0] * 4}]}, "0 to"),
        (
            {"trees": [{"questions": [0] * 3, "thresholds": [1e300] * 3, "values": [0] * 4}]},
            "large",
        ),
        ({"trees": [{"questions": [0] * 3, "thresholds": [0] * 3, "values": ["1"] * 4}]}, "values"),
    ],
)
def test_a_damaged_model_is_rejected_by_name(change, message):
    content = json.loads(make_model().to_json()) | change
    with pytest.raises(InvalidConfiguration, match=rf"m\.json is no ranking model.*({message})"):
        parse_model(json.dumps(content).encode(), "m.json")
    with pytest.raises(InvalidConfiguration, match=r"m\.json is no ranking model"):
        parse_model(b"\xff{", "m.json")


def test_the_packaged_model_is_small_and_names_its_training():
    model, digest = load_packaged_model()
    content = PACKAGED.read_bytes()
    assert len(content) <= 200_000
    assert digest == digest_model(content)
    assert model.to_json().encode() == content
    assert model.training["images"] > 0
