"""The state of any job's output, from the store alone; loads neither Ray nor torch."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline import run_record, storage, uris
from pipeline.engine.baselines.stages import STAGES_BY_SYSTEM, Stages
from pipeline.engine.export.output import PARTS_FOLDER, ExportOutput
from pipeline.errors import InvalidCheckpoint
from pipeline.run_record import RunRecord
from pipeline.runs.run_status import (
    OutputStatus,
    Rate,
    describe_record,
    find_run_folder,
    open_record,
    read_log_facts,
    read_shard_status,
)
from pipeline.training.logs import read_log
from pipeline.training.state import read_latest_state


def read_output_status(uri: str) -> OutputStatus:
    """The state of an output of propose, detect, train, analyze or export.

    Args:
        uri: the folder; of an analysis, its `matches` or the folder above.

    Raises:
        UnreadableDataset: the folder is missing, empty or not the output of a run.
        MismatchedOutput: run.json is damaged.
        StorageError: the store cannot be reached.
    """
    output = find_run_folder(uri)
    record = open_record(output)
    match record.job:
        case "train":
            return _read_training_status(output, record)
        case "export":
            return _read_export_status(output, record)
        case "analyze":
            return _read_analysis_status(output, record)
        case _:
            return read_shard_status(output, record)


def _read_analysis_status(output: str, record: RunRecord) -> OutputStatus:
    """The matches are parts; whoever computes metrics from them writes beside their folder."""
    above = str(PurePosixPath(output).parent) if "://" not in output else output.rpartition("/")[0]
    status = read_shard_status(output, record, above)
    if status.state != "finished":
        return status
    is_scored = storage.exists(uris.join(above, "metrics.json"))
    note = "metrics.json is written" if is_scored else "metrics.json is not there yet"
    state = "finished" if is_scored else "unfinished"
    return describe_record(
        output,
        record,
        state,
        total=status.total,
        committed=status.committed,
        shards=status.shards,
        shards_committed=status.shards_committed,
        rate=status.rate,
        starts=status.starts,
        last_line=status.last_line,
        notes=(*status.notes, note),
    )


def _read_export_status(output: str, record: RunRecord) -> OutputStatus:
    counts = ExportOutput(output, record).read_complete()
    if counts is not None:
        note = f"{counts.boxes} boxes, {counts.left_out} images left out"
        images = counts.images + counts.left_out
        return describe_record(
            output, record, "finished", total=images, committed=images, notes=(note,)
        )
    parts = uris.join(output, PARTS_FOLDER)
    if run_record.read_record(parts) is not None:
        status = read_shard_status(parts, record, output)
        note = "the texts of the shards; the files are put when all are there"
        return describe_record(
            output,
            record,
            "unfinished",
            total=status.total,
            committed=status.committed,
            shards=status.shards,
            shards_committed=status.shards_committed,
            rate=status.rate,
            notes=(note,),
        )
    stated = record.settings.get("images")
    total = stated if isinstance(stated, int) else None
    note = "the files are not complete: a small export commits nothing before"
    return describe_record(output, record, "unfinished", total=total, notes=(note,))


def _read_stages_status(output: str, record: RunRecord, system: str) -> OutputStatus:
    """A training of R-CNN or SPPnet: which of its stages are finished."""
    stages = Stages(output)
    names = STAGES_BY_SYSTEM[system]
    finished = [name for name in names if stages.read(name) is not None]
    left = [name for name in names if name not in finished]
    notes = [f"{system}: finished stages {', '.join(finished) or 'none'}"]
    if left:
        notes.append(f"next stage: {left[0]}")
    return describe_record(
        output,
        record,
        "unfinished" if left else "finished",
        unit="stages",
        total=len(names),
        committed=len(finished),
        notes=tuple(notes),
        **read_log_facts(output),
    )


def _read_training_status(output: str, record: RunRecord) -> OutputStatus:
    system = record.settings.get("system")
    if isinstance(system, str) and system in STAGES_BY_SYSTEM:
        return _read_stages_status(output, record, system)
    latest = read_latest_state(output, record.fingerprint)
    facts = read_log_facts(output)
    if latest is None:
        return describe_record(output, record, "not begun", unit="steps", **facts)
    notes, rate = [], None
    try:
        lines = read_log(output)
    except InvalidCheckpoint as error:
        lines = []
        notes.append(str(error))
    if lines:
        last = lines[-1]
        rate = Rate(last.images_per_second, "images", f"up to step {last.step}, logs/train.jsonl")
        notes.append(f"epoch {last.epoch:.2f}{_describe_epochs(record)}, loss {last.loss:.4f}")
        if last.skipped:
            notes.append(f"{last.skipped} images could not be read")
    return describe_record(
        output,
        record,
        "finished" if latest.is_finished else "unfinished",
        unit="steps",
        total=latest.step if latest.is_finished else None,
        committed=latest.step,
        rate=rate,
        notes=tuple(notes),
        **facts,
    )


def _describe_epochs(record: RunRecord) -> str:
    recipe = record.settings.get("recipe")
    epochs = recipe.get("epochs") if isinstance(recipe, dict) else None
    return f" of {epochs:g}" if isinstance(epochs, int | float) else ""
