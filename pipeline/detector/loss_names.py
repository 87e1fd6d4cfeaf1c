"""Names of losses that logs need too; importing this loads no torch."""

from __future__ import annotations

TOTAL = "total"
"""Name of the loss that training minimises, beside the names of its parts."""
