"""How near the authors' own MATLAB boxes each method comes: mean best IoU of their boxes with a method's.

python -m tests.benchmarks.proposal_fidelity --folder DIR --json FILE

DIR holds NAME.jpg and NAME_boxes.mat: `boxes`, x1 y1 x2 y2 from 0, inclusive at both ends.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from pipeline import geometry, imaging
from tests.benchmarks.proposal_methods import methods


def main() -> None:
    """Compare, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for path in sorted(options.folder.glob("*_boxes.mat")):
        name = path.name.removesuffix("_boxes.mat")
        theirs = geometry.from_inclusive(loadmat(path)["boxes"].astype(np.float32), 0)
        image = imaging.decode((options.folder / f"{name}.jpg").read_bytes())
        for method in methods(min_side=1):
            best = geometry.iou(theirs, method.propose(image)).max(axis=1)
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
