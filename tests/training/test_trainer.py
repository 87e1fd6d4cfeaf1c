"""The training of one worker: it learns, resumes exactly and stops at losses that are not finite."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline import storage
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.detector.checkpoint import load_checkpoint
from pipeline.detector.loss import multi_task_loss
from pipeline.detector.predictor import Predictor
from pipeline.errors import MismatchedOutput, StorageError, TrainingFailed
from pipeline.sources.drawn_dataset import CLASSES
from pipeline.training import logs, state
from pipeline.training.recipes import get_recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from pipeline.training.trainer import Trainer
from tests.training.training_dataset import jitter_boxes, open_drawn_datasets

QUICK = dataclasses.replace(get_recipe("tiny"), short_sides=(64,), max_side=96, iterations=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_drawn_datasets(tmp_path_factory.mktemp("drawn"))


def make_spec(output, datasets, recipe=QUICK, **options):
    options = {"checkpoint_every": 3, "log_every": 2, **options}
    return TrainingSpec(str(output), recipe, datasets, survey_datasets(datasets, recipe), **options)


def read_curve(output):
    return [(r.step, *r.losses.items(), r.foreground) for r in logs.read_log(str(output))]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("checks_passed", [0, 1, 3, 4])
def test_a_training_that_was_overwritten_writes_nothing_more(data, tmp_path, checks_passed):
    """It is checked before the states of steps 3, 6 and 8, the network, and the finished pointer."""
    datasets, _ = data
    left = [checks_passed]

    def check_owned():
        if not left[0]:
            raise MismatchedOutput("another run")
        left[0] -= 1

    spec = make_spec(tmp_path, datasets)
    with pytest.raises(MismatchedOutput, match="another run"):
        Trainer(spec, run="mine", check_owned=check_owned).train()
    latest = state.read_latest_state(str(tmp_path), "mine")
    assert (0 if latest is None else latest.step) == [0, 3, 6, 8, 8][checks_passed]
    assert storage.exists(f"{tmp_path}/model.json") == (checks_passed == 4)
    assert latest is None or not latest.is_finished


def test_an_interrupted_training_has_the_losses_of_an_uninterrupted_one(data, tmp_path):
    datasets, _ = data
    Trainer(make_spec(tmp_path / "whole", datasets)).train()

    def die_at(step):
        def die(record):
            if record.step == step:
                raise Killed

        return die

    broken = make_spec(tmp_path / "broken", datasets)
    with pytest.raises(Killed):
        Trainer(broken, on_state=die_at(3)).train()
    with pytest.raises(Killed):
        Trainer(broken, on_record=die_at(8)).train()  # two steps after its last state
    assert state.read_latest_state(broken.output).step == 6
    Trainer(broken).train()
    assert [step for step, *_ in read_curve(tmp_path / "whole")] == [2, 3, 4, 6, 8]
    assert read_curve(tmp_path / "broken") == read_curve(tmp_path / "whole")
    models = [load_checkpoint(str(tmp_path / n)).network.state_dict() for n in ("whole", "broken")]
    for name, tensor in models[0].items():
        torch.testing.assert_close(tensor, models[1][name], rtol=0, atol=0)


@pytest.mark.parametrize("failing", ["state-000000006.pt", "latest.json", "train.jsonl"])
def test_a_store_that_fails_at_a_state_loses_only_the_steps_since_the_previous_state(
    data, tmp_path, monkeypatch, failing
):
    Trainer(make_spec(tmp_path / "whole", data[0])).train()
    spec, put = make_spec(tmp_path / "broken", data[0]), storage.put

    def full(uri, content):
        if uri.endswith(failing) and state.read_latest_state(spec.output):
            raise StorageError(f"{uri} cannot be written: no space left")
        put(uri, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put", full)
        with pytest.raises(StorageError, match="no space left"):
            Trainer(spec).train()
    assert state.read_latest_state(spec.output) == state.LatestState(3, is_finished=False)
    Trainer(spec).train()
    assert read_curve(tmp_path / "broken") == read_curve(tmp_path / "whole")


def test_a_finished_training_does_nothing(data, tmp_path):
    spec = make_spec(tmp_path, data[0])
    Trainer(spec).train()
    before = storage.read(str(tmp_path / "model.safetensors"))
    seen = []
    Trainer(spec, on_record=seen.append).train()
    assert seen == []
    assert storage.read(str(tmp_path / "model.safetensors")) == before
    assert state.read_latest_state(spec.output) == state.LatestState(8, is_finished=True)


def test_a_training_killed_before_its_export_exports_on_resume(data, tmp_path):
    spec = make_spec(tmp_path, data[0])
    Trainer(spec).train()
    for is_finished in (False, True):  # killed before the export, or the network was lost later
        state.set_latest_state(spec.output, 8, is_finished=is_finished)
        storage.remove(str(tmp_path / "model.json"))
        Trainer(spec).train()
        assert load_checkpoint(spec.output).classes == CLASSES
        assert state.read_latest_state(spec.output) == state.LatestState(8, is_finished=True)


def test_the_checkpoint_has_raw_deltas_and_the_image_size_of_the_recipe(data, tmp_path):
    spec = make_spec(tmp_path, data[0])
    Trainer(spec).train()
    exported = load_checkpoint(spec.output)
    assert (exported.preprocessing.short_side, exported.preprocessing.max_side) == (64, 96)
    assert exported.extra["steps"] == 8
    trained = state.load_state(spec.output, 8)["model"]["bbox_pred.bias"].view(-1, 4)
    statistics = spec.survey.statistics
    raw = trained * torch.from_numpy(statistics.stds) + torch.from_numpy(statistics.means)
    torch.testing.assert_close(exported.network.bbox_pred.bias.data.view(-1, 4), raw)


def test_stage_wise_training_changes_the_box_layer_alone(data, tmp_path):
    recipe = dataclasses.replace(QUICK, iterations=4, box_loss_weight=0.0, box_epochs=1)

    def make_stage(name, recipe):
        return make_spec(tmp_path / name, data[0], recipe, checkpoint_every=2)

    Trainer(make_stage("class", dataclasses.replace(recipe, box_epochs=0))).train()
    Trainer(make_stage("stages", recipe)).train()
    first, second = (load_checkpoint(str(tmp_path / n)).network for n in ("class", "stages"))
    assert [r.step for r in logs.read_log(str(tmp_path / "stages"))] == [2, 4, 6, 8]
    for name, tensor in first.state_dict().items():
        if name.startswith("bbox_pred"):
            assert not tensor.any()  # untrained: the proposals' boxes stay
        else:
            torch.testing.assert_close(tensor, second.state_dict()[name], rtol=0, atol=0)
    assert second.bbox_pred.weight.any()


@pytest.mark.parametrize("step", [4, 6])
def test_stage_wise_training_resumes_at_and_after_the_change_of_phase(data, tmp_path, step):
    recipe = dataclasses.replace(QUICK, iterations=4, box_loss_weight=0.0, box_epochs=1)
    specs = [
        make_spec(tmp_path / name, data[0], recipe, checkpoint_every=2)
        for name in ("whole", "broken")
    ]
    Trainer(specs[0]).train()

    def die(record):
        if record.step == step:
            raise Killed

    with pytest.raises(Killed):
        Trainer(specs[1], on_state=die).train()
    Trainer(specs[1]).train()
    assert read_curve(tmp_path / "broken") == read_curve(tmp_path / "whole")


@pytest.mark.parametrize(("validation", "expected"), [("first", 3), (None, 3), ("second", 6)])
def test_scores_on_other_images_are_not_compared(data, tmp_path, validation, expected):
    """A rerun that validates on harder images keeps the best network on these."""
    spec = make_spec(tmp_path, data[0], validate_every=3, checkpoint_every=100)

    def die(record):
        raise Killed

    first = dataclasses.replace(spec, validation=validation and "first")
    with pytest.raises(Killed):
        Trainer(first, validate=lambda *_: 0.9, on_state=die).train()
    scores = iter([0.2, 0.1])
    second = dataclasses.replace(spec, validation=validation)
    Trainer(second, validate=lambda *_: next(scores)).train()
    assert load_checkpoint(str(tmp_path / "best")).extra["steps"] == expected


def test_the_network_with_the_best_validation_score_is_kept(data, tmp_path):
    scores, seen = iter([0.2, 0.5, 0.3]), []

    def validate(model, preprocessing):
        assert not model.training
        assert preprocessing.short_side == 64
        seen.append(model.bbox_pred.weight.clone())
        return next(scores)

    spec = make_spec(tmp_path, data[0], validate_every=3, checkpoint_every=100)
    Trainer(spec, validate=validate).train()
    validated = [
        (r.step, r.voc07_map50) for r in logs.read_log(spec.output) if r.voc07_map50 is not None
    ]
    assert validated == [(3, 0.2), (6, 0.5), (8, 0.3)]
    best = load_checkpoint(str(tmp_path / "best"))
    assert (best.extra["steps"], best.extra["voc07_map50"]) == (6, 0.5)
    torch.testing.assert_close(best.network.bbox_pred.weight.data, seen[1], rtol=0, atol=0)
    final = load_checkpoint(spec.output)
    torch.testing.assert_close(final.network.bbox_pred.weight.data, seen[2], rtol=0, atol=0)


def test_normalised_targets_have_a_root_mean_square_of_one(data, tmp_path):
    long = dataclasses.replace(QUICK, iterations=40)
    Trainer(make_spec(tmp_path, data[0], long, log_every=40, checkpoint_every=40)).train()
    assert logs.read_log(str(tmp_path))[-1].target_rms == pytest.approx(1, abs=0.1)


def test_a_loss_that_is_not_finite_stops_and_names_step_and_images(data, tmp_path):
    wild = dataclasses.replace(QUICK, optimiser="sgd", learning_rate=1e20, gradient_clip=None)
    with pytest.raises(TrainingFailed, match=r"step \d+: .* not finite .*'p\d'") as failure:
        Trainer(make_spec(tmp_path, data[0], wild)).train()
    (name,) = [n for n in storage.list_names(str(tmp_path / "logs")) if n.startswith("not-finite")]
    assert name in str(failure.value)
    saved = np.load(tmp_path / "logs" / name)
    assert saved["image_0"].dtype == np.uint8
    assert saved["rois_0"].shape[1] == 4


def test_too_many_unreadable_images_stop_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.trainer.MIN_IMAGES_TO_JUDGE", 8)
    datasets, _ = open_drawn_datasets(tmp_path)
    storage.put(str(tmp_path / "images" / "p2.png"), b"no image")
    with pytest.raises(TrainingFailed, match=r"1 of 8 images could not be used by step 4"):
        Trainer(make_spec(tmp_path / "out", datasets)).train()


def test_the_network_learns_eight_drawn_images_by_heart(data, tmp_path):
    datasets, drawn = data
    recipe = dataclasses.replace(
        get_recipe("tiny"), short_sides=(160,), max_side=280, iterations=300
    )
    Trainer(make_spec(tmp_path, datasets, recipe, checkpoint_every=300)).train()
    proposals = [jitter_boxes(p, np.random.default_rng([0, 1, i])) for i, p in enumerate(drawn)]
    predicted = Predictor(str(tmp_path))([p.image for p in drawn], proposals)
    scores = VocAveragePrecision(len(CLASSES))
    for image, detections in zip(drawn, predicted, strict=True):
        scores.update(flatten_objects(image), flatten_detections(detections))
    assert np.nanmean(scores.compute().area) >= 0.95


def flatten_objects(image):
    count = len(image.labels)
    labels = np.array([CLASSES.index(label) for label in image.labels])
    no = np.zeros(count, bool)
    return GroundTruthArrays(np.zeros(count, np.int64), labels, image.boxes.astype(float), no, no)


def flatten_detections(detections):
    image = np.zeros(len(detections.scores), np.int64)
    return DetectionArrays(
        image, detections.labels.astype(np.int64), detections.scores, detections.boxes.astype(float)
    )


def test_an_added_part_of_the_loss_reaches_log_and_tensorboard(data, tmp_path, monkeypatch):
    def add_part(*arguments, **options):
        losses = multi_task_loss(*arguments, **options)
        part = 0.5 * losses["class"]
        return {**losses, "total": losses["total"] + part, "halved": part}

    monkeypatch.setattr("pipeline.training.step.multi_task_loss", add_part)
    Trainer(make_spec(tmp_path, data[0])).train()
    with (tmp_path / "logs" / "train.jsonl").open() as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        assert line["loss_halved"] == pytest.approx(line["loss_class"] / 2, rel=1e-6)
        parts = line["loss_class"] + line["loss_box"] + line["loss_halved"]
        assert line["loss"] == pytest.approx(parts, rel=1e-6)
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    values = [event.value for event in events.Scalars("loss_halved")]
    assert values == pytest.approx([line["loss_halved"] for line in lines])
    assert logs.read_log(str(tmp_path))[-1].losses["halved"] == lines[-1]["loss_halved"]
