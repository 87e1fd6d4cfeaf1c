"""The names of the features of a box, which a ranking model lists and `box_features` computes."""

from __future__ import annotations

FEATURES = (
    "fill", "level", "birth", "death", "growth",
    "loose_agreement", "tight_agreement",
    "size", "width", "height", "aspect", "centre_x", "centre_y", "borders",
    "aligned", "straddling", "side_contrast", "least_side_contrast",
    "votes_inside", "votes_core", "votes_rim", "votes_around",
    "gradient_inside", "gradient_core", "gradient_rim", "gradient_around",
    "contrast", "core_contrast", "spread", "spread_around",
)  # fmt: skip
"""In the order of the columns; the first 5 are those of `node_evidence.BoxEvidence`.

docs/ranking.md explains each.
"""
