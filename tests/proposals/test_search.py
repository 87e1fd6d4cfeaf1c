import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InvalidConfiguration, MissingObject, UnreadableImage
from pipeline.proposals import (
    Strategy,
    derive_image_seed,
    describe_provenance,
    selective_search,
    warm_up_kernels,
)
from pipeline.proposals.ranking_model import load_packaged_model
from pipeline.proposals.settings import ProposalSettings
from pipeline.proposals.workspace import MAX_RETAINED_BYTES, Workspace
from tests.proposals.sample_images import draw_blocks, draw_noise, images


@settings(deadline=None, max_examples=30)
@given(
    image=images(40),
    seed=st.integers(0, 2**63 - 1),
    min_side=st.sampled_from([1, 3, 20]),
    max_boxes=st.sampled_from([None, 1, 10]),
    max_side=st.sampled_from([None, 1, 16]),
)
def test_boxes_are_inside_the_image_unique_large_enough_and_at_most_max_boxes(
    image, seed, min_side, max_boxes, max_side
):
    boxes = selective_search(
        image, "single", seed, min_side=min_side, max_boxes=max_boxes, max_side=max_side
    )
    height, width = image.shape[:2]
    assert boxes.dtype == np.float32
    assert boxes.shape[1:] == (4,)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= min_side).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert len(boxes) <= (max_boxes or len(boxes))
    if min_side == 1 and max_boxes is None:
        assert [0, 0, width, height] in boxes.tolist()


@pytest.mark.parametrize("backend", ["native", "selectivesearch", "opencv"])
def test_every_backend_finds_the_square(backend):
    image = np.full((80, 100, 3), 40, np.uint8)
    image[20:60, 30:70] = (220, 60, 20)
    image = np.clip(image + draw_noise(0, 80, 100).astype(int) % 5, 0, 255).astype(np.uint8)
    boxes = selective_search(image, "fast", backend=backend)
    assert boxes.dtype == np.float32
    # The smoothing of each backend may move an edge by a pixel or two.
    assert np.abs(boxes - [30, 20, 70, 60]).max(axis=1).min() <= 3
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes.min(axis=0) >= 0).all()
    assert (boxes.max(axis=0) <= [100, 80, 100, 80]).all()


def test_the_best_boxes_are_the_first_of_all_boxes():
    image = draw_blocks(1, 60, 80)
    everything = selective_search(image, min_side=1)
    assert len(everything) > 20
    assert (selective_search(image, min_side=1, max_boxes=20) == everything[:20]).all()
    sides = everything[:, 2:] - everything[:, :2]
    wide = everything[(sides >= 20).all(axis=1)]
    assert (selective_search(image, min_side=20) == wide).all()


def test_equal_seeds_give_equal_boxes_on_any_number_of_threads():
    images = [draw_blocks(seed, 50 + 7 * seed, 90 - 5 * seed) for seed in range(6)]
    alone = [selective_search(image, seed=3, min_side=1) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda image: selective_search(image, seed=3, min_side=1), images * 3)
        )
    for boxes, expected in zip(together, alone * 3, strict=True):
        assert (boxes == expected).all()


def test_another_seed_gives_the_same_boxes_in_another_order():
    image = draw_blocks(2, 60, 80)
    one, other = (selective_search(image, seed=seed, min_side=1) for seed in (1, 2))
    assert one.tolist() != other.tolist()
    assert sorted(one.tolist()) == sorted(other.tolist())


def test_boxes_of_a_shrunk_image_are_scaled_back():
    image = np.repeat(np.repeat(draw_blocks(4, 40, 60), 6, axis=0), 6, axis=1)
    boxes = selective_search(image, max_side=60, min_side=1)
    assert boxes[:, 2].max() == 360
    assert boxes[:, 3].max() == 240
    assert (boxes % 6 == 0).all()


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (1, 3000), (3000, 1), (2, 900), (19, 400)]
)
def test_any_shape_of_noise_works(shape):
    boxes = selective_search(draw_noise(0, *shape), min_side=1)
    assert [0, 0, shape[1], shape[0]] in boxes.tolist()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_image_is_one_region(value):
    image = np.full((50, 70, 3), value, np.uint8)
    assert selective_search(image).tolist() == [[0, 0, 70, 50]]


def test_an_image_smaller_than_min_side_has_no_boxes():
    assert selective_search(draw_noise(0, 19, 19)).shape == (0, 4)


def test_read_only_and_strided_arrays_are_accepted():
    image = draw_blocks(5, 40, 50)
    expected = selective_search(image, min_side=1)
    locked = image.copy()
    locked.flags.writeable = False
    assert (selective_search(locked, min_side=1) == expected).all()
    wide = np.repeat(image, 2, axis=1)
    assert (selective_search(wide[:, ::2], min_side=1) == expected).all()


def test_a_custom_strategy_works():
    image = draw_blocks(6, 40, 50)
    strategy = Strategy(("RGB", "C"), ("SF", "C"), (20.0,), sigma=0.5, min_size=10)
    boxes = selective_search(image, strategy, min_side=1)
    assert [0, 0, 50, 40] in boxes.tolist()
    assert len(boxes) > len(selective_search(image, "single", min_side=1))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        [[1]],
    ],
)
def test_arrays_that_are_not_images_are_rejected(image):
    with pytest.raises(UnreadableImage, match="uint8 RGB"):
        selective_search(image)


@pytest.mark.parametrize(
    "options",
    [
        {"max_boxes": 0},
        {"min_side": 0},
        {"min_side": float("nan")},
        {"max_side": 0},
        {"strategy": "slow"},
        {"backend": "dlib"},
        {"backend": "opencv", "strategy": Strategy(("HSV",), ("S",), (50.0,))},
    ],
)
def test_options_out_of_range_are_rejected(options):
    with pytest.raises(InvalidConfiguration):
        selective_search(draw_noise(0, 8, 8), **options)


@pytest.mark.parametrize(
    ("backend", "module", "hint"),
    [("opencv", "cv2", "opencv"), ("selectivesearch", "selectivesearch", "selectivesearch")],
)
def test_a_missing_package_is_reported_with_its_install_command(monkeypatch, backend, module, hint):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidConfiguration, match=rf"missing: pip install .*{hint}"):
        selective_search(draw_noise(0, 8, 8), backend=backend)


def test_an_images_seed_depends_only_on_the_seed_and_image_id():
    assert derive_image_seed(0, "a") == derive_image_seed(0, "a")
    assert len({derive_image_seed(s, i) for s in (0, 1, 10) for i in ("a", "b", "0:a")}) == 9
    assert 0 <= derive_image_seed(0, "a") < 2**64


def test_provenance_describes_all_settings_that_change_the_boxes():
    description = describe_provenance("fast", 7, max_boxes=100, min_side=12, max_side=500)
    assert json.loads(json.dumps(description)) == description
    assert description["parameters"]["ks"] == [50.0, 100.0]
    assert (
        description["seed"],
        description["max_boxes"],
        description["min_side"],
        description["max_side"],
    ) == (
        7,
        100,
        12,
        500,
    )
    custom = Strategy(("HSV",), ("S",), (50.0,))
    assert describe_provenance(custom)["strategy"] == "custom"
    assert describe_provenance(custom)["parameters"] != description["parameters"]
    with pytest.raises(InvalidConfiguration):
        describe_provenance("slow")
    assert "0.4" in describe_provenance(backend="selectivesearch")["version"]


@pytest.mark.parametrize("strategy", ["lean", "balanced", "wide"])
def test_the_named_strategies_come_in_the_learned_order(strategy):
    image = draw_blocks(3, 80, 100)
    learned = selective_search(image, strategy, seed=1)
    assert (selective_search(image, strategy, seed=2) == learned).all()
    assert (selective_search(image, strategy, ranking="learned", max_boxes=5) == learned[:5]).all()
    authors = selective_search(image, strategy, seed=1, ranking="authors")
    assert sorted(authors.tolist()) == sorted(learned.tolist())
    assert authors.tolist() != learned.tolist()


def test_boxes_of_a_shrunk_image_are_ranked_from_the_same_least_side():
    image = np.repeat(np.repeat(draw_blocks(4, 40, 60), 6, axis=0), 6, axis=1)
    for min_side in (1, 20, 24, 61):
        ranked = selective_search(image, "lean", max_side=60, min_side=min_side)
        boxes = selective_search(image, "lean", max_side=60, min_side=min_side, ranking="authors")
        assert sorted(ranked.tolist()) == sorted(boxes.tolist())


def test_a_ranking_is_rejected_by_name(tmp_path):
    image = draw_noise(0, 30, 30)
    with pytest.raises(
        InvalidConfiguration, match="--ranking is 'lerned', expected authors, learn"
    ):
        selective_search(image, ranking="lerned")
    with pytest.raises(InvalidConfiguration, match="needs the hierarchies of --backend native"):
        selective_search(image, backend="selectivesearch", ranking="learned")
    with pytest.raises(MissingObject, match=r"missing\.json"):
        selective_search(image, ranking=str(tmp_path / "missing.json"))
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InvalidConfiguration, match=r"other\.json is no ranking model"):
        selective_search(image, ranking=str(tmp_path / "other.json"))


def test_provenance_names_a_learned_ranking_and_its_model():
    _, digest = load_packaged_model()
    named = {"name": "learned", "model": digest, "version": 1}
    assert describe_provenance("wide")["ranking"] == named
    assert describe_provenance("fast", ranking="learned")["ranking"]["model"] == digest
    # The authors' order has no entry: outputs of releases that knew no other are the same.
    assert "ranking" not in describe_provenance("fast")
    assert describe_provenance("wide", ranking="authors").keys() == describe_provenance().keys()
    settings = ProposalSettings(strategy="wide").pin_ranking()
    assert (settings.ranking, settings.ranking_digest) == ("learned", digest)
    assert settings.to_provenance() == describe_provenance("wide", max_boxes=2000)


def test_a_second_warm_up_is_quick():
    warm_up_kernels("single")
    assert 0 < warm_up_kernels("single") < 1


def test_the_import_loads_neither_torch_nor_a_compiler():
    script = (
        "import sys, pipeline.proposals; "
        "print([m for m in ('torch', 'numba', 'ray', 'cv2', 'scipy') if m in sys.modules])"
    )
    boxes = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert boxes.stdout.strip() == "[]"


def test_a_workspace_keeps_small_buffers_and_releases_large_ones():
    workspace = Workspace()
    first = workspace.take_array("a", (4, 8), np.float32)
    assert first.shape == (4, 8)
    first[:] = 7
    assert (workspace.take_array("a", 32, np.float32) == 7).all()
    workspace.take_array("b", 100, np.int64)
    assert workspace.nbytes == 4 * 8 * 4 + 800
    workspace.trim()
    assert workspace.nbytes > 0
    workspace.take_array("b", MAX_RETAINED_BYTES + 1, np.uint8)
    workspace.trim()
    assert workspace.nbytes == 0
