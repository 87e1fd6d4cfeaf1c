"""Compares two runs over the same images: `compare(first, second, manifest) -> RunComparison`.

The interval comes from a paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13): images are drawn with replacement, both runs are scored on the same draw, and the
percentiles of the difference are reported. It shows how much another sample of images could change the
difference; it does not cover the variation between trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import pyarrow as pa

from pipeline import run_record, schema, shards, uris
from pipeline.analysis.changed_images import ERROR_KINDS, ImageChange, find_changed_groups
from pipeline.analysis.class_names import compare_classes, describe_federation
from pipeline.analysis.image_coverage import describe_coverage, describe_mismatches
from pipeline.analysis.manifest_join import require_column
from pipeline.analysis.match_outcomes import find_objects
from pipeline.analysis.object_sizes import SIZES
from pipeline.analysis.paired_figures import (
    FIGURES,
    Resampled,
    ScoreDifference,
    count_image_errors,
    rank_changes,
    resample_errors,
    resample_figures,
    resample_recall,
    subtract,
)
from pipeline.analysis.resampling import CONFIDENCE, Resampler
from pipeline.analysis.run_comparison import (
    CellDifference,
    ChangedImages,
    ClassComparison,
    NamedDifference,
    RunComparison,
)
from pipeline.analysis.run_sums import RunSums, sum_run
from pipeline.annotated_classes import list_annotated_classes
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest, open_manifest
from pipeline.option_ranges import check_range
from pipeline.shards import Parts

LISTED = 100
"""Images that got better, and worse, that the result lists."""
MOST_CELLS = 60
"""Cells of the confusion matrix whose images are listed, those that differ most."""


def compare(
    first: Parts | str,
    second: Parts | str,
    manifest: Manifest | str,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> RunComparison:
    """Compare the detections of two runs over the same images.

    Args:
        first: an output of `detect`, opened or its URI.
        second: another output of `detect`, opened or its URI.
        manifest: the annotated manifest from which both were made.
        resamples: number of bootstrap resamples for the intervals.
        seed: seed of the resamples.

    Raises:
        InvalidConfiguration: fewer than 1 resample.
        UnreadableDataset: the runs are of different images (names the first that differs), the
            manifest has no annotations, or as `evaluate` raises.
    """
    check_range("resamples", resamples, at_least=1)
    manifest = open_manifest(manifest) if isinstance(manifest, str) else manifest
    runs = _open_runs(first, second)
    classes = list_annotated_classes(manifest, min(manifest.rows, runs[0].rows))
    sums = [sum_run(run, manifest, classes, seed) for run in runs]
    resamplers = [Resampler(run.sample, resamples) for run in sums]
    by_figure = _resample_together(resamplers, len(classes))
    scores = (sums[0].score, sums[1].score)
    scored = list(zip(resamplers, scores, strict=True))
    counts = [count_image_errors(*run) for run in scored]
    better, worse, images_better, images_worse = rank_changes(counts[0], counts[1], LISTED)
    confusion = _compare_confusion(sums)
    return RunComparison(
        voc07_map50=by_figure["ap11"][0],
        voc_map50=by_figure["ap_area"][0],
        coco_ap=by_figure["coco_ap"][0],
        coco_ap50=by_figure["coco_ap50"][0],
        coco_ap75=by_figure["coco_ap75"][0],
        images=sums[0].images,
        resamples=resamples,
        seed=seed,
        confidence=CONFIDENCE,
        scores=scores,
        per_class=_build_classes(resamplers[0], classes, by_figure),
        recall_by_size=_name_differences(SIZES, [resample_recall(*run) for run in scored]),
        errors=_name_differences(ERROR_KINDS, [resample_errors(*run) for run in scored]),
        confusion=confusion,
        better=_identify_images(manifest, better),
        worse=_identify_images(manifest, worse),
        images_better=images_better,
        images_worse=images_worse,
        changed=_find_changed(resamplers, scores, classes, confusion, manifest),
        settings=tuple(_compare_settings(runs)),
        notes=(*_describe_runs(runs, manifest, classes, sums), *resamplers[0].notes),
    )


def _open_runs(*runs: Parts | str) -> list[Parts]:
    opened = [shards.open_parts(run) if isinstance(run, str) else run for run in runs]
    for run in opened:
        require_column(run, "detections", "detect")
    _check_same_images(*opened)
    return opened


def _resample_together(
    resamplers: Sequence[Resampler], classes: int
) -> dict[str, list[ScoreDifference]]:
    """The differences by figure, of the mean over all classes first; the kernels release the interpreter."""
    with ThreadPoolExecutor(len(resamplers)) as threads:
        figures = list(threads.map(lambda r: resample_figures(r, classes), resamplers))
    return dict(zip(FIGURES, map(subtract, *figures), strict=True))


def _describe_runs(
    runs: Sequence[Parts], manifest: Manifest, classes: Sequence[str], sums: Sequence[RunSums]
) -> list[str]:
    """Write what a reader must know about the runs and their images."""
    images = runs[0].rows
    return [
        *_compare_run_classes([run.read_schema() for run in runs], classes),
        *describe_federation(manifest),
        *describe_coverage(images, manifest.rows, images - sums[0].images),
        *_describe_run_mismatches(sums),
    ]


def _build_classes(
    resampler: Resampler, classes: Sequence[str], by_figure: dict[str, list[ScoreDifference]]
) -> tuple[ClassComparison, ...]:
    matches = resampler.matches
    labels = matches.class_id[find_objects(matches)].tolist()
    return tuple(
        ClassComparison(
            label,
            labels.count(k),
            *(by_figure[name][k + 1] for name in ("ap11", "ap_area", "coco_ap", "coco_ap50")),
        )
        for k, label in enumerate(classes)
    )


def _name_differences(
    names: Sequence[str], resampled: Sequence[Resampled]
) -> tuple[NamedDifference, ...]:
    """The differences between both runs' figures, which are in the order of their names."""
    return tuple(map(NamedDifference, names, subtract(*resampled)))


def _compare_confusion(sums: Sequence[RunSums]) -> tuple[CellDifference, ...]:
    """The cells whose counts differ, the largest difference first."""
    first, second = (
        {(c.object, c.detection): c.count for c in run.confusion.compute(run.score).cells}
        for run in sums
    )
    cells = [
        CellDifference(*place, first.get(place, 0), second.get(place, 0))
        for place in {**first, **second}
    ]
    changed = [cell for cell in cells if cell.first != cell.second]
    return tuple(sorted(changed, key=lambda cell: -abs(cell.second - cell.first)))


def _find_changed(
    resamplers: Sequence[Resampler],
    scores: Sequence[float],
    classes: Sequence[str],
    confusion: Sequence[CellDifference],
    manifest: Manifest,
) -> tuple[ChangedImages, ...]:
    """The images behind the differences, of those that are resampled."""
    position = {label: k for k, label in enumerate([*classes, None])}
    cells = [(position[c.object], position[c.detection]) for c in confusion[:MOST_CELLS]]
    names = {
        "class": classes,
        "error": ERROR_KINDS,
        "size": SIZES,
        "cell": [f"{c.object or 'nothing'} → {c.detection or 'nothing'}" for c in confusion],
    }
    runs = [(r.matches, score) for r, score in zip(resamplers, scores, strict=True)]
    return tuple(
        ChangedImages(
            group.kind,
            names[group.kind][group.position],
            group.position,
            group.images,
            _identify_images(manifest, group.changes.tolist()),
        )
        for group in find_changed_groups(runs, classes, cells)
    )


def _identify_images(
    manifest: Manifest, changes: Sequence[tuple[int, int, int]]
) -> tuple[ImageChange, ...]:
    ids = {row: manifest.read(row, 1, ["image_id"]).column(0)[0].as_py() for row, _, _ in changes}
    return tuple(ImageChange(ids[row], row, one, other) for row, one, other in changes)


def _compare_settings(runs: Sequence[Parts]) -> list[str]:
    """What differs in the records of both runs; nothing if one has none."""
    records = [run_record.read_record(run.uri) for run in runs]
    if records[0] is None or records[1] is None:
        return []
    lines = run_record.describe_differences(records[0], records[1])
    return [
        line.replace(" there, ", " in the first, ").removesuffix(" now") + " in the second"
        for line in lines
    ]


def _compare_run_classes(schemas: Sequence[pa.Schema], classes: Sequence[str]) -> list[str]:
    """Write the notes of `compare_classes` for both runs; a run may have recorded no classes."""
    names = ("first", "second")
    detected = [
        schema.read_classes(run_schema, f"the {which} run")
        for which, run_schema in zip(names, schemas, strict=True)
    ]
    return [
        f"{which}: {note}"
        for which, run_classes in zip(names, detected, strict=True)
        if run_classes is not None
        for note in compare_classes(run_classes, classes)
    ]


def _describe_run_mismatches(sums: Sequence[RunSums]) -> list[str]:
    """Write the note of `describe_mismatches` for both runs."""
    return [
        f"{which}: {note}"
        for which, run in zip(("first", "second"), sums, strict=True)
        for note in describe_mismatches(run.failed)
    ]


def _check_same_images(first: Parts, second: Parts) -> None:
    """Check that both runs are of the same images in the same order; their shards may differ.

    Raises:
        UnreadableDataset: the images differ; names the first one.
    """
    outputs = uris.redact_uri(first.uri), uris.redact_uri(second.uri)
    image_ids = zip_longest(_read_image_ids(first), _read_image_ids(second))
    for row, (first_id, second_id) in enumerate(image_ids):
        if first_id == second_id:
            continue
        if first_id is None or second_id is None:
            raise UnreadableDataset(
                f"the detections are of different images: row {row}, {first_id or second_id!r}, "
                f"is in {outputs[first_id is None]} alone; detect with the same --limit"
            )
        raise UnreadableDataset(
            f"the detections are of different images: row {row} is {first_id!r} in {outputs[0]} and "
            f"{second_id!r} in {outputs[1]}"
        )


def _read_image_ids(run: Parts) -> Iterator[str]:
    for table in run.read_tables(["image_id"]):
        yield from table.column("image_id").to_pylist()
