"""Counters, gauges and histograms of a run, which Ray's agents export to Prometheus.

The driver records all of them, when it learns of a committed shard, observes the stages or receives a record
of a training, so that no count is lost with a worker. Names carry Ray's prefix: `ray_pipeline_images_total`.
The labels `job` and `run` (the start of the run's fingerprint) distinguish runs on one cluster.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.engine.monitor.stages import FlowState
from pipeline.runs.report import Report
from pipeline.training.logs import TrainingRecord

SECONDS_BUCKETS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
"""Upper bounds of the histogram's buckets."""
TRAIN = {"stage": "train"}
"""The only stage of a training."""


class _LabelledMetrics:
    """Metrics that carry the labels of one run."""

    def __init__(self, job: str, fingerprint: str) -> None:
        """Prepare the metrics of a run.

        Args:
            job: `propose`, `detect`, `train` or another job.
            fingerprint: the run's; its first 12 digits become the label `run`.
        """
        self._labels = {"job": job, "run": fingerprint[:12]}
        self._images = self._add_counter("images", "Images done, by status.", "status")
        self._bytes = self._add_counter(
            "bytes", "Bytes of images read and of parts put.", "direction"
        )
        self._slots = self._add_gauge(
            "stage_slots", "Pieces that a stage can work on at once.", "stage"
        )
        self._busy = self._add_gauge("stage_busy", "Slots of a stage that are at work.", "stage")

    def _add_counter(self, name: str, description: str, *keys: str) -> Counter:
        counter = Counter(f"pipeline_{name}", description, tag_keys=("job", "run", *keys))
        counter.set_default_tags(self._labels)
        return counter

    def _add_gauge(self, name: str, description: str, *keys: str) -> Gauge:
        gauge = Gauge(f"pipeline_{name}", description, tag_keys=("job", "run", *keys))
        gauge.set_default_tags(self._labels)
        return gauge

    def _add_histogram(self, name: str, description: str, *keys: str) -> Histogram:
        histogram = Histogram(
            f"pipeline_{name}",
            description,
            boundaries=SECONDS_BUCKETS,
            tag_keys=("job", "run", *keys),
        )
        histogram.set_default_tags(self._labels)
        return histogram

    def _count_images(self, ok: int, failed: int) -> None:
        for status, images in (("ok", ok), ("failed", failed)):
            if images > 0:
                self._images.inc(images, {"status": status})


class RunMetrics(_LabelledMetrics):
    """The metrics of one run over shards."""

    def __init__(self, job: str, fingerprint: str) -> None:
        super().__init__(job, fingerprint)
        self._shards = self._add_counter("shards", "Shards committed.")
        self._errors = self._add_counter("errors", "Attempts that ended in an error.", "cause")
        self._seconds = self._add_counter("stage_seconds", "Worker time by stage.", "stage")
        self._per_image = self._add_histogram(
            "image_seconds",
            "Worker time per image by stage: the mean of each committed shard.",
            "stage",
        )
        self._queue = self._add_gauge(
            "stage_queue", "Pieces that wait in front of a stage.", "stage"
        )
        self._bytes_in_flight = self._add_gauge("bytes_in_flight", "Bytes of images in flight.")

    def count_shard(self, report: Report) -> None:
        """Count a committed shard."""
        failed = sum(report.failed.values())
        self._shards.inc()
        self._count_images(report.images - failed, failed)
        for direction, name in (("in", "bytes_read"), ("out", "bytes")):
            if report.counts[name] > 0:
                self._bytes.inc(report.counts[name], {"direction": direction})
        for stage, seconds in report.seconds.items():
            if seconds > 0:
                self._seconds.inc(seconds, {"stage": stage})
                self._per_image.observe(seconds / max(1, report.images), {"stage": stage})

    def count_error(self, cause: str) -> None:
        """Count an attempt that ended in an error.

        Args:
            cause: `store`, or the name of the `Cause` by which retries are decided, in lower case.
        """
        self._errors.inc(1, {"cause": cause})

    def record_flow(self, state: FlowState) -> None:
        """Set the gauges of the stages."""
        for load in state.stages:
            self._slots.set(load.slots, {"stage": load.name})
            self._busy.set(load.busy, {"stage": load.name})
            self._queue.set(load.waiting, {"stage": load.name})
        self._bytes_in_flight.set(state.bytes_in_flight)


class TrainingMetrics(_LabelledMetrics):
    """The metrics of one training, whose slots are its workers."""

    def __init__(self, fingerprint: str, steps: int, workers: int) -> None:
        super().__init__("train", fingerprint)
        self._workers = workers
        self._skipped: int | None = None
        self._step = self._add_gauge("training_step", "Steps done.")
        self._loss = self._add_gauge(
            "training_loss", "Mean loss per step: total, and the parts before weighting.", "part"
        )
        self._score = self._add_gauge(
            "training_map50", "Mean average precision on the validation images."
        )
        self._add_gauge("training_steps", "Steps of the whole training.").set(steps)

    def count_record(self, record: TrainingRecord) -> None:
        """Count the images since the record before, and set the gauges."""
        # A resumed training begins with what it had skipped before.
        before = record.skipped if self._skipped is None else self._skipped
        self._count_images(record.images, record.skipped - before)
        self._skipped = record.skipped
        if record.bytes_read > 0:
            self._bytes.inc(record.bytes_read, {"direction": "in"})
        self._step.set(record.step)
        for part, loss in record.losses.items():
            self._loss.set(loss, {"part": part})
        if record.voc07_map50 is not None:
            self._score.set(record.voc07_map50)
        self._slots.set(self._workers, TRAIN)
        self._busy.set(self._workers * (1 - record.data_wait), TRAIN)
