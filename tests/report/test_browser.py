"""The report in a headless browser: no errors, numbers lead to their pages, tables sort, pages fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.writing import write_report
from tests.report.browsing import BrowserMessages
from tests.report.hand_made import CLASSES, write_run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder / "run")
    write_report(str(folder), run.metrics, run.sources)
    return folder / "report"


def test_every_number_leads_to_a_page_with_its_count(report: Path, browser: Any) -> None:
    messages = BrowserMessages()
    page = messages.watch(browser.new_page())
    index = (report / "index.html").as_uri()
    page.goto(index)
    links = page.eval_on_selector_all(
        "a[data-count]", "links => links.map(a => [a.getAttribute('href'), a.dataset.count])"
    )
    assert len(links) > 60
    # test_writing reads all pages; every fifth is opened here, each other time by the link itself.
    for number, (href, count) in enumerate(list(dict(links).items())[::5]):
        if number % 2 == 0:
            page.goto(index, wait_until="domcontentloaded")
            page.eval_on_selector(f'a[data-count][href="{href}"]', "link => link.click()")
            page.wait_for_url(f"**/{href}", wait_until="domcontentloaded")
        else:
            page.goto((report / href).as_uri(), wait_until="domcontentloaded")
        assert page.get_attribute("h1", "data-count") == count, href
        assert page.locator("figure").count() > 0
    assert messages == []


def test_scripts_in_labels_do_not_run(report: Path, browser: Any) -> None:
    messages = BrowserMessages()
    page = messages.watch(browser.new_page())
    page.on("dialog", lambda dialog: messages.append(f"dialog: {dialog.message}"))
    for path in (report / "index.html", report / "classes" / "class-0.html"):
        page.goto(path.as_uri())
    assert page.inner_text("h1") == CLASSES[0]
    assert messages == []


def test_tables_sort_by_mouse_and_keyboard(report: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((report / "index.html").as_uri())
    table = page.locator("#classes table.sortable")
    assert [table.locator("tbody th").nth(k).inner_text() for k in range(4)] == [
        *CLASSES,
        "all classes",
    ]
    table.locator("thead button").nth(2).click()
    counts = table.locator("tbody td:nth-child(3)").all_inner_texts()
    assert [int(count) for count in counts[:-1]] == sorted(map(int, counts[:-1]), reverse=True)
    assert table.locator("tbody th").last.inner_text() == "all classes"
    table.locator("thead button").nth(2).focus()
    page.keyboard.press("Enter")
    counts = table.locator("tbody td:nth-child(3)").all_inner_texts()
    assert [int(count) for count in counts[:-1]] == sorted(map(int, counts[:-1]))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_arrow_keys_move_through_the_confusion_matrix(report: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((report / "index.html").as_uri())
    links = page.locator(".matrix td a")
    assert [links.nth(k).get_attribute("tabindex") for k in range(links.count())] == [
        "0",
        *["-1"] * (links.count() - 1),
    ]
    links.first.focus()
    places = []
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        places.append(
            page.evaluate(
                "(({parentElement: td}) => [td.parentElement.rowIndex, td.cellIndex])"
                "(document.activeElement)"
            )
        )
    assert len({tuple(place) for place in places}) > 1
    assert page.evaluate("document.activeElement.matches('.matrix td a[tabindex=\"0\"]')")
    header = page.locator(".matrix thead th").nth(1)
    assert header.evaluate("th => getComputedStyle(th).position") == "sticky"


@pytest.mark.parametrize("width", [400, 1280, 2560])
def test_pages_fit_their_window_in_both_themes(report: Path, browser: Any, width: int) -> None:
    backgrounds = set()
    for theme in ("light", "dark"):
        messages = BrowserMessages()
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        page = messages.watch(context.new_page())
        for name in ("index.html", "galleries/false.html", "classes/class-0.html"):
            page.goto((report / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert messages == []
        context.close()
    assert len(backgrounds) == 2


def test_boxes_lie_where_they_are_on_the_image(report: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((report / "galleries" / "images.html").as_uri())
    figure = page.locator("figure", has=page.locator("img")).first
    image, box = figure.locator("img"), figure.locator("rect.true, rect.truth").first
    placed = image.bounding_box(), box.bounding_box()
    corner = [float(box.get_attribute(name)) for name in ("x", "y")]
    scale = min(placed[0]["width"] / 160, placed[0]["height"] / 120)
    left = placed[0]["x"] + (placed[0]["width"] - 160 * scale) / 2 + corner[0] * scale
    top = placed[0]["y"] + (placed[0]["height"] - 120 * scale) / 2 + corner[1] * scale
    assert abs(placed[1]["x"] - left) < 3
    assert abs(placed[1]["y"] - top) < 3
