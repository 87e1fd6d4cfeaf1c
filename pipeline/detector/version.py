"""The version of the detector's arithmetic; importing this is free of torch."""

from __future__ import annotations

ALGORITHM_VERSION = 1
"""Changes with whatever changes the detections that a checkpoint gives, beyond the last digits.

It is part of a detection run's fingerprint, as that of the proposals is: shards that older code did are
never taken for shards of this code.
"""
