"""What was wrong with an XML file, in words."""

from __future__ import annotations

from defusedxml import DefusedXmlException


def describe_xml_error(error: Exception) -> str:
    """The parser's own words, or that the file has what is never read."""
    if isinstance(error, DefusedXmlException):
        return "it declares a document type (DTD) or entities, which are never read"
    return str(error)
