"""How numbers and long texts are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.flows.text import (
    MOST_TEXTS,
    WIDTH,
    format_duration,
    format_percent,
    list_full_texts,
    printable,
    shorten,
)

LONG = "the model could not predict: " + "x" * WIDTH


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"), (1e-9, "<0.01%"), (0.0001, "0.01%"), (0.1234567, "12.35%"), (0.5, "50%"),
        (0.9999, "99.99%"), (0.99999, ">99.99%"), (1, "100%"), (3.25, "325%"),
    ],
)  # fmt: skip
def test_a_share(share: float, text: str) -> None:
    assert format_percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4167, "0.42 s"), (12.3, "12 s"), (89, "89 s"), (210, "3.5 min"), (7560, "2.1 h"),
        (259_200, "3.0 days"),
    ],
)  # fmt: skip
def test_a_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.text(), st.integers(3, 200))
def test_any_text_can_be_shortened(text: str, most: int) -> None:
    short = shorten(text, most)
    assert len(short) <= max(most, len("(empty)"))
    assert short.isprintable()
    assert short == printable(text) or "…" in short


def test_a_text_that_was_shortened_is_written_once_for_all_it_is_about() -> None:
    days = [f"2024-03-0{number}" for number in range(1, 6)]
    found = list_full_texts([*((day, LONG) for day in days), ("2024-03-06", "short")])
    assert found == [f"2024-03-01, 2024-03-02, 2024-03-03 and 2 more: {LONG}"]


def test_only_the_first_of_many_texts_are_written() -> None:
    found = list_full_texts((str(number), f"{number} {LONG}") for number in range(MOST_TEXTS + 5))
    assert len(found) == MOST_TEXTS + 1
    assert found[-1] == "and 5 other texts"
