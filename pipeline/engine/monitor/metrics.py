"""Counters, gauges and histograms of a run, which Ray's agents hand to Prometheus.

All are recorded by the driver when it learns of a committed shard or looks at the stages, so that a
worker that dies takes no count with it. Names carry Ray's prefix: `ray_pipeline_images_total`. The labels
`job` and `run` (the start of the run's fingerprint) tell runs on one cluster apart.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.engine.monitor.stages import FlowState
from pipeline.runs.report import Report

SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
"""Upper ends of the histogram's buckets."""


class RunMetrics:
    """What Prometheus can know of one run over shards."""

    def __init__(self, job: str, fingerprint: str) -> None:
        """Prepare the metrics of a run.

        Args:
            job: `propose` or `detect`.
            fingerprint: the run's, of which the first 12 digits become the label `run`.
        """
        labels = {"job": job, "run": fingerprint[:12]}

        def counter(name: str, told: str, *keys: str) -> Counter:
            made = Counter(f"pipeline_{name}", told, tag_keys=("job", "run", *keys))
            made.set_default_tags(labels)
            return made

        def gauge(name: str, told: str, *keys: str) -> Gauge:
            made = Gauge(f"pipeline_{name}", told, tag_keys=("job", "run", *keys))
            made.set_default_tags(labels)
            return made

        self._images = counter("images", "Images committed, by status.", "status")
        self._shards = counter("shards", "Shards committed.")
        self._bytes = counter("bytes", "Bytes of images read and of parts put.", "direction")
        self._seconds = counter("stage_seconds", "Worker time by stage.", "stage")
        self._per_image = Histogram(
            "pipeline_image_seconds",
            "Worker time per image by stage: the mean of each committed shard.",
            boundaries=SECONDS,
            tag_keys=("job", "run", "stage"),
        )
        self._per_image.set_default_tags(labels)
        self._slots = gauge("stage_slots", "Pieces that a stage can work on at once.", "stage")
        self._busy = gauge("stage_busy", "Slots of a stage that are at work.", "stage")
        self._queue = gauge("stage_queue", "Pieces that wait in front of a stage.", "stage")
        self._held = gauge("bytes_in_flight", "Bytes of images in flight.")

    def count(self, report: Report) -> None:
        """A shard was committed."""
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

    def show(self, state: FlowState) -> None:
        """The stages were looked at."""
        for load in state.stages:
            self._slots.set(load.slots, {"stage": load.name})
            self._busy.set(load.busy, {"stage": load.name})
            self._queue.set(load.waiting, {"stage": load.name})
        self._held.set(state.held)
