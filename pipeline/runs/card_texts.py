"""The texts of a dataset card: what each kind of output holds, what its columns mean, how to open it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipeline import schema

PARTS = "part-*.parquet"
"""Glob pattern of the parts, and of no other file of an output."""


@dataclass(frozen=True)
class OutputKind:
    """One kind of output."""

    name: str
    """A word for its rows."""
    title: str
    rows: str
    """What a row is."""
    columns: pa.Schema
    query: str
    """An example in DuckDB's SQL, in the folder of the parts."""
    command: tuple[str, ...]
    """Lines of shell or Python that read the output with this project; OUTPUT is the folder."""
    language: str = "sh"


KINDS = {
    "propose": OutputKind(
        "proposals",
        "Object proposals",
        "One row per image.",
        schema.PROPOSALS,
        "SELECT image_id, len(boxes) AS proposals FROM 'part-*.parquet' WHERE status = 'ok' LIMIT 10;",
        (
            "from pipeline import schema, shards",
            "",
            'for table in shards.open_parts("OUTPUT").read_tables():',
            '    boxes = schema.split_box_column(table["boxes"])  # per image, float32 (N, 4)',
        ),
        "python",
    ),
    "detect": OutputKind(
        "detections",
        "Detections",
        "One row per image.",
        schema.DETECTIONS,
        "SELECT image_id, d.label, d.score, d.x1, d.y1, d.x2, d.y2\n"
        "FROM (SELECT image_id, unnest(detections) AS d FROM 'part-*.parquet')\n"
        "WHERE d.score >= 0.5 ORDER BY d.score DESC LIMIT 10;",
        (
            "python jobs/analyze.py sql --detections OUTPUT \\",
            '    "SELECT label, count(*) AS n FROM detections GROUP BY ALL ORDER BY n DESC"',
        ),
    ),
    "analyze": OutputKind(
        "matches",
        "Matches of detections and annotated objects",
        "One row per detection, and per object that no detection matches.",
        schema.MATCHES,
        "SELECT label, count(*) FILTER (kind = 'missed') AS missed, count(*) AS rows\n"
        "FROM 'part-*.parquet' GROUP BY label ORDER BY missed DESC LIMIT 10;",
        (
            "# OUTPUT is the folder that holds the folder of these parts, matches",
            "python jobs/analyze.py sql --matches OUTPUT \\",
            '    "SELECT error, count(*) AS n FROM matches GROUP BY ALL ORDER BY n DESC"',
        ),
    ),
}
PANDAS = f"""\
import glob

import pandas

rows = pandas.concat(map(pandas.read_parquet, sorted(glob.glob("{PARTS}"))))"""
HUGGING_FACE = """\
import datasets

rows = datasets.load_dataset("OUTPUT", split="train")  # this folder, or its name on the Hub"""
FILES = {
    PARTS: "the rows; each part holds those of one shard of the manifest",
    "run.json": "the settings that decide the rows, where the inputs were, versions of packages",
    "shards.parquet": "which part has which rows of the manifest",
    "summary.json": "counts, times and the logs of the last run; without it the run is not finished",
    "logs/": "per start of the job: the driver's log, errors of workers, progress over time",
}
MEANINGS = {
    "image_id": "as in the manifest",
    "uri": "where the image was read, without passwords and signatures",
    "width": "pixels; null if the image could not be decoded",
    "height": "pixels; null if the image could not be decoded",
    "boxes": "proposals as x1, y1, x2, y2 in pixels, half open, best first",
    "status": "`ok` or `failed`",
    "stage": "where a failed image failed",
    "error_type": "the kind of error of a failed image",
    "error_message": "its message",
    "num_proposals": "boxes that were scored",
    "detections": "label, label_id, score, x1, y1, x2, y2 in pixels, half open; best first",
    "candidate_scores": "each class's scores before NMS, of which the thresholds are selected",
    "image_key": "digest of image_id, uri and decoding",
    "image_bytes": "size of the encoded image that was read",
    "image_md5": "MD5 of the encoded image that was read",
    "row": "the image's row in the manifest",
    "shard": "ordinal of the shard of the detections",
    "kind": "`detection`, `missed` or `ignored` (a difficult object or a crowd)",
    "label": "class of the detection or of the object",
    "score": "of the detection",
    "x1": "of the detection, in pixels",
    "y1": "of the detection, in pixels",
    "x2": "of the detection, in pixels, excluded",
    "y2": "of the detection, in pixels, excluded",
    "rank": "position by falling score among the image's detections of this label, from 0",
    "object_index": "position of the object among the image's annotated objects",
    "object_x1": "of the object, in pixels",
    "object_y1": "of the object, in pixels",
    "object_x2": "of the object, in pixels, excluded",
    "object_y2": "of the object, in pixels, excluded",
    "iou": "overlap of detection and object",
    "object_difficult": "whether the object is difficult",
    "object_crowd": "whether the object is a crowd",
    "nearest_index": "the object of any label that the detection overlaps most",
    "nearest_label": "its label",
    "nearest_iou": "its overlap",
    "voc": "by VOC's rule at IoU 0.5: 1 true, 0 false, -1 ignored",
    "error": "TIDE's type of error: cls, loc, both, dupe, bkg, miss",
    "error_index": "the object that the error is about",
    "covered50": "whether a proposal overlaps the object by 0.5",
    "covered70": "whether a proposal overlaps the object by 0.7",
    **{
        f"{kind}_{area}": f"bits: {kind} by COCO's rule at IoU 0.50 + 0.05 t, objects of {area} area"
        for kind in ("true", "ignored")
        for area in schema.AREA_RANGES
    },
}
