"""Writing a manifest of millions of rows from a listing: seconds and memory to write, open and cut it.

python -m tests.benchmarks.manifest_scale [--images N] [--objects N]

The listing's names are generated, and no image is read: what is left is what `prepare` does for each row.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import overload

from pipeline.manifest_writer import ManifestContents, open_manifest_writer
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.shards import cut_manifest
from pipeline.sources.dataset import ReadImage, stream_rows
from pipeline.sources.options import DEFAULT
from pipeline.sources.tally import Tally

SHARD = 256


class Listing(Sequence[str]):
    """Names of images, generated as they are asked for."""

    def __init__(self, images: range) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Listing: ...

    def __getitem__(self, index: int | slice) -> str | Listing:
        """The name at an index, or the names of a slice."""
        if isinstance(index, slice):
            return Listing(self._images[index])
        number = self._images[index]
        return f"{number // 1000:05d}/{number:09d}.jpg"


def main() -> None:
    """Write, open and cut the manifest, and print what each step took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--objects", type=int, default=0, help="objects of each image")
    options = parser.parse_args()
    classes = ("person",) if options.objects else None
    boxes = tuple(AnnotatedObject("person", k, 0, k + 20, 40) for k in range(options.objects))

    def read_image(name: str) -> ReadImage:
        objects = boxes if options.objects else None
        return ReadImage(ManifestRow(name, f"s3://bucket/images/{name}", 640, 480, objects))

    with tempfile.TemporaryDirectory() as folder:
        clock = StepClock()
        rows = stream_rows(Listing(range(options.images)), read_image, Tally(), DEFAULT)
        with open_manifest_writer(f"{folder}/m", ManifestContents(classes)) as writer:
            for row in rows:
                writer.add(row)
        files = sorted(Path(folder, "m").iterdir())
        size = sum(path.stat().st_size for path in files)
        clock.print_step(f"write {writer.rows} rows, {len(files)} files, {size / 1e6:.0f} MB")
        manifest = open_manifest(f"{folder}/m")
        clock.print_step("open")
        shards = cut_manifest(manifest, SHARD).build_shards("settings")
        clock.print_step(f"cut into {len(shards)} shards")
        manifest.read(options.images - SHARD, SHARD)
        clock.print_step("read the last shard")


class StepClock:
    """Prints the seconds since the last step, and the largest memory so far."""

    def __init__(self) -> None:
        self._begin = perf_counter(), process_time()

    def print_step(self, name: str) -> None:
        """Print a line, and begin the next step."""
        end = perf_counter(), process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        seconds, cpu_seconds = (b - a for a, b in zip(self._begin, end, strict=True))
        print(
            f"{name}: {seconds:.1f} s, {cpu_seconds:.1f} CPU s, {peak:.2f} GB at most", flush=True
        )
        self._begin = end


if __name__ == "__main__":
    main()
