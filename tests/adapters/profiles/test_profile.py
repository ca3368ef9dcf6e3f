"""Profiles of chunks, which merge to the profile of the whole, and what is read from them."""

import itertools
import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.profiles.column_profile import MOST_CATEGORIES, ColumnProfile
from nightshift.adapters.profiles.drift import classes, commonest, histogram, psi
from nightshift.adapters.profiles.profile import Profile
from nightshift.adapters.profiles.sketch import MOST_BUCKETS, Sketch

RNG = np.random.default_rng(5)


def profile(values: Any, kind: pa.DataType | None = None, reference: Any = None) -> ColumnProfile:
    """Of one column."""
    table = pa.table({"x": pa.array(values, kind, from_pandas=False)})
    known = None if reference is None else Profile(0, {"x": reference})
    return Profile.of(table, table, known).inputs["x"]


# --- sketches -----------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
many = st.lists(finite, max_size=40) | st.integers(0, 3000).map(
    lambda seed: np.random.default_rng(seed).normal(size=seed).tolist()
)


@given(st.lists(many, min_size=1, max_size=4))
def test_sketches_merge_to_the_sketch_of_the_whole(parts: list[list[float]]) -> None:
    whole = Sketch.of(np.array(list(itertools.chain(*parts))))
    for order in (parts, parts[::-1]):
        merged = Sketch()
        for part in order:
            merged = merged.merged(Sketch.of(np.array(part)))
        assert merged == whole
    assert whole.total == sum(map(len, parts))
    assert len(whole.buckets) <= MOST_BUCKETS
    assert Sketch.from_data(json.loads(json.dumps(whole.to_data()))) == whole


@given(st.lists(finite, min_size=1, max_size=MOST_BUCKETS))
def test_few_numbers_are_counted_one_by_one(values: list[float]) -> None:
    found = Sketch.of(np.array(values))
    assert found.exact
    lows, highs = found.edges()
    assert lows.tolist() == highs.tolist() == sorted({value + 0.0 for value in values})
    assert found.share_within(min(values), max(values)) == pytest.approx(1)
    assert found.quantile(0.0) == min(values)
    assert found.quantile(1.0) == max(values)


@given(many.filter(bool))
def test_every_number_is_within_its_bucket(values: list[float]) -> None:
    found = Sketch.of(np.array(values))
    lows, highs = found.edges()
    assert (lows[1:] > highs[:-1]).all()
    owners = np.searchsorted(lows, values, side="right") - 1
    assert (lows[owners] <= values).all()
    assert (values <= highs[owners]).all()
    assert np.bincount(owners, minlength=len(lows)).tolist() == found.counts.tolist()


def test_a_sketch_of_a_million_numbers_knows_their_quantiles() -> None:
    values = np.random.default_rng(1).normal(size=1_000_000)
    found = Sketch.of(values)
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        value = found.quantile(share)
        assert value is not None
        assert (values < value).mean() == pytest.approx(share, abs=0.01)
    edges = np.linspace(-4, 4, 17)
    expected = np.histogram(values, edges)[0]
    assert np.abs(found.histogram(edges) - expected).max() < 0.005 * len(values)


@pytest.mark.parametrize(
    "data",
    [[0], [0, 0, 5, [0], [1, 1]], [0, 0, 5, [1], [1]], [64, 0, 1, [], [1]], [0, 0, 1, [], [0]]],
)
def test_a_sketch_that_is_none(data: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Sketch.from_data(data)


# --- profiles -----------------------------------------------------------------------------------

rows = st.fixed_dictionaries(
    {
        "number": st.none() | st.floats(),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "small": st.integers(-128, 127),
        "text": st.none() | st.text(max_size=3),
        "flag": st.none() | st.booleans(),
        "day": st.none() | st.dates(),
        "time": st.none() | st.datetimes(),
        "decimal": st.none() | st.decimals(-100, 100, places=2).map(str),
        "list": st.none() | st.lists(st.floats(width=32), min_size=2, max_size=2),
    }
)
TYPES = pa.schema(
    {
        "number": pa.float64(), "whole": pa.int64(), "small": pa.int8(), "text": pa.string(),
        "flag": pa.bool_(), "day": pa.date32(), "time": pa.timestamp("us"),
        "decimal": pa.string(), "list": pa.list_(pa.float32()),
    }
)  # fmt: skip
KINDS = Profile(0, {"decimal": ColumnProfile("number", low=-50.0, high=50.0),
                    "number": ColumnProfile("number", low=-1.0, high=1.0),
                    "text": ColumnProfile("category", counts={"": 1, "a": 2})})  # fmt: skip


@given(st.lists(rows, max_size=25), st.lists(st.integers(0, 25), max_size=3))
@settings(deadline=None)
def test_parts_merge_to_the_profile_of_the_whole(
    values: list[dict[str, Any]], cuts: list[int]
) -> None:
    table = pa.Table.from_pylist(values, TYPES)
    inputs, outputs = table.select(TYPES.names[:6]), table.select(TYPES.names[6:])
    whole = Profile.of(inputs, outputs, KINDS)
    merged = Profile()
    for start, end in itertools.pairwise([0, *sorted(cuts), len(values) + 25]):
        part = Profile.of(inputs[start:end], outputs[start:end], KINDS)
        merged = part.merged(merged)  # the later one first
    assert merged == whole
    assert merged.to_json() == whole.to_json()
    assert Profile.from_json(whole.to_json()) == whole
    assert whole.merged(Profile()) == Profile().merged(whole) == whole
    for name, column in {**whole.inputs, **whole.outputs}.items():
        given_values = [row[name] for row in values]
        assert (column.rows, column.nulls) == (len(values), given_values.count(None))
    numbers = [row["number"] for row in values if row["number"] is not None]
    counted = whole.inputs["number"]
    ordinary = [number for number in numbers if math.isfinite(number)]
    assert counted.nans == sum(map(math.isnan, numbers))
    assert counted.infinities == sum(map(math.isinf, numbers))
    assert counted.valid == len(ordinary) == counted.sketch.total
    assert counted.low == min(ordinary, default=None)
    assert counted.high == max(ordinary, default=None)
    assert counted.outside == sum(abs(number) > 1 for number in ordinary)
    assert counted.far_outside == sum(abs(number) > 3 for number in ordinary)
    texts = [row["text"] for row in values if row["text"] is not None]
    assert whole.inputs["text"].counts == {text: texts.count(text) for text in set(texts)}
    assert whole.inputs["text"].unseen == sum(text not in {"", "a"} for text in texts)
    lists = [row["list"] for row in values if row["list"] is not None]
    assert whole.outputs["list"].nans == sum(any(map(math.isnan, each)) for each in lists)


def test_counts_of_a_large_chunk_are_exact_and_its_sketch_is_near() -> None:
    values = np.random.default_rng(2).normal(size=50_000)
    values[[7, 70, 700]] = [np.nan, np.inf, -np.inf]
    values[100:110] = 9
    found = profile(values, reference=ColumnProfile("number", low=-5.0, high=5.0))
    assert (found.rows, found.nulls, found.nans, found.infinities) == (50_000, 0, 1, 2)
    assert (found.outside, found.far_outside, found.high) == (10, 0, 9)
    assert found.sketch.total == pytest.approx(50_000, rel=0.001)
    assert found == profile(values, reference=ColumnProfile("number", low=-5.0, high=5.0))
    median = found.sketch.quantile(0.5)
    assert median == pytest.approx(0, abs=0.05)


def test_rows_that_follow_a_rhythm_are_not_met_at_one_beat() -> None:
    hours = np.arange(49_152, dtype=float) % 24  # 12 times the sample, in rows' order
    counts = profile(hours).sketch.counts
    assert len(counts) == 24
    assert counts.min() > 0.7 * len(hours) / 24


def test_whole_numbers_are_counted_from_all_rows() -> None:
    found = profile(RNG.integers(0, 2, 50_000).astype(np.uint8))
    assert found.sketch.total == 50_000
    for low, high, kind in ((-128, 127, pa.int8()), (2**64 - 9, 2**64 - 1, pa.uint64())):
        found = profile([low, high, high], kind)
        assert (found.low, found.high) == (float(low), float(high))
        assert found.sketch.total == 3


def test_only_the_commonest_categories_are_named() -> None:
    names = [f"n{i}" for i in range(5000)] + ["often"] * 300 + ["x" * 500] * 200
    found = profile(names)
    assert len(found.counts) == MOST_CATEGORIES
    assert found.counts["often"] == 300
    assert found.counts["x" * 100] == 200
    assert sum(found.counts.values()) + found.other == len(names)
    twice = found.merged(found)
    assert twice.counts["often"] == 600
    assert sum(twice.counts.values()) + twice.other == 2 * len(names)
    assert profile(["new"], reference=found).unseen == 0  # unknown: it has others
    assert len(found.counts) <= MOST_CATEGORIES


def test_the_json_is_bounded() -> None:
    rng = np.random.default_rng(3)
    worst = rng.integers(-(2**63), 2**63 - 1, 8000).view(np.float64)
    numbers = profile(worst[np.isfinite(worst)])
    texts = profile([f"\x01{i:0200}" for i in range(5000)] + [f"{i}\x01" * 50 for i in range(900)])
    for column, most in ((numbers, 25_000), (texts, 130_000)):
        text = Profile(8000, {"x": column}).to_json()
        assert len(text.encode()) <= most
        assert Profile.from_json(text).inputs["x"] == column


ODD = {
    "nothing": pa.nulls(3),
    "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
    "binary": pa.array([b"a", None, b"b"]),
    "struct": pa.array([{"a": 1}, None, {"a": 2}]),
    "clock": pa.array([1, None, 3], pa.time64("us")),
    "large": pa.array(["a", None, "b"], pa.large_string()),
    "exact": pa.array([Decimal("1.5"), None, Decimal("2.5")]),
    "half": pa.array(np.array([1, 2, 3], np.float16)),
    "lists": pa.array([[1.0, None], None, []], pa.list_(pa.float64())),
    "fixed": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "all null lists": pa.array([None, None, None], pa.list_(pa.float32())),
    "zone": pa.array([datetime(2013, 10, 1, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
}


@pytest.mark.parametrize("name", ODD)
def test_no_type_breaks_it(name: str) -> None:
    table = pa.table({"x": ODD[name]})
    found = Profile.of(table, table)
    again = Profile.from_json(found.merged(found).to_json()).inputs["x"]
    assert (again.rows, again.nulls) == (6, 2 * ODD[name].null_count)
    known = Profile(0, {"x": ColumnProfile("number")}, {"x": ColumnProfile("category")})
    Profile.of(table, table, known).merged(Profile.of(table, table, known))


def test_columns_are_read_as_the_signature_says() -> None:
    def column(name: str, kind: str, **more: Any) -> Column:
        return Column.model_validate(
            {"name": name, "type": kind, "dtype": kind, "nullable": True, **more}
        )

    signature = Signature(
        inputs=(column("price", "decimal"), column("code", "category", categories=(1, 2)),
                column("sold", "date"), column("open", "float64")),
        outputs=(column("vector", "float32[]", length=2),),
    )  # fmt: skip
    inputs = pa.table(
        {
            "price": ["1.50", None, "NaN"], "code": [1, 2, 2],
            "sold": [date(1970, 1, 3), None, None], "open": [True, False, None],
        }
    )  # fmt: skip
    outputs = pa.table({"vector": [[1.0, math.nan], [math.inf, 2.0], [3.0, 4.0]]})
    blank = Profile.blank(signature)
    found = Profile.of(inputs, outputs, blank)
    assert (found.inputs["price"].low, found.inputs["price"].nans) == (1.5, 1)
    assert found.inputs["code"].counts == {"1": 1, "2": 2}
    assert (found.inputs["sold"].kind, found.inputs["sold"].low) == ("time", 2 * 86_400)
    assert found.inputs["open"].high == 1
    vector = found.outputs["vector"]
    assert (vector.nans, vector.infinities, vector.low, vector.high) == (1, 1, 1, 4)
    assert blank.merged(found) == found
    spoilt = inputs.set_column(0, "price", pa.array(["1.50", "2", "much"]))
    merged = found.merged(Profile.of(spoilt, outputs, blank)).inputs["price"]
    assert (merged.kind, merged.rows, merged.high) == ("number", 6, 1.5)


def test_profiles_of_other_columns_do_not_merge() -> None:
    with pytest.raises(ValueError, match="a number and a category are not of one column"):
        Profile(1, {"x": profile([1])}).merged(Profile(1, {"x": profile(["a"])}))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"rows": None},
        {"inputs": []},
        {"inputs": {"x": {"kind": "colour"}}},
        {"inputs": {"x": {"rows": -1}}},
        {"inputs": {"x": {"rows": 1.5}}},
        {"inputs": {"x": {"surprise": 1}}},
        {"inputs": {"x": {"low": "low"}}},
        {"inputs": {"x": {"sketch": [0, 0, 1, [], [-1]]}}},
        {"inputs": {"x": {"counts": {str(i): 1 for i in range(MOST_CATEGORIES + 1)}}}},
    ],
)
def test_what_is_no_profile_is_refused(change: dict[str, Any]) -> None:
    data = json.loads(Profile().to_json()) | change
    with pytest.raises(ValueError, match="this is not a profile"):
        Profile.from_json(json.dumps(data))


# --- drift --------------------------------------------------------------------------------------

NORMAL = profile(np.random.default_rng(11).normal(size=100_000))


@pytest.mark.parametrize("size", [500, 5000, 50_000])
def test_psi_is_an_effect_size(size: int) -> None:
    rng = np.random.default_rng(size)
    assert psi(NORMAL, profile(rng.normal(size=size))) == pytest.approx(0, abs=0.03)
    # For normals of equal spread it is the squared distance of the means, were the bins infinite.
    assert psi(NORMAL, profile(rng.normal(0.5, size=size))) == pytest.approx(0.25, abs=0.08)
    assert (psi(NORMAL, profile(rng.normal(size=size) * 1000)) or 0) > 2
    assert psi(NORMAL, NORMAL) == 0


def test_psi_of_categories_numbers_and_constants() -> None:
    rng = np.random.default_rng(12)
    even = profile(rng.choice(["a", "b", "c"], 9000))
    assert (psi(even, profile(rng.choice(["a", "b", "c"], 600))) or 1) < 0.02
    assert (psi(even, profile(rng.choice(["a", "b"], 600))) or 0) > 0.5
    assert (psi(even, profile(rng.choice(["a", "b", "d"], 600))) or 0) > 0.5
    ones = profile(np.ones(900))
    assert psi(ones, ones) == 0
    assert (psi(ones, profile(np.full(900, 1.001))) or 0) > 5
    flags = profile(rng.integers(0, 2, 900))
    assert (psi(flags, profile(2 * rng.integers(0, 2, 900))) or 0) > 1


def test_psi_of_a_column_of_many_names_is_no_false_alarm() -> None:
    rng = np.random.default_rng(13)
    names = np.char.add("N", np.arange(4000).astype(str))
    before, now = (profile(rng.choice(names, size)) for size in (100_000, 900))
    assert (psi(before, now) or 0) < 0.05


def test_psi_of_too_few_rows_is_unknown() -> None:
    few = profile(np.arange(499.0))
    assert psi(NORMAL, few) is None
    assert psi(few, NORMAL) is None
    assert psi(NORMAL, few, minimum_rows=499) is not None
    assert psi(NORMAL, profile(["a"] * 500)) is None
    assert psi(NORMAL, profile(np.full(900, np.nan))) is None
    assert psi(profile(pa.nulls(900)), profile(pa.nulls(900))) is None


@given(st.lists(finite, min_size=1, max_size=50), st.lists(finite, min_size=1, max_size=50))
def test_psi_is_finite_and_never_negative(before: list[float], now: list[float]) -> None:
    found = psi(profile(before, pa.float64()), profile(now, pa.float64()), minimum_rows=1)
    assert found is not None
    assert 0 <= found < 100


def test_classes_and_the_commonest_value() -> None:
    assert classes(profile([0, 1, 1, 1])) == {"0": 0.25, "1": 0.75}
    assert classes(profile([0.0, 1.0])) == {"0": 0.5, "1": 0.5}
    assert classes(profile([True, False])) == {"true": 0.5, "false": 0.5}
    assert classes(profile(["no"])) == {"no": 1}
    assert classes(profile([0.5, 1.0])) is None
    assert classes(profile(range(21))) is None
    assert classes(profile(pa.nulls(3))) is None
    assert commonest(profile([3, 4, 4])) == ("4", 2 / 3, 0)
    assert commonest(profile([3, 4, 4]), profile([4, 5])) == ("4", 2 / 3, 1 / 2)
    assert commonest(profile(np.zeros(9)), profile([0.0, *range(999)])) == ("0", 1, 2 / 1000)
    assert commonest(profile(["a", "a"]), profile(["a", "b"])) == ("a", 1.0, 0.5)
    assert commonest(profile(["a"]), profile([1])) == ("a", 1.0, 0)
    assert commonest(profile(pa.nulls(3))) is None
    assert commonest(profile([0.3, 0.1 + 0.2, 4]), profile([0.1 + 0.2, 7])) == ("0.3", 2 / 3, 1 / 2)


def test_histograms_share_their_bars() -> None:
    now = profile(np.append(np.random.default_rng(14).normal(1, size=3000), 1e9))
    found = histogram(NORMAL, now, bars=10)
    assert found is not None
    assert len(found.edges) == 11
    assert -4 < found.edges[0] < -2
    assert 3 < found.edges[-1] < 5  # the one far away does not squeeze the others together
    assert sum(found.reference) == pytest.approx(1)
    assert sum(found.column) == pytest.approx(1)
    alone = histogram(None, profile([7, 7, 7]), bars=3)
    assert alone is not None
    assert alone.column == (0, 1, 0)
    assert alone.reference == (0, 0, 0)
    names = histogram(profile(list("aaabbc")), profile(list("abdddd")), bars=3)
    assert names is not None
    assert names.labels == ("a", "b", "other")
    assert names.reference == pytest.approx((3 / 6, 2 / 6, 1 / 6))
    assert names.column == pytest.approx((1 / 6, 1 / 6, 4 / 6))
    assert histogram(NORMAL, profile(["a"])) is None
    assert histogram(None, profile(pa.nulls(2))) is None


def test_pandas_floats_and_chunked_columns() -> None:
    series = pd.Series([1.0, np.nan, 3.0])
    column = pa.chunked_array([pa.array(series), pa.array([4.0])])
    table = pa.table({"x": column})
    found = Profile.of(table, table).inputs["x"]
    assert (found.rows, found.nulls, found.high) == (4, 1, 4)
