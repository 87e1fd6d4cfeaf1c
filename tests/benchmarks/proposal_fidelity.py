"""Agreement with the authors' MATLAB boxes: the mean best IoU of their boxes with each method's.

python -m tests.benchmarks.proposal_fidelity --folder DIR --json FILE

DIR holds NAME.jpg and NAME_boxes.mat, whose `boxes` are 0-based x1 y1 x2 y2, inclusive at both ends. The
authors' published boxes were made with the setting of their ICCV 2011 paper, `AUTHORS_STRATEGY`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from pipeline import geometry, imaging
from pipeline.proposals import selective_search
from tests.benchmarks.proposal_methods import Method, list_methods

AUTHORS_STRATEGY = "RGB,HSV,rgI:TS:100,200"


def main() -> None:
    """Compare all methods, print the agreement and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="folder of images and boxes")
    parser.add_argument("--json", type=Path, required=True, help="output file for the figures")
    options = parser.parse_args()
    rows = []
    methods = [
        Method(
            f"ours, {AUTHORS_STRATEGY}",
            lambda image: selective_search(image, AUTHORS_STRATEGY, min_side=1),
        ),
        *list_methods(min_side=1),
    ]
    for path in sorted(options.folder.glob("*_boxes.mat")):
        name = path.name.removesuffix("_boxes.mat")
        authors_boxes = geometry.from_inclusive(loadmat(path)["boxes"].astype(np.float32), 0)
        image = imaging.decode_image((options.folder / f"{name}.jpg").read_bytes())
        for method in methods:
            best = geometry.iou(authors_boxes, method.propose(image)).max(axis=1)
            rows.append(
                {
                    "image": name,
                    "method": method.name,
                    "mean_best_iou": float(best.mean()),
                    "equal": float((best > 0.999).mean()),
                }
            )
            print(f"{name}  {method.name:40s} {best.mean():.3f}  equal {rows[-1]['equal']:.3f}")
    options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
