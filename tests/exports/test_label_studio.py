"""The Label Studio export against the schema in its guide, "Import pre-annotated data"."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pipeline.engine.export.run import ExportSettings
from pipeline.errors import InvalidConfiguration
from tests.exports.worlds import CLASSES, World


def test_tasks_have_predictions_in_percent(world: World) -> None:
    world.export(ExportSettings("label-studio"))
    tasks = world.read_json("tasks.json")
    assert [task["data"]["image_id"] for task in tasks] == ["7", "07", "b/c", "empty"]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"]
    assert prediction["score"] == pytest.approx(0.9)
    assert prediction["result"][0] == {
        "id": "0-0",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": 100,
        "original_height": 100,
        "image_rotation": 0,
        "score": 0.9,
        "value": {
            "rotation": 0,
            "x": 2,
            "y": 2,
            "width": 38,
            "height": 58,
            "rectanglelabels": ["cat"],
        },
    }
    assert tasks[3]["predictions"][0]["result"] == []
    results = [r for t in tasks for p in t["predictions"] for r in p["result"]]
    assert len({result["id"] for result in results}) == len(results) == 6


def test_the_configuration_has_the_names_and_labels_that_results_refer_to(world: World) -> None:
    world.export(ExportSettings("label-studio"))
    view = ElementTree.parse(world.output / "labeling_config.xml").getroot()
    (image,), (labels,) = view.findall("Image"), view.findall("RectangleLabels")
    assert (image.get("name"), image.get("value")) == ("image", "$image")
    assert (labels.get("name"), labels.get("toName")) == ("label", "image")
    assert [label.get("value") for label in labels] == list(CLASSES)


def test_a_prefix_stands_in_place_of_the_images_folder(world: World) -> None:
    world.export(ExportSettings("label-studio", image_prefix="/data/local-files/?d=photos"))
    images = [task["data"]["image"] for task in world.read_json("tasks.json")]
    assert images[0].startswith("/data/local-files/?d=photos/")
    assert not [image for image in images if str(world.output.parent) in image]


def test_other_formats_have_no_prefix(world: World) -> None:
    with pytest.raises(InvalidConfiguration, match="--image-prefix is for --format label-studio"):
        world.export(ExportSettings("csv", image_prefix="http://localhost"))
