import pytest

from tests.fuzz import runner
from tests.fuzz.outcomes import Case, Outcome
from tests.fuzz.runner import run_cases

EXPECTED = {
    "right": Outcome.RIGHT,
    "skipped": Outcome.SKIPPED,
    "named": Outcome.NAMED,
    "leak": Outcome.UNNAMED,
    "unnamed": Outcome.UNNAMED,
    "wrong": Outcome.WRONG,
    "crash": Outcome.CRASHED,
    "hang": Outcome.OVER_TIME,
    "memory": Outcome.OVER_MEMORY,
    "reserve": Outcome.OVER_MEMORY,
}


def test_each_way_to_fail_is_the_outcome_of_its_case_alone(monkeypatch):
    monkeypatch.setattr(runner, "TIME_LIMIT", 3.0)
    cases = [Case(kind, 0, number) for number, kind in enumerate([*EXPECTED, "right"])]
    results = list(run_cases(cases, 1, "tests.fuzz.misbehaving_worker"))
    assert [result.case for result in results] == cases
    outcomes = {result.case.kind: result.outcome for result in results}
    assert outcomes == EXPECTED
    assert all(result.change == "an input" for result in results)
    crash = results[cases.index(Case("crash", 0, 6))]
    assert "exit code -11" in crash.detail


def test_an_input_that_cannot_be_written_stops_the_suite():
    with pytest.raises(RuntimeError, match="no input is written"):
        list(run_cases([Case("no such kind", 0, 0)], 1))
