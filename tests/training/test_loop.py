"""The loop of one worker: it learns, it resumes exactly, it stops at what is not finite."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline import storage
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.flat import Detections, GroundTruth
from pipeline.detector import checkpoint
from pipeline.detector.predictor import Predictor
from pipeline.errors import StorageError, TrainingFailed
from pipeline.sources.drawn import CLASSES
from pipeline.training import logs, state
from pipeline.training.loop import train
from pipeline.training.recipes import named
from pipeline.training.run import TrainingRun
from pipeline.training.survey import survey
from tests.training.drawn import jittered, make_sources

QUICK = dataclasses.replace(named("tiny"), short_sides=(64,), max_side=96, iterations=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("drawn"))


def make_run(output, sources, recipe=QUICK, **options):
    told = {"checkpoint_every": 3, "log_every": 2, **options}
    return TrainingRun(str(output), recipe, sources, survey(sources, recipe), **told)


def curve(output):
    return [(r.step, r.loss_class, r.loss_box, r.foreground) for r in logs.read(str(output))]


class Killed(BaseException):
    pass


def test_an_interrupted_run_has_the_curve_of_an_undisturbed_one(data, tmp_path):
    sources, _ = data
    train(make_run(tmp_path / "whole", sources))

    def die_at(step):
        def die(record):
            if record.step == step:
                raise Killed

        return die

    broken = make_run(tmp_path / "broken", sources)
    with pytest.raises(Killed):
        train(broken, saved=die_at(3))
    with pytest.raises(Killed):
        train(broken, report=die_at(8))  # two steps after its last state
    assert state.latest(broken.output).step == 6
    train(broken)
    assert [step for step, *_ in curve(tmp_path / "whole")] == [2, 3, 4, 6, 8]
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")
    models = [checkpoint.load(str(tmp_path / n)).model.state_dict() for n in ("whole", "broken")]
    for name, tensor in models[0].items():
        torch.testing.assert_close(tensor, models[1][name], rtol=0, atol=0)


@pytest.mark.parametrize("failing", ["state-000000006.pt", "latest.json", "train.jsonl"])
def test_a_store_that_fails_at_a_state_loses_the_steps_since_the_one_before(
    data, tmp_path, monkeypatch, failing
):
    train(make_run(tmp_path / "whole", data[0]))
    run, put = make_run(tmp_path / "broken", data[0]), storage.put

    def full(uri, content):
        if uri.endswith(failing) and state.latest(run.output):
            raise StorageError(f"{uri} cannot be written: no space left")
        put(uri, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put", full)
        with pytest.raises(StorageError, match="no space left"):
            train(run)
    assert state.latest(run.output) == state.Latest(3, finished=False)
    train(run)
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")


def test_a_finished_run_does_nothing_again(data, tmp_path):
    run = make_run(tmp_path, data[0])
    train(run)
    before = storage.read(str(tmp_path / "model.safetensors"))
    seen = []
    train(run, report=seen.append)
    assert seen == []
    assert storage.read(str(tmp_path / "model.safetensors")) == before
    assert state.latest(run.output) == state.Latest(8, finished=True)


def test_a_run_killed_before_its_export_exports(data, tmp_path):
    run = make_run(tmp_path, data[0])
    train(run)
    state.point_to(run.output, 8, finished=False)
    storage.remove(str(tmp_path / "model.json"))
    train(run)
    assert checkpoint.load(run.output).classes == CLASSES


def test_the_checkpoint_has_raw_deltas_and_the_recipes_size(data, tmp_path):
    run = make_run(tmp_path, data[0])
    train(run)
    saved = checkpoint.load(run.output)
    assert (saved.preprocessing.short_side, saved.preprocessing.max_side) == (64, 96)
    assert saved.extra["steps"] == 8
    trained = state.load(run.output, 8)["model"]["bbox_pred.bias"].view(-1, 4)
    statistics = run.survey.statistics
    raw = trained * torch.from_numpy(statistics.stds) + torch.from_numpy(statistics.means)
    torch.testing.assert_close(saved.model.bbox_pred.bias.data.view(-1, 4), raw)


def test_stage_wise_training_leaves_all_but_the_box_layer(data, tmp_path):
    recipe = dataclasses.replace(QUICK, iterations=4, box_loss_weight=0.0, box_epochs=1)

    def run(name, recipe):
        return make_run(tmp_path / name, data[0], recipe, checkpoint_every=2)

    train(run("class", dataclasses.replace(recipe, box_epochs=0)))
    train(run("stages", recipe))
    first, second = (checkpoint.load(str(tmp_path / n)).model for n in ("class", "stages"))
    assert [r.step for r in logs.read(str(tmp_path / "stages"))] == [2, 4, 6, 8]
    for name, tensor in first.state_dict().items():
        if name.startswith("bbox_pred"):
            assert not tensor.any()  # untrained: the proposals' boxes stay
        else:
            torch.testing.assert_close(tensor, second.state_dict()[name], rtol=0, atol=0)
    assert second.bbox_pred.weight.any()


@pytest.mark.parametrize("step", [4, 6])
def test_stage_wise_training_resumes_at_and_after_the_border(data, tmp_path, step):
    recipe = dataclasses.replace(QUICK, iterations=4, box_loss_weight=0.0, box_epochs=1)
    runs = [
        make_run(tmp_path / name, data[0], recipe, checkpoint_every=2)
        for name in ("whole", "broken")
    ]
    train(runs[0])

    def die(record):
        if record.step == step:
            raise Killed

    with pytest.raises(Killed):
        train(runs[1], saved=die)
    train(runs[1])
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")


def test_the_network_that_validates_best_is_kept(data, tmp_path):
    scores, seen = iter([0.2, 0.5, 0.3]), []

    def validate(model, preprocessing):
        assert not model.training
        assert preprocessing.short_side == 64
        seen.append(model.bbox_pred.weight.clone())
        return next(scores)

    run = make_run(tmp_path, data[0], validate_every=3, checkpoint_every=100)
    train(run, validate=validate)
    told = [(r.step, r.voc07_map50) for r in logs.read(run.output) if r.voc07_map50 is not None]
    assert told == [(3, 0.2), (6, 0.5), (8, 0.3)]
    best = checkpoint.load(str(tmp_path / "best"))
    assert (best.extra["steps"], best.extra["voc07_map50"]) == (6, 0.5)
    torch.testing.assert_close(best.model.bbox_pred.weight.data, seen[1], rtol=0, atol=0)
    final = checkpoint.load(run.output)
    torch.testing.assert_close(final.model.bbox_pred.weight.data, seen[2], rtol=0, atol=0)


def test_normalised_targets_have_a_root_mean_square_of_one(data, tmp_path):
    long = dataclasses.replace(QUICK, iterations=40)
    train(make_run(tmp_path, data[0], long, log_every=40, checkpoint_every=40))
    assert logs.read(str(tmp_path))[-1].target_rms == pytest.approx(1, abs=0.1)


def test_what_is_not_finite_stops_with_step_and_images(data, tmp_path):
    wild = dataclasses.replace(QUICK, optimiser="sgd", learning_rate=1e20, gradient_clip=None)
    with pytest.raises(TrainingFailed, match=r"step \d+: .* not finite .*'p\d'") as failure:
        train(make_run(tmp_path, data[0], wild))
    (name,) = [n for n in storage.names(str(tmp_path / "logs")) if n.startswith("not-finite")]
    assert name in str(failure.value)
    kept = np.load(tmp_path / "logs" / name)
    assert kept["image_0"].dtype == np.uint8
    assert kept["rois_0"].shape[1] == 4


def test_too_many_unreadable_images_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.loop.FEWEST_JUDGED", 8)
    sources, _ = make_sources(tmp_path)
    storage.put(str(tmp_path / "images" / "p2.png"), b"no image")
    with pytest.raises(TrainingFailed, match=r"1 of 8 images could not be read by step 4"):
        train(make_run(tmp_path / "out", sources))


def test_eight_drawn_images_are_learned_by_heart(data, tmp_path):
    sources, drawn = data
    recipe = dataclasses.replace(named("tiny"), short_sides=(160,), max_side=280, iterations=300)
    train(make_run(tmp_path, sources, recipe, checkpoint_every=300))
    proposals = [jittered(p, np.random.default_rng([0, 1, i])) for i, p in enumerate(drawn)]
    found = Predictor(str(tmp_path))([p.image for p in drawn], proposals)
    scores = VocAveragePrecision(len(CLASSES))
    for image, ours in zip(drawn, found, strict=True):
        scores.update(truth(image), detections(ours))
    assert np.nanmean(scores.result().area) >= 0.95


def truth(image):
    count = len(image.labels)
    labels = np.array([CLASSES.index(label) for label in image.labels])
    no = np.zeros(count, bool)
    return GroundTruth(np.zeros(count, np.int64), labels, image.boxes.astype(float), no, no)


def detections(found):
    image = np.zeros(len(found.scores), np.int64)
    return Detections(image, found.labels.astype(np.int64), found.scores, found.boxes.astype(float))
