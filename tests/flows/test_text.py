"""Long reasons in tables."""

from nightshift.flows.text import MOST, WIDTH, cut, in_full

LONG = "the model could not predict: " + "x" * WIDTH


def test_a_short_reason_is_left_alone_and_a_long_one_is_cut() -> None:
    assert cut("not\n published  yet") == "not published yet"
    assert cut("x" * WIDTH) == "x" * WIDTH
    assert len(cut(LONG)) == WIDTH
    assert cut(LONG).endswith("x…")


def test_what_was_cut_is_told_once_for_all_it_is_about() -> None:
    days = [f"2024-03-0{number}" for number in range(1, 6)]
    told = in_full([*((day, LONG) for day in days), ("2024-03-06", "short")])
    assert told == [f"2024-03-01, 2024-03-02, 2024-03-03 and 2 more: {LONG}"]


def test_many_different_texts_are_not_all_told() -> None:
    told = in_full((str(number), f"{number} {LONG}") for number in range(MOST + 5))
    assert len(told) == MOST + 1
    assert told[-1] == "and 5 other texts"
