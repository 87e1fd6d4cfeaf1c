"""The dataset report: its pages exist, numbers equal those of their pages, names stay text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.engine.inspect.dataset_summary import report_dataset
from pipeline.engine.inspect.run import inspect_dataset
from pipeline.report.dataset_report import count_dataset, write_dataset_report
from pipeline.report.writing import ReportOptions
from tests.engine.inspect.small_dataset import write_splits

_LINK = re.compile(r'href="([^"#]+\.html)" data-count="(\d+)"')


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    train, test = write_splits(folder)
    dataset = report_dataset(inspect_dataset(train, str(folder), [test]))
    samples = count_dataset(dataset)
    write_dataset_report(str(folder), dataset, samples, ReportOptions(images=100))
    return folder / "dataset"


def test_every_number_leads_to_a_page_with_its_count(report: Path) -> None:
    links = _LINK.findall((report / "index.html").read_text())
    assert len(links) > 40
    for address, count in links:
        assert f'<h1 data-count="{count}">' in (report / address).read_text(), address


def test_pages_show_images_that_exist_and_every_page_is_linked(report: Path) -> None:
    index = (report / "index.html").read_text()
    images = set()
    for page in report.glob("galleries/*.html"):
        images |= set(re.findall(r'src="\.\./(images/[^"]+)"', page.read_text()))
        assert f"galleries/{page.name}" in index, page.name
    assert images == {f"images/{path.name}" for path in report.glob("images/*.jpg")}
    assert len(images) >= 7


def test_suspicious_boxes_and_duplicates_are_drawn(report: Path) -> None:
    tiny = (report / "galleries/split-0-tiny.html").read_text()
    assert 'class="box suspicious focus"' in tiny
    pair = (report / "galleries/pairs-0-1.html").read_text()
    assert "mirrored, similarity" in pair
    assert 'class="problem"' in (report / "galleries/split-0-failed.html").read_text()


def test_names_stay_text(report: Path) -> None:
    for page in report.rglob("*.html"):
        assert "<script>alert" not in page.read_text(), page
    assert "&lt;script&gt;alert" in (report / "index.html").read_text()


def test_a_report_without_images_lists_rows_all_the_same(report: Path, tmp_path: Path) -> None:
    folder = report.parent
    dataset = report_dataset(
        inspect_dataset(str(folder / "train.parquet"), str(folder), [str(folder / "test.parquet")])
    )
    write_dataset_report(str(tmp_path), dataset, count_dataset(dataset), ReportOptions(images=0))
    assert not list(tmp_path.glob("dataset/images/*.jpg"))
    assert "not drawn" in (tmp_path / "dataset/galleries/split-0-objects.html").read_text()
