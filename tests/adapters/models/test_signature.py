"""The signature's table of types: each from a sample to Arrow and back, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.adapters.errors import InvalidPredictions, SignatureMismatch, SignatureUndefined
from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature

few = settings(max_examples=12, deadline=None)

# --- the table ----------------------------------------------------------------------------------

MISSING = object()


@dataclass(frozen=True)
class Kind:
    """One row of the table: a pandas dtype, the type it should get, values, and how NULL looks."""

    dtype: Any
    type: str
    values: st.SearchStrategy[Any]
    absent: Any = MISSING  # no value of this dtype is missing
    build: Callable[[list[Any], Any], Any] = lambda values, dtype: pd.Series(values, dtype=dtype)

    @property
    def id(self) -> str:
        spelled = "" if self.absent is MISSING else f"-or-{self.absent}"
        return f"{self.dtype}{spelled}".replace(" ", "")


def whole(bits: int, signed: bool) -> st.SearchStrategy[int]:
    most = 2 ** (bits - signed) - 1
    return st.integers(-most - 1 if signed else 0, most)


def instants(first: int = 1, last: int = 9999) -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime(first, 1, 1), datetime(last, 12, 31))  # noqa: DTZ001


def in_zone(values: list[Any], dtype: Any) -> Any:
    aware = [None if value is None else value.replace(tzinfo=UTC) for value in values]
    return pd.Series(aware, dtype="datetime64[us, UTC]").astype(dtype)


def floats(width: int) -> st.SearchStrategy[float]:
    return st.floats(width=width, allow_nan=False)


numbers = [
    Kind(f"{sign}int{bits}", f"{sign}int{bits}", whole(bits, not sign))
    for bits in (8, 16, 32, 64)
    for sign in ("", "u")
]
nullable_numbers = [
    Kind(kind.dtype.replace("i", "I").replace("uI", "UI"), kind.type, kind.values, pd.NA)
    for kind in numbers
]
decimals = st.decimals(allow_nan=False, allow_infinity=False)
text = st.text(max_size=5)

KINDS = [
    *numbers,
    *nullable_numbers,
    Kind("bool", "bool", st.booleans()),
    Kind("boolean", "bool", st.booleans(), pd.NA),
    Kind("float32", "float32", floats(32), np.nan),
    Kind("float64", "float64", floats(64), np.nan),
    Kind("Float64", "float64", floats(64), pd.NA),
    Kind("str", "string", text, np.nan),
    Kind("string", "string", text, pd.NA),
    Kind("object", "string", text, None),
    Kind("object", "string", text, np.nan),
    Kind("object", "date", st.dates(), None),
    Kind("object", "decimal", decimals, None),
    Kind("datetime64[s]", "timestamp", instants().map(lambda t: t.replace(microsecond=0)), pd.NaT),
    Kind("datetime64[us]", "timestamp", instants(), pd.NaT),
    Kind("datetime64[ns]", "timestamp", instants(1700, 2200), pd.NaT),
    Kind("datetime64[us, UTC]", "timestamptz", instants(2, 9998), None, in_zone),
    Kind("datetime64[ns, Europe/Paris]", "timestamptz", instants(1900, 2200), None, in_zone),
    Kind("datetime64[us, UTC+05:30]", "timestamptz", instants(1900, 2200), None, in_zone),
    Kind(pd.CategoricalDtype(["b", "", "ü"]), "category", st.sampled_from(["b", "", "ü"]), np.nan),
    Kind(pd.CategoricalDtype([3, 1], ordered=True), "category", st.sampled_from([3, 1]), np.nan),
]


def of(*kinds: str) -> list[Kind]:
    return [kind for kind in KINDS if kind.type in kinds]


def parametrized(kinds: list[Kind]) -> Any:
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: f"{kind.type}-{kind.id}")


def drawn(data: st.DataObject, kind: Kind, absent: bool) -> pd.DataFrame:
    """A sample of one column; with missing values there is at least one of each."""
    values = data.draw(st.lists(kind.values, min_size=1, max_size=6))
    if absent:
        holes = data.draw(st.lists(st.sampled_from([MISSING, values[0]]), max_size=4))
        values = [*values, kind.absent, *(kind.absent if v is MISSING else v for v in holes)]
    return pd.DataFrame({"x": kind.build(values, kind.dtype)})


def signed(sample: pd.DataFrame) -> Signature:
    return Signature.from_sample(sample, np.zeros(len(sample)))


class TestEveryType:
    @parametrized(KINDS)
    @given(data=st.data())
    @few
    def test_goes_to_arrow_and_back(self, kind: Kind, data: st.DataObject) -> None:
        sample = drawn(data, kind, absent=False)
        signature = signed(sample)
        assert signature.inputs[0].type == kind.type
        assert not signature.inputs[0].nullable
        table = signature.table(sample)
        assert table.schema.field("x").type == signature.inputs[0].arrow_type
        pd.testing.assert_frame_equal(signature.features(table), sample, check_exact=True)

    @parametrized([kind for kind in KINDS if kind.absent is not MISSING])
    @given(data=st.data())
    @few
    def test_keeps_its_missing_values_as_the_sample_spells_them(
        self, kind: Kind, data: st.DataObject
    ) -> None:
        sample = drawn(data, kind, absent=True)
        signature = signed(sample)
        assert signature.inputs[0].type == kind.type
        assert signature.inputs[0].nullable
        features = signature.features(signature.table(sample))
        pd.testing.assert_frame_equal(features, sample, check_exact=True)
        if sample["x"].dtype == object:  # assert_frame_equal takes None for NaN
            spelled = [type(value) for value in sample["x"]]
            assert [type(value) for value in features["x"]] == spelled

    @parametrized([kind for kind in KINDS if kind.absent is not MISSING])
    @given(data=st.data())
    @few
    def test_has_its_dtype_in_any_chunk(self, kind: Kind, data: st.DataObject) -> None:
        """A chunk of NULLs, no rows, or many pieces: the dtypes are the schema's, not luck's."""
        sample = drawn(data, kind, absent=True)
        signature = signed(sample)
        table = signature.table(sample)
        nulls = pa.nulls(3, table.schema.field("x").type)
        pieces = pa.chunked_array([nulls, nulls[:0], nulls], nulls.type)
        for chunk in (table.slice(0, 0), pa.table({"x": nulls}), pa.table({"x": pieces})):
            features = signature.features(chunk)
            assert features.dtypes.to_dict() == sample.dtypes.to_dict()
            assert len(features) == len(chunk)
            assert features["x"].isna().all()
        empty = pa.table({"x": pa.chunked_array([], nulls.type)})
        assert signature.features(empty).dtypes.to_dict() == sample.dtypes.to_dict()
        untyped = pa.table({"x": pa.nulls(2)})
        assert signature.features(untyped)["x"].isna().all()

    @parametrized(KINDS)
    @given(data=st.data())
    @few
    def test_refuses_null_where_the_sample_had_none(self, kind: Kind, data: st.DataObject) -> None:
        signature = signed(drawn(data, kind, absent=False))
        for nulls in (pa.nulls(2, signature.inputs[0].arrow_type), pa.nulls(2)):
            with pytest.raises(SignatureMismatch, match="NULL in 2 of 2 rows") as caught:
                signature.features(pa.table({"x": nulls}))
            assert caught.value.column == "x"

    @parametrized(KINDS)
    def test_survives_the_manifest(self, kind: Kind) -> None:
        column = Column(name="x", type=kind.type, dtype=str(kind.dtype), nullable=True)
        assert Column.model_validate_json(column.model_dump_json()) == column


# --- what the table may hold --------------------------------------------------------------------


def holding(kind: Kind, value: Any) -> Signature:
    return signed(pd.DataFrame({"x": kind.build([value], kind.dtype)}))


class TestTheTable:
    @parametrized(of("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"))
    @given(value=st.integers(-(2**63), 2**63 - 1))
    @few
    def test_whole_numbers_fit_or_are_refused(self, kind: Kind, value: int) -> None:
        """Neither an overflow nor a lost sign; exact decimals come as text."""
        signature = holding(kind, 0)
        bounds = np.iinfo(kind.type)
        for array in (pa.array([value]), pa.array([str(value)])):
            if bounds.min <= value <= bounds.max:
                assert signature.features(pa.table({"x": array}))["x"][0] == value
            else:
                with pytest.raises(SignatureMismatch):
                    signature.features(pa.table({"x": array}))

    @pytest.mark.parametrize("width", ["float32", "float64"])
    @given(value=st.one_of(st.integers(-(2**24), 2**24), floats(32), st.booleans()))
    @few
    def test_floats_take_any_number(self, width: str, value: float) -> None:
        signature = signed(pd.DataFrame({"x": np.zeros(1, width)}))
        assert signature.features(pa.table({"x": pa.array([value])}))["x"][0] == value

    def test_extremes_of_floats_stay(self) -> None:
        tiny, huge = np.nextafter(0, 1), np.finfo("float64").max
        sample = pd.DataFrame({"x": [tiny, -tiny, huge, -huge, math.inf, -math.inf, -0.0]})
        again = signed(sample).features(signed(sample).table(sample))
        assert np.array_equal(again["x"].to_numpy().view("u8"), sample["x"].to_numpy().view("u8"))

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ("float64", pa.array(["1.5"])),
            ("int64", pa.array([1.0])),
            ("int64", pa.array(["1.5"])),
            ("bool", pa.array(["true"])),
            ("bool", pa.array([1])),
            ("str", pa.array([1])),
            ("str", pa.array([b"\xff"])),
            ("datetime64[us]", pa.array(["2013-01-01"])),
            ("datetime64[us]", pa.array([datetime(2013, 1, 1, tzinfo=UTC)])),
            ("datetime64[us, UTC]", pa.array([datetime(2013, 1, 1)])),  # noqa: DTZ001
            ("category", pa.array([1])),
            ("float64", pa.array([[1.0]])),
            ("int64", pa.array([{"a": 1}])),
        ],
    )
    def test_another_type_is_refused_with_the_columns_name(
        self, wanted: str, found: pa.Array
    ) -> None:
        values: Any = {"str": "a", "category": "a", "bool": True}.get(wanted, 1)
        signature = signed(pd.DataFrame({"n": [1], "x": pd.Series([values]).astype(wanted)}))
        with pytest.raises(SignatureMismatch) as caught:
            signature.features(pa.table({"n": [1], "x": found}))
        assert caught.value.column == "x"
        assert signature.inputs[1].type in str(caught.value)

    @pytest.mark.parametrize(
        ("trained_on", "wrong"),
        [
            (Decimal("1.5"), ["abc", True, [1], {"a": 1}, "1,5"]),
            ("a", [5, True, ["a"]]),
            (True, ["true", 1, 0.0]),
            (1, ["x", 1.5, [1], "NaN"]),
            (1.5, ["x", "1.5", [1.5], "nan"]),
            (datetime(2013, 1, 1, tzinfo=UTC), [5, 1.5, True, "yesterday"]),
            (date(2013, 1, 1), [5, "now", True]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_rows_values_are_of_the_inputs_types(self, trained_on: Any, wrong: list[Any]) -> None:
        signature = signed(pd.DataFrame({"x": [trained_on]}))
        for value in wrong:
            with pytest.raises(SignatureMismatch) as caught:
                signature.features(signature.row({"x": value}))
            assert caught.value.column == "x"

    @pytest.mark.parametrize(
        ("trained_on", "value", "got"),
        [
            (Decimal("1.5"), "2.50", Decimal("2.50")),
            (Decimal("1.5"), 2.5, Decimal("2.5")),
            (1.5, 2, 2.0),
            (1.5, "-Infinity", -np.inf),
            (1, "7", 7),
            (
                datetime(2013, 1, 1, tzinfo=UTC),
                "2013-01-02T03:00+01:00",
                pd.Timestamp("2013-01-02T02Z"),
            ),
            (date(2013, 1, 1), "2013-01-02", date(2013, 1, 2)),
        ],
    )
    def test_a_rows_values_may_be_written_as_json_can(
        self, trained_on: Any, value: Any, got: Any
    ) -> None:
        signature = signed(pd.DataFrame({"x": [trained_on]}))
        assert signature.features(signature.row({"x": value}))["x"][0] == got

    def test_wider_text_and_dates_are_read(self) -> None:
        sample = pd.DataFrame({"s": ["a"], "t": pd.Series([datetime(2013, 1, 1)])})  # noqa: DTZ001
        signature = signed(sample)
        table = pa.table(
            {"s": pa.array(["a"], pa.large_string()), "t": pa.array([date(2013, 1, 1)])}
        )
        features = signature.features(table)
        assert features["s"][0] == "a"
        assert features["t"][0] == datetime(2013, 1, 1)  # noqa: DTZ001

    def test_a_category_unknown_in_training_gets_a_code_of_its_own(self) -> None:
        dtype = pd.CategoricalDtype(["b", "a"])
        signature = signed(pd.DataFrame({"x": pd.Series(["a", None], dtype=dtype)}))
        features = signature.features(pa.table({"x": ["c", "a", "b", None]}))
        assert features["x"].cat.codes.tolist() == [2, 1, 0, -1]
        assert features["x"].cat.categories.tolist() == ["b", "a", "c"]

    def test_order_and_surplus_do_not_matter_and_a_gap_does(self) -> None:
        sample = pd.DataFrame({"a": [1.5], "b": [2]})
        signature = signed(sample)
        table = pa.table({"b": [2], "surplus": ["?"], "a": [1.5]})
        pd.testing.assert_frame_equal(signature.features(table), sample)
        with pytest.raises(SignatureMismatch, match="no such column, only b, surplus") as caught:
            signature.features(table.drop_columns(["a"]))
        assert caught.value.column == "a"


# --- the sample ---------------------------------------------------------------------------------


class TestTheSample:
    @pytest.mark.parametrize(
        ("sample", "named"),
        [
            (pd.DataFrame({"x": []}), "the sample"),
            (pd.DataFrame([[1, 2]], columns=["x", "x"]), "'x'"),
            (pd.DataFrame([[1, 2]], columns=["1", 1]), "'1'"),
            (pd.DataFrame({"": [1]}), "''"),
            (pd.DataFrame({"x": [None, None]}), "'x'"),
            (pd.DataFrame({"x": pd.Series([1, "a"], dtype=object)}), "'x'"),
            (pd.DataFrame({"x": pd.Series([[1]], dtype=object)}), "'x'"),
            (pd.DataFrame({"x": [1 + 2j]}), "'x'"),
            (pd.DataFrame({"x": pd.to_timedelta([1], "s")}), "'x'"),
            (pd.DataFrame({"x": pd.period_range("2013", periods=1)}), "'x'"),
            (pd.DataFrame({"x": np.zeros(1, "float16")}), "'x'"),
            (pd.DataFrame({"x": pd.Categorical([1.5])}), "'x'"),
            (pd.DataFrame({"x": pd.Categorical([None])}), "'x'"),
        ],
    )
    def test_that_does_not_tell_is_refused_by_name(self, sample: pd.DataFrame, named: str) -> None:
        with pytest.raises(SignatureUndefined) as caught:
            signed(sample)
        assert caught.value.column == named

    def test_more_columns_than_bytes_are_one_block(self) -> None:
        """All floats: no second copy, and the model may not write into the chunk's memory."""
        sample = pd.DataFrame(np.zeros((2, 300), "float32"), columns=[f"c{i}" for i in range(300)])
        features = signed(sample).features(signed(sample).table(sample))
        assert features.to_numpy().dtype == np.float32

    @pytest.mark.parametrize(
        "value", ["\ud800", 1, 2.5, None], ids=["lone surrogate", "number", "float", "null"]
    )
    def test_another_sample_is_checked_against_the_signature(self, value: Any) -> None:
        signature = signed(pd.DataFrame({"x": pd.Series(["a"], dtype=object)}))
        sample = pd.DataFrame({"x": pd.Series([value], dtype=object)})
        with pytest.raises(SignatureMismatch) as caught:
            signature.features(signature.table(sample))
        assert caught.value.column == "x"

    def test_nanoseconds_are_not_dropped_in_silence(self) -> None:
        sample = pd.DataFrame({"x": pd.to_datetime([1], unit="ns")})
        with pytest.raises(SignatureMismatch):
            signed(sample).table(sample)


# --- the predictions ----------------------------------------------------------------------------

ONE = pd.DataFrame({"x": [1.0, 2.0, 3.0]})


def predicting(values: Any, names: tuple[str, ...] | None = None) -> Signature:
    return Signature.from_sample(ONE, np.asarray(values), names)


class TestThePredictions:
    @pytest.mark.parametrize(
        ("values", "types"),
        [
            (np.array([1.5, 2, 3]), ["float64"]),
            (np.array([1.5, 2, 3], "float32"), ["float32"]),
            (np.array([1.5, 2, 3], "float16"), ["float32"]),
            (np.array([1, 2, 3], "int32"), ["int32"]),
            (np.array([True, False, True]), ["bool"]),
            (np.array(["a", "b", "ü"]), ["string"]),
            (np.array(["a", "b", "ü"], dtype=object), ["string"]),
            (np.array([["a", 1.5], ["b", 2.5], ["c", 3.5]], dtype=object), ["string", "float64"]),
            (np.zeros((3, 1)), ["float64"]),
            (np.zeros((3, 2)), ["float64", "float64"]),
            (np.asfortranarray(np.zeros((3, 2)))[::-1], ["float64", "float64"]),
        ],
    )
    def test_have_types_and_names(self, values: np.ndarray, types: list[str]) -> None:
        signature = predicting(values)
        assert [output.type for output in signature.outputs] == types
        table = signature.predictions(values, 3)
        assert table.num_rows == 3
        assert table.schema.types == [output.arrow_type for output in signature.outputs]
        width = len(types)
        names = ["prediction"] if width == 1 else [f"prediction_{i}" for i in range(width)]
        assert table.column_names == names

    @pytest.mark.parametrize(
        "values",
        [np.zeros((3, 0)), np.zeros((3, 2, 2)), np.float64(1), [1j] * 3, [b"a"] * 3,
         np.array([{}] * 3, dtype=object), np.zeros(3, "M8[s]")],
    )  # fmt: skip
    def test_of_no_use_are_refused_at_registration(self, values: Any) -> None:
        with pytest.raises(SignatureUndefined):
            predicting(values)

    @pytest.mark.parametrize("names", [(), ("a",), ("a", "a"), ("a", "b", "c")])
    def test_need_one_name_each(self, names: tuple[str, ...]) -> None:
        with pytest.raises(SignatureUndefined):
            predicting(np.zeros((3, 2)), names)

    @pytest.mark.parametrize(
        "values",
        [
            [1.5, 2.5],
            [1.5] * 4,
            [[1.5, 2.5]] * 3,
            1.5,
            [1.5, math.nan, 2.5],
            [1.5, None, 2.5],
            ["a", "b", "c"],
            [[[1.5]]] * 3,
            [1j] * 3,
            [datetime(2013, 1, 1)] * 3,  # noqa: DTZ001
            {"a": 1},
            [[1.5], [1.5, 2.5], []],
        ],
        ids=str,
    )
    def test_that_do_not_fit_are_refused(self, values: Any) -> None:
        with pytest.raises(InvalidPredictions):
            predicting([1.5, 2.5, 3.5]).predictions(values, 3)

    def test_that_overflow_or_lose_a_fraction_are_refused(self) -> None:
        labels = predicting(np.array([1, 2, 3], "int8"))
        for wrong in ([1, 2, 300], [1, 2, 2.5], [1, 2, 2**70], ["1", "2", "3"]):
            with pytest.raises(InvalidPredictions):
                labels.predictions(np.array(wrong), 3)
        assert labels.predictions([1.0, 2.0, 3.0], 3).column(0).to_pylist() == [1, 2, 3]

    @pytest.mark.parametrize("wrong", [[1, 2, 3], [1.5] * 3, [True] * 3, ["a", "\ud800", "b"]])
    def test_that_were_labels_stay_labels(self, wrong: list[Any]) -> None:
        with pytest.raises(InvalidPredictions):
            predicting(["a", "b", "c"]).predictions(np.array(wrong, dtype=object), 3)

    @pytest.mark.parametrize("wrong", [[1, 2, 3], ["true"] * 3, [1.0] * 3])
    def test_that_were_booleans_stay_booleans(self, wrong: list[Any]) -> None:
        with pytest.raises(InvalidPredictions):
            predicting([True, False, True]).predictions(wrong, 3)

    def test_may_be_missing_where_the_samples_were(self) -> None:
        signature = predicting([1.5, math.nan, 2.5])
        assert signature.outputs[0].nullable
        assert signature.predictions([math.nan] * 3, 3).num_rows == 3

    @given(
        rows=st.integers(0, 5), width=st.integers(2, 6), dtype=st.sampled_from(["f4", "f8", "i4"])
    )
    @few
    def test_may_be_one_array_column(self, rows: int, width: int, dtype: str) -> None:
        signature = predicting(np.zeros((3, width), "float32"), ("embedding[]",))
        (output,) = signature.outputs
        assert (output.name, output.type, output.length) == ("embedding", "float32[]", width)
        assert Signature.model_validate_json(signature.model_dump_json()) == signature
        values = np.arange(rows * width).reshape(width, rows).T.astype(dtype)
        table = signature.predictions(values, rows)
        assert table.schema == pa.schema({"embedding": pa.list_(pa.float32())})
        assert table.column(0).to_pylist() == values.tolist()

    @pytest.mark.parametrize(
        "values",
        [np.zeros((3, 2)), np.zeros(3), np.zeros((2, 3)), np.full((3, 3), "a"),
         np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 0]])],
    )  # fmt: skip
    def test_in_an_array_column_have_its_length(self, values: np.ndarray) -> None:
        with pytest.raises(InvalidPredictions):
            predicting(np.zeros((3, 3)), ("embedding[]",)).predictions(values, 3)

    def test_in_an_array_column_are_floats(self) -> None:
        with pytest.raises(SignatureUndefined, match="int64"):
            predicting(np.zeros((3, 3), "int64"), ("embedding[]",))

    @given(values=st.lists(floats(64), min_size=1, max_size=5))
    @few
    def test_lose_nothing(self, values: list[float]) -> None:
        sample = pd.DataFrame({"x": np.zeros(len(values))})
        signature = Signature.from_sample(sample, np.asarray(values))
        assert signature.predictions(values, len(values)).column(0).to_pylist() == values
