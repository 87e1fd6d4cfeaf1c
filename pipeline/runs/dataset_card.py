"""README.md of an output: a dataset card that says what made it, what it holds and how to open it.

Its YAML header makes Hugging Face's `load_dataset` read the parts and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline import __version__, schema, storage, uris
from pipeline.candidate_thresholds import THRESHOLDS_NAME, get_mean_per_image
from pipeline.errors import MissingObject, UnreadableDataset, UnusableObject
from pipeline.printable import escape_unprintable
from pipeline.run_record import RunRecord
from pipeline.runs.card_texts import (
    FILES,
    HUGGING_FACE,
    KINDS,
    MEANINGS,
    PANDAS,
    PARTS,
    OutputKind,
)

log = logging.getLogger(__name__)

CARD_NAME = "README.md"
MARK = "<!-- written by fast-rcnn-pipeline; remove this line to keep your own changes -->"
"""Line of a card that its run may replace; a README.md without it is the user's and stays."""
_MOST_BYTES = 1 << 20
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Hugging Face's categories of size."""


def put_card(
    output: str, record: RunRecord, summary: Mapping[str, Any], part_name: str | None = None
) -> None:
    """Put the card of a finished run; a README.md that is not a card stays.

    Args:
        output: the folder.
        record: what the run did; a job whose output is no dataset gets no card.
        summary: the content of summary.json.
        part_name: a part whose columns the card lists; None takes those of the schema.

    Raises:
        StorageError: the store fails.
    """
    if record.job not in KINDS:
        return
    earlier = _read_card(output)
    if earlier is None:
        log.info("%s is not a card of this project, so it stays", CARD_NAME)
        return
    columns = KINDS[record.job].columns
    if part_name is not None:
        with contextlib.suppress(UnreadableDataset):  # not for the card to complain about
            columns = _read_columns(output, part_name)
    card = format_card(record, summary, columns)
    if card != earlier:
        storage.put(uris.join(output, CARD_NAME), card.encode("utf-8", "backslashreplace"))


def remove_card(output: str) -> None:
    """Remove the card of an earlier run; a README.md that is not a card stays."""
    if _read_card(output):
        storage.remove(uris.join(output, CARD_NAME))


def _read_card(output: str) -> str | None:
    """The card in an output; empty if there is none, None if its README.md is the user's."""
    try:
        text = storage.read(uris.join(output, CARD_NAME), _MOST_BYTES).decode(errors="replace")
    except UnusableObject:
        return None
    except MissingObject:
        return None if storage.exists(uris.join(output, CARD_NAME)) else ""  # such as a folder
    return text if MARK in text.splitlines() else None


def _read_columns(output: str, part_name: str) -> pa.Schema:
    uri = uris.join(output, part_name)
    with storage.open_file(uri) as source, schema.report_damage(uri):
        return pq.read_schema(source)


def format_card(record: RunRecord, summary: Mapping[str, Any], columns: pa.Schema) -> str:
    """The card of a run's output, as Markdown with a YAML header."""
    kind = KINDS[record.job]
    sections = [
        f"---\n{yaml.safe_dump(_build_header(kind, summary), sort_keys=False)}---",
        MARK,
        f"# {kind.title}",
        f"{kind.rows} Made by the job `{record.job}` of fast-rcnn-pipeline {__version__}.",
        _list_facts(record, summary),
        *_describe_thresholds(record),
        "## Columns",
        _list_columns(columns),
        "## How to open it",
        "DuckDB, in this folder:",
        _format_code("sql", kind.query),
        "pandas, in this folder:",
        _format_code("python", PANDAS),
        "Hugging Face:",
        _format_code("python", HUGGING_FACE),
        "fast-rcnn-pipeline, in its clone:",
        _format_code(kind.language, "\n".join(kind.command)),
        "## Files",
        _format_table(("file", ""), [(f"`{name}`", text) for name, text in FILES.items()]),
    ]
    return "\n\n".join(sections) + "\n"


def _build_header(kind: OutputKind, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The header, of constants and numbers only."""
    images = summary.get("images")
    header: dict[str, Any] = {
        "task_categories": ["object-detection"],
        "tags": ["fast-rcnn-pipeline", kind.name],
    }
    if isinstance(images, int) and kind.name != "matches":  # whose rows are no images
        header["size_categories"] = [
            next((name for limit, name in _SIZES if images < limit), "n>1M")
        ]
    files = [{"split": "train", "path": PARTS}]
    header["configs"] = [{"config_name": kind.name, "data_files": files, "default": True}]
    return header


def _list_facts(record: RunRecord, summary: Mapping[str, Any]) -> str:
    facts = {"images": summary.get("images"), "failed images": summary.get("images_failed")}
    failed = summary.get("failed")
    if isinstance(failed, Mapping):
        facts |= {f"failed, {reason}": count for reason, count in sorted(failed.items())}
    facts |= dict(record.inputs)
    facts["fingerprint of the settings"] = record.fingerprint
    rows = [(_escape(n), _quote(value)) for n, value in facts.items() if value is not None]
    return _format_table(("", ""), rows)


def _describe_thresholds(record: RunRecord) -> list[str]:
    """What readers of detections by the paper's rule must apply."""
    if get_mean_per_image(record) is None:
        return []
    return [
        f"The rows hold more detections than count: `{THRESHOLDS_NAME}` has the score per class that a "
        "detection must exceed. The jobs of fast-rcnn-pipeline apply it; other readers must."
    ]


def _list_columns(columns: pa.Schema) -> str:
    rows = [
        (_quote(field.name), _describe_type(field.type), MEANINGS.get(field.name, ""))
        for field in columns
    ]
    return _format_table(("column", "type", ""), rows)


def _describe_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_describe_type(kind.value_type)}"
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.list_size} {_describe_type(kind.value_type)}"
    return "struct" if pa.types.is_struct(kind) else _escape(str(kind))


def _format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _format_code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _quote(value: Any) -> str:
    """A value as code; names and places come from users and may hold anything."""
    return f"`{_escape(str(value)).replace('`', chr(39))}`"


def _escape(text: str) -> str:
    """A text that stays in its cell of a table and makes no HTML outside of code."""
    return escape_unprintable(text).replace("|", "\\|")
