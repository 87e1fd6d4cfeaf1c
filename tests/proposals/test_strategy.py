import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.proposals.strategy import STRATEGIES, Strategy, resolve


def test_the_papers_three_strategies_have_1_8_and_80_hierarchies():
    assert {name: s.hierarchies for name, s in STRATEGIES.items()} == {
        "single": 1,
        "fast": 8,
        "quality": 80,
    }


def test_min_size_is_k_unless_given():
    assert STRATEGIES["fast"].min_size_for(50.0) == 50
    assert Strategy(("HSV",), ("S",), (50.0,), min_size=7).min_size_for(50.0) == 7


@pytest.mark.parametrize(
    ("changes", "named"),
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
def test_what_cannot_be_done_is_refused(changes, named):
    given = {"colour_spaces": ("HSV",), "similarities": ("CTSF",), "ks": (100.0,)} | changes
    with pytest.raises(InvalidConfiguration, match=named):
        Strategy(**given)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InvalidConfiguration, match="single, fast, quality"):
        resolve("slow")


def test_one_s_own_strategy_is_told_in_words():
    assert resolve("HSV,Lab:CTSF,TSF:50,100") == STRATEGIES["fast"]
    assert resolve("I:F:200:min_size=20:sigma=0.5") == Strategy(
        ("I",), ("F",), (200.0,), sigma=0.5, min_size=20
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("HSV:CTSF", "of the form"),
        ("HSV:CTSF:many", "'many'"),
        ("HSV:CTSF:50:size=3", "'size' is neither"),
        ("HSV:CTSF:50:min_size=few", "'few'"),
        ("HSV,CMYK:CTSF:50", "CMYK"),
        ("HSV::50", "subset"),
    ],
)
def test_words_that_describe_no_strategy(text, named):
    with pytest.raises(InvalidConfiguration, match=named):
        resolve(text)
