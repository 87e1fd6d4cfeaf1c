"""The dataset report in a headless browser: numbers lead to pages of so many, names stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.inspect.dataset_summary import report_dataset
from pipeline.engine.inspect.run import inspect_dataset
from pipeline.report.dataset_report import count_dataset, write_dataset_report
from pipeline.report.writing import ReportOptions
from tests.engine.inspect.small_dataset import CLASSES, write_splits
from tests.report.browsing import BrowserMessages

SPLIT = "<img src=x onerror=alert(2)>"
READ_CELLS = """cells => cells.map(cell => {
  const link = cell.querySelector('a');
  return [cell.textContent.trim(), link && link.getAttribute('href'), link && link.dataset.count];
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    train, test = write_splits(folder)
    hostile = Path(train).rename(folder / f"{SPLIT}.parquet")
    dataset = report_dataset(inspect_dataset(str(hostile), str(folder), [test]))
    options = ReportOptions(images=40)
    write_dataset_report(str(folder), dataset, count_dataset(dataset), options)
    return folder / "dataset"


def test_every_number_opens_a_page_of_so_many(report: Path, browser: Any) -> None:
    messages = BrowserMessages()
    page = messages.watch(browser.new_page())
    page.goto((report / "index.html").as_uri())
    cells = page.eval_on_selector_all("td.num, .counts .figure", READ_CELLS)
    assert len(cells) > 100
    for text, href, count in cells:
        if text not in ("0", "–"):
            assert href, text
        if text.replace(",", "").isdecimal() and text != "0":
            assert count == text.replace(",", "")
    links = page.eval_on_selector_all(
        "a[data-count]", "links => links.map(a => [a.getAttribute('href'), a.dataset.count])"
    )
    assert len(links) > len([cell for cell in cells if cell[2]])  # those of charts, too
    # test_dataset_report reads all pages; every third is opened here.
    for href, count in list(dict(links).items())[::3]:
        page.goto((report / href).as_uri(), wait_until="domcontentloaded")
        assert page.get_attribute("h1", "data-count") == count, href
        assert page.locator("figure").count() > 0, href
    assert messages == []


def test_a_click_and_a_key_open_a_number(report: Path, browser: Any) -> None:
    page = browser.new_page()
    for key in (None, "Enter"):
        page.goto((report / "index.html").as_uri())
        link = page.locator("svg.heat a").first
        count = link.get_attribute("data-count")
        if key is None:
            link.click()
        else:
            link.focus()
            page.keyboard.press(key)
        page.wait_for_url("**/galleries/*.html")
        assert page.get_attribute("h1", "data-count") == count


def test_hostile_names_stay_text(report: Path, browser: Any) -> None:
    messages = BrowserMessages()
    page = messages.watch(browser.new_page())
    for name in ("index.html", "galleries/split-0-class-0.html", "galleries/pairs-0-1.html"):
        page.goto((report / name).as_uri())
        assert SPLIT in page.inner_text("body")
        assert page.locator("script").count() == 1  # the report's own
        assert page.locator("img[src=x]").count() == 0
    page.goto((report / "index.html").as_uri())
    assert page.locator("#classes tbody th").first.inner_text() == CLASSES[0]
    assert messages == []


@pytest.mark.parametrize("width", [400, 2560])
def test_pages_fit_their_window_in_both_themes(report: Path, browser: Any, width: int) -> None:
    backgrounds = set()
    for theme in ("light", "dark"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        page = context.new_page()
        for name in ("index.html", "galleries/split-0-tiny.html", "galleries/pairs-0-1.html"):
            page.goto((report / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert len(backgrounds) == 2
