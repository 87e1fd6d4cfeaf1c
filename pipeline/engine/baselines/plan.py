"""What every stage of a training of R-CNN or SPPnet needs: one object, sent to each task."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline import store_options, uris
from pipeline.baselines.settings import BaselineSettings, RegionSettings, System
from pipeline.detector.architecture import Architecture
from pipeline.detector.preprocessing import Preprocessing
from pipeline.store_options import StoreOptions
from pipeline.training.annotated_dataset import AnnotatedDataset
from pipeline.training.recipe import Recipe
from pipeline.training.training_files import STAGES

IMAGE_SECONDS = 3600.0
"""Seconds that an image may take, with all its windows."""


@dataclass(frozen=True)
class BaselinePlan:
    """A training of R-CNN or SPPnet as its tasks see it."""

    system: System
    output: str
    dataset: AnnotatedDataset
    recipe: Recipe
    """Its precision is settled: never auto."""
    settings: BaselineSettings
    architecture: Architecture
    preprocessing: Preprocessing
    weights: str | None
    """Pretrained weights; of `fast-rcnn-svm` the checkpoint of Fast R-CNN."""
    seed: int
    weights_digest: str | None = None
    """Digest of the weights, or their name."""
    gpu: bool = False
    """Whether tasks that compute features have a GPU."""
    threads: int = 1
    """Threads of fine-tuning on cores."""
    stores: StoreOptions = field(default_factory=store_options.get_options)
    """Options of the stores, for the workers."""

    @property
    def regions(self) -> RegionSettings:
        """How the system computes features."""
        return self.settings.describe_system(self.system)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the dataset."""
        return self.architecture.classes

    def locate(self, *names: str) -> str:
        """The URI of a file of the stages."""
        return uris.join(self.output, STAGES, *names)
