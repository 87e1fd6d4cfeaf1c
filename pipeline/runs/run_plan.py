"""plan.json: what a run was expected to cost before it began."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from pipeline import storage, uris
from pipeline.errors import MissingObject
from pipeline.json_reader import InvalidJson, JsonFields, parse_fields
from pipeline.run_record import collect_versions
from pipeline.runs.plan_estimation import Estimate
from pipeline.runs.plan_options import GpuPlanOptions, PlanOptions

log = logging.getLogger(__name__)

PLAN_NAME = "plan.json"

FIGURES = {
    "core_hours": "core-hours of computing",
    "gpu_hours": "GPU-hours of computing",
    "wall_seconds": "wall time, without Ray's own start",
    "bytes_read": "read, images",
    "bytes_written": "written",
    "bytes_per_part": "bytes per part",
    "price": "price of the cluster for that time",
    "detector_seconds_per_image": "detector's seconds per image",
}
"""What a plan may estimate, by field, in the words of its lines."""


@dataclass(frozen=True)
class PlannedCluster:
    """The cluster that a run is planned for."""

    nodes: int
    cores: int
    """Of each node."""
    gpus: int = 0
    """Of each node."""

    @property
    def all_cores(self) -> int:
        """Cores of all nodes."""
        return self.nodes * self.cores

    @property
    def all_gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.gpus

    def compute_price_per_hour(self, options: PlanOptions) -> float | None:
        """The price of all cores and GPUs for an hour; None if no price is stated."""
        gpu_price = options.gpu_hour_price if isinstance(options, GpuPlanOptions) else None
        if options.core_hour_price is None and gpu_price is None:
            return None
        cores = self.all_cores * (options.core_hour_price or 0.0)
        return cores + self.all_gpus * (gpu_price or 0.0)

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPUs" if self.gpus else ""
        plural = "s" if self.nodes > 1 else ""
        return f"{self.nodes} node{plural} with {self.cores} cores{gpus}"


@dataclass(frozen=True)
class RunPlan:
    """What a run is expected to cost."""

    job: str
    fingerprint: str
    """Of the run that the plan is for."""
    images: int
    """Images that the run has to do; for a training, the images that all its steps take."""
    parts: int
    """Objects that the run puts: parts of shards, or states of a training."""
    cluster: PlannedCluster
    sampled: int
    """Images that were measured; for a training, steps."""
    sampled_failed: int = 0
    """Measured images that failed."""
    seed: int = 0
    """Of the sample."""
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    """The estimates by the names in `FIGURES`; bytes, seconds and hours of the whole run."""
    notes: Sequence[str] = ()
    """What the figures leave out, one sentence each."""

    def write(self, output: str) -> None:
        """Put plan.json into the output."""
        content = asdict(self) | {"versions": collect_versions()}
        data = json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(output, PLAN_NAME), data)

    def format_lines(self) -> list[str]:
        """The lines that a person reads."""
        unit = "steps" if self.job == "train" else "images"
        parts = "states" if self.job == "train" else "parts"
        failed = f", {self.sampled_failed} of which failed" if self.sampled_failed else ""
        lines = [
            f"plan of {self.job} on {self.cluster}: {self.images} images, {self.parts} {parts}; "
            f"measured on {self.sampled} {unit}{failed}"
        ]
        width = max(len(title) for title in FIGURES.values())
        for name, title in FIGURES.items():
            if name in self.figures:
                lines.append(f"  {title:{width}}  {_format_estimate(name, self.figures[name])}")
        lines.append(
            f"in parentheses: 95 % intervals from the choice of {unit}; other load here adds to them"
        )
        return [*lines, *self.notes]


def read_plan(output: str, fingerprint: str) -> RunPlan | None:
    """The plan of the run with this fingerprint; None if there is none, or one of another run.

    A damaged plan counts as none and is logged: it must not end a run.

    Raises:
        StorageError: the store does not answer.
    """
    uri = uris.join(output, PLAN_NAME)
    try:
        plan = _parse(parse_fields(storage.read(uri)))
    except MissingObject:
        return None
    except InvalidJson as error:
        log.warning("%s is damaged and is left out: %s", uris.redact_uri(uri), error)
        return None
    return plan if plan.fingerprint == fingerprint else None


def remove_foreign_plan(output: str, fingerprint: str) -> None:
    """Remove the plan of another run, or a damaged one, from an output that this run overwrites."""
    if read_plan(output, fingerprint) is None:
        storage.remove(uris.join(output, PLAN_NAME))


def _parse(stored: JsonFields) -> RunPlan:
    cluster = stored.read_object("cluster")
    figures = stored.read_object("figures")
    return RunPlan(
        stored.read_text("job"),
        stored.read_text("fingerprint"),
        stored.read_integer("images"),
        stored.read_integer("parts"),
        PlannedCluster(
            cluster.read_integer("nodes", at_least=1),
            cluster.read_integer("cores", at_least=1),
            cluster.read_integer("gpus", default=0),
        ),
        stored.read_integer("sampled"),
        stored.read_integer("sampled_failed", default=0),
        stored.read_integer("seed", at_least=-(2**63), default=0),
        {name: _parse_estimate(figures.read_object(name)) for name in figures.values},
        tuple(stored.read_texts("notes", ())),
    )


def _parse_estimate(stored: JsonFields) -> Estimate:
    return Estimate(*(stored.read_number(name) for name in ("value", "low", "high")))


def _format_estimate(name: str, estimate: Estimate) -> str:
    value, low, high = (
        _format_figure(name, figure) for figure in (estimate.value, estimate.low, estimate.high)
    )
    return value if low == value == high else f"{value} ({low} to {high})"


def _format_figure(name: str, value: float) -> str:
    if name.startswith("bytes"):
        return format_bytes(value)
    if name == "wall_seconds":
        return _format_seconds(value)
    if name == "price":
        return f"{value:,.2f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def format_bytes(count: float) -> str:
    """A number of bytes with three digits: `1.23 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"


def _format_seconds(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
