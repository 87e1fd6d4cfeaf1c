"""The views that SQL sees: outputs of the pipeline as flat tables.

`images`: one row per image. `detections`: one row per detection. `failures`: the failed images. `objects`:
one row per annotated object. `matches`: detections matched with objects. Only parts in an output's shard
table count; parts of other runs in the same folder do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from pipeline import schema, shards, storage, uris
from pipeline.analysis.manifest_join import require_column
from pipeline.candidate_thresholds import CandidateThresholds
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest, open_manifest
from pipeline.shards import Parts, open_parts

DETECTION_ROWS = "detection_rows"
MANIFEST_ROWS = "manifest_rows"
MATCHES = "matches"


@dataclass(frozen=True)
class Source:
    """A table of Parquet files with the same columns."""

    files: tuple[str, ...]
    columns: tuple[str, ...]
    folder: str | None
    """The folder whose files these are; None for a single file."""


@dataclass(frozen=True)
class Views:
    """The tables that a query may use, and the views over them."""

    sources: Mapping[str, Source]
    """By the name of the table."""
    statements: tuple[str, ...]
    """`CREATE VIEW ...` for each view, in order."""
    notes: tuple[str, ...] = ()
    """What a reader of a result must know, one sentence each."""


VIEW_INPUTS = {
    "images": "--detections or --manifest",
    "detections": "--detections",
    "failures": "--detections",
    "objects": "--manifest",
    "matches": "--matches",
}
"""The views, and the option that each needs."""


def open_views(
    detections_uri: str | None = None,
    manifest_uri: str | None = None,
    matches_uri: str | None = None,
) -> Views:
    """Open the inputs of a query and define the views over them.

    Args:
        detections_uri: an output of `detect`.
        manifest_uri: a manifest.
        matches_uri: the folder `matches` of `analyze detections`, or the folder that holds it.

    Raises:
        UnreadableDataset: an input is something else, incomplete or damaged.
        StorageError: a store fails.
    """
    sources: dict[str, Source] = {}
    parts = None if detections_uri is None else open_parts(detections_uri)
    manifest = None if manifest_uri is None else open_manifest(manifest_uri)
    statements: list[str] = []
    notes: list[str] = []
    if parts is not None:
        columns = require_column(parts, "detections", "detect").names
        sources[DETECTION_ROWS] = Source(_list_parts(parts), tuple(columns), parts.uri)
        statements += _define_detections(parts.thresholds)
    if manifest is not None:
        sources[MANIFEST_ROWS] = _list_manifest(manifest)
        statements.append(_define_objects())
    statements += _define_images(parts, has_manifest=manifest is not None)
    if matches_uri is not None:
        sources[MATCHES], missing = open_matches(matches_uri)
        if missing:
            notes.append(f"PARTIAL: the matches lack {missing} shards of the detections")
    return Views(sources, tuple(statements), tuple(notes))


def open_matches(uri: str) -> tuple[Source, int]:
    """The parts of a table of matches, and how many a partial analysis lacks.

    Raises:
        UnreadableDataset: the folder holds no such table, or no part of it.
    """
    uri = uris.make_absolute(uri)
    below = uris.join(uri, "matches")
    folder = uri if shards.read_shard_table(uri) else below
    table = shards.read_shard_table(folder)
    if not table:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} holds no matches: expected the output of analyze detections"
        )
    committed = shards.list_parts(folder, table).committed
    if not committed:
        raise UnreadableDataset(
            f"{uris.redact_uri(folder)} has no shard yet: rerun analyze detections"
        )
    parts = Parts(folder, tuple(shard for shard in table if shard.ordinal in committed))
    columns = parts.read_schema().names
    absent = [name for name in schema.MATCHES.names if name not in columns]
    if absent:
        raise UnreadableDataset(
            f"{uris.redact_uri(folder)} has no column {absent[0]}, so it holds no matches"
        )
    return Source(_list_parts(parts), tuple(columns), folder), len(table) - len(committed)


def _list_parts(parts: Parts) -> tuple[str, ...]:
    return tuple(uris.join(parts.uri, shard.part_name) for shard in parts.shards)


def _list_manifest(manifest: Manifest) -> Source:
    files = tuple(file.uri for file in manifest.files)
    with storage.open_file(files[0]) as file, schema.report_damage(files[0]):
        names = pq.read_schema(file).names
    folder = None if files == (manifest.uri,) else manifest.uri
    return Source(files, tuple(name for name in schema.MANIFEST.names if name in names), folder)


def _define_detections(thresholds: CandidateThresholds | None) -> list[str]:
    all_detections = (
        "CREATE VIEW detections AS\n"
        "SELECT image_id, uri, width, height, d.label AS label, d.label_id AS label_id, d.score AS score,\n"
        "    d.x1 AS x1, d.y1 AS y1, d.x2 AS x2, d.y2 AS y2\n"
        "FROM (SELECT image_id, uri, width, height, unnest(detections) AS d FROM detection_rows)"
    )
    condition = [] if thresholds is None else [_format_thresholds(thresholds, "d")]
    return [
        "\nWHERE ".join([all_detections, *condition]),
        "CREATE VIEW failures AS\n"
        "SELECT image_id, uri, stage, error_type, error_message\n"
        f"FROM {DETECTION_ROWS} WHERE status = 'failed'",
    ]


def _format_thresholds(thresholds: CandidateThresholds, name: str) -> str:
    """The condition that the detection `name` is above its class's threshold by the rule of its run."""
    cases = "".join(
        f" WHEN {quote_text(label)} THEN {limit!r}::FLOAT"
        for label, limit in thresholds.thresholds.items()
        if limit is not None
    )
    return f"{name}.score > CASE {name}.label{cases} ELSE '-inf'::FLOAT END" if cases else "true"


def _define_objects() -> str:
    return (
        "CREATE VIEW objects AS\n"
        "SELECT image_id, object_index, o.label AS label, o.x1 AS x1, o.y1 AS y1, o.x2 AS x2, o.y2 AS y2,\n"
        "    o.difficult AS difficult, o.crowd AS crowd\n"
        "FROM (SELECT image_id, unnest(objects) AS o, generate_subscripts(objects, 1) - 1 AS object_index\n"
        "    FROM manifest_rows)"
    )


def _define_images(parts: Parts | None, *, has_manifest: bool) -> list[str]:
    """The view of images: the manifest's, with what the detections say about each."""
    kept = "d.detections"
    if parts is not None and parts.thresholds is not None:
        kept = f"list_filter(d.detections, lambda x: {_format_thresholds(parts.thresholds, 'x')})"
    from_detections = (
        f"d.status AS status, d.num_proposals AS num_proposals,\n    len({kept}) AS num_detections"
    )
    if parts is not None and has_manifest:
        return [
            "CREATE VIEW images AS\n"
            "SELECT m.image_id AS image_id, m.uri AS uri, coalesce(d.width, m.width) AS width,\n"
            f"    coalesce(d.height, m.height) AS height, {from_detections},\n"
            "    len(m.objects) AS num_objects\n"
            f"FROM {MANIFEST_ROWS} m LEFT JOIN {DETECTION_ROWS} d ON m.image_id = d.image_id"
        ]
    if parts is not None:
        return [
            f"CREATE VIEW images AS\nSELECT image_id, uri, width, height, {from_detections}\n"
            f"FROM {DETECTION_ROWS} d"
        ]
    if has_manifest:
        return [
            "CREATE VIEW images AS\n"
            "SELECT image_id, uri, width, height, len(objects) AS num_objects\n"
            f"FROM {MANIFEST_ROWS}"
        ]
    return []


def format_script(views: Views) -> str:
    """The views as a script for DuckDB, which reads the same files where they are."""
    tables = [
        f"CREATE VIEW {name} AS\nSELECT {_list_columns(name, source)}\n"
        f"FROM read_parquet([{_join(source.files)}])"
        for name, source in views.sources.items()
    ]
    return "".join(f"{statement};\n\n" for statement in [*tables, *views.statements])


def _list_columns(name: str, source: Source) -> str:
    """All columns, and those that a manifest may lack as null."""
    absent = [n for n in schema.MANIFEST.names if n not in source.columns]
    if name != MANIFEST_ROWS or not absent:
        return "*"
    return ", ".join(["*", *(f"NULL::{_SQL_TYPES[column]} AS {column}" for column in absent)])


_SQL_TYPES = {
    "width": "INTEGER",
    "height": "INTEGER",
    "objects": (
        "STRUCT(label VARCHAR, x1 FLOAT, y1 FLOAT, x2 FLOAT, y2 FLOAT, difficult BOOLEAN, crowd BOOLEAN)[]"
    ),
}


def _join(files: Sequence[str]) -> str:
    return ",\n    ".join(map(quote_text, files))


def quote_text(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
