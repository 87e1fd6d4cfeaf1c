"""Selective search (Uijlings et al., IJCV 2013): proposes regions as boxes, best first.

May import the modules beside the stations, numpy and numba; never torch, ray or a station to its right.
`python -m pipeline.proposals IMAGE --draw OUT.png` proposes boxes for one image.
"""

from pipeline.proposals.backends import Backend
from pipeline.proposals.search import (
    derive_image_seed,
    describe_provenance,
    selective_search,
    warm_up_kernels,
)
from pipeline.proposals.strategy import STRATEGIES, Strategy

__all__ = [
    "STRATEGIES",
    "Backend",
    "Strategy",
    "derive_image_seed",
    "describe_provenance",
    "selective_search",
    "warm_up_kernels",
]
