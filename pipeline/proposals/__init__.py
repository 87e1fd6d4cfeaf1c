"""Selective search (Uijlings et al., IJCV 2013): regions proposed as boxes, best first.

May import `errors`, `boxes`, `images`, `storage`, numpy and numba; never torch, ray or what stands to the
right. `python -m pipeline.proposals IMAGE --draw OUT.png` proposes boxes for one image.
"""

from pipeline.proposals.search import (
    Backend,
    image_seed,
    provenance,
    selective_search,
    warm_up,
)
from pipeline.proposals.strategy import STRATEGIES, Strategy

__all__ = [
    "STRATEGIES",
    "Backend",
    "Strategy",
    "image_seed",
    "provenance",
    "selective_search",
    "warm_up",
]
