"""The kinds of input, and the module of each: one is imported when its first case comes."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.target import Target

_MODULES = {
    "voc_xml": "voc",
    "voc_list": "voc",
    "coco": "coco",
    "yolo": "labelling_formats",
    "openimages": "labelling_formats",
    "lvis": "labelling_formats",
    "cvat": "labelling_formats",
    "labelme": "labelling_formats",
    "labelstudio": "labelling_formats",
    "webdataset": "containers",
    "image_table": "containers",
    "img2dataset": "containers",
    "folder": "folder",
    "image": "images",
    "manifest": "manifests",
    "proposals": "proposals",
    "detections": "detections",
    "shard_table": "shard_tables",
    "resume": "shard_tables",
    "run_record": "run_records",
    "output_place": "output_places",
    "checkpoint": "checkpoints",
    "training_state": "training_states",
    "weights": "weights",
    "pickle": "pickles",
    "mat": "mat_files",
    "uri": "uri_texts",
    "storage_options": "storage_options",
}

KINDS = tuple(_MODULES)
"""All kinds, in the order in which they are run."""


def get_target(kind: str) -> Target:
    """The target of a kind."""
    module = import_module(f"tests.fuzz.targets.{_MODULES[kind]}")
    return next(target for target in module.TARGETS if target.kind == kind)
