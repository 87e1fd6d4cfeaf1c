from tests.fuzz.outcomes import Case, CaseResult, Outcome, format_table


def test_the_table_counts_each_outcome_by_kind():
    results = [
        CaseResult(Case("coco", 0, 0), Outcome.NAMED),
        CaseResult(Case("coco", 0, 1), Outcome.NAMED),
        CaseResult(Case("image", 0, 0), Outcome.CRASHED),
    ]
    header, _, coco, image, total = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in format_table(results).splitlines()
    )
    assert header[:3] == ["kind", "tried", "accepted and right"]
    assert coco == ["coco", "2", "0", "0", "2", "0", "0", "0", "0", "0"]
    assert image[header.index("crashes")] == "1"
    assert total[1] == "3"


def test_only_right_skipped_and_named_outcomes_are_good():
    good = [outcome for outcome in Outcome if not outcome.is_bad]
    assert good == [Outcome.RIGHT, Outcome.SKIPPED, Outcome.NAMED]


def test_a_result_says_how_to_repeat_it():
    result = CaseResult(Case("coco", 3, 14), Outcome.WRONG, "bbox = 'x'", "a box is wrong")
    assert "--kind coco --seed 3 --case 14" in result.format()
    assert "bbox = 'x'" in result.format()
