"""The log: put whole, cut back to the state that a run goes on from."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.training import logs
from pipeline.training.logs import Record, TrainingLog


def record(step):
    return Record(
        step=step,
        epoch=0.5,
        loss=1.0 / step,
        loss_class=0.75 / step,
        loss_box=0.25 / step,
        learning_rate=1e-3,
        gradient_norm=2.0,
        foreground=16.0,
        background=48.0,
        images=40,
        skipped=0,
        images_per_second=4.0,
        data_wait=0.01,
    )


def test_records_come_back_and_the_later_ones_are_dropped(tmp_path):
    log = TrainingLog(str(tmp_path), 0)
    log.records += [record(step) for step in (20, 40, 60)]
    log.put()
    assert logs.read(str(tmp_path)) == log.records
    resumed = TrainingLog(str(tmp_path), 40)
    assert [r.step for r in resumed.records] == [20, 40]
    assert TrainingLog(str(tmp_path), 0).records == []


def test_tensorboard_reads_the_events(tmp_path):
    log = TrainingLog(str(tmp_path), 0)
    log.records += [record(20), record(40)]
    log.put()
    log.put()  # replaces, does not repeat
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (20, 0.05000000074505806),
        (40, 0.02500000037252903),
    ]


def test_no_log_is_no_records(tmp_path):
    assert logs.read(str(tmp_path)) == []
