"""The splits of an inspection: manifests opened and checked, and the signatures of their images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import storage, uris
from pipeline.annotated_classes import NotAnnotated, list_annotated_classes
from pipeline.engine.inspect.plan import InspectionPlan
from pipeline.errors import InvalidConfiguration
from pipeline.image_members import read_members
from pipeline.inspection import signature
from pipeline.inspection.image_sample import SAMPLED_IMAGES, SampledImage, check_some_decode
from pipeline.manifests import Manifest, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.input_places import resolve_place
from pipeline.runs.options import RunOptions
from pipeline.shards import Cut

log = logging.getLogger(__name__)

SIGNATURES = "signatures"
"""The folder of the first split's signatures in the output; those of the others have a number behind."""


@dataclass(frozen=True)
class SplitInputs:
    """One split before it is inspected."""

    name: str
    """What the report calls it."""
    manifest: Manifest
    folder: str
    """Where its signatures go."""
    cut: Cut
    record: RunRecord
    classes: tuple[str, ...]
    """The labels that its objects may have, in the manifest's order; empty if nothing is annotated."""

    def build_plan(self, options: RunOptions) -> InspectionPlan:
        """The inspection of the split as its tasks see it."""
        return InspectionPlan(self.manifest, self.folder, self.record.fingerprint, options)


def open_splits(
    manifest_uris: Sequence[str],
    output: str,
    options: RunOptions,
    *,
    own_disk: bool = True,
    are_images_tried: bool = False,
) -> list[SplitInputs]:
    """Open and check the manifests; nothing is written.

    Args:
        manifest_uris: the manifest to inspect, then those that it is compared with.
        output: the folder of the inspection.
        options: of the runs.
        own_disk: the images are read on this machine, so one that is missing here is missing.
        are_images_tried: some of the images have been decoded already.

    Raises:
        UnreadableDataset: a manifest cannot be read or has no images, or none of its sampled images can be
            decoded.
        InvalidConfiguration: a manifest is compared with itself.
    """
    _check_different(manifest_uris)
    opened = [open_manifest(uri) for uri in manifest_uris]
    names = _name_splits([manifest.uri for manifest in opened])
    splits = []
    for number, (name, manifest) in enumerate(zip(names, opened, strict=True)):
        folder = uris.join(output, SIGNATURES if number == 0 else f"{SIGNATURES}-{number}")
        cut = plan_cut(manifest, folder, options)
        record = RunRecord(
            "inspect",
            {"dataset": cut.dataset, "images": cut.images, "signature": signature.VERSION},
            {"manifest": uris.redact_uri(manifest.uri)},
        )
        splits.append(SplitInputs(name, manifest, folder, cut, record, _list_classes(manifest)))
    for manifest in () if are_images_tried else opened:
        where = uris.redact_uri(manifest.uri)
        check_some_decode(_sample_images(manifest), manifest.decoding, where, own_disk=own_disk)
    storage.check_writable(output)
    return splits


def _check_different(manifest_uris: Sequence[str]) -> None:
    places: dict[str, str] = {}
    for uri in manifest_uris:
        if places.setdefault(resolve_place(uri), uri) != uri or list(manifest_uris).count(uri) > 1:
            raise InvalidConfiguration(
                f"{uris.redact_uri(uri)} is given twice: --against compares with other manifests"
            )


def _name_splits(manifest_uris: Sequence[str]) -> list[str]:
    """The names of the files without `.parquet`, or as much of the paths as makes them different."""
    paths = [
        uris.redact_uri(uri).removesuffix(".parquet").rstrip("/").split("/")
        for uri in manifest_uris
    ]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"split {number + 1}" for number in range(len(paths))]


def _list_classes(manifest: Manifest) -> tuple[str, ...]:
    try:
        annotated = list_annotated_classes(manifest, manifest.rows)
    except NotAnnotated:
        return manifest.classes or ()
    return tuple(dict.fromkeys([*(manifest.classes or ()), *annotated]))


def _sample_images(manifest: Manifest) -> list[SampledImage]:
    """Some images, spread over the manifest."""
    rows = sorted({index * manifest.rows // SAMPLED_IMAGES for index in range(SAMPLED_IMAGES)})
    images = []
    for row in rows:
        table = manifest.read(row, 1, manifest.image_columns)
        (member,) = read_members(table, manifest.uri, row)
        images.append(SampledImage(table["image_id"][0].as_py(), table["uri"][0].as_py(), member))
    return images
