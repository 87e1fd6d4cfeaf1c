"""Which cluster the user names in `RAY_ADDRESS`; loads nothing of Ray."""

from __future__ import annotations

import os


def get_address() -> str:
    """The address in `RAY_ADDRESS`, which `ray job submit` sets, or `local`."""
    return os.environ.get("RAY_ADDRESS", "").strip() or "local"


def is_cluster_named() -> bool:
    """Whether the user names a cluster, as `ray job submit` does too."""
    return get_address() != "local"
