"""Two small splits with one of each kind of trouble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import imaging
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow
from tests.inspection.signed_images import draw_smooth

CLASSES = ("<script>alert(1)</script>", "dog")


def write_splits(folder: Path) -> tuple[str, str]:
    """Write train.parquet and test.parquet with their images.

    In train, image 3 repeats image 0 and image 4 is black; image 5 is no image. In test, image 0 is image 1
    of train, mirrored. Image 2 of train has a tiny box and two boxes of two classes at one place.
    """
    images = [draw_smooth(seed) for seed in range(3)]
    train: list[NDArray[np.uint8] | None] = [
        *images,
        images[0],
        np.zeros((120, 160, 3), np.uint8),
        None,
    ]
    test: list[NDArray[np.uint8] | None] = [
        np.ascontiguousarray(images[1][:, ::-1]),
        draw_smooth(7),
    ]
    label, dog = CLASSES
    plain = (AnnotatedObject(label, 20, 20, 80, 90), AnnotatedObject(dog, 90, 30, 150, 110))
    suspicious = (
        AnnotatedObject(dog, 5, 5, 7, 30),
        AnnotatedObject(dog, 40, 40, 90, 90),
        AnnotatedObject(label, 40, 40, 90, 91),
        AnnotatedObject(dog, 60, 60, 170, 130, difficult=True),
    )
    objects = {("train", 2): suspicious, ("train", 4): ()}
    uris = []
    for name, drawn in (("train", train), ("test", test)):
        rows = []
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(drawn):
            path = folder / name / f"{number}.png"
            path.write_bytes(b"no image" if pixels is None else imaging.encode_png(pixels))
            boxes = objects.get((name, number), plain)
            rows.append(ManifestRow(f"{number}", str(path), 160, 120, boxes))
        uris.append(str(folder / f"{name}.parquet"))
        write_manifest(uris[-1], rows, CLASSES)
    return uris[0], uris[1]
