"""Custom resources and labels of nodes: what the options accept, and which nodes they choose."""

from __future__ import annotations

import pytest
from ray._private.label_utils import validate_label_selector

from pipeline.errors import InvalidConfiguration
from pipeline.runs.options import RunOptions
from pipeline.runs.placement import ANYWHERE, Need, Placement, parse_placement


def test_options_become_rays_options() -> None:
    placement = parse_placement(
        '{"cheap": 0.01, "none": 0}', '{"market": "!in(spot, preemptible)"}'
    )
    assert placement == Placement({"cheap": 0.01}, {"market": "!in(spot, preemptible)"})
    assert placement.build_options() == {
        "resources": {"cheap": 0.01},
        "label_selector": {"market": "!in(spot, preemptible)"},
    }
    assert parse_placement(None, None) == ANYWHERE
    assert ANYWHERE.build_options() == {}


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (
            "{cheap: 1}",
            r"--resources is '\{cheap: 1\}', expected a JSON object such as \{.spot.: 0.01\}",
        ),
        ("[1]", "expected a JSON object"),
        ('{"cheap": -0.5}', "asks for -0.5 of 'cheap', expected a number of at least 0"),
        ('{"cheap": NaN}', "asks for nan of 'cheap', expected a number"),
        ('{"cheap": Infinity}', "asks for inf of 'cheap', expected a number"),
        ('{"cheap": true}', "asks for True of 'cheap', expected a number"),
        ('{"cheap": "1"}', "asks for '1' of 'cheap', expected a number"),
        ('{"cheap": 1.5}', "asks for 1.5 of 'cheap', expected a whole number, or a share"),
        ('{"cheap": 0.00001}', "asks for 1e-05 of 'cheap', expected a whole number, or a share"),
        ('{"cheap": 1, "cheap": 2}', "field 'cheap' occurs twice"),
        ('{"GPU": 1}', "asks for 'GPU', which is not a custom resource"),
        ('{"a\\u001b[31m": -1}', r"-1 of 'a\\x1b\[31m'"),
    ],
)
def test_wrong_resources_are_rejected(resources: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        RunOptions(resources=resources)


SELECTORS = {
    "spot": True,
    "!spot": True,
    "in(a, b)": True,
    "!in(a,b)": True,
    "in()": False,
    "!!spot": False,
    "-spot": False,
    "a b": False,
    "x" * 64: False,
}


@pytest.mark.parametrize("selector", SELECTORS)
def test_conditions_on_labels_are_those_that_ray_takes(selector: str) -> None:
    assert (validate_label_selector({"market": selector}) is None) == SELECTORS[selector]
    if SELECTORS[selector]:
        parse_placement(None, f'{{"ray.io/market-type": "{selector}"}}')
    else:
        with pytest.raises(
            InvalidConfiguration, match=r"--actor-label-selector: .* the label 'market'"
        ):
            parse_placement(None, f'{{"market": "{selector}"}}', "actor-")


@pytest.mark.parametrize("labels", ['{"market": 1}', '{"-market": "spot"}', '"market=spot"'])
def test_other_labels_are_rejected(labels: str) -> None:
    with pytest.raises(InvalidConfiguration, match="--label-selector"):
        RunOptions(label_selector=labels)


@pytest.mark.parametrize(
    ("selector", "accepted"),
    [
        ("spot", ["spot"]),
        ("!spot", ["stable", None]),  # also a node without the label
        ("in(spot, stable)", ["spot", "stable"]),
        ("!in(spot, stable)", [None]),
    ],
)
def test_a_condition_chooses_nodes(selector: str, accepted: list[str | None]) -> None:
    need = Need({"CPU": 1}, {"market": selector})
    markets = [
        market
        for market in ("spot", "stable", None)
        if need.count_on({"CPU": 4}, {} if market is None else {"market": market}) == 4
    ]
    assert markets == accepted


def test_a_node_holds_as_many_as_its_scarcest_resource_allows() -> None:
    need = Placement({"slot": 1, "share": 0.1}).build_need(CPU=1)
    assert need.count_on({"CPU": 8, "slot": 3, "share": 1}, {}) == 3
    assert need.count_on({"CPU": 8, "slot": 30, "share": 0.3}, {}) == 3
    assert need.count_on({"CPU": 8, "slot": 3}, {}) == 0


def test_the_shortage_names_what_no_node_has() -> None:
    nodes = [({"CPU": 4.0, "cheap": 1.0}, {"market": "spot"}), ({"CPU": 8.0}, {})]
    place = Placement({"cheap": 0.01}, {"market": "spot"})
    assert place.build_need(CPU=1).find_shortage(nodes) is None
    assert place.build_need(CPU=9).find_shortage(nodes) == (
        "CPU 9 (of 2 living nodes none has more than 8)"
    )
    assert place.build_need(CPU=6).find_shortage(nodes) == (
        "CPU 6 and cheap 0.01 and a label market: spot on one node"
    )
    lacking = parse_placement('{"fast": 2}', '{"zone": "in(a, b)"}').build_need(CPU=1)
    assert lacking.find_shortage(nodes) == (
        "fast 2 (of 2 living nodes none has more than 0), "
        "a label zone: in(a, b) (of 2 living nodes none has it)"
    )
