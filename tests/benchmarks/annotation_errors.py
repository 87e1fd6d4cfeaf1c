"""Whether suspicions find annotation errors: errors are made in a manifest's boxes, then looked for.

python -m tests.benchmarks.annotation_errors --detections out/detections --manifest test.parquet

Of the boxes, a seeded share is deleted, as many are relabelled, shifted, and added where nothing is. For each
kind, the benchmark prints how many of the first 100 suspects are such errors (precision), which share of the
errors these are (recall), and the precision of the first n for n errors, beside those of plain score order:
`bkg`, `cls` and `loc` detections by falling score, and missed objects by the rising score of what overlaps
them. Errors that the manifest had before count as false finds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipeline import shards
from pipeline.analysis.annotation_errors import AnnotationErrorCounts
from pipeline.analysis.manifest_join import join_manifest
from pipeline.analysis.match_outcomes import concatenate_matches, find_counted, find_true
from pipeline.analysis.match_table import match_batch
from pipeline.analysis.matching import ERRORS, Matches
from pipeline.annotated_classes import list_annotated_classes
from pipeline.manifests import open_manifest
from tests.benchmarks.annotation_noise import KINDS, NoisyBox, add_noise, measure_iou

FIRST = 100


class Find(NamedTuple):
    """One entry of a ranking."""

    row: int
    object_index: int | None
    box: tuple[float, ...] | None
    """Of a detection without object."""


class Score(NamedTuple):
    """How many errors a ranking finds."""

    precision: float
    """Errors among the first 100 entries, over 100."""
    recall: float
    """Errors among the first 100 entries, over all errors."""
    first_precision: float
    """Errors among the first n entries over n, for n errors."""


def main() -> None:
    """Print a line per kind and ranking."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detections", nargs="+", required=True, help="outputs of detect")
    parser.add_argument("--manifest", nargs="+", required=True, help="their manifests")
    parser.add_argument("--share", type=float, default=0.05, help="of the boxes, for each kind")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions with other errors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    results = [
        compare_rankings(options.detections, options.manifest, options.share, seed)
        for seed in range(options.seeds)
    ]
    for kind in KINDS:
        scores = np.array(
            [[result[kind][name] for name in ("ours", "plain")] for result in results]
        )
        errors = np.mean([result[kind]["errors"] for result in results])
        ours, plain = scores.mean(axis=0).tolist()
        if options.json:
            print(json.dumps({"kind": kind, "errors": errors, "ours": ours, "plain": plain}))
        else:
            print(
                f"{kind:9s} {errors:6.1f} errors   {_format(ours)}   score order: {_format(plain)}"
            )


def _format(score: list[float]) -> str:
    precision, recall, first = score
    return f"first 100: precision {precision:.3f}, recall {recall:.2f}; first n: {first:.2f}"


def compare_rankings(
    detections: Iterable[str], manifests: Iterable[str], share: float, seed: int
) -> dict[str, dict[str, Score | int]]:
    """Make the errors, rank by suspicion and by plain score, and score both for each kind."""
    matches, noise, classes = match_noisy(detections, manifests, share, seed)
    counts = AnnotationErrorCounts(classes)
    counts.update(matches)
    listed = counts.compute(listed=10 * FIRST).errors
    result: dict[str, dict[str, Score | int]] = {}
    for kind in KINDS:
        wanted = [error for error in noise if error.kind == kind]
        ours = [
            Find(e.row, e.object_index, e.suggested_box if e.object_index is None else None)
            for e in listed
            if e.kind == kind
        ]
        plain = rank_plainly(matches, kind)
        result[kind] = {
            "errors": len(wanted),
            "ours": score_ranking(ours, wanted),
            "plain": score_ranking(plain, wanted),
        }
    return result


def match_noisy(
    detections: Iterable[str], manifests: Iterable[str], share: float, seed: int
) -> tuple[Matches, list[NoisyBox], tuple[str, ...]]:
    """Match detections with the changed annotations; the rows of later manifests follow the earlier ones."""
    pieces, noise, start = [], [], 0
    classes: tuple[str, ...] = ()
    for run, uri in zip(detections, manifests, strict=True):
        parts, manifest = shards.open_parts(run), open_manifest(uri)
        classes = list_annotated_classes(manifest, parts.rows)
        for batch in join_manifest(parts, manifest, ["image_id", "detections"]):
            moved = replace(batch, first_row=batch.first_row + start)
            changed, errors = add_noise(moved, classes, share, seed)
            noise += errors
            pieces.append(match_batch(changed, classes))
        start += parts.rows
    return concatenate_matches(pieces), noise, classes


def rank_plainly(matches: Matches, kind: str) -> list[Find]:
    """The ranking that needs no more than scores."""
    score = np.nan_to_num(matches.score)
    if kind == "spurious":
        missed = np.flatnonzero(matches.error == ERRORS.index("miss"))
        near = np.flatnonzero(matches.is_detection & (matches.nearest_index >= 0))
        best: dict[tuple[int, int], float] = {}
        for position in near:
            key = int(matches.row[position]), int(matches.nearest_index[position])
            best[key] = max(best.get(key, 0.0), float(score[position]))
        keys = [(int(matches.row[p]), int(matches.object_index[p])) for p in missed]
        return [Find(*key, None) for key in sorted(keys, key=lambda key: best.get(key, 0.0))]
    error = {"missing": "bkg", "label": "cls", "box": "loc"}[kind]
    is_false = find_counted(matches) & ~find_true(matches)
    rows = np.flatnonzero(is_false & (matches.error == ERRORS.index(error)))
    rows = rows[np.argsort(-score[rows], kind="stable")]
    return [
        Find(int(matches.row[p]), None, _get_box(matches, p))
        if kind == "missing"
        else Find(int(matches.row[p]), int(matches.error_index[p]), None)
        for p in rows
    ]


def _get_box(matches: Matches, position: int) -> tuple[float, ...]:
    return tuple(float(getattr(matches, name)[position]) for name in ("x1", "y1", "x2", "y2"))


def score_ranking(finds: list[Find], wanted: list[NoisyBox]) -> Score:
    """Score a ranking; an error that is found twice counts once."""
    first = count_errors(finds[: len(wanted)], wanted) / max(len(wanted), 1)
    hits = count_errors(finds[:FIRST], wanted)
    return Score(hits / FIRST, hits / max(len(wanted), 1), first)


def count_errors(finds: list[Find], wanted: list[NoisyBox]) -> int:
    """Count the errors that are among some entries."""
    found: set[int] = set()
    for find in finds:
        for number, error in enumerate(wanted):
            if number in found or error.row != find.row:
                continue
            if find.box is not None:
                is_hit = error.object_index is None and measure_iou(find.box, error.box) >= 0.5
            else:
                is_hit = error.object_index == find.object_index
            if is_hit:
                found.add(number)
                break
    return len(found)


if __name__ == "__main__":
    main()
