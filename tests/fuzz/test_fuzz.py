"""A few seconds of the fuzz suite, with fixed inputs; `make fuzz` runs more."""

from __future__ import annotations

from collections import Counter

from tests.fuzz.outcomes import Case, CaseResult, Outcome
from tests.fuzz.runner import run_cases
from tests.fuzz.targets import KINDS

CASES = 16
SLOW = {
    **{"pickle": 5, "mat": 5, "resume": 8, "detections": 8, "proposals": 8, "output_place": 8},
    **dict.fromkeys(("yolo", "openimages", "lvis", "cvat", "labelme", "labelstudio"), 8),
    **dict.fromkeys(("webdataset", "image_table", "img2dataset"), 8),
}
"""Cases of the kinds that take longest."""


def _run_all() -> list[CaseResult]:
    cases = [Case(kind, 0, i) for kind in KINDS for i in range(SLOW.get(kind, CASES))]
    return list(run_cases(cases, 1))


def test_damaged_inputs_are_read_right_or_rejected_by_name():
    results = _run_all()
    bad = [result.format() for result in results if result.outcome.is_bad]
    assert not bad, "\n".join(bad)
    accepted = Counter(r.case.kind for r in results if r.outcome is not Outcome.NAMED)
    rejected = Counter(r.case.kind for r in results if r.outcome is Outcome.NAMED)
    # An input that is always rejected, or never, tries nothing: the target itself is broken.
    assert [kind for kind in KINDS if not accepted[kind]] == []
    assert sum(rejected[kind] > 0 for kind in KINDS) >= len(KINDS) - 5
