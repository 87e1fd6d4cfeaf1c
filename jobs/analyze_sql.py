"""SQL over outputs: the options of `analyze sql`, and what it prints and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from jobs.entry import JobOptions, print_lines
from pipeline import storage, uris
from pipeline.analysis import query_table, sql, sql_views
from pipeline.errors import InvalidConfiguration
from pipeline.runs.input_places import check_apart, resolve_place


@dataclass(frozen=True, kw_only=True)
class AnalyzeSql(JobOptions):
    """Query outputs with SQL (DuckDB).

    The views are images (one row per image), detections and objects (one row per box), failures, and matches.
    A query reads these only: it can neither read another file nor write one.
    """

    statement: Annotated[str, tyro.conf.Positional] = ""
    """One statement: SELECT ..., or DESCRIBE, SUMMARIZE, SHOW TABLES."""
    detections: str | None = None
    """Output folder of jobs/detect.py: the views images, detections, failures."""
    manifest: str | None = None
    """Manifest: the views images, objects."""
    matches: str | None = None
    """Output folder of jobs/analyze.py detections: the view matches."""
    output: str | None = None
    """Write the result to this .parquet or .csv instead of printing it; any fsspec URI."""
    views: str | None = None
    """Write the views as a SQL script to this file, for use in DuckDB itself."""


def query(options: AnalyzeSql) -> None:
    """Print or write the result of a query; write the views.

    Raises:
        InvalidConfiguration: there is nothing to query or nothing to do, or the query is wrong.
    """
    inputs = {name: getattr(options, name) for name in ("detections", "manifest", "matches")}
    if not any(inputs.values()):
        raise InvalidConfiguration("pass --detections, --manifest or --matches: there is no view")
    if not options.statement and options.views is None:
        raise InvalidConfiguration("pass a statement, such as 'SHOW TABLES', or --views")
    for target in filter(None, (options.output, options.views)):
        check_apart(target, inputs)
    if options.output is not None:
        sql.is_csv(options.output)  # rejects another ending now
    views = sql_views.open_views(options.detections, options.manifest, options.matches)
    _check_outside(views, options)
    if options.views is not None:
        storage.put(options.views, sql_views.format_script(views).encode())
        print_lines(f"wrote {uris.redact_uri(uris.make_absolute(options.views))}")
    if not options.statement:
        return
    with sql.run_query(views, options.statement) as reader:
        if options.output is not None:
            rows = sql.write_result(uris.make_absolute(options.output), reader)
            print_lines(f"wrote {rows} rows: {uris.redact_uri(uris.make_absolute(options.output))}")
            return
        table, has_more = query_table.build_query_table(reader)
    console = Console()
    if not console.is_terminal:  # a file or pipe has no width
        console = Console(width=10_000)
    console.print(table)
    if has_more:
        print_lines(f"only the first {query_table.MOST_ROWS} rows: --output writes all of them")
    print_lines(*(f"note: {note}" for note in views.notes))


def _check_outside(views: sql_views.Views, options: AnalyzeSql) -> None:
    """Reject a file in a folder whose files are one table: it would replace one of them, or join them.

    Raises:
        InvalidConfiguration: --output or --views is such a file.
    """
    folders = {source.folder for source in views.sources.values() if source.folder is not None}
    for name, target in (("output", options.output), ("views", options.views)):
        if target is None:
            continue
        place = resolve_place(target).rpartition("/")[0]
        if place in map(resolve_place, folders):
            raise InvalidConfiguration(
                f"--{name} {uris.redact_uri(target)} is in a folder that the query reads: choose "
                "another place"
            )
