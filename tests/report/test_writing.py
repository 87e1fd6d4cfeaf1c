"""The report of a small run: all pages exist, counts agree, labels stay text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from pipeline.analysis.executor import InProcess
from pipeline.report.writing import ReportOptions, write_report
from tests.report.hand_made import CLASSES, HandMadeRun, write_run


class _Page(HTMLParser):
    """Collects what a page links to, the numbers that links claim, and the tags it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.total: str | None = None
        self.data: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if values.get("id"):
            self.ids.add(values["id"] or "")
        if tag == "h1":
            self.total = values.get("data-count")
        for name in ("href", "src"):
            if values.get(name) is not None:
                self.links.append((values[name] or "", values.get("data-count")))
        assert not any(name.startswith("on") or name == "style" for name in values), values

    def handle_data(self, data: str) -> None:
        self.data.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> HandMadeRun:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: HandMadeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output")
    summary = write_report(str(output), run.metrics, run.sources)
    assert summary.unreadable == 1
    assert summary.uri == str(output / "report" / "index.html")
    return output / "report"


def _read_pages(report: Path) -> dict[Path, _Page]:
    return {path: _Page(path.read_text()) for path in sorted(report.rglob("*.html"))}


def test_every_link_leads_to_a_page_whose_count_is_the_cell_s(report: Path) -> None:
    pages = _read_pages(report)
    counted = 0
    for path, page in pages.items():
        for href, count in page.links:
            address, fragment = urldefrag(href)
            target = (path.parent / unquote(address)).resolve() if address else path.resolve()
            assert target.is_file(), (path, href)
            assert target.is_relative_to(report.resolve())
            if fragment and target.suffix == ".html":
                assert fragment in pages[target].ids
            if count is not None:
                counted += 1
                assert pages[target].total == count, (path, href)
    assert counted > 100


def test_every_number_of_the_index_but_zero_leads_somewhere(report: Path) -> None:
    text = (report / "index.html").read_text()
    cells = re.findall(r'<td class="num[^>]*>(.*?)</td>', text)
    assert len(cells) > 60
    unlinked = {cell for cell in cells if "<a " not in cell}
    runs = {"6", "3.0 s", "0.0 s", "2.5 s", "0.0"}  # of the table of runs
    assert unlinked <= {"", "0", "–"} | runs


def test_the_counts_of_galleries_are_those_of_the_metrics(run: HandMadeRun, report: Path) -> None:
    def read_total(key: str) -> int:
        path = report / "galleries" / f"{key}.html"
        return int(_Page(path.read_text()).total or "-1") if path.exists() else 0

    metrics = run.metrics
    best = metrics["operating_points"]["overall"]["best"]
    assert [read_total(k) for k in ("true", "false", "missed")] == [
        best[k] for k in ("true", "false", "missed")
    ]
    for error, count in metrics["tide"]["counts"].items():
        assert read_total(f"error-{error}") == count
    for k, row in enumerate(metrics["operating_points"]["per_class"]):
        assert read_total(f"class-{k}-objects") == row["objects"]
        assert read_total(f"class-{k}-missed") == row["at_overall"]["missed"]
    names = [*CLASSES, None]
    for cell in metrics["confusion"]["cells"]:
        place = [names.index(cell[name]) for name in ("object", "detection")]
        key = "-".join("none" if k == len(CLASSES) else str(k) for k in place)
        assert read_total(f"confusion-{key}") == cell["count"]
    for one in metrics["calibration"]["overall"]["bins"]:
        assert read_total(f"score-{round(10 * one['low'])}") == one["detections"]
    for index, attribute in enumerate(metrics["slices"]["attributes"]):
        for figure in attribute["slices"]:
            counted = [read_total(f"slice-{index}-{position}-missed") for position in range(8)]
            assert figure["objects"] - figure["true"] in counted
    missed = metrics["misses"]["overall"]
    assert read_total("missed-by-proposals") == missed["missed_by_proposals"]
    assert read_total("missed-by-head") == missed["missed_by_head"]
    for kind, total in metrics["annotation_errors"]["totals"].items():
        assert read_total(f"suspect-{kind}") == total
    sizes = [read_total(f"{size}-detections") for size in ("small", "medium", "large")]
    assert sizes == metrics["distributions"]["overall"]["sizes"]
    for lowest, count in metrics["distributions"]["per_image_counts"].items():
        assert read_total(f"images-with-{lowest}") == count
    assert read_total("images") == 6
    assert read_total("failed") == read_total("failed-0") == 1


def test_labels_stay_text(report: Path) -> None:
    for path, page in _read_pages(report).items():
        assert page.tags.count("script") == 1, path  # the report's own
    text = "".join(_Page((report / "index.html").read_text()).data)
    assert CLASSES[0] in text
    assert CLASSES[1] in text


def test_no_page_loads_anything_from_elsewhere_or_shows_a_secret(report: Path) -> None:
    for path in report.rglob("*.*"):
        content = path.read_bytes()
        if path.suffix != ".jpg":
            assert b"http://" not in content.replace(b"http://www.w3.org/2000/svg", b"")
            assert b"https://" not in content
            assert b"secret" not in content


def test_an_unreadable_image_is_a_tile_with_the_reason(report: Path) -> None:
    text = (report / "galleries" / "failed.html").read_text()
    assert "unreadable" in text
    assert "not an image in an accepted format" in text
    assert "<img" not in text


def test_a_small_object_is_cropped(report: Path) -> None:
    names = {path.name for path in (report / "images").iterdir()}
    assert any(not name.endswith("-0-0-160x120.jpg") for name in names)
    assert "000000-0-0-160x120.jpg" in names


def test_the_report_does_not_depend_on_the_grouping(
    run: HandMadeRun, report: Path, tmp_path: Path
) -> None:
    class Backwards(InProcess):
        """Does calls in reverse when their values are needed."""

    write_report(str(tmp_path), run.metrics, run.sources, executor=Backwards())
    for path in report.rglob("*.html"):
        assert (tmp_path / "report" / path.relative_to(report)).read_bytes() == path.read_bytes()


def test_the_number_of_images_is_bounded_and_old_pages_go(run: HandMadeRun, tmp_path: Path) -> None:
    stale = tmp_path / "report" / "galleries" / "old.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    unused = tmp_path / "report" / "images" / "999999-0-0-4x3.jpg"
    unused.parent.mkdir()
    unused.write_bytes(b"old")
    summary = write_report(str(tmp_path), run.metrics, run.sources, options=ReportOptions(images=3))
    assert 1 <= summary.thumbnails <= 3
    assert len(list((tmp_path / "report" / "images").iterdir())) == summary.thumbnails
    assert not stale.exists()
    pages = (tmp_path / "report" / "galleries").iterdir()
    assert any("not drawn" in page.read_text() for page in pages)


def test_without_annotations_there_are_detections_only(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", is_annotated=False)
    write_report(str(tmp_path), run.metrics, run.sources)
    text = (tmp_path / "report" / "index.html").read_text()
    assert "no annotations" in text
    assert "COCO AP" not in text
    galleries = {path.stem for path in (tmp_path / "report" / "galleries").iterdir()}
    assert {"detections", "images", "failed", "class-0-detections"} <= galleries
    assert not any("missed" in name for name in galleries)
