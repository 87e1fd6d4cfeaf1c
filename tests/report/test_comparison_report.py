"""The report of a comparison: both drawings of each image that changed, and links that resolve."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.analysis.comparison import compare
from pipeline.report.comparison_drawing import ComparedRuns
from pipeline.report.comparison_report import write_comparison_report
from tests.outputs import make_object, write_annotations, write_detections

BOX, AWAY = (0, 0, 10, 10), (50, 50, 90, 90)
CLASSES = ("<b>cat</b>", "dog")


def test_a_comparison_shows_what_changed(tmp_path: Path) -> None:
    names = [f"{i:03d}" for i in range(6)]
    objects = {name: [make_object(CLASSES[0], BOX)] for name in names}
    manifest_uri = write_annotations(str(tmp_path / "m.parquet"), objects, CLASSES)
    rows = [
        {n: [(CLASSES[0], 0.9, BOX)] if i < 3 else [] for i, n in enumerate(names)},
        {n: [(CLASSES[0], 0.9, BOX)] if i in (0, 1, 4) else [] for i, n in enumerate(names)},
    ]
    rows[1]["000"].append((CLASSES[1], 0.8, AWAY))
    runs = [
        write_detections(str(tmp_path / f"run{k}"), manifest_uri, found, CLASSES, shard_size=4 - k)
        for k, found in enumerate(rows)
    ]
    comparison = compare(*runs, manifest_uri, resamples=20)
    changes = {c.image_id: (c.first, c.second) for c in (*comparison.better, *comparison.worse)}
    assert changes["004"] == (1, 0)
    assert changes["002"] == (0, 1)
    assert (comparison.images_better, comparison.images_worse) == (1, 2 if "000" in changes else 1)
    errors = {row.name: row.difference for row in comparison.errors}
    assert errors["missed"].difference == 0
    opened = [_open(run) for run in runs]
    compared = ComparedRuns(
        opened[0], opened[1], _open_manifest(manifest_uri), CLASSES, comparison.scores
    )
    index = Path(write_comparison_report(str(tmp_path), comparison, compared))
    text = index.read_text()
    assert "<b>cat" not in text
    assert "&lt;b&gt;cat" in text
    for page in index.parent.rglob("*.html"):
        for href in re.findall(r'(?:href|src)="([^"#]+)"', page.read_text()):
            assert (page.parent / href).is_file(), (page, href)
    _check_counts(index)
    groups = {(c.kind, c.name): c for c in comparison.changed}
    cat = groups["class", CLASSES[0]]
    assert (cat.images, groups["error", "missed"].images) == (2, 2)
    assert {(c.image_id, c.first, c.second) for c in cat.largest} == {("002", 0, 1), ("004", 1, 0)}
    page = (index.parent / "galleries" / f"class-{cat.position}.html").read_text()
    assert page.count("<figure>") == 4
    assert f'href="galleries/class-{cat.position}.html"' in text
    worse = (index.parent / "galleries" / "worse.html").read_text()
    assert worse.count("<figure>") == 2 * comparison.images_worse
    assert f'data-count="{comparison.images_worse}"' in worse


def _check_counts(index: Path) -> None:
    """Every count of the index is that of the page behind it, which shows as many pairs."""
    links = re.findall(r'href="(galleries/[^"]+)" data-count="(\d+)"', index.read_text())
    assert len(links) > 5
    for href, count in links:
        page = (index.parent / href).read_text()
        assert f'<h1 data-count="{count}">' in page, href
        assert page.count('class="pair"') == int(count), href


def _open(uri: str):
    from pipeline import shards

    return shards.open_parts(uri)


def _open_manifest(uri: str):
    from pipeline.manifests import open_manifest

    return open_manifest(uri)
