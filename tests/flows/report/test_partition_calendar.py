"""The picture of a backfill: every partition in its place, legible for a week and three years."""

import re
from base64 import b64decode
from datetime import date, timedelta
from xml.etree import ElementTree

import pytest

from nightshift.flows.config.job import Granularity
from nightshift.flows.report.partition_calendar import STATES, data_uri, draw

SVG = "{http://www.w3.org/2000/svg}"
SQUARE = re.compile(r"M(\d+) (\d+)h(\d+)")


def drawn(partitions: list[tuple[str, str]], grid: Granularity = "day") -> ElementTree.Element:
    return ElementTree.fromstring(draw(partitions, grid))


def days(count: int, state: str = "published", first: date = date(2023, 1, 1)) -> list[tuple]:
    return [(str(first + timedelta(days=number)), state) for number in range(count)]


def squares_of(picture: ElementTree.Element) -> dict[str, list[tuple[int, int]]]:
    """Where each state's squares are; the square of the legend is the smaller one."""
    colours = {colour: state for state, (colour, _) in STATES.items()}
    found: dict[str, list[tuple[int, int]]] = {}
    for path in picture.iter(f"{SVG}path"):
        squares = SQUARE.findall(path.attrib["d"])
        state = colours[path.attrib["fill"]]
        found[state] = [(int(x), int(y)) for x, y, side in squares if int(side) != 12]
    return found


def texts(picture: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text")]


@pytest.mark.parametrize("count", [1, 7, 31, 92, 366, 3 * 365])
def test_every_day_has_a_place_of_its_own_within_the_picture(count: int) -> None:
    picture = drawn(days(count))
    places = squares_of(picture)["published"]
    assert len(set(places)) == count
    width, height = int(picture.attrib["width"]), int(picture.attrib["height"])
    assert width <= 720  # what Prefect's pages have for it, so that it is not made smaller
    assert all(x + 20 <= width and y + 20 <= height for x, y in places)


def test_months_are_rows_and_days_are_columns() -> None:
    places = squares_of(drawn(days(59)))["published"]
    january, february = places[:31], places[31:]
    assert len({y for _, y in january}) == len({y for _, y in february}) == 1
    assert [x for x, _ in january[:28]] == [x for x, _ in february]
    assert {"2023-01", "2023-02"} <= set(texts(drawn(days(59))))


def test_a_week_is_wide_and_numbered() -> None:
    picture = drawn(days(7, first=date(2023, 5, 22)))
    assert {str(number) for number in range(22, 29)} <= set(texts(picture))
    (first, *_) = squares_of(picture)["published"]
    assert first[0] < 100  # no empty place for the days before


@pytest.mark.parametrize(
    ("grid", "labels", "heads"),
    [
        ("hour", [f"2024-03-01T{hour:02}" for hour in range(24)], ["00", "21"]),
        ("month", [f"2024-{month:02}" for month in range(1, 13)], ["Jan", "Dec"]),
        ("all", ["all"], []),
    ],
)
def test_other_grids(grid: Granularity, labels: list[str], heads: list[str]) -> None:
    picture = drawn([(label, "published") for label in labels], grid)
    assert len(set(squares_of(picture)["published"])) == len(labels)
    assert set(heads) <= set(texts(picture))


def test_a_day_of_25_hours() -> None:
    labels = [f"2024-11-03T{hour:02}" for hour in range(24)]
    labels[1:2] = ["2024-11-03T01-04:00", "2024-11-03T01-05:00"]
    assert (
        len(set(squares_of(drawn([(label, "published") for label in labels], "hour"))["published"]))
        == 25
    )


def test_many_hours_are_shown_by_their_days_each_by_its_worst() -> None:
    hours = [(f"{day}T{hour:02}", state) for day, state in days(90) for hour in range(24)]
    hours[30] = (hours[30][0], "failed")
    places = squares_of(drawn(hours, "hour"))
    assert (len(places["published"]), len(places["failed"])) == (89, 1)


def test_the_legend_counts_each_state_there_is() -> None:
    picture = drawn([("2024-03-01", "failed"), *days(3), ("2024-03-02", "waiting")])
    assert texts(picture)[-3:] == ["published 3", "waiting 1", "failed 1"]


def test_a_label_is_text_not_markup_and_nothing_is_loaded() -> None:
    svg = draw([("<x>", "waiting")], "all")
    assert "<x>" not in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    uri = data_uri(svg)
    assert b64decode(uri.partition(",")[2]).decode() == svg
