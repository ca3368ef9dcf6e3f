"""The audit: each check at each level, the failures it is there for, and what must not alarm."""

import itertools
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nightshift.adapters.errors import ConfigurationError, DatabaseUnavailable
from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks import Evidence
from nightshift.flows.checks.audit import run_checks
from nightshift.flows.checks.custom import require_checks
from nightshift.flows.checks.evidence import RangeCounts, comparable_rows
from nightshift.flows.checks.results import Audit, CheckResult, Level
from nightshift.flows.cli.demo import _flights
from nightshift.flows.config.checks import Checks
from nightshift.flows.config.validation import describe_problems
from watched import Hanging

NEW_YORK = ZoneInfo("America/New_York")
TITLE = "prediction"
CARRIERS = ["AA", "B6", "DL", "UA", "WN"]
SCHEMA = pa.schema({"distance": pa.float64(), "hour": pa.int16(), "carrier": pa.string()})


def usual_inputs(rows: int = 3000, seed: int = 1) -> pd.DataFrame:
    """The inputs of an ordinary day."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "distance": rng.normal(800, 100, rows),
            "hour": rng.integers(5, 24, rows),
            "carrier": rng.choice(CARRIERS, rows, p=[0.3, 0.3, 0.2, 0.15, 0.05]),
        }
    )


def predict(inputs: pd.DataFrame) -> Any:
    return inputs.distance / 10 + inputs.hour + 3 * (inputs.carrier == "UA")


def profiled(
    inputs: pd.DataFrame,
    predictions: Any = None,
    reference: Profile | None = None,
    exact: Collection[str] = (),
) -> Profile:
    predicted = predict(inputs) if predictions is None else predictions
    outputs = pa.table({"prediction": pa.array(predicted, from_pandas=False)})
    table = pa.Table.from_pandas(inputs, SCHEMA, preserve_index=False)
    return Profile.of(table, outputs, reference, exact)


REFERENCE = profiled(usual_inputs(20_000, seed=0))
LAST = profiled(usual_inputs(seed=2), None, REFERENCE)


def evidence(inputs: pd.DataFrame, predictions: Any = None, **changes: Any) -> Evidence:
    """Of an ordinary run of a day's partition, but for its rows and the changes."""
    found = profiled(inputs, predictions, REFERENCE)
    ranges = (RangeCounts("all rows", len(inputs), len(inputs)),)
    ordinary = Evidence(
        "delays", "2013-10-01", found, ranges, REFERENCE, LAST, usual_rows=(2900, 3000, 3050, 2990)
    )
    return replace(ordinary, **changes)


def checks(text: str = "{}") -> Checks:
    return Checks.model_validate(yaml.safe_load(text))


def findings(found: Audit) -> set[tuple[str, str | None, str]]:
    """What failed or warned."""
    return {(r.name, r.column, r.level.value) for r in found.findings}


# --- the failures it is there for ---------------------------------------------------------------


def test_an_ordinary_run_is_ok() -> None:
    found = run_checks(Checks(), evidence(usual_inputs()))
    assert findings(found) == set()
    assert (found.verdict, found.reason) == ("ok", None)
    assert {result.name for result in found.results} == {
        "reconciliation", "volume", "nulls", "unseen", "outside", "far_outside", "missing",
        "constant", "drift", "jump",
    }  # fmt: skip


def test_a_column_turned_to_null() -> None:
    found = run_checks(
        Checks(), evidence(usual_inputs().assign(distance=None), predict(usual_inputs()))
    )
    assert found.verdict == "fail"
    assert found.reason == (
        "input distance: 3,000 of 3,000 rows (100%) are NULL or NaN; 0% are usual; at most 70% may"
    )


def test_units_changed() -> None:
    inputs = usual_inputs().assign(distance=lambda rows: rows.distance * 1000)
    found = run_checks(Checks(), evidence(inputs))
    assert found.verdict == "fail"
    assert found.reason is not None
    assert found.reason.startswith("input distance: 3,000 of 3,000 rows (100%) are far outside")
    assert ("drift", "prediction", "fail") in findings(found)


def test_a_third_of_the_rows_dropped() -> None:
    found = run_checks(Checks(), evidence(usual_inputs(2000)))
    assert findings(found) == {("volume", None, "fail")}
    assert found.reason == (
        "2,000 rows, 33.22% fewer than usual (2,995, of the last 4 comparable runs)"
    )


def test_a_model_that_returns_a_constant() -> None:
    found = run_checks(Checks(), evidence(usual_inputs(), np.full(3000, 90.5)))
    assert found.verdict == "fail"
    assert found.reason is not None
    assert found.reason.startswith("prediction: 100% of 3,000 rows are 90.5")


def test_nan_for_one_category() -> None:
    inputs = usual_inputs()
    predictions = np.where(inputs.carrier == "WN", np.nan, predict(inputs))
    found = run_checks(Checks(), evidence(inputs, predictions))
    lost = int(np.isnan(predictions).sum())
    share = 100 * lost / 3000
    assert findings(found) == {("missing", "prediction", "fail")}
    assert found.reason == (
        f"prediction: {lost} of 3,000 rows ({share:.4g}%) have no prediction "
        f"({lost} NaN); at most 1% may"
    )


def test_two_columns_exchanged() -> None:
    inputs = usual_inputs()
    inputs["hour"] = np.clip(inputs.distance / 50, 5, 23).astype(int)
    found = run_checks(Checks(), evidence(inputs))
    assert findings(found) >= {("jump", "input hour", "warn"), ("drift", "input hour", "warn")}


def test_new_categories() -> None:
    inputs = usual_inputs().assign(carrier="XX")
    found = run_checks(Checks(), evidence(inputs))
    assert ("unseen", "input carrier", "fail") in findings(found)
    assert found.reason is not None
    assert "have a category that was not in the training sample, such as 'XX'" in found.reason


# --- what must not alarm ------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_year_of_real_days_by_default() -> None:
    """Few warn, and what fails is a blizzard's second day and the two of Thanksgiving.

    The predictions are naive: as late as the flight left, or else as the flight before it.
    """
    flights = _flights().sort_values("flight_id")
    inputs = flights[["dep_delay", "sched_dep_time", "distance", "carrier", "origin", "dest"]]
    table = pa.Table.from_pandas(inputs, preserve_index=False)
    predicted = pa.table({"prediction": inputs.dep_delay.ffill().astype(float)})
    first = flights.scheduled_departure < pd.Timestamp("2013-10-01", tz=NEW_YORK)
    reference = Profile.of(table.filter(pa.array(first)), predicted.filter(pa.array(first)))
    days = flights.groupby(flights.scheduled_departure.dt.date).indices
    history: list[tuple[datetime | None, int]] = []
    last = previous = None
    verdicts: dict[str, list[str]] = {"ok": [], "warn": [], "fail": []}
    for day, rows in days.items():
        start = datetime.combine(day, time(), NEW_YORK)
        found_profile = Profile.of(table.take(rows), predicted.take(rows), reference)
        usual = comparable_rows(start, "day", NEW_YORK, history)
        ranges = (RangeCounts("all rows", len(rows), len(rows)),)
        found = run_checks(
            Checks(),
            Evidence("flights", str(day), found_profile, ranges, reference, last,
                     previous=previous, usual_rows=usual),
        )  # fmt: skip
        verdicts[found.verdict].append(str(day))
        previous = found
        if found.verdict != "fail":
            last = found_profile if found.is_steady else last
            history.append((start, len(rows)))
    assert verdicts["fail"] == ["2013-02-09", "2013-11-28", "2013-11-29"]
    assert 5 <= len(verdicts["warn"]) <= 20


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 30, 100, 400, 600])
def test_small_partitions_do_not_alarm(rows: int) -> None:
    last = None
    for seed in range(15):
        now = evidence(usual_inputs(rows, seed + 10), usual_rows=(rows,) * 4, last=last)
        found = run_checks(Checks(), now)
        assert found.verdict == "ok", found.results[0].text
        last = now.profile


def test_nothing_to_compare_with_is_no_alarm() -> None:
    alone = evidence(usual_inputs(), reference=None, last=None, usual_rows=())
    assert run_checks(Checks(), alone).verdict == "ok"
    few = evidence(usual_inputs(), reference=profiled(usual_inputs(5)), last=None)
    assert run_checks(Checks(), few).verdict == "ok"


def test_a_partitions_own_weekday_is_no_drift() -> None:
    """An input that is one value in every partition says which partition it is."""
    rng = np.random.default_rng(6)
    days = [pa.table({"weekday": rng.integers(0, 7, 7000), "x": rng.normal(size=7000)})]
    for day in range(7):
        days += [pa.table({"weekday": np.full(900, day), "x": rng.normal(size=900)})]
    reference = Profile.of(days[0], days[0].select(["x"]))
    last = previous = None
    for number, table in enumerate(days[1:]):
        found_profile = Profile.of(table, table.select(["x"]), reference)
        ranges = (RangeCounts("all", 900, 900),)
        found = run_checks(
            Checks(),
            Evidence(
                "job", "day", found_profile, ranges, reference, last, previous=previous
            ),
        )  # fmt: skip
        assert found.verdict == (
            "ok" if number else "warn"
        )  # with the first runs, nothing can be known
        last, previous = found_profile, found


def test_time_goes_on() -> None:
    before, now = (
        pa.table({"at": pa.array([datetime(year, 1, 1)] * 900), "x": np.arange(900.0)})  # noqa: DTZ001
        for year in (2012, 2013)
    )
    reference = Profile.of(before, before.select(["x"]))
    found = run_checks(
        Checks(),
        Evidence(
            "job", "2013", Profile.of(now, now.select(["x"]), reference),
            (RangeCounts("all", 900, 900),), reference,
        ),
    )  # fmt: skip
    assert findings(found) == set()


def test_rare_classes_may_be_absent() -> None:
    rng = np.random.default_rng(8)
    table = usual_inputs(20_000)
    reference = profiled(table, (rng.random(20_000) < 0.001).astype(int))
    found = run_checks(
        Checks(), evidence(usual_inputs(), np.zeros(3000, int), reference=reference, last=None)
    )
    assert findings(found) == set()


def test_another_model_version_may_predict_otherwise() -> None:
    other = evidence(usual_inputs(), predict(usual_inputs()) * 3, reference=None)
    assert ("jump", "prediction", "fail") in findings(run_checks(Checks(), other))
    promoted = replace(other, last_has_same_model=False)
    assert findings(run_checks(Checks(), promoted)) == set()


# --- each check at each level -------------------------------------------------------------------


def partly(column: str, share: float, value: Any) -> pd.DataFrame:
    rows = usual_inputs()
    rows[column] = rows[column].astype(object if value is None else rows[column].dtype)
    rows.loc[: int(share * len(rows)) - 1, column] = value
    return rows


@pytest.mark.parametrize(
    ("name", "inputs", "level"),
    [
        ("nulls", partly("distance", 0.19, None), "ok"),
        ("nulls", partly("distance", 0.3, None), "warn"),
        ("nulls", partly("distance", 0.8, None), "fail"),
        ("nulls", partly("distance", 0.8, np.nan), "fail"),
        ("unseen", partly("carrier", 0.04, "XX"), "ok"),
        ("unseen", partly("carrier", 0.1, "XX"), "warn"),
        ("unseen", partly("carrier", 0.6, "XX"), "fail"),
        ("outside", partly("distance", 0.04, 1300.0), "ok"),
        ("outside", partly("distance", 1.0, 1300.0), "warn"),
        ("far_outside", partly("distance", 0.009, 1e6), "ok"),
        ("far_outside", partly("distance", 0.1, 1e6), "warn"),
        ("far_outside", partly("distance", 0.4, -1e6), "fail"),
    ],
)
def test_inputs(name: str, inputs: pd.DataFrame, level: str) -> None:
    found = run_checks(Checks(), evidence(inputs, predict(usual_inputs())))
    column = "input carrier" if name == "unseen" else "input distance"
    result = found.result(name, column)
    assert result is not None
    assert (result.level, result.reached) == (level, level)


LABELS = np.array(["late"] * 600 + ["early"] * 2400)


@pytest.mark.parametrize(
    ("name", "config", "predictions", "level"),
    [
        ("missing", "{}", [*predict(usual_inputs())[1:], None], "warn"),
        ("missing", "{}", [*predict(usual_inputs())[90:], *[np.inf] * 90], "fail"),
        ("missing", "predictions: {missing: off}", [None] * 3000, None),
        ("constant", "{}", np.append(np.ones(2800), np.arange(200)), "ok"),
        ("constant", "{}", np.append(np.ones(2900), np.arange(100)), "warn"),
        ("constant", "{}", np.append(np.ones(2999), [2]), "fail"),
        ("between", "predictions: {between: [0, null]}", np.arange(3000.0), "ok"),
        ("between", "predictions: {between: [0, 2998]}", np.arange(3000.0), "fail"),
        ("between", "columns: {prediction: {between: [1, null]}}", np.arange(3000.0), "fail"),
        ("between", "{}", np.arange(3000.0), None),
        ("labels", "predictions: {labels: [late, early]}", LABELS, "ok"),
        ("labels", "predictions: {labels: [late, punctual]}", LABELS, "fail"),
        ("labels", "predictions: {labels: [0, 1]}", np.arange(3000) % 2, "ok"),
        ("labels", "predictions: {labels: [0, 1]}", np.arange(3000) % 2 + 0.5, "fail"),
        ("labels", "predictions: {labels: [true]}", [True] * 3000, "ok"),
        ("share of late", "predictions: {shares: {late: [0.1, 0.3]}}", LABELS, "ok"),
        ("share of late", "predictions: {shares: {late: [null, 0.1]}}", LABELS, "fail"),
        ("share of late", "predictions: {shares: {late: [0.3, null]}}", LABELS, "fail"),
    ],
)
def test_predictions(name: str, config: str, predictions: Any, level: str | None) -> None:
    now = evidence(usual_inputs(), reference=None)
    now = replace(now, profile=profiled(usual_inputs(), predictions))
    found = run_checks(checks(config), now)
    result = found.result(name, "prediction")
    assert (None if result is None else result.level) == level


def test_three_of_many_rows_with_a_label_that_is_not_allowed() -> None:
    rows = 60_000
    predicted = np.arange(rows) % 2.0
    predicted[[7, 30_000, 59_999]] = 0.5
    allowed = checks("predictions: {labels: [0, 1]}")
    exact = allowed.find_listed(["prediction"])
    inputs = usual_inputs(rows)
    found = run_checks(
        allowed, evidence(inputs, profile=profiled(inputs, predicted, REFERENCE, exact))
    )
    result = found.result("labels", TITLE)
    assert result is not None
    assert (result.level, result.value) == ("fail", pytest.approx(3 / rows))
    assert "'0.5'" in result.text
    assert checks().find_listed(["prediction"]) == frozenset()
    shared = checks("columns: {b: {shares: {late: [0, 0.5]}}}")
    assert shared.find_listed(["a", "b"]) == frozenset({"b"})


def test_more_values_than_the_profile_keeps_are_not_labels() -> None:
    predicted = np.arange(2000) / 4096 + 1
    few = checks("predictions: {labels: [1]}")
    many = checks(f"predictions: {{labels: {predicted[::2].tolist()}}}")
    for allowed, level in ((few, "fail"), (many, "ok")):
        result = run_checks(allowed, evidence(usual_inputs(2000), predicted)).result(
            "labels", TITLE
        )
        assert result is not None
        assert result.level == level


def test_a_check_that_does_not_answer(hanging: Hanging) -> None:
    def ask(_: str) -> object:
        hanging.here()
        return 0

    late = checks("sql: [{name: fares, query: SELECT 0, timeout: 60s}]")
    result = run_checks(late, evidence(usual_inputs(), run_sql=ask)).result("SQL check fares")
    assert result is not None
    assert result.level == "fail"
    assert result.text == "SQL check fares could not be run: CallTimedOut: no answer within 60 s"


def test_a_constant_but_for_rounding() -> None:
    steps = np.random.default_rng(3).integers(-40, 40, 3000)
    result = run_checks(Checks(), evidence(usual_inputs(), 0.3 * (1 + steps * 2.0**-52))).result(
        "constant", TITLE
    )
    assert result is not None
    assert (result.value, result.level) == (1.0, "fail")
    mostly = np.where(np.arange(3000) < 2, 7.5, 0.3 * (1 + steps * 2.0**-52))
    result = run_checks(Checks(), evidence(usual_inputs(), mostly)).result("constant", TITLE)
    assert result is not None
    assert (result.value, result.level) == (pytest.approx(2998 / 3000), "fail")


@pytest.mark.parametrize(
    ("shares", "level"),
    [((0.2, 0.8), "ok"), ((0.45, 0.55), "ok"), ((0.6, 0.4), "warn"), ((0.9, 0.1), "fail")],
)
def test_classes(shares: tuple[float, float], level: str) -> None:
    def predicted(rows: int, late: float) -> Any:
        return np.where(np.arange(rows) < rows * late, "late", "early")

    reference = profiled(usual_inputs(20_000), predicted(20_000, 0.2))
    now = evidence(usual_inputs(), reference=reference, last=None)
    now = replace(now, profile=profiled(usual_inputs(), predicted(3000, shares[0]), reference))
    found = run_checks(Checks(), now)
    result = found.result("classes", "prediction")
    assert result is not None
    assert result.level == level


@pytest.mark.parametrize(
    ("rows", "usual", "level"),
    [
        (3000, (2900, 3000, 3100), "ok"),
        (2500, (3000,) * 4, "ok"),
        (2300, (3000,) * 4, "warn"),
        (2000, (3000,) * 4, "fail"),
        (3900, (3000,) * 4, "warn"),
        (6000, (3000,) * 4, "fail"),
        (0, (3000,) * 4, "fail"),
        (3000, (0, 0, 0), "fail"),
        (0, (0, 0, 0), "not judged"),
        (10, (90, 90, 90), "not judged"),
        (0, (3000, 3000), "not judged"),
    ],
)
def test_volume(rows: int, usual: tuple[int, ...], level: str) -> None:
    found = run_checks(Checks(), evidence(usual_inputs(rows), usual_rows=usual))
    result = found.result("volume")
    assert result is not None
    assert result.level == level


@pytest.mark.parametrize(
    ("ranges", "says"),
    [
        ([(3000, 3000, 0)], None),
        ([(3000, 2990, 10)], "2,990 rows were written, but 3,000 were profiled"),
        ([(1000, 1000, 0), (2000, 2000, 0)], None),
        ([(1000, 1001, 0), (2001, 1999, 1)], "first in range 0: 1,000, but 1,001 and 0"),
        ([(3001, 3000, 0)], "3,001 rows in the snapshot, but 3,000 written and 0 rejected"),
        ([(1000, 1000, 0)], "1,000 rows were written, but 3,000 were profiled"),
    ],
)
def test_reconciliation(ranges: list[tuple[int, int, int]], says: str | None) -> None:
    counted = tuple(RangeCounts(f"range {i}", *counts) for i, counts in enumerate(ranges))
    found = run_checks(Checks(), evidence(usual_inputs(), ranges=counted, usual_rows=()))
    assert found.verdict == ("fail" if says else "ok")
    assert (says or "") in (found.reason or "")


def test_rejected_rows_are_accounted_for() -> None:
    counted = (RangeCounts("all", 3010, 3000, 10),)
    assert run_checks(Checks(), evidence(usual_inputs(), ranges=counted)).verdict == "ok"


# --- drift and its hysteresis -------------------------------------------------------------------


def moved(by: float, seed: int = 3) -> pd.DataFrame:
    """Distances that have moved by so many standard deviations."""
    return usual_inputs(seed=seed).assign(distance=lambda rows: rows.distance + 100 * by)


def levels_of(*shifts: float, check: str = "drift") -> list[str]:
    """The levels of a check of the input, run after run; LAST stays what it is."""
    levels, previous = [], None
    for seed, shift in enumerate(shifts):
        config = checks("{inputs: {outside: off, far_outside: off}, predictions: {drift: off}}")
        now = evidence(moved(shift, seed), predict(usual_inputs()), previous=previous)
        previous = Audit.from_json(run_checks(config, now).to_json())
        result = previous.result(check, "input distance")
        assert result is not None
        levels.append(result.level)
    return levels


@pytest.mark.parametrize("check", ["drift", "jump"])
def test_one_odd_run_warns_and_two_in_a_row_fail(check: str) -> None:
    assert levels_of(0, 1.8, 0, 1.8, 0, check=check) == ["ok", "warn", "ok", "warn", "ok"]
    assert levels_of(0, 1.8, 1.8, 1.8, 0, check=check) == ["ok", "warn", "fail", "fail", "ok"]


def test_drift_that_has_failed_fails_until_it_is_well_below() -> None:
    assert levels_of(1.8, 1.8, 1.2, 1.8, 1.2, 0.1, 1.2) == [
        "warn", "fail", "fail", "fail", "fail", "ok", "warn",
    ]  # fmt: skip


def test_a_run_far_off_fails_at_once_and_leaves_nothing_behind() -> None:
    assert levels_of(0, 5, 1, 0) == ["ok", "fail", "warn", "ok"]


def test_after_an_odd_run_ordinary_ones_are_not_odd() -> None:
    """Neither against the training sample, nor where that is not known, if `last` was steady."""
    odd = run_checks(Checks(), evidence(moved(1.8)))
    assert not odd.is_steady
    assert run_checks(Checks(), evidence(usual_inputs())).is_steady
    back = evidence(usual_inputs(), last=profiled(moved(4)), previous=odd)
    assert findings(run_checks(Checks(), back)) == set()
    unknown = replace(back, reference=None)
    assert ("jump", "input distance", "fail") in findings(run_checks(Checks(), unknown))
    assert findings(run_checks(Checks(), replace(unknown, last=LAST))) == set()
    unheeded = checks("{inputs: {drift: off}, predictions: {drift: off}}")
    assert ("jump", "input distance", "fail") in findings(run_checks(unheeded, back))


def test_levels_below_the_first_do_not_alarm() -> None:
    assert levels_of(0.5, 0.5, 0.9, 0.9) == ["ok", "ok", "warn", "warn"]


def test_drift_has_its_own_levels_by_column() -> None:
    config = checks("columns: {distance: {drift: {at_once: 0.6}, jump: off}}")
    found = run_checks(config, evidence(moved(1)))
    result = found.result("drift", "input distance")
    assert result is not None
    assert (result.level, result.warn, result.fail) == ("fail", 0.5, 2)
    assert found.result("jump", "input distance") is None
    assert found.result("jump", "input hour") is not None


# --- what cannot be judged ----------------------------------------------------------------------


def unjudged(found: Audit) -> dict[tuple[str, str | None], str]:
    assert all(result.value is None for result in found.not_judged)
    return {(r.name, r.column): r.text.partition("not judged: ")[2] for r in found.not_judged}


def test_too_few_values_are_not_judged_and_not_passed() -> None:
    now = evidence(moved(9).head(499), usual_rows=())
    found = run_checks(checks("inputs: {outside: off, far_outside: off}"), now)
    assert unjudged(found) == {
        ("volume", None): "499 rows; 0 comparable runs so far, 3 are needed",
        ("constant", TITLE): "499 values, 500 are needed",
        **{
            (check, column): "499 values, 500 are needed"
            for check in ("drift", "jump")
            for column in (TITLE, "input distance", "input hour", "input carrier")
        },
    }
    assert found.verdict == "ok"
    assert found.passed == len(found.results) - len(found.not_judged)
    assert run_checks(checks("minimum_rows: 499"), now).verdict == "fail"


def test_a_first_run_without_a_training_sample() -> None:
    found = run_checks(Checks(), evidence(usual_inputs(), reference=None, last=None, usual_rows=()))
    reasons = unjudged(found)
    assert {name for name, _ in reasons} == {
        "volume", "unseen", "outside", "far_outside", "drift", "jump",
    }  # fmt: skip
    assert reasons["drift", "input hour"] == "the training sample does not have it"
    assert reasons["jump", "input hour"] == "no steady run has been published before"
    assert found.is_steady  # or there could never be a run to compare with


def test_no_rows_and_no_values() -> None:
    empty = run_checks(
        checks("predictions: {labels: [1], shares: {a: [0, 1]}}"), evidence(usual_inputs(0))
    )
    assert {result.name for result in empty.results if result.level == Level.OK} == {
        "reconciliation"
    }
    lost = evidence(usual_inputs().assign(distance=None), predict(usual_inputs()), usual_rows=())
    found = unjudged(run_checks(checks("inputs: {nulls: off}"), lost))
    assert found["outside", "input distance"] == "the column has no values"


def test_another_model_version_is_not_compared_with_the_last_run() -> None:
    promoted = evidence(usual_inputs(), last_has_same_model=False)
    found = unjudged(run_checks(Checks(), promoted))
    assert found == {("jump", TITLE): "the last published run was scored by another model version"}


# --- the user's own -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (0, "ok"), (1, "fail"), (2.5, "fail"), (True, "ok"), (False, "fail"), ("3", "fail"),
        (None, "fail"), ("many", "fail"), (float("nan"), "fail"), (np.int64(0), "ok"),
    ],
)  # fmt: skip
def test_sql(answer: object, level: str) -> None:
    asked: list[str] = []

    def run_sql(text: str) -> object:
        asked.append(text)
        return answer

    config = checks('sql: [{name: no loss, query: "SELECT 1"}]')
    found = run_checks(config, evidence(usual_inputs(), run_sql=run_sql))
    result = found.result("SQL check no loss")
    assert result is not None
    assert (result.level, asked) == (level, ["SELECT 1"])


def test_sql_with_levels_and_trouble() -> None:
    def refuse(_: str) -> object:
        raise ZeroDivisionError("by zero")

    def away(_: str) -> object:
        raise DatabaseUnavailable("postgresql://db", "no route")

    config = checks('sql: [{name: few, query: "SELECT 5", warn: 3, fail: 10}]')
    warned = run_checks(config, evidence(usual_inputs(), run_sql=lambda _: 5))
    assert [r.text for r in warned.warnings] == ["SQL check few: 5 (found 5, at most 3 may be)"]
    broken = run_checks(config, evidence(usual_inputs(), run_sql=refuse))
    assert broken.reason == "SQL check few could not be run: ZeroDivisionError: by zero"
    assert run_checks(config, evidence(usual_inputs())).verdict == "fail"  # no database to ask
    with pytest.raises(DatabaseUnavailable):
        run_checks(config, evidence(usual_inputs(), run_sql=away))
    lenient = checks("sql: [{name: few, query: q, warn: 0, fail: null}]")
    assert run_checks(lenient, evidence(usual_inputs(), run_sql=lambda _: False)).verdict == "warn"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a package with checks of the user's own."""
    numbers = itertools.count()

    def install(code: str, points: str) -> None:
        site = tmp_path / f"site{next(numbers)}"
        info = site / "plausible-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{site.name}_checks.py").write_text(code)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plausible\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[nightshift.checks]\n{points}\n")
        monkeypatch.syspath_prepend(str(site))

    return install


def test_python(installed: Callable[[str, str], None]) -> None:
    installed(
        "def longest(evidence, most):\n"
        "    high = evidence.profile.inputs['distance'].high\n"
        "    return high > most, f'the longest is {high:.0f}'\n"
        "def rows(evidence):\n    return evidence.profile.rows\n"
        "def broken(evidence):\n    return 1 / 0\n"
        "def shy(evidence):\n    from nightshift.flows.checks import NotJudged\n"
        "    raise NotJudged('no fares today')\n"
        "number = 7\n",
        "longest = site0_checks:longest\nrows = site0_checks:rows\nbroken = site0_checks:broken\n"
        "shy = site0_checks:shy\n"
        "number = site0_checks:number\nabsent = site0_checks:absent",
    )
    config = checks("python: [{name: longest, settings: {most: 5000}}, {name: rows, fail: 5000}]")
    require_checks("job.yaml", config)
    found = run_checks(config, evidence(usual_inputs()))
    assert findings(found) == {("check longest", None, "fail")}
    assert found.reason is not None
    assert found.reason.startswith("check longest: the longest is 1")
    broken = run_checks(checks("python: [{name: broken}]"), evidence(usual_inputs()))
    assert broken.reason == "check broken could not be run: ZeroDivisionError: division by zero"
    shy = run_checks(checks("python: [{name: shy}]"), evidence(usual_inputs()))
    assert [r.text for r in shy.not_judged] == ["check shy not judged: no fares today"]
    assert shy.verdict == "ok"
    for name, says in (
        ("unknown", "no installed package has a check called 'unknown'.*longest"),
        ("number", "is not a function"),
        ("absent", "cannot be loaded"),
    ):
        config = checks(f"python: [{{name: {name}}}]")
        with pytest.raises(ConfigurationError, match=says):
            require_checks("job.yaml", config)
        assert run_checks(config, evidence(usual_inputs())).verdict == "fail"


# --- the verdict --------------------------------------------------------------------------------

results = st.builds(
    CheckResult,
    name=st.sampled_from(["nulls", "drift", "volume"]),
    column=st.none() | st.just("input x"),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    warn=st.none() | st.just(0.5),
    level=st.sampled_from(Level),
    text=st.text(max_size=5),
)


@given(st.lists(results, max_size=8))
def test_an_audit_survives_json_and_its_verdict_is_the_most_severe(
    found: list[CheckResult],
) -> None:
    whole = Audit.of(found)
    assert Audit.from_json(whole.to_json()) == whole
    levels = [result.level for result in found]
    assert whole.verdict == next((level for level in ("fail", "warn") if level in levels), "ok")
    assert len(whole.not_judged) == levels.count(Level.NOT_JUDGED)
    assert whole.passed == levels.count(Level.OK)
    assert (whole.reason is None) == ("fail" not in levels)
    assert len(whole.warnings) == levels.count("warn")
    assert sorted(r.text for r in whole.results) == sorted(r.text for r in found)


def test_the_first_that_failed_is_the_reason_and_the_others_are_counted() -> None:
    given = [
        CheckResult(name=level, level=Level(level), text=text)
        for level, text in (("ok", "a"), ("fail", "b"), ("warn", "c"), ("fail", "d"))
    ]
    found = Audit.of(given)
    assert found.reason == "b (and 1 more)"
    assert [result.text for result in found.results] == ["b", "d", "c", "a"]


def test_an_audit_of_a_thousand_columns_is_bounded() -> None:
    fine = [CheckResult(name="nulls", column=str(i), text="fine") for i in range(5000)]
    found = Audit.of([*fine, CheckResult(name="volume", level=Level.WARN, text="odd")])
    assert (len(found.results), found.omitted, found.verdict) == (1000, 4001, "warn")
    with pytest.raises(ValueError, match="valid"):
        Audit.from_json("{}")


# --- comparable runs ----------------------------------------------------------------------------


def test_comparable_rows_are_of_the_same_weekday() -> None:
    first = datetime(2013, 10, 1, tzinfo=NEW_YORK)  # a Tuesday, and in November the clock changes
    days = [(first + timedelta(days=n), 1000 + n) for n in range(60)]
    start = first + timedelta(days=42)
    assert comparable_rows(start, "day", NEW_YORK, days[::-1]) == (1014, 1021, 1028, 1035)
    assert comparable_rows(first, "day", NEW_YORK, days) == ()
    months = [(datetime(2013, month, 1, tzinfo=NEW_YORK), month) for month in range(1, 13)]
    assert comparable_rows(months[9][0], "month", NEW_YORK, months) == (6, 7, 8, 9)
    hours = [(first + timedelta(hours=n), n) for n in range(24 * 15)]
    assert comparable_rows(hours[14 * 24 + 3][0], "hour", NEW_YORK, hours) == (3, 171)
    whole = [(None, 5), (first, 6), (None, 7)]
    assert comparable_rows(None, "all", NEW_YORK, whole) == (5, 7)


# --- the job file -------------------------------------------------------------------------------


def test_what_is_not_written_keeps_its_default() -> None:
    config = checks(
        """
        predictions: {between: [0, 1], missing: {fail: 0.1}}
        inputs: {unseen: off, nulls: {fail: 0.3}}
        columns: {year: {outside: off, drift: {at_once: 9}}}
        volume: {fail: 0.5}
        """
    )
    assert (config.predictions.missing.warn, config.predictions.missing.fail) == (0, 0.1)
    assert config.inputs.unseen.off
    assert (config.inputs.nulls.warn, config.inputs.nulls.fail) == (0.2, 0.3)
    assert (config.volume.warn, config.volume.fail, config.volume.minimum_runs) == (0.2, 0.5, 3)
    assert config.levels("inputs", "year", "outside").off
    assert not config.levels("inputs", "month", "outside").off
    assert config.levels("inputs", "year", "drift").model_dump() == {
        "warn": 0.5, "fail": 2, "at_once": 9,
    }  # fmt: skip
    assert Checks.model_validate_json(config.model_dump_json()) == config
    assert checks() == Checks()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inputs: {nuls: off}", "inputs.nuls: unknown key. Did you mean 'nulls'"),
        ("columns: {x: {drift: {wran: 1}}}", "columns.x.drift.wran: unknown key. Did you mean"),
        ("inputs: {nulls: {warn: 0.9}}", "`warn: 0.9` is above `fail: 0.7`"),
        ("inputs: {nulls: {warn: .nan}}", "inputs.nulls.warn: .* finite"),
        ("inputs: {nulls: {warn: -1}}", "inputs.nulls.warn: .*greater than or equal to 0"),
        ("predictions: {between: [1, 0]}", "its first number is above its second"),
        ("predictions: {between: 5}", "predictions.between"),
        ("volume: {fail: 2}", "volume.fail: .*less than or equal to 1"),
        ("sql: [{name: a, query: b}, {name: a, query: c}]", "two checks called 'a'"),
        ("sql: [{name: a}]", "sql.0.query: it is required"),
        ("minimum_rows: yes", "minimum_rows"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_error(text: str, says: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        checks(text)
    with pytest.raises(ConfigurationError, match=says):
        raise describe_problems(caught.value, Checks, lambda path: "job.yaml")[0]


def test_older_profiles_and_columns_that_came_later_do_not_matter() -> None:
    last = Profile(3000, {"gone": ColumnProfile("number", 3000)}, {})
    assert run_checks(Checks(), evidence(usual_inputs(), last=last)).verdict == "ok"
