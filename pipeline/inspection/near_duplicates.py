"""Finds duplicates and near duplicates among the signatures of all images, in DuckDB.

Not all pairs are compared. The 64 bits of a hash are divided into bands, and only images that agree in a
whole band, and so share a *bucket*, are candidates: two hashes that differ in fewer bits than there are bands
always do. Candidates whose hashes differ in at most `MOST_BITS` bits are then compared by their pixels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.inspection.pixel_comparison import SIMILAR, correlate
from pipeline.inspection.signature import PIXELS_SIDE, VIEWS

MOST_BITS = 10
"""The most bits in which the hashes of near duplicates differ. Those of unrelated images of VOC differ in 16
and more, with 32 as the median."""
PLAIN_BANDS = 6
"""Bands for the hashes of an image as it is and mirrored."""
CROP_BANDS = 5
"""Bands for the 20 hashes of cropped views: buckets of about 12 images among 100,000."""
FLAT_CONTRAST = 4.0
"""Images of less contrast have hashes of noise: only equal files count as their duplicates."""
_MOST_OF_A_HASH = 4
"""Images of one hash that stand for all of them in the buckets."""
_MOST_OF_A_BUCKET = 4096
_COMPARED_TOGETHER = 8192
_MEMORY = "1GB"

SIGNATURE_COLUMNS = ("image_id", "status", "image_md5", "hashes", "pixels", "contrast")
"""The columns of the parts that the search reads."""


@dataclass(frozen=True)
class NearPairs:
    """P pairs of images that are near duplicates, by their numbers over all splits, the lower one first."""

    first: NDArray[np.int64]
    """`(P,)`"""
    second: NDArray[np.int64]
    view: NDArray[np.int64]
    """`(P,)` position in `VIEWS` of the view in which they agree; -1 if the files are equal."""
    similarity: NDArray[np.float64]
    """`(P,)` correlation of their pixels; 1 for equal files."""
    full_buckets: int
    """Buckets of more images than are compared, which were left out."""
    candidates: int
    """Pairs and views that were compared by their pixels."""

    def __len__(self) -> int:
        return len(self.first)


COPIES = ("equal files", "as it is", "mirrored", "cropped", "cropped and mirrored")
"""How a near duplicate differs from the image that it repeats."""


def describe_copy(view: int) -> str:
    """One of `COPIES`, from a view of `NearPairs`."""
    return COPIES[0] if view < 0 else VIEWS[view].name


def find_near_duplicates(tables: Iterable[pa.Table]) -> NearPairs:
    """Find all pairs.

    Args:
        tables: the signatures of all images of all splits, with SIGNATURE_COLUMNS, in order; images are
            numbered through. Failed ones take a number, too.
    """
    with _connect() as connection:
        _load(connection, tables)
        full = _collect_candidates(connection)
        candidates = 0
        pairs = [_find_equal_files(connection)]
        for rows in _read_candidates(connection):
            candidates += len(rows[0])
            pairs.append(_verify(*rows))
    columns = [np.concatenate(values) for values in zip(*pairs, strict=True)]
    first, second, view, similarity = _keep_best(*columns)
    return NearPairs(first, second, view, similarity, full, candidates)


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@contextmanager
def _connect() -> Iterator[Any]:
    """A database in memory that spills to a folder of its own, and reads nothing else."""
    import duckdb  # noqa: PLC0415  (an extra)

    with (
        tempfile.TemporaryDirectory(prefix="fast-rcnn-duplicates-") as folder,
        duckdb.connect() as connection,
    ):
        connection.execute(f"SET temp_directory = '{folder}'")
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"SET threads = {_count_cores()}")
        connection.execute("SET python_enable_replacements = false")
        yield connection


def _count_cores() -> int:
    """The cores that this process may use: DuckDB would take all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load(connection: Any, tables: Iterable[pa.Table]) -> None:
    connection.execute(
        "CREATE TABLE images (number BIGINT, md5 VARCHAR, hashes UBIGINT[], pixels BLOB, is_flat BOOLEAN)"
    )
    start = 0
    for table in tables:
        numbered = table.select(SIGNATURE_COLUMNS).append_column(
            "number", pa.array(np.arange(start, start + len(table)))
        )
        start += len(table)
        connection.register("part", numbered)
        connection.execute(
            "INSERT INTO images SELECT number, image_md5, hashes, pixels, contrast < ? FROM part "
            "WHERE status = 'ok'",
            [FLAT_CONTRAST],
        )
        connection.unregister("part")


def _collect_candidates(connection: Any) -> int:
    """Fill the table of candidates; returns the number of buckets that are left out."""
    connection.execute(
        "CREATE TABLE indexed AS SELECT number, hashes[1] AS hash, hashes FROM images WHERE NOT is_flat "
        "QUALIFY row_number() OVER (PARTITION BY hashes[1] ORDER BY number) <= ?",
        [_MOST_OF_A_HASH],
    )
    connection.execute("CREATE TABLE candidates (owner BIGINT, other BIGINT, view UTINYINT)")
    full = 0
    for first_view, views, bands in ((0, 2, PLAIN_BANDS), (2, len(VIEWS) - 2, CROP_BANDS)):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE probes AS SELECT number, unnest(hashes[? : ?]) AS hash, "
            "? + generate_subscripts(hashes[? : ?], 1) - 1 AS view FROM indexed",
            [first_view + 1, first_view + views, first_view, first_view + 1, first_view + views],
        )
        for shift, mask in _list_bands(bands):
            full += _join_band(connection, shift, mask)
    connection.execute(  # the others of a hash that many images have
        "INSERT INTO candidates SELECT o.number, i.number, 0 FROM images i "
        "JOIN (SELECT hash, min(number) AS number FROM indexed GROUP BY hash) o ON i.hashes[1] = o.hash "
        "WHERE NOT i.is_flat AND i.number NOT IN (SELECT number FROM indexed)"
    )
    return full


def _list_bands(bands: int) -> list[tuple[int, int]]:
    """The bits of each band, as how far to shift a hash and the mask to apply then."""
    edges = [round(64 * band / bands) for band in range(bands + 1)]
    return [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges)]


def _join_band(connection: Any, shift: int, mask: int) -> int:
    key = f"((hash >> {shift}) & {mask}::UBIGINT)"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE full_buckets AS SELECT {key} AS bucket FROM indexed "  # noqa: S608
        f"GROUP BY bucket HAVING count(*) > {_MOST_OF_A_BUCKET}"
    )
    connection.execute(
        "INSERT INTO candidates SELECT DISTINCT p.number, i.number, p.view "  # noqa: S608
        f"FROM (SELECT *, {key} AS bucket FROM probes) p "
        f"JOIN (SELECT number, hash, {key} AS bucket FROM indexed) i USING (bucket) "
        f"WHERE p.number <> i.number AND bit_count(xor(p.hash, i.hash)) <= {MOST_BITS} "
        "AND bucket NOT IN (SELECT bucket FROM full_buckets)"
    )
    return int(connection.execute("SELECT count(*) FROM full_buckets").fetchone()[0])


def _find_equal_files(connection: Any) -> _Pairs:
    """Each file with the first one of equal content; flat images are among them."""
    columns = connection.execute(
        "SELECT first, number AS second FROM (SELECT number, min(number) OVER (PARTITION BY md5) AS first "
        "FROM images) WHERE first < number"
    ).fetchnumpy()
    first, second = (np.asarray(columns[name], np.int64) for name in ("first", "second"))
    return first, second, np.full(len(first), -1), np.ones(len(first))


def _read_candidates(connection: Any) -> Iterator[tuple[NDArray[Any], ...]]:
    """The candidates in every view in which their hashes agree, with the pixels of both."""
    reader = connection.sql(
        "SELECT DISTINCT owner, other, view, a.pixels AS owner_pixels, b.pixels AS other_pixels "
        "FROM candidates JOIN images a ON a.number = owner JOIN images b ON b.number = other "
        "WHERE a.md5 <> b.md5"
    ).to_arrow_reader(_COMPARED_TOGETHER)
    for batch in reader:
        numbers = (batch.column(n).to_numpy().astype(np.int64) for n in ("owner", "other", "view"))
        pixels = (_read_pixels(batch.column(n)) for n in ("owner_pixels", "other_pixels"))
        yield (*numbers, *pixels)


def _read_pixels(column: pa.BinaryArray) -> NDArray[np.uint8]:
    flat = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
    return flat.reshape(-1, PIXELS_SIDE, PIXELS_SIDE)


def _verify(
    owner: NDArray[np.int64],
    other: NDArray[np.int64],
    view: NDArray[np.int64],
    owner_pixels: NDArray[np.uint8],
    other_pixels: NDArray[np.uint8],
) -> _Pairs:
    similarity = correlate(owner_pixels, other_pixels, view)
    is_near = similarity >= SIMILAR
    first, second = np.minimum(owner, other), np.maximum(owner, other)
    return first[is_near], second[is_near], view[is_near], similarity[is_near]


def _keep_best(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    view: NDArray[np.int64],
    similarity: NDArray[np.float64],
) -> _Pairs:
    """Each pair once, in the view in which it agrees most, in the order of the images."""
    order = np.lexsort((view, -similarity, second, first))
    first, second = first[order], second[order]
    is_new = np.ones(len(first), bool)
    is_new[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
    return first[is_new], second[is_new], view[order][is_new], similarity[order][is_new]
