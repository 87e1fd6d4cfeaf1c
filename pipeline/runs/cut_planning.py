"""How a run cuts its manifest into shards."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import shards
from pipeline.manifests import Manifest
from pipeline.runs.options import RunOptions
from pipeline.shards import Cut


def plan_cut(
    manifest: Manifest,
    output: str,
    options: RunOptions,
    inherited: Sequence[int] | None = None,
) -> Cut:
    """Cut the manifest as the output already does, else as stored proposals do, else by size."""
    rows = manifest.rows if options.limit is None else min(options.limit, manifest.rows)
    earlier = None if options.overwrite else read_cut(output)
    if earlier is not None and sum(earlier) == rows:
        return shards.cut_manifest(manifest, earlier, rows)
    # If dataset or --limit differ from the output's, the comparison of the records says so later.
    sizes = inherited or options.shard_size or choose_shard_size(rows)
    return shards.cut_manifest(manifest, sizes, rows)


def read_cut(output: str) -> list[int] | None:
    """The rows of each shard that an output already has, or None if it has no shard table."""
    table = shards.read_shard_table(output)
    return None if table is None else [shard.rows for shard in table]


def choose_shard_size(rows: int) -> int:
    """Images per shard if the user does not say: 256, fewer for a small dataset.

    512 shards keep the cores of a large machine busy until near the end. The size does not depend on the
    cluster, so the same dataset is cut the same way anywhere, before a cluster exists.
    """
    return max(8, min(256, rows // 512))
