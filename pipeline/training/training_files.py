"""The objects that a training writes into its output, by their names: no other is ever removed."""

from __future__ import annotations

import re

from pipeline import log_files, shards, storage, uris
from pipeline.detector.checkpoint_record import CHECKPOINT_RECORD_NAME, WEIGHTS_NAME
from pipeline.training import logs, state

BEST = "best"
"""Folder of the checkpoint with the best validation score."""

SUMMARY_NAME = "summary.json"
PLAN_NAME = "plan.json"
"""What `--plan` writes; it stays if the training that it is for begins, or begins again."""

TOTALS_NAME = "totals.json"
"""What all starts of a training of Fast R-CNN spent; beside the states."""

STAGES = "stages"
"""Folder of what the stages of R-CNN and SPPnet leave for the next one."""
FEATURES = "features"
"""Folder of the stored features of R-CNN's and SPPnet's windows: the output of a run over shards."""
MAPS = "maps"
"""Folder of SPPnet's stored feature maps: the output of a run over shards."""

_RUN_OUTPUT = re.compile(
    rf"{shards.PART_NAME.pattern}|run\.json|{re.escape(shards.TABLE_NAME)}|{re.escape(SUMMARY_NAME)}"
)
_CHECKPOINT = re.compile("|".join(map(re.escape, (CHECKPOINT_RECORD_NAME, WEIGHTS_NAME))))
_PATTERNS = {
    state.FOLDER: re.compile(
        rf"{re.escape(state.POINTER)}|{state.STATE_NAME.pattern}|{re.escape(TOTALS_NAME)}"
    ),
    "": re.compile(rf"{_CHECKPOINT.pattern}|{re.escape(SUMMARY_NAME)}"),
    logs.FOLDER: re.compile(
        rf"{re.escape(logs.LINES)}|{re.escape(logs.EVENTS)}|not-finite-step-\d+-worker-\d+\.npz"
        rf"|{log_files.LOG_NAME.pattern}"
    ),
    BEST: _CHECKPOINT,
    STAGES: re.compile(r"[a-z-]+\.(json|pt|safetensors)"),
    FEATURES: _RUN_OUTPUT,
    MAPS: _RUN_OUTPUT,
    f"{FEATURES}/{logs.FOLDER}": log_files.LOG_NAME,
    f"{MAPS}/{logs.FOLDER}": log_files.LOG_NAME,
}
"""By folder below the output, the names that training writes there."""

WRITES = (
    "run.json",
    CHECKPOINT_RECORD_NAME,
    WEIGHTS_NAME,
    SUMMARY_NAME,
    PLAN_NAME,
    *(f"{folder}/*" for folder in (state.FOLDER, logs.FOLDER, BEST, STAGES, FEATURES, MAPS)),
)
"""Glob patterns of what a training writes, which must not be its input."""


def list_training_files(output: str) -> list[str]:
    """The objects in an output that a training wrote, or would replace; the pointer to the state is first.

    Returns:
        Their paths below the output.
    """
    listed = [
        f"{folder}/{name}" if folder else name
        for folder, pattern in _PATTERNS.items()
        for name in storage.list_names(uris.join(output, folder) if folder else output)
        if pattern.fullmatch(name)
    ]
    pointer = f"{state.FOLDER}/{state.POINTER}"
    return sorted(listed, key=lambda name: name != pointer)


def clear_training(output: str) -> None:
    """Remove an earlier training: the pointer first, so that no run resumes from half of it."""
    for name in list_training_files(output):
        storage.remove(uris.join(output, name))


def remove_scratch_files(output: str) -> None:
    """Remove what killed writers of an earlier attempt left behind."""
    for folder, pattern in _PATTERNS.items():
        storage.remove_scratch_files(uris.join(output, folder) if folder else output, pattern)
    storage.remove_scratch_files(output, re.compile(re.escape(PLAN_NAME)))
