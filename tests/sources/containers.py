"""Writes images into tar and Parquet files, as datasets of millions of images come."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import imaging


def encode_image(number: int, width: int = 40, height: int = 30) -> bytes:
    """A JPEG whose brightness is its number, so that another image's pixels are noticed."""
    return imaging.encode_jpeg(np.full((height, width, 3), number, np.uint8), 95)


def write_tar(path: Path, members: Mapping[str, bytes | str], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_image_table(
    path: Path,
    images: Sequence[bytes | None],
    columns: Mapping[str, Any] | None = None,
    metadata: Any = None,
    row_group_size: int = 2,
) -> Path:
    """A Parquet file with a column `image` of bytes and path, and others."""
    cells = [{"bytes": data, "path": f"{index}.jpg"} for index, data in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), **(columns or {})})
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
