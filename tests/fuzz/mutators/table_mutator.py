"""Changes of an Arrow table's columns, cells, rows and metadata, and of the Parquet that holds it."""

from __future__ import annotations

import copy
import io
import json
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.json_mutator import get_node, iterate_paths, mutate_json
from tests.fuzz.mutators.values import draw_number, draw_text, draw_value, shorten

_TYPES = (
    *(pa.int8(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.null()),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary()),
    pa.dictionary(pa.int32(), pa.string()),
)


def mutate_table(table: pa.Table, random: Random) -> tuple[pa.Table, str]:
    """The table with one or two changes, and their description."""
    changes = []
    for _ in range(random.choice((1, 1, 1, 2))):
        change = random.choice(
            (
                *[_change_cell] * 6,
                _cast_column,
                _drop_column,
                _repeat_column,
                _change_rows,
                _change_metadata,
            )
        )
        table, text = change(table, random)
        changes.append(text)
    return table, ", ".join(changes)


def encode_table(table: pa.Table, random: Random) -> tuple[bytes, str]:
    """The table as a Parquet file, at times damaged or with a forged number of rows, and the description."""
    group, use_dictionary = random.choice((None, None, 1, 2)), random.random() < 0.5
    data = _write_table(table, group, use_dictionary)
    kind = random.random()
    if kind < 0.8:
        return data, ""
    if kind < 0.9:
        return mutate_bytes(data, random)
    rows = random.choice(
        (0, 1, len(table) - 1, len(table) + 1, 2 * len(table), -5, 2**31, 2**40, 2**62)
    )
    forged = forge_row_count(data, rows)
    return forged or data, f"the footer says {rows} rows" if forged else ""


def _write_table(table: pa.Table, group: int | None, use_dictionary: bool) -> bytes:
    """The file, without what Parquet does not take: bytes in metadata that are no text, some types."""
    for candidate in (table, table.replace_schema_metadata(None), table.select([])):
        buffer = io.BytesIO()
        try:
            pq.write_table(candidate, buffer, row_group_size=group, use_dictionary=use_dictionary)
        except (pa.ArrowException, OSError, ValueError):
            continue
        return buffer.getvalue()
    return b""


def forge_row_count(data: bytes, rows: int) -> bytes | None:
    """A Parquet file whose footer states another number of rows; None if its place is not found."""
    length = int.from_bytes(data[-8:-4], "little")
    footer, pages = data[-8 - length : -8], data[: -8 - length]
    stored = pq.read_metadata(io.BytesIO(data)).num_rows
    pattern, at = b"\x16" + _encode_varint(stored), -1
    while (at := footer.find(pattern, at + 1)) >= 0:
        changed = footer[:at] + b"\x16" + _encode_varint(rows) + footer[at + len(pattern) :]
        forged = pages + changed + len(changed).to_bytes(4, "little") + b"PAR1"
        try:
            if pq.read_metadata(io.BytesIO(forged)).num_rows == rows:
                return forged
        except (pa.ArrowException, OSError):
            continue
    return None


def _encode_varint(value: int) -> bytes:
    """Thrift's zigzag form of a 64-bit integer."""
    rest, encoded = ((value << 1) ^ (value >> 63)) % (1 << 64), bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*encoded, rest])


def _change_cell(table: pa.Table, random: Random) -> tuple[pa.Table, str]:
    if not len(table) or not table.num_columns:
        return table, "nothing"
    index, row = random.randrange(table.num_columns), random.randrange(len(table))
    cells = copy.deepcopy(table.column(index).to_pylist())
    path = random.choice([(row,), *[p for p in iterate_paths(cells) if p[0] == row]])
    parent = get_node(cells, path[:-1])
    parent[path[-1]] = _draw_similar(parent[path[-1]], random)
    name = f"{table.schema.names[index]}.{'.'.join(map(str, path))}"
    text = f"{name} = {shorten(parent[path[-1]])}"
    return table.set_column(
        index, table.schema.names[index], _build_column(cells, table, index)
    ), text


def _draw_similar(value: Any, random: Random) -> Any:
    """A value of the same type, as most columns take no other."""
    if random.random() < 0.2:
        return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return draw_number(random) if isinstance(value, float) else random.randint(-10, 100)
    if isinstance(value, str):
        return draw_text(random)
    if isinstance(value, list):
        changed = list(value)
        if changed and random.random() < 0.5:
            del changed[random.randrange(len(changed))]
        else:
            changed.append(copy.deepcopy(random.choice(changed)) if changed else None)
        return changed
    return draw_value(random)


def _build_column(cells: list[Any], table: pa.Table, index: int) -> pa.Array:
    """The cells in the column's type, or else in the type that fits them, or else as texts."""
    loose = [table.schema.field(index).type]
    if pa.types.is_list(loose[0]) and pa.types.is_fixed_size_list(loose[0].value_type):
        loose.append(pa.list_(pa.list_(loose[0].value_type.value_type)))
    for kind in (*loose, None):
        try:
            return pa.array(cells, kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    return pa.array([json.dumps(cell, default=str).encode("utf-8", "replace") for cell in cells])


def _cast_column(table: pa.Table, random: Random) -> tuple[pa.Table, str]:
    index, kind = random.randrange(table.num_columns), random.choice(_TYPES)
    name, column = table.schema.names[index], table.column(index).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        return table, "nothing"
    try:
        cast = pa.nulls(len(table), kind) if kind == pa.null() else column.cast(kind, safe=False)
    except (pa.ArrowException, NotImplementedError):
        cast = pa.array(range(len(table)))
    return table.set_column(index, name, cast), f"{name} as {cast.type}"


def _drop_column(table: pa.Table, random: Random) -> tuple[pa.Table, str]:
    if table.num_columns < 2:
        return table, "nothing"
    index = random.randrange(table.num_columns)
    return table.remove_column(index), f"without {table.schema.names[index]}"


def _repeat_column(table: pa.Table, random: Random) -> tuple[pa.Table, str]:
    index, name = random.randrange(table.num_columns), random.choice(table.schema.names)
    repeated = table.append_column(name, table.column(index))
    return repeated, f"{table.schema.names[index]} repeated as {name}"


def _change_rows(table: pa.Table, random: Random) -> tuple[pa.Table, str]:
    rows = list(range(len(table)))
    kind = random.choice(("shuffled", "without one", "with one repeated", "empty"))
    if kind == "shuffled":
        random.shuffle(rows)
    elif kind == "without one" and rows:
        rows.remove(random.choice(rows))
    elif kind == "with one repeated" and rows:
        rows.insert(random.randrange(len(rows)), random.choice(rows))
    elif kind == "empty":
        rows = []
    return table.take(pa.array(rows, pa.int64())), f"rows {kind}: {rows[:12]}"


def _change_metadata(table: pa.Table, random: Random) -> tuple[pa.Table, str]:
    metadata = dict(table.schema.metadata or {})
    if not metadata or random.random() < 0.15:
        return table.replace_schema_metadata(None), "without metadata"
    key = random.choice(list(metadata))
    if random.random() < 0.2:
        del metadata[key]
        return table.replace_schema_metadata(metadata), f"without the metadata {key!r}"
    try:
        content = json.loads(metadata[key])
    except ValueError:  # an earlier change of the same table
        content = None
    if content is None or random.random() < 0.3:
        metadata[key], text = mutate_bytes(metadata[key], random)
    else:
        changed, text = mutate_json([content], random)
        metadata[key] = json.dumps(changed[0] if changed else None).encode()
    return table.replace_schema_metadata(metadata), f"metadata {key!r}: {text}"
