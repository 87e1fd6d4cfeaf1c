"""The training log: put whole, cut back to the state that a run resumes from."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.errors import InvalidCheckpoint
from pipeline.training import logs
from pipeline.training.logs import TrainingLog
from tests.training.training_records import make_record


def record(step):
    return make_record(step, losses={"total": 1.0 / step, "class": 0.75 / step, "box": 0.25 / step})


def test_a_resumed_log_drops_the_records_after_its_state(tmp_path):
    log = TrainingLog(str(tmp_path), 0)
    log.records += [record(step) for step in (20, 40, 60)]
    log.write()
    assert logs.read_log(str(tmp_path)) == log.records
    resumed = TrainingLog(str(tmp_path), 40)
    assert [r.step for r in resumed.records] == [20, 40]
    assert TrainingLog(str(tmp_path), 0).records == []


def test_tensorboard_reads_the_events(tmp_path):
    log = TrainingLog(str(tmp_path), 0)
    log.records += [record(20), record(40)]
    log.write()
    log.write()  # replaces, does not repeat
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (20, 0.05000000074505806),
        (40, 0.02500000037252903),
    ]


def test_an_output_without_a_log_has_no_records(tmp_path):
    assert logs.read_log(str(tmp_path)) == []


def test_the_json_fields_of_a_record_are_these(tmp_path):
    log = TrainingLog(str(tmp_path), 0)
    log.records.append(record(20))
    log.write()
    values = json.loads((tmp_path / "logs" / "train.jsonl").read_text())
    assert list(values) == [
        *("step", "epoch", "loss", "loss_class", "loss_box", "learning_rate", "gradient_norm"),
        *("foreground", "background", "images", "skipped", "images_per_second", "data_wait"),
        *("target_rms", "cpu_seconds", "bytes_read", "seconds", "voc07_map50"),
    ]
    assert (values["loss"], values["loss_class"], values["loss_box"]) == (0.05, 0.0375, 0.0125)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"step": 3}', '{"step": "x", "loss": 1}', "[" * 100_000, "\udcff"]
)
def test_a_damaged_log_is_named(tmp_path, line):
    log = TrainingLog(str(tmp_path), 0)
    log.records += [record(20)]
    log.write()
    path = tmp_path / "logs" / "train.jsonl"
    path.write_bytes(path.read_bytes() + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(InvalidCheckpoint, match=r"train\.jsonl is damaged"):
        TrainingLog(str(tmp_path), 20)
