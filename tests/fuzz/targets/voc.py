"""A VOC dataset with one changed annotation, or a changed list."""

from __future__ import annotations

import math
import re
from pathlib import Path
from random import Random
from xml.etree import ElementTree

from pipeline.sources.voc import open_voc
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.values import draw_text, shorten
from tests.fuzz.mutators.xml_mutator import mutate_xml
from tests.fuzz.target import Target
from tests.fuzz.targets.source_answers import (
    OPTIONS,
    ExpectedObject,
    SourceAnswer,
    build_manifest,
    find_fault_in_rows,
    find_wrong_objects,
    find_wrong_size,
    is_true_word,
)
from tests.sources.small_datasets import voc_xml, write_voc

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)


def _write_annotation(folder: Path, random: Random) -> str:
    root = write_voc(folder / "voc")
    text = voc_xml("a.jpg", ("dog", 1, 1, 10, 20), ("cat", 5, 6, 40, 30))
    data, change = mutate_xml(text, random)
    (root / "Annotations" / "a.xml").write_bytes(data)
    return change


def _write_list(folder: Path, random: Random) -> str:
    root = write_voc(folder / "voc")
    names = ["a", "b", "c", "a.jpg", "b.jpg", "./c", "A", "sub\\a", "missing", " a ", ""]
    lines = random.choices(names, k=random.randint(0, 6))
    if random.random() < 0.15:
        lines.append(random.choice(("b 1", "c -1", "a 0")))
    if random.random() < 0.6:
        lines.insert(random.randint(0, len(lines)), draw_text(random))
    text = random.choice(("\n", "\r\n", "\r")).join(lines)
    data = text.encode(random.choice((*["utf-8"] * 6, "utf-8-sig", "utf-16")), "surrogatepass")
    change = f"lines {shorten(lines)}"
    if random.random() < 0.3:
        data, damage = mutate_bytes(data, random)
        change += f", {damage}"
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(data)
    return change


def _read(folder: Path) -> SourceAnswer:
    return build_manifest(open_voc(str(folder / "voc"), "train", options=OPTIONS), folder)


def _find_fault_in_annotation(folder: Path, answer: SourceAnswer) -> str | None:
    if answer.tally.images + answer.tally.invalid_images != 2:
        return f"of 2 images, {answer.tally.images} are read, {answer.tally.invalid_images} invalid"
    return _find_fault(answer) or _compare_objects(folder, answer)


def _compare_objects(folder: Path, answer: SourceAnswer) -> str | None:
    data = (folder / "voc" / "Annotations" / "a.xml").read_bytes()
    rows = [row for row in answer.rows if row["image_id"] == "a"]
    if not rows:
        return None
    if re.search(rb"<!(DOCTYPE|ENTITY)", data):
        return "an annotation with a DTD is accepted"
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None  # an encoding that this parser does not read
    if root.tag != "annotation":
        return f"the root <{root.tag}> is accepted"
    expected = []
    for element in root.findall("object"):
        corners = [
            _parse(element.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax")
        ]
        label = (element.findtext("name") or "").strip()
        if None in corners or not label:
            return f"an object with the corners {corners} and the name {label!r} is accepted"
        x1, y1, x2, y2 = (side or 0.0 for side in corners)
        difficult = is_true_word(element.findtext("difficult"))
        expected.append(ExpectedObject(label, (x1 - 1, y1 - 1, x2, y2), difficult, crowd=False))
    return find_wrong_objects(rows[0], expected)


def _parse(text: str | None) -> float | None:
    if text is None:
        return None
    if text.strip().lower() in ("nan", "inf", "-inf"):
        return math.nan
    return float(text) if _NUMBER.fullmatch(text) else None


def _find_fault_in_list(folder: Path, answer: SourceAnswer) -> str | None:
    data = (folder / "voc" / "ImageSets" / "Main" / "train.txt").read_bytes()
    lines = {line.strip() for line in re.split("\r\n?|\n", data.decode("utf-8-sig"))} - {""}
    if len(answer.rows) + answer.tally.invalid_images > len(lines):
        return f"{len(lines)} names are listed, {len(answer.rows)} images read"
    for row in answer.rows:
        if Path(row["uri"]).stem.lower() != Path(row["image_id"]).name.lower():
            return f"the image of {row['image_id']!r} is {row['uri']}"
        if not any(row["image_id"] in line.replace("\\", "/") for line in lines):
            return f"{row['image_id']!r} is not in the list"
    return _find_fault(answer)


def _find_fault(answer: SourceAnswer) -> str | None:
    faults = [find_fault_in_rows(answer.rows, answer.classes), *map(find_wrong_size, answer.rows)]
    return next(filter(None, faults), None)


def _count_skipped(answer: SourceAnswer) -> int:
    return answer.skipped


TARGETS = (
    Target("voc_xml", _write_annotation, _read, _find_fault_in_annotation, _count_skipped),
    Target("voc_list", _write_list, _read, _find_fault_in_list, _count_skipped),
)
