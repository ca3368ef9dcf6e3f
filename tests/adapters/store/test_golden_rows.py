"""Golden rows: which are taken, whether they come back, and what counts as a difference."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift.adapters.errors import ModelUntrusted
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.models.tolerance import Tolerance
from nightshift.adapters.store import golden_rows
from nightshift.adapters.store.library_versions import libraries_of, version_mismatches
from nightshift.adapters.store.trust_policy import TrustPolicy
from nightshift.adapters.store.version_diff import diff_versions

EXACT = Tolerance(relative=0)
NAN, INF = float("nan"), float("inf")


def table(values: Any, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"prediction": pa.array(values, kind)})


@given(st.integers(1, 5000))
def test_rows_are_spread_over_the_sample(rows: int) -> None:
    taken = golden_rows.spread_rows(rows)
    assert len(taken) == min(rows, 32)
    assert taken[0] == 0
    assert taken[-1] == rows - 1
    assert taken == sorted(set(taken))
    assert max(np.diff(taken), default=0) <= rows / 31 + 1


def test_every_type_comes_back() -> None:
    when = pd.Timestamp("2013-07-01 02:30", tz="Europe/Berlin")
    sample = pd.DataFrame(
        {
            "prediction": [1.5, NAN],  # named as an output is
            "whole": pd.array([1, None], "Int16"),
            "flag": [True, False],
            "text": ["a", None],
            "kind": pd.Categorical(["x", "y"]),
            "moment": [when, when],
            "day": [when.date(), None],
        }
    )
    for predictions in (np.array([1.0, 2.0]), np.array(["a", "b"]), np.eye(2), np.array([1, 2])):
        signature = Signature.from_sample(sample, predictions)
        inputs = signature.table(sample)
        outputs = signature.predictions(predictions, 2)
        again = golden_rows.read_rows(golden_rows.write_rows(inputs, outputs), signature, 2)
        assert again == (inputs, outputs)


@given(st.lists(st.floats(width=64), min_size=1))
def test_a_prediction_equals_itself_without_tolerance(values: list[float]) -> None:
    assert golden_rows.difference(table(values), table(values), EXACT) is None


@pytest.mark.parametrize(
    ("then", "now", "tolerance", "says"),
    [
        ([1.0, 2.0], [1.0, np.nextafter(2.0, 3)], 0.0, "'prediction' differs in 1 of 2 rows"),
        ([1.0, 2.0], [1.0, np.nextafter(2.0, 3)], 1e-9, None),
        ([1e6, 1e-9], [1e6, 0.0], 1e-9, None),  # the noise of a sum of millions
        ([1.0, 1.0], [1.0, 1.0 + 2e-6], 1e-6, "first in row 1: 1.0 then, 1.000002 now"),
        ([1.0, NAN], [1.0, NAN], 0.0, None),
        ([1.0, NAN], [1.0, 1.0], 1.0, "nan then, 1.0 now"),
        ([1.0, 1.0], [1.0, NAN], 1.0, "1.0 then, nan now"),
        ([INF, -INF], [INF, -INF], 1e-6, None),
        ([INF], [-INF], 1e-6, "inf then, -inf now"),
        ([INF], [1.0], 1e-6, "inf then, 1.0 now"),
        ([1.0, None], [1.0, None], 1e-6, None),
        ([1, 2], [1, 3], 1.0, "2 then, 3 now"),
        (["a", None], ["a", None], 1.0, None),
        (["a", "b"], ["a", "c"], 1.0, "'b' then, 'c' now"),
        ([True], [False], 1.0, "True then, False now"),
    ],
)
def test_what_differs(then: Any, now: Any, tolerance: float, says: str | None) -> None:
    allowed = Tolerance(relative=tolerance)
    problem = golden_rows.difference(table(then), table(now), allowed)
    assert (problem is None) == (says is None)
    assert (says or "") in (problem or "")


def test_arrays_differ_by_row() -> None:
    kind = pa.list_(pa.float32())
    then = table([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], kind)
    now = table([[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]], kind)
    assert golden_rows.difference(then, then, EXACT) is None
    assert "1 of 3 rows, first in row 1: [3.0, 4.0] then" in str(
        golden_rows.difference(then, now, Tolerance(relative=1e-6))
    )


def test_libraries_are_those_that_the_model_is_made_of(model: SklearnModel) -> None:
    libraries = libraries_of(model)
    assert list(libraries) == ["python", *sorted(set(libraries) - {"python"})]
    assert {"numpy", "pandas", "scikit-learn"} <= set(libraries)
    assert not {"prefect", "pytest", "nightshift", "pydantic"} & set(libraries)
    assert version_mismatches(libraries) == ()


def test_rows_of_a_sample_hold_what_breaks() -> None:
    values = np.linspace(1.0, 2.0, 1000)
    values[[333, 444]] = [-7.0, 9.0]
    sample = pd.DataFrame({"x": values, "n": range(1000), "t": ["a"] * 1000, "late": [1.5] * 1000})
    sample.loc[555, "t"] = None
    sample.loc[666, "late"] = NAN
    signature = Signature.from_sample(sample, values)
    rows = golden_rows.choose_rows(signature.table(sample), signature, 32)
    assert len(rows) == 32
    assert {0, 333, 444, 555, 666, 999} <= set(rows)


class TestDiff:
    def test_tells_what_changed(self, folder: Any, trained: Any, sample: pd.DataFrame) -> None:
        store = folder.open()
        store.register("delay", trained(2.0), sample, metrics={"mae": 2.0, "r2": 0.5})
        store.register("delay", trained(3.0), sample.iloc[::-1], metrics={"mae": 1.5})
        difference = store.diff("delay", 1, 2)
        assert (difference.older, difference.newer) == ("delay@1", "delay@2")
        assert difference.metrics == {"mae": ("2", "1.5"), "r2": ("0.5", None)}
        assert difference.inputs == difference.outputs == difference.libraries == {}
        shift = difference.predictions["prediction"]
        signature = store.manifest("delay", 2).signature
        newer = sample.iloc[::-1].reset_index(drop=True)
        rows = golden_rows.choose_rows(signature.table(newer), signature, 32)
        hours = newer.hour.iloc[rows]
        assert (shift.rows, shift.mean) == (32, pytest.approx(hours.mean()))
        assert shift.largest == pytest.approx(hours.max())
        assert "of 32 golden rows differ, by" in difference.lines()[-1]
        json.dumps(asdict(difference))

    def test_equal_versions_have_nothing_to_tell(
        self, folder: Any, model: SklearnModel, sample: pd.DataFrame
    ) -> None:
        store = folder.open()
        for _ in range(2):
            store.register("delay", model, sample)
        assert store.diff("delay", 1, 2).lines() == []

    def test_other_inputs_cannot_predict_the_same_rows(
        self, folder: Any, trained: Any, sample: pd.DataFrame
    ) -> None:
        store = folder.open()
        store.register("delay", trained(2.0), sample)
        store.register("delay", trained(2.0), sample.astype({"hour": "float64"}))
        difference = store.diff("delay", 1, 2)
        assert difference.inputs == {"hour": ("int64", "float64")}
        assert difference.predictions == {}

    def test_opens_nothing_that_is_not_trusted(
        self, folder: Any, trained: Any, sample: pd.DataFrame
    ) -> None:
        store = folder.open(TrustPolicy())
        for slope in (2.0, 3.0):
            store.register("delay", trained(slope), sample)
        with pytest.raises(ModelUntrusted):
            store.diff("delay", 1, 2)

    def test_labels_are_counted(
        self, folder: Any, model: SklearnModel, sample: pd.DataFrame
    ) -> None:
        manifest = folder.open().register("delay", model, sample)
        shift = diff_versions(manifest, manifest, table(["a", "b"]), table(["a", "c"])).predictions
        assert (shift["prediction"].changed, shift["prediction"].mean) == (1, None)
