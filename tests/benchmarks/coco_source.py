"""Reading a large COCO file: seconds and memory of a manifest's rows, without reading an image.

python -m tests.benchmarks.coco_source [--annotations N]

The file is drawn: eight objects an image, with segmentations as long as in COCO's own files.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import TextIO

from pipeline.manifest_writer import write_manifest
from pipeline.sources.coco import open_coco

OBJECTS_PER_IMAGE = 8
CATEGORIES = 80


def main() -> None:
    """Draw the file, read it, and print what that took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--annotations", type=int, default=2_000_000)
    parser.add_argument("--segmentation", type=int, default=50, help="numbers in each one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "instances.json"
        with source.open("w") as file:
            write_annotations(file, options.annotations, options.segmentation)
        print(
            f"{source.stat().st_size / 1e9:.2f} GB, {options.annotations} annotations", flush=True
        )
        begin, cpu_begin = perf_counter(), process_time()
        dataset = open_coco(str(source), None)
        rows = write_manifest(
            f"{folder}/manifest.parquet", dataset.rows, dataset.classes, dataset.category_ids
        )
        seconds, cpu_seconds = perf_counter() - begin, process_time() - cpu_begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{rows} images: {seconds:.0f} s, {cpu_seconds:.0f} CPU s, {peak:.2f} GB at most")


def write_annotations(file: TextIO, annotations: int, segmentation: int) -> None:
    """Write a COCO file record by record."""
    generator = random.Random(0)
    polygon = [round(generator.uniform(0, 400), 2) for _ in range(segmentation)]
    images = -(-annotations // OBJECTS_PER_IMAGE)
    file.write('{"images": [')
    for index in range(images):
        name = f"{index:012d}.jpg"
        url = f"http://images.example.org/{name}"
        image = {"id": index, "file_name": name, "coco_url": url, "width": 640, "height": 427}
        file.write((", " if index else "") + json.dumps(image))
    file.write('], "annotations": [')
    for index in range(annotations):
        annotation = {
            "id": index,
            "image_id": generator.randrange(images),
            "category_id": index % CATEGORIES + 1,
            "bbox": [index % 500 + 0.25, index % 300 + 0.5, 40.5, 30.25],
            "iscrowd": 0,
            "segmentation": [polygon],
        }
        file.write((", " if index else "") + json.dumps(annotation))
    categories = [{"id": k + 1, "name": f"class {k}"} for k in range(CATEGORIES)]
    file.write(f'], "categories": {json.dumps(categories)}}}')


if __name__ == "__main__":
    main()
