"""The settings of detection that decide its output; jobs and drivers use them without torch or ray."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.pyramid import Pyramid
from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields, check_range


@dataclass(frozen=True)
class DetectionSettings:
    """How the network detects: everything that decides the output beside checkpoint and proposals."""

    postprocessing: PostprocessingSettings = field(default_factory=PostprocessingSettings)
    """How scored boxes become detections."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the network: auto uses bf16 if the first detector's device supports it, and the other
    detectors and reruns keep that choice; fp16 needs a device that supports it."""
    pyramid: Pyramid = field(default_factory=Pyramid)
    """The scales at which the network sees an image."""
    max_proposals: int | None = None
    """Score at most this number of an image's stored proposals, the best ones; unset: all. Of those of
    `propose --strategy balanced`, 300 lose no mean AP at an IoU of 0.5 (docs/ranking.md)."""
    cascade: CascadeSettings = field(default_factory=CascadeSettings)
    """When to stop scoring an image's proposals."""

    def __post_init__(self) -> None:
        check_fields(self, "max_proposals", at_least=1)
        if self.cascade.stop_after is None:
            return
        if self.postprocessing.rule != "default":
            raise InvalidConfiguration(
                f"--stop-after needs the score threshold of --rule default: --rule "
                f"{self.postprocessing.rule} ranks the boxes of all images by their scores"
            )
        check_range(
            "stop_score", self.cascade.stop_score, at_least=self.postprocessing.score_threshold
        )

    def to_record(self) -> dict[str, Any]:
        """Return the settings as run.json stores them, without those of later releases that are unset."""
        record = asdict(self)
        del record["postprocessing"]
        record["keep"] = self.postprocessing.to_record()  # the key that run.json has always had
        if self.pyramid == Pyramid():
            del record["pyramid"]
        if self.max_proposals is None:
            del record["max_proposals"]
        if self.cascade.stop_after is None:
            del record["cascade"]
        return record
