import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.proposals.strategy import STRATEGIES, Strategy, resolve_strategy


def test_the_named_strategies_have_the_hierarchies_that_their_documentation_says():
    counts = {
        name: len(s.colour_spaces) * len(s.similarities) * len(s.ks)
        for name, s in STRATEGIES.items()
    }
    assert counts == {
        "single": 1,
        "fast": 8,
        "quality": 80,
        "lean": 8,
        "balanced": 12,
        "wide": 16,
    }


def test_min_size_defaults_to_k():
    assert STRATEGIES["fast"].get_min_size(50.0) == 50
    assert Strategy(("HSV",), ("S",), (50.0,), min_size=7).get_min_size(50.0) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour_spaces": ("CMYK",)}, "CMYK"),
        ({"colour_spaces": ()}, "colour space"),
        ({"similarities": ("CX",)}, "CX"),
        ({"similarities": ("CC",)}, "CC"),
        ({"similarities": ("",)}, "subset"),
        ({"similarities": ()}, "similarity"),
        ({"ks": ()}, "k"),
        ({"ks": (0.0,)}, "k"),
        ({"ks": (float("nan"),)}, "k"),
        ({"sigma": -1.0}, "sigma"),
        ({"min_size": 0}, "min_size"),
    ],
)
def test_invalid_strategies_are_rejected(changes, message):
    arguments = {"colour_spaces": ("HSV",), "similarities": ("CTSF",), "ks": (100.0,)} | changes
    with pytest.raises(InvalidConfiguration, match=message):
        Strategy(**arguments)


def test_an_unknown_name_is_rejected_with_the_valid_ones():
    with pytest.raises(InvalidConfiguration, match="single, fast, quality"):
        resolve_strategy("slow")


def test_a_custom_strategy_is_parsed_from_its_description():
    assert resolve_strategy("HSV,Lab:CTSF,TSF:50,100") == STRATEGIES["fast"]
    assert resolve_strategy("I:F:200:min_size=20:sigma=0.5") == Strategy(
        ("I",), ("F",), (200.0,), sigma=0.5, min_size=20
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HSV:CTSF", "of the form"),
        ("HSV:CTSF:many", "'many'"),
        ("HSV:CTSF:50:size=3", "'size' is neither"),
        ("HSV:CTSF:50:min_size=few", "'few'"),
        ("HSV,CMYK:CTSF:50", "CMYK"),
        ("HSV::50", "subset"),
    ],
)
def test_malformed_descriptions_are_rejected(text, message):
    with pytest.raises(InvalidConfiguration, match=message):
        resolve_strategy(text)


@pytest.mark.parametrize(
    "description",
    [
        "HSV:CTSF:1e300",
        "HSV:CTSF:9999999999999999999999",
        "HSV:CTSF:nan",
        "HSV:CTSF:100:min_size=9223372036854775808",
        "HSV:CTSF:100:min_size=" + "9" * 5000,
        "HSV:CTSF:100:sigma=1e999",
    ],
)
def test_numbers_beyond_any_image_are_rejected(description):
    with pytest.raises(InvalidConfiguration):
        resolve_strategy(description)
