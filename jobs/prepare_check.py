"""`prepare --check`: the images of a manifest are tried before it is written, and checked afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import storage
from pipeline.imaging import Decoding
from pipeline.manifests import ManifestRow

if TYPE_CHECKING:
    from pipeline.inspection.image_sample import ImageSample


class ManifestCheck:
    """The check of one manifest."""

    def __init__(self, sample: ImageSample) -> None:
        self._sample = sample

    def add(self, row: ManifestRow) -> None:
        """Take note of a row that is written."""
        self._sample.add(row.image_id, row.uri, row.member)

    def try_images(self, manifest: str, decoding: Decoding) -> None:
        """Decode a sample of the images, and try the folder of the check, before the manifest appears.

        Raises:
            UnreadableDataset: none of the images can be decoded.
            StorageError: the folder cannot be written.
        """
        from pipeline.engine.named_cluster import is_cluster_named  # noqa: PLC0415
        from pipeline.inspection.image_sample import check_some_decode  # noqa: PLC0415

        if not self._sample.images:  # the writer rejects an empty manifest
            return
        own_disk = not is_cluster_named()
        check_some_decode(self._sample.images, decoding, "--check", own_disk=own_disk)
        storage.check_writable(_name_output(manifest))

    def run(self, manifest: str) -> None:
        """Check all images and boxes, into a folder beside the manifest."""
        from jobs.analyze_dataset import AnalyzeDataset, analyze_dataset  # noqa: PLC0415
        from pipeline.engine.inspect.run import InspectionOptions  # noqa: PLC0415

        inspection = InspectionOptions(overwrite=True)  # images may have changed in place
        options = AnalyzeDataset(
            manifest=manifest, output=_name_output(manifest), inspection=inspection
        )
        analyze_dataset(options, are_images_tried=True)


def _name_output(manifest: str) -> str:
    return f"{manifest.removesuffix('.parquet').rstrip('/')}-check"


def open_check() -> ManifestCheck:
    """Begin a check; fail now if a package that it needs is missing.

    Raises:
        InvalidConfiguration: one is, or `RAY_ADDRESS` is no address.
    """
    # These load the engine, which preparing alone does not need.
    from pipeline.engine.inspect.run import check_installation  # noqa: PLC0415
    from pipeline.inspection.image_sample import ImageSample  # noqa: PLC0415

    check_installation()
    return ManifestCheck(ImageSample())
