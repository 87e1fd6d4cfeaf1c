"""Changes of an XML tree, and of the text that holds it."""

from __future__ import annotations

import copy
from random import Random
from xml.etree import ElementTree

from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.values import draw_number, draw_text, shorten

_ENCODINGS = ("utf-8", "iso-8859-1", "gb2312", "utf-16", "shift_jis", "us-ascii", "nonsense", "hex")
_BOMB = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY name "&c;&c;">]>'
)


def mutate_xml(text: str, random: Random) -> tuple[bytes, str]:
    """The bytes of a document with one to three changed elements, and the description."""
    root = ElementTree.fromstring(text)
    changes = [_change_element(root, random) for _ in range(random.choice((1, 1, 1, 2, 3)))]
    data, change = _encode(ElementTree.tostring(root, "unicode"), random)
    return data, ", ".join(filter(None, [*changes, change]))


def _change_element(root: ElementTree.Element, random: Random) -> str:
    parents = {child: parent for parent in root.iter() for child in parent}
    if not parents:
        return "nothing"
    element = random.choice(list(parents))
    name = f"<{element.tag[:20]}>"
    kind = random.random()
    if kind < 0.6:
        value = draw_number(random) if random.random() < 0.6 else draw_text(random)
        element.text = _make_storable(str(value))
        return f"{name} = {shorten(element.text)}"
    if kind < 0.7:
        parents[element].remove(element)
        return f"{name} removed"
    if kind < 0.8:
        parents[element].append(copy.deepcopy(element))
        return f"{name} repeated"
    if kind < 0.87:
        element.tag = random.choice(("object", "bndbox", "annotation", "x", "size", "part"))
        return f"{name} renamed to <{element.tag}>"
    if kind < 0.94:
        other = random.choice(list(parents))
        element.text, other.text = other.text, element.text
        return f"{name} and <{other.tag[:20]}> exchange their texts"
    child = ElementTree.SubElement(element, random.choice(("b", "xmin", "object")))
    child.text, element.text = element.text, None
    return f"{name} has its text in a <{child.tag}>"


def _make_storable(text: str) -> str:
    """The text without the characters that XML cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or 32 <= ord(c) < 0xD800 or ord(c) > 0xDFFF)


def _encode(text: str, random: Random) -> tuple[bytes, str]:
    kind = random.random()
    if kind < 0.75:
        return text.encode(), ""
    if kind < 0.85:
        return mutate_bytes(text.encode(), random)
    if kind < 0.93:
        return _declare_encoding(text, random)
    if kind < 0.96:
        return (_BOMB + text.replace("dog", "&name;", 1)).encode(), "with entities in a DTD"
    if kind < 0.98:
        depth = random.choice((1_000, 100_000))
        nested = "<x>" * depth + "</x>" * depth
        return text.replace(
            "</annotation>", f"{nested}</annotation>"
        ).encode(), f"nested {depth} deep"
    return text.encode() * 2, "twice in the file"


def _declare_encoding(text: str, random: Random) -> tuple[bytes, str]:
    declared, used = random.choice(_ENCODINGS), random.choice(_ENCODINGS[:5])
    declaration = f'<?xml version="1.0" encoding="{declared}"?>\n'
    data = (declaration + text).encode(used, "replace")
    return data, f"declared as {declared}, written as {used}"
