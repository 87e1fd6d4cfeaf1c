"""The VOC export, read by torchvision's parser."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.engine.export.run import ExportSettings, run_export
from pipeline.errors import InvalidConfiguration
from pipeline.exports.voc import check_labels
from tests.exports.worlds import World
from tests.outputs import make_object, write_annotations

VOC = ExportSettings("voc")


def test_torchvision_parses_the_annotations(world: World) -> None:
    from torchvision.datasets import VOCDetection

    world.export_manifest(VOC)
    names = (world.output / "ImageSets/Main/all.txt").read_text().splitlines()
    assert names == ["7", "07", "b/c", "empty", "broken"]
    parsed = [
        VOCDetection.parse_voc_xml(
            ElementTree.parse(world.output / f"Annotations/{name}.xml").getroot()
        )["annotation"]
        for name in names
    ]
    assert parsed[0]["filename"] == "7.jpg"
    assert parsed[0]["size"] == {"width": "100", "height": "100", "depth": "3"}
    assert parsed[0]["object"][0] == {
        "name": "cat",
        "difficult": "0",
        "bndbox": {"xmin": "2.5", "ymin": "3", "xmax": "40.25", "ymax": "60"},
    }
    assert [item["difficult"] for p in parsed for item in p["object"]] == list("001100")
    assert parsed[3]["object"] == []
    assert (world.output / "classes.txt").read_text() == "cat\ndog\ntree\n"


def test_detections_have_their_confidence(world: World) -> None:
    world.export(VOC)
    root = ElementTree.parse(world.output / "Annotations/b/c.xml").getroot()
    assert [item.findtext("confidence") for item in root.iter("object")] == ["0.6", "0.6"]
    assert not (world.output / "Annotations/broken.xml").exists()


def test_names_cannot_leave_the_output_or_break_the_xml(tmp_path: Path) -> None:
    ids = {"../up": [make_object("<b>&", (0, 0, 5, 5))], "a\x01\n": [], "/abs": [], "x%2Fy": []}
    uris = {image_id: f"/images/{n}\x01<.jpg" for n, image_id in enumerate(ids)}
    manifest = write_annotations(str(tmp_path / "m.parquet"), ids, ("<b>&",), uris=uris)
    run_export(VOC, manifest, str(tmp_path / "out"))
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.xml"))
    folder = Path("out/Annotations")
    assert files == [
        folder / "%2E%2E/up.xml",
        folder / "%2Fabs.xml",
        folder / "a%01%0A.xml",
        folder / "x%252Fy.xml",
    ]
    root = ElementTree.parse(tmp_path / folder / "%2E%2E/up.xml").getroot()
    assert (root.findtext("filename"), root.findtext("object/name")) == ("0%01<.jpg", "<b>&")


@pytest.mark.parametrize("label", ["a\x01b", "two\nlines", " cat", ""])
def test_a_class_that_xml_cannot_hold_is_rejected(label: str) -> None:
    with pytest.raises(InvalidConfiguration, match="VOC cannot hold the class"):
        check_labels(["cat", label])
