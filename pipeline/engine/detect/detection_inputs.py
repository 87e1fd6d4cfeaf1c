"""What a detection run reads: opened and checked before anything is written, whoever is to run it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import manifests, storage, uris
from pipeline.baselines.settings import read_region_settings
from pipeline.detector.checkpoint_record import CheckpointRecord, read_checkpoint_record
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.pyramid import Pyramid
from pipeline.detector.version import ALGORITHM_VERSION
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.resources import ActorResources
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.proposals.stored_proposals import StoredProposals, open_stored_proposals
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.input_places import RUN_WRITES, check_apart
from pipeline.runs.options import RunOptions
from pipeline.runs.reuse import list_reused_inputs
from pipeline.shards import Cut

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectionInputs:
    """A detection run before it begins: its inputs, opened and checked, and what it will record."""

    manifest: Manifest
    checkpoint_uri: str
    checkpoint: CheckpointRecord
    output: str
    stored: StoredProposals | None
    """The images' proposals, if they are stored."""
    computed: ProposalSettings | None
    """How to compute them, if they are not."""
    cut: Cut
    record: RunRecord

    def build_plan(
        self, settings: DetectionSettings, options: RunOptions, resources: ActorResources
    ) -> DetectionPlan:
        """The run as its tasks and actors see it."""
        return DetectionPlan(
            self.manifest,
            self.output,
            self.record.fingerprint,
            self.checkpoint_uri,
            self.checkpoint,
            settings,
            options,
            self.computed,
            resources,
        )


def open_detection_inputs(
    manifest_uri: str,
    checkpoint_uri: str,
    output_uri: str,
    *,
    proposals: str | ProposalSettings,
    settings: DetectionSettings,
    options: RunOptions,
) -> DetectionInputs:
    """Open and check what `run_detection` reads, and divide the manifest into shards; nothing is written.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    manifest = manifests.open_manifest(manifest_uri)
    checkpoint = read_checkpoint_record(checkpoint_uri)
    check_classes(checkpoint.classes, manifest)
    settings.pyramid.build_levels(checkpoint.preprocessing)  # rejects a scale above the cap now
    _check_system(checkpoint, checkpoint_uri, settings)
    target = uris.make_absolute(output_uri)
    if isinstance(proposals, ProposalSettings):
        proposals = proposals.pin_ranking()
    places = _list_inputs(manifest, checkpoint_uri, proposals)
    ranking = None if isinstance(proposals, str) else proposals.ranking_uri
    check_apart(target, {**places, "reuse": options.reuse, "ranking": ranking}, RUN_WRITES)
    storage.check_writable(target)
    stored = computed = None
    if isinstance(proposals, str):
        stored = open_stored_proposals(proposals, manifest, options.limit)
        provenance = stored.provenance
    else:
        computed, provenance = proposals, proposals.to_provenance()
    if settings.cascade.stop_after is not None:
        _warn_of_other_orders(provenance)
    cut = plan_cut(manifest, target, options, stored.rows if stored else None)
    recorded = {**places, **list_reused_inputs(options)}
    record = _build_record(recorded, cut, checkpoint, provenance, settings)
    absolute = uris.make_absolute(checkpoint_uri)
    return DetectionInputs(manifest, absolute, checkpoint, target, stored, computed, cut, record)


def _check_system(
    checkpoint: CheckpointRecord, checkpoint_uri: str, settings: DetectionSettings
) -> None:
    """Reject an unknown system, and options that only Fast R-CNN has.

    Raises:
        InvalidCheckpoint: the system is unknown.
        InvalidConfiguration: it has no scales to choose, or no head that scores proposals in batches.
    """
    regions = read_region_settings(checkpoint.system, checkpoint_uri)
    if regions is not None and settings.cascade.stop_after is not None:
        raise InvalidConfiguration(
            f"{uris.redact_uri(checkpoint_uri)} is of the system {regions.system}: leave out --stop-after, "
            "which only Fast R-CNN has"
        )
    if regions is None or regions.system == "fast-rcnn-svm" or settings.pyramid == Pyramid():
        return
    raise InvalidConfiguration(
        f"{uris.redact_uri(checkpoint_uri)} is of the system {regions.system}: leave out --scales and "
        "--scale-cap, which only Fast R-CNN has"
    )


def _warn_of_other_orders(provenance: Mapping[str, Any]) -> None:
    """Log that `--stop-after` stops too early if proposals are not ranked by how good they are."""
    if "ranking" not in provenance:
        log.warning(
            "--stop-after stops an image after the first batches of proposals that bring nothing, and these "
            "proposals are not in a learned order: propose with --strategy wide or --ranking learned"
        )


def _list_inputs(
    manifest: Manifest, checkpoint_uri: str, proposals: str | ProposalSettings
) -> dict[str, str | None]:
    """The URI of each input by the name of its option; None for proposals that the run computes."""
    return {
        "manifest": manifest.uri,
        "checkpoint": uris.make_absolute(checkpoint_uri),
        "proposals": uris.make_absolute(proposals) if isinstance(proposals, str) else None,
    }


def _build_record(
    inputs: Mapping[str, str | None],
    cut: Cut,
    checkpoint: CheckpointRecord,
    provenance: Any,
    settings: DetectionSettings,
) -> RunRecord:
    return RunRecord(
        "detect",
        {
            "dataset": cut.dataset,
            "images": cut.images,
            "detector": {"version": ALGORITHM_VERSION},
            "checkpoint": checkpoint.digest,
            "proposals": provenance,
            **settings.to_record(),
        },
        {name: uri and uris.redact_uri(uri) for name, uri in inputs.items()},
    )


def check_classes(checkpoint_classes: Sequence[str], manifest: Manifest) -> None:
    """Reject a checkpoint that shares no class with a labelled manifest; log the classes that it lacks.

    Raises:
        InvalidCheckpoint: they have no class in common.
    """
    annotated = manifest.classes or ()
    missing = [name for name in annotated if name not in checkpoint_classes]
    if annotated and len(missing) == len(annotated):
        raise InvalidCheckpoint(
            f"the checkpoint has no class of {uris.redact_uri(manifest.uri)}: it detects "
            f"{', '.join(checkpoint_classes[:10])}, the images show {', '.join(annotated[:10])}; "
            "use another checkpoint, or a manifest without classes (prepare folder)"
        )
    if missing:
        log.warning(
            "the checkpoint lacks %d of the %d classes of %s and will not detect them: %s",
            len(missing),
            len(annotated),
            uris.redact_uri(manifest.uri),
            ", ".join(missing[:10]),
        )
