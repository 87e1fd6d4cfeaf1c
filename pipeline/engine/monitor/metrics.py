"""Counters, gauges and histograms of a run, which Ray's agents export to Prometheus.

The driver records all of them, when it learns of a committed shard or observes the stages, so that no
count is lost with a worker. Names carry Ray's prefix: `ray_pipeline_images_total`. The labels `job` and
`run` (the start of the run's fingerprint) distinguish runs on one cluster.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.engine.monitor.stages import FlowState
from pipeline.runs.report import Report

SECONDS_BUCKETS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
"""Upper bounds of the histogram's buckets."""


class RunMetrics:
    """The metrics of one run over shards."""

    def __init__(self, job: str, fingerprint: str) -> None:
        """Prepare the metrics of a run.

        Args:
            job: `propose` or `detect`.
            fingerprint: the run's; its first 12 digits become the label `run`.
        """
        labels = {"job": job, "run": fingerprint[:12]}

        def add_counter(name: str, description: str, *keys: str) -> Counter:
            counter = Counter(f"pipeline_{name}", description, tag_keys=("job", "run", *keys))
            counter.set_default_tags(labels)
            return counter

        def add_gauge(name: str, description: str, *keys: str) -> Gauge:
            gauge = Gauge(f"pipeline_{name}", description, tag_keys=("job", "run", *keys))
            gauge.set_default_tags(labels)
            return gauge

        self._images = add_counter("images", "Images committed, by status.", "status")
        self._shards = add_counter("shards", "Shards committed.")
        self._errors = add_counter("errors", "Attempts that ended in an error.", "cause")
        self._bytes = add_counter("bytes", "Bytes of images read and of parts put.", "direction")
        self._seconds = add_counter("stage_seconds", "Worker time by stage.", "stage")
        self._per_image = Histogram(
            "pipeline_image_seconds",
            "Worker time per image by stage: the mean of each committed shard.",
            boundaries=SECONDS_BUCKETS,
            tag_keys=("job", "run", "stage"),
        )
        self._per_image.set_default_tags(labels)
        self._slots = add_gauge("stage_slots", "Pieces that a stage can work on at once.", "stage")
        self._busy = add_gauge("stage_busy", "Slots of a stage that are at work.", "stage")
        self._queue = add_gauge("stage_queue", "Pieces that wait in front of a stage.", "stage")
        self._bytes_in_flight = add_gauge("bytes_in_flight", "Bytes of images in flight.")

    def count_shard(self, report: Report) -> None:
        """Count a committed shard."""
        failed = sum(report.failed.values())
        self._shards.inc()
        for status, images in (("ok", report.images - failed), ("failed", failed)):
            if images > 0:
                self._images.inc(images, {"status": status})
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
