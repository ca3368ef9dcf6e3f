"""What the command line prints is all there, and can be read by a person or a script."""

import io
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from rich.console import Console
from rich.text import Text

from nightshift.flows.cli import terminal

COLUMNS = ["run", "job", "partition", "model", "state", "rows", "started (UTC)", "seconds", "error"]
ROW = [7, "flight_delays", "2013-10-01", "arrival_delay@1", "failed", 1234567, "2026-01-02 03:04"]
BRACKETS = ["[/x]", "[red]x", "[bold]", "a[0]", "[Errno 111] refused", "[link=x]y[/link]", "[", "]"]


def through(monkeypatch: pytest.MonkeyPatch, width: int) -> io.StringIO:
    """A console of that width, in place of the command line's own; what it prints."""
    printed = io.StringIO()
    console = Console(
        file=printed, width=width, highlight=False, emoji=False, force_terminal=width < 1000
    )
    monkeypatch.setattr(terminal, "console", console)
    return printed


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    return through(monkeypatch, terminal.console.width)


# --- tables -------------------------------------------------------------------------------------


def test_a_table_in_a_pipe_is_a_line_for_each_row_and_cuts_nothing(pipe: io.StringIO) -> None:
    error = "the database refused\n  to write: " + "x" * 1000
    terminal.print_table(COLUMNS, [[*ROW, 1.5, error], [*ROW, None, None]], empty="")
    lines = pipe.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].rstrip().endswith("the database refused to write: " + "x" * 1000)
    assert lines[0].split()[:3] == ["run", "job", "partition"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_table_in_a_narrow_terminal_cuts_nothing(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = through(monkeypatch, width)
    terminal.print_table(["job", "error"], [["flight_delays", "z" * 200]], empty="")
    text = Text.from_ansi(printed.getvalue()).plain
    assert text.count("z") == 200
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width


def test_all_columns_of_runs_can_be_read_in_80(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = through(monkeypatch, 80)
    terminal.print_table(COLUMNS, [[*ROW, 1.5, None]] * 3, empty="")
    letters = "".join(Text.from_ansi(printed.getvalue()).plain.split())
    assert "…" not in letters
    for value in [*ROW, "1,234,567"]:
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        assert all(letters.count(letter) >= 3 for letter in "".join(shown.split()))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 22_222], ["     1", "22,222"]),
        ([1, None], ["1", ""]),
        ([1.25, -1234.5], ["     1.25", "-1,234.50"]),
        ([Decimal("1.10"), Decimal(7)], ["1.10", "   7"]),
        ([math.nan, 1.0], [" nan", "1.00"]),
        ([terminal.About(12_000), 5], ["~12,000", "      5"]),
        ([True, False], ["True", "False"]),
        (["a", 10], ["a", "10"]),
        ([None, None], ["", ""]),
    ],
)
def test_numbers_stand_to_the_right(
    values: list[Any], expected: list[str], pipe: io.StringIO
) -> None:
    terminal.print_table(["n"], [[value] for value in values], empty="")
    assert [line.rstrip() for line in pipe.getvalue().splitlines()[1:]] == expected


def test_a_table_may_be_indented(pipe: io.StringIO) -> None:
    terminal.print_table(["a", "b"], [["x", "y"]], empty="", indent=2)
    assert [line.rstrip() for line in pipe.getvalue().splitlines()] == ["  a  b", "  x  y"]


def test_no_rows(pipe: io.StringIO) -> None:
    terminal.print_table(["n"], [], empty="No runs yet.")
    assert pipe.getvalue() == "No runs yet.\n"


@pytest.mark.parametrize("text", [*BRACKETS, "a:smile:b", "::1:5432", "\\[x]", "c:\\"])
def test_a_value_is_shown_as_it_is(text: str, pipe: io.StringIO) -> None:
    terminal.print_table(["t"], [[text]], empty="")
    assert pipe.getvalue().splitlines()[1].rstrip() == text


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_no_text_breaks_a_table(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        printed = through(monkeypatch, 10_000)
        terminal.print_table(["n", "t"], [[1, text] for text in texts], empty="")
    assert printed.getvalue().count("\n") == len(texts) + 1


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*BRACKETS, "key:smile:", "x" * 500])
def test_an_error_is_one_line_shown_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say_error(text)
    captured = capsys.readouterr()
    assert captured.err == f"Error: {text}\n"
    assert captured.out == ""


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab[]/\\=@#: \n")))
def test_escaped_text_is_never_markup(text: str) -> None:
    shown = Text.from_markup(terminal.escaped(text), emoji=False).plain
    assert shown.replace("\\", "") == text.replace("\\", "")  # rich may double a last backslash


# --- progress -----------------------------------------------------------------------------------


def test_progress_says_rows_and_their_rate_while_it_goes_on(pipe: io.StringIO) -> None:
    for rows in (1_000_000, 2_000_000):
        with terminal.progress_bar("flights [red] 2013-10-01") as listen:
            listen(0, 2_000_000)
            listen(500_000, 2_000_000)
            listen(rows, 2_000_000)
    half, whole = pipe.getvalue().splitlines()
    assert "flights [red] 2013-10-01" in half
    assert "1,000,000 of 2,000,000 rows" in half
    assert "rows/s" in half
    assert "100%" in whole
    assert "rows/s" not in whole  # a result tells the one of the whole


def test_an_empty_partition(pipe: io.StringIO) -> None:
    with terminal.progress_bar("empty") as listen:
        listen(0, 0)
    assert "0 of 0 rows" in pipe.getvalue()


def test_no_bar_for_what_fails_before_the_first_row(pipe: io.StringIO) -> None:
    with pytest.raises(ValueError, match="early"), terminal.progress_bar("early"):
        raise ValueError("early")
    assert pipe.getvalue() == ""


def test_a_failure_leaves_the_terminal_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = through(monkeypatch, 80)

    def fail() -> None:
        with terminal.progress_bar("x") as listen:
            listen(1, 2)
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert printed.getvalue().endswith("\x1b[?25h")  # the cursor is back


# --- JSON ---------------------------------------------------------------------------------------


def test_json_is_proper_json(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2013, 10, 1, 4, 30, tzinfo=UTC)
    value = {
        "numbers": [1, 2.5, math.nan, math.inf, -math.inf, None, True],
        "nested": {"deep": ({"nan": math.nan},)},
        "text": "Zürich [red] 東京",
        "times": [moment, date(2013, 10, 1), time(4, 30)],
        "others": [Decimal("1.10"), Path("a/b"), SecretStr("hunter2")],
    }
    terminal.print_json(value)
    printed = capsys.readouterr().out

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert "Zürich [red] 東京" in printed
    assert json.loads(printed, parse_constant=refuse) == {
        "numbers": [1, 2.5, None, None, None, None, True],
        "nested": {"deep": [{"nan": None}]},
        "text": "Zürich [red] 東京",
        "times": ["2013-10-01T04:30:00+00:00", "2013-10-01", "04:30:00"],
        "others": ["1.10", "a/b", "**********"],
    }


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(plain)
def test_json_round_trip(value: Any) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        printed = io.StringIO()
        monkeypatch.setattr("sys.stdout", printed)
        terminal.print_json(value)
    assert json.loads(printed.getvalue()) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [(343 / 344, "0.997"), (1.0, "1.00"), (0.0, "0.00"), (0.0004, "0.0004"), (12.345, "12.35")],
)
def test_no_number_is_rounded_to_one_or_to_zero(value: float, shown: str) -> None:
    assert terminal._format_value(value) == shown
