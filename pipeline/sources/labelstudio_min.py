"""Label Studio's export JSON-MIN, brought into the form of its export JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RECORD_FIELDS = frozenset(
    ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "inner_id")
)
"""Fields that Label Studio adds beside those of the task's data."""
_REGION_FIELDS = ("original_width", "original_height", "image_rotation")
_LABELS = "labels"


def is_min_task(task: Any) -> bool:
    """Whether an element of an export is one of JSON-MIN: the task's data and regions side by side."""
    if not isinstance(task, dict) or "data" in task or "annotations" in task:
        return False
    return "annotation_id" in task or any(_holds_regions(value) for value in task.values())


def expand_min_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task as the export JSON has it, with one annotation; without one if nobody annotated it."""
    regions = [
        _expand_region(region)
        for value in task.values()
        if _holds_regions(value)
        for region in value
    ]
    data = {
        name: value
        for name, value in task.items()
        if name not in _RECORD_FIELDS and not _holds_regions(value)
    }
    is_annotated = "annotation_id" in task or regions
    return {"data": data, "annotations": [{"result": regions}] if is_annotated else []}


def _holds_regions(value: Any) -> bool:
    """Whether a field holds regions of the image: objects that name labels, or the size of the image."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) for item in value)
        and any(_find_kind(item) or _REGION_FIELDS[0] in item for item in value)
    )


def _find_kind(region: Mapping[str, Any]) -> str:
    return next((str(name) for name in region if str(name).endswith(_LABELS)), "")


def _expand_region(region: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: region[name] for name in _REGION_FIELDS if name in region}
    value = {name: item for name, item in region.items() if name not in fields}
    return {**fields, "type": _find_kind(region), "value": value}
