"""The version of the detector's arithmetic; importing this loads no torch."""

from __future__ import annotations

ALGORITHM_VERSION = 2
"""Increase it with every change that affects detections beyond the last digits.

It is part of a detection run's fingerprint, so that a run never continues the shards of older code.
"""
