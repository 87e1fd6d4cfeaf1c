"""The result of a training of R-CNN or SPPnet: the lines at its end, and summary.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import storage, uris
from pipeline.baselines.settings import System
from pipeline.engine.baselines.stages import StageRecord
from pipeline.training.training_files import SUMMARY_NAME


@dataclass(frozen=True)
class BaselineSummary:
    """The result of a training in stages."""

    output: str
    system: System
    images: int
    stages: Sequence[StageRecord]
    classes: Sequence[str]
    ran: bool = True
    """False if an earlier start had finished all stages."""
    images_excluded: int = 0
    """Images that the list of --exclude leaves out."""

    @property
    def feature_bytes(self) -> int:
        """Bytes of stored features and maps."""
        return sum(
            int(stage.figures["bytes"])
            for stage in self.stages
            if stage.name in ("features", "maps")
        )

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "system": self.system,
            "images": self.images,
            "images_excluded": self.images_excluded,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": {
                stage.name: stage.figures.get("cpu_seconds", 0.0) for stage in self.stages
            },
            "stages": [
                {"name": stage.name, "seconds": stage.seconds, **stage.figures}
                for stage in self.stages
            ],
            "counts": {
                "bytes_read": sum(int(s.figures.get("bytes_read", 0)) for s in self.stages),
                "feature_bytes": self.feature_bytes,
            },
            "output": uris.redact_uri(self.output),
        }

    def write(self) -> None:
        """Put summary.json into the output."""
        data = json.dumps(self.as_json(), indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(self.output, SUMMARY_NAME), data)

    def format_lines(self) -> list[str]:
        """The lines to print at the end."""
        if not self.ran:
            return [
                f"training was finished already: {len(self.stages)} stages, nothing to do",
                f"checkpoint: {uris.redact_uri(self.output)}",
            ]
        lines = [
            f"{stage.name}: {stage.seconds:.1f} s" + _describe_figures(stage)
            for stage in self.stages
        ]
        if self.images_excluded:
            lines.append(f"{self.images_excluded} images were left out by --exclude")
        lines += self._format_mining()
        total = f"{len(self.stages)} stages, {self.seconds:.1f} s"
        stored = f"{self.feature_bytes / 1e6:.1f} MB of features stored"
        return [*lines, f"{total}, {stored}", f"checkpoint: {uris.redact_uri(self.output)}"]

    def _format_mining(self) -> list[str]:
        svm = next(stage for stage in self.stages if stage.name == "svm")
        lines = []
        for number, mined in enumerate(svm.figures["passes"]):
            counts = sorted(
                zip(mined["new_negatives"], self.classes, strict=True), key=lambda pair: -pair[0]
            )
            most = ", ".join(f"{label} {count}" for count, label in counts[:6])
            lines.append(
                f"pass {number} of mining: {sum(mined['new_negatives'])} new negatives ({most})"
            )
        lines.append(
            f"mAP on the training images: {svm.figures['train_map50_before_mining']:.3f} before mining, "
            f"{svm.figures['train_map50']:.3f} after"
        )
        return lines


def _describe_figures(stage: StageRecord) -> str:
    figures = stage.figures
    if "bytes" in figures:
        return f", {figures['images']} images, {figures['bytes'] / 1e6:.1f} MB"
    if figures.get("losses"):
        first, last = figures["losses"][0], figures["losses"][-1]
        return f", {figures['steps']} steps, loss {first:.3f} to {last:.3f}"
    return ""
