"""Galleries: for each count of the report, the images behind it.

A gallery counts rows of the matches table, or images, exactly, and shows a seeded sample of them. It is
built in two steps: `sampling` counts and chooses rows, part by part; `drawing` then looks up what is to be
drawn on the chosen images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["truth", "missed", "true", "false", "ignored", "detected", "suspicious"]
"""What a box is: an object that was detected (`truth`) or not (`missed`); a detection that is `true` or
`false`; an object that counts neither way, or a detection of one (`ignored`); a detection in an image
without annotations (`detected`); an object whose box a dataset report is about (`suspicious`)."""

ITEMS_PER_PAGE = 200
"""The most images that one gallery shows; its count says how many there are."""


@dataclass(frozen=True)
class DrawnBox:
    """One box on an image, in pixels of the stored image."""

    role: Role
    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    score: float | None = None
    """Of a detection."""
    iou: float | None = None
    """Of a detection with the object that it is compared with."""
    is_focus: bool = False
    """Whether the gallery shows the image because of this box."""


@dataclass(frozen=True)
class Crop:
    """The region of an image that is shown, in its pixels: all of it, or the surroundings of a small box."""

    left: int
    top: int
    width: int
    height: int
    is_whole: bool = field(default=False, compare=False)
    """Whether it is all of the image."""


@dataclass(frozen=True)
class Thumbnail:
    """An image file of the report, or the reason why there is none."""

    path: str | None
    """Relative to the report's folder; None if the image cannot be read."""
    crop: Crop
    """The region of the image that it shows; of an unreadable one, the region that its boxes span."""
    problem: str = ""
    """Why the image cannot be shown, in one line."""


@dataclass(frozen=True)
class GalleryItem:
    """One image of a gallery, with the boxes to draw on it."""

    image_id: str
    uri: str
    """Without user, password and signature."""
    row: int
    """The image's row in the manifest."""
    boxes: tuple[DrawnBox, ...]
    thumbnail: Thumbnail | None
    """None if the report's number of images was used up."""
    note: str = ""
    """What the gallery says about this image, such as why it failed."""


@dataclass(frozen=True)
class Gallery:
    """One page of images."""

    key: str
    """Unique in the report, of lower-case letters, digits, `-` and `/`; gives the page's address."""
    title: str
    total: int
    """Rows of the matches table, or images, that the gallery counts; the number that links to it."""
    items: tuple[GalleryItem, ...]
    """At most ITEMS_PER_PAGE of them."""
    unit: str = "detections"
    """What is counted: `detections`, `objects`, `boxes` or `images`."""
    description: str = ""
    """What these have in common and how the shown ones were chosen, in one or two sentences."""

    @property
    def address(self) -> str:
        """The page's path in the report's folder."""
        return f"galleries/{self.key.replace('/', '-')}.html"
