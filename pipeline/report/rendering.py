"""Renders the report's pages from templates; every value is escaped unless it is Markup made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.printable import escape_unprintable
from pipeline.report.figures import build_figure
from pipeline.report.gallery import ITEMS_PER_PAGE, Gallery, Role

ASSETS = ("report.css", "report.js", "icon.svg")
"""Files that all pages share, in the folder of templates and in that of the report."""

LEGEND: tuple[tuple[Role, str], ...] = (
    ("truth", "annotated object, detected"),
    ("missed", "annotated object, missed"),
    ("true", "true detection"),
    ("false", "false detection"),
    ("ignored", "ignored"),
)
LEGEND_WITHOUT_ANNOTATIONS: tuple[tuple[Role, str], ...] = (("detected", "detection"),)


@cache
def _get_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = _show
    return environment


def _show(value: Any) -> Any:
    """A text with what does not print as escapes; Markup stays what it is, for autoescaping to see."""
    return value if hasattr(value, "__html__") else escape_unprintable(str(value))


def render_page(template: str, root: str, **values: Any) -> bytes:
    """Render one page.

    Args:
        template: name of the template.
        root: what leads from the page to the report's folder: empty or `../`.
        **values: what the template shows.
    """
    text = _get_environment().get_template(template).render(root=root, **values)
    return text.encode("utf-8", "backslashreplace")


def render_gallery(
    gallery: Gallery,
    *,
    crumbs: Sequence[tuple[str, str]],
    seed: int,
    footer: str,
    is_annotated: bool = True,
) -> bytes:
    """Render the page of a gallery.

    Args:
        gallery: what to show.
        crumbs: names and addresses of the pages above it, below the index.
        seed: of the sample, which the page states.
        footer: the last line of the page.
        is_annotated: whether the legend explains objects.
    """
    assert len(gallery.items) <= ITEMS_PER_PAGE, gallery.key
    return render_page(
        "gallery.html",
        "../",
        title=gallery.title,
        gallery=gallery,
        crumbs=crumbs,
        sampling=describe_sampling(gallery, seed),
        legend=LEGEND if is_annotated else LEGEND_WITHOUT_ANNOTATIONS,
        items=[build_figure(item) for item in gallery.items],
        footer=footer,
    )


def describe_sampling(gallery: Gallery, seed: int) -> str:
    """One sentence about which of a gallery's rows are shown."""
    if len(gallery.items) == gallery.total:
        return f"All {gallery.total:,} are shown." if gallery.total > 1 else ""
    return f"{len(gallery.items):,} of {gallery.total:,} {gallery.unit} are shown (seed {seed})."


def read_assets() -> Mapping[str, bytes]:
    """The files that all pages share, by name."""
    folder = resources.files("pipeline.report") / "templates"
    return {name: (folder / name).read_bytes() for name in ASSETS}
