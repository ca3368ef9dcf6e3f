"""A challenger alongside the champion: compared, bounded, and never in its way."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.column import Column
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows.config.quantities import Budget, Tolerance
from nightshift.flows.scoring.challenger.comparison import Comparison, Differences, compared
from nightshift.flows.scoring.challenger.scorer import Challenged, Challenger
from nightshift.flows.scoring.prediction.predictor import Limits, Predictor, Scored
from watched import WORDS, Hanging, MeanOfWord, ThreadSafe, Twice, Watched, chunk, manifest, trained

KEPT = ["id", "partition_time"]


class Slope(Model):
    """x times something."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def predict_batch(self, features: Any) -> Any:
        return self.slope * features["x"].to_numpy()


class Labels(Model):
    """One of two words, by whether x is above a limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def predict_batch(self, features: Any) -> Any:
        return np.where(features["x"] > self.limit, "late", "on time").astype(object)


def column(kind: str, name: str = "prediction", **more: Any) -> Column:
    given = {"dtype": kind, "nullable": False, **more}
    return Column.model_validate({"name": name, "type": kind, **given})


def inputs(*names: str) -> tuple[Column, ...]:
    kinds = {"x": "float64", "word": "string", "more": "float64"}
    return tuple(column(kinds[name], name) for name in names)


def versus(
    champion: Model,
    challenger: Model,
    *,
    its: Manifest | None = None,
    own: Manifest | None = None,
    **settings: Any,
) -> tuple[Predictor, Challenger]:
    own = own or manifest(champion)
    its = its or manifest(challenger, 4)
    return (
        Predictor(own, champion, ["id"], KEPT),
        Challenger(its, challenger, own, ["id"], KEPT, **settings),
    )


def run(
    both: tuple[Predictor, Challenger], *chunks: pa.Table
) -> tuple[Comparison, list[Challenged]]:
    """All the chunks, through a JSON text after each, as the ledger keeps it."""
    predictor, challenger = both
    total, outcomes = Comparison(), []
    for part in chunks:
        outcomes.append(challenger.compare(part, predictor.score(part)))
        total = Comparison.from_json(total.merged(outcomes[-1].comparison).to_json())
    challenger.close()
    return total, outcomes


# --- what is reported -----------------------------------------------------------------------------


def test_two_regressions() -> None:
    both = versus(Slope(2.0), Slope(2.5), tolerance=Tolerance(amount=1.0))
    total, outcomes = run(both, chunk(100), chunk(100, 100))
    moved = np.arange(200) / 14.0
    assert (total.rows, total.missing, total.skipped, total.failure) == (200, 0, 0, None)
    assert total.agreed == (moved <= 1.0).sum()
    assert total.agreement == total.agreed / 200
    found = total.outputs["prediction"].differences
    assert found is not None
    assert found.rows == 200
    assert found.mean == pytest.approx(moved.mean())
    assert found.mean_absolute == pytest.approx(moved.mean())
    assert found.largest == pytest.approx(moved.max())
    for share in (0.05, 0.5, 0.95, 1.0):
        exact = np.quantile(moved, share, method="inverted_cdf")
        assert found.quantile(share) == pytest.approx(exact, rel=0.08)
    assert sum(count for _, _, count in found.histogram()) == 200
    assert [row.key for row in total.most] == [(199 - i,) for i in range(20)]
    assert total.most[0].difference == pytest.approx(moved[-1])
    assert total.most[0].champion == {"prediction": pytest.approx(199 / 7 * 2.0)}
    assert total.most[0].challenger == {"prediction": pytest.approx(199 / 7 * 2.5)}
    assert total.champion_seconds > 0
    assert total.challenger_seconds > 0
    rows = outcomes[1].rows
    assert rows is not None
    assert rows.column_names == [*KEPT, "prediction"]
    assert rows.column("id").to_pylist() == list(range(100, 200))


def test_a_share_of_the_prediction_is_near_enough() -> None:
    assert run(versus(Slope(2.0), Slope(2.01)), chunk(50))[0].agreement == 1.0
    assert run(versus(Slope(2.0), Slope(2.03)), chunk(50))[0].agreed == 1  # x is 0 in one


def test_real_models_of_other_kinds_and_with_other_inputs() -> None:
    frame = chunk(500).to_pandas()
    target = np.sin(frame["x"])
    champion = SklearnModel(LinearRegression().fit(frame[["x"]], target))
    trees = HistGradientBoostingRegressor(max_iter=10, random_state=0)
    challenger = SklearnModel(trees.fit(frame.assign(more=1.0)[["more", "x"]], target))
    own = manifest(Twice(), inputs=inputs("x"))
    its = manifest(Twice(), 4, inputs=inputs("more", "x"))
    both = versus(champion, challenger, own=own, its=its)
    source = chunk(500, more=pa.array(np.ones(500)))
    total, (outcome,) = run(both, source)
    expected = challenger.predict_batch(frame.assign(more=1.0)[["more", "x"]])
    assert outcome.rows is not None
    np.testing.assert_array_equal(outcome.rows.column("prediction").to_numpy(), expected)
    found = total.outputs["prediction"].differences
    assert found is not None
    assert found.mean == pytest.approx((expected - champion.predict_batch(frame[["x"]])).mean())


def test_labels() -> None:
    texts = (column("string"),)
    own, its = manifest(Twice(), outputs=texts), manifest(Twice(), 4, outputs=texts)
    total, _ = run(versus(Labels(10), Labels(12), own=own, its=its), chunk(70), chunk(70, 70))
    assert (total.rows, total.agreed) == (140, 140 - 14)
    output = total.outputs["prediction"]
    assert output.differences is None
    (change,) = output.changes
    assert (change.champion, change.challenger, change.rows) == ("late", "on time", 14)
    assert [row.key for row in total.most] == [(71 + i,) for i in range(14)]
    assert {row.difference for row in total.most} == {1.0}


def test_classes_of_a_real_classifier_are_equal_or_not() -> None:
    frame = chunk(300).to_pandas()
    ids = frame["id"] % 7
    deep = SklearnModel(DecisionTreeClassifier(random_state=0).fit(frame[["x"]], ids))
    flat = SklearnModel(DecisionTreeClassifier(max_depth=3, random_state=0).fit(frame[["x"]], ids))
    whole = {"inputs": inputs("x"), "outputs": (column("int64"),)}
    both = versus(deep, flat, own=manifest(Twice(), **whole), its=manifest(Twice(), 4, **whole))
    total, _ = run(both, chunk(300))
    assert (
        total.agreed == (deep.predict_batch(frame[["x"]]) == flat.predict_batch(frame[["x"]])).sum()
    )
    assert 0 < total.agreed < 300


class Wide(Model):
    """(m, 2): x, and x times something; the row of one order is spoilt."""

    def __init__(self, slope: float, spoilt: float = 0.0) -> None:
        self.slope, self.spoilt = slope, spoilt

    def predict_batch(self, features: Any) -> Any:
        x = features["x"].to_numpy()
        values = np.column_stack([x, self.slope * x])
        values[x == 3 / 7.0] += self.spoilt
        return values


def test_several_outputs_of_which_both_have_some() -> None:
    own = manifest(Twice(), outputs=(column("float64", "a"), column("float64", "b")))
    its = manifest(Twice(), 4, outputs=(column("float64", "b"), column("float64", "c")))
    total, _ = run(versus(Wide(2.0), Wide(5.0, 1.0), own=own, its=its), chunk(10))
    assert list(total.outputs) == ["b"]
    assert total.agreed == 1  # the challenger's b is x, not 2 x


def test_arrays_differ_by_their_farthest_element() -> None:
    arrays = (column("float32[]", length=2),)
    own, its = manifest(Twice(), outputs=arrays), manifest(Twice(), 4, outputs=arrays)
    total, _ = run(versus(Wide(2.0), Wide(2.0, 8.0), own=own, its=its), chunk(10))
    assert (total.rows, total.agreed) == (10, 9)
    assert [(row.key, row.difference) for row in total.most] == [((3,), pytest.approx(8.0))]
    assert total.most[0].challenger["prediction"] == pytest.approx([3 / 7 + 8, 6 / 7 + 8])
    gone = versus(Wide(2.0), Wide(2.0, math.nan), own=own, its=its)
    total, (outcome,) = run(gone, chunk(10))
    assert (total.missing, total.agreed) == (1, 9)
    assert outcome.rows is not None
    assert outcome.rows.num_rows == 9


def test_rows_that_one_of_them_predicts_nothing_for() -> None:
    source = chunk(300, word=pa.array(["apfel", "mango", "birne"] * 100))
    total, (outcome,) = run(versus(Twice(), trained(MeanOfWord())), source)
    assert (total.rows, total.missing, total.failure) == (300, 100, None)
    assert total.most[0].difference is None
    assert total.most[0].key == (1,)
    assert total.most[0].challenger == {"prediction": None}
    assert outcome.rows is not None
    assert outcome.rows.num_rows == 200
    # The other way round they are the champion's rejects, and not the challenger's to try.
    total, (outcome,) = run(versus(trained(MeanOfWord()), Watched(Twice())), source)
    assert (total.rows, total.missing) == (200, 0)
    assert outcome.rows is not None
    assert outcome.rows.column("id").to_pylist() == [i for i in range(300) if i % 3 != 1]


def test_numbers_that_are_hardly_numbers() -> None:
    def table(values: list[float | None]) -> pa.Table:
        return pa.table({"p": pa.array(values, pa.float64())})

    nan, inf = math.nan, math.inf
    champion = [nan, nan, 1.0, inf, inf, inf, -1e308, 0.0, 5e-324]
    challenger = [nan, 1.0, None, inf, -inf, 1.0, 1e308, -0.0, 0.0]
    keys = pa.table({"id": list(range(9))})
    found = compared(keys, table(champion), table(challenger), Tolerance(amount=0.0))
    assert found.agreed == 3
    missing = [row.key[0] for row in found.most if row.difference is None]
    assert missing == [1, 2, 4, 5, 6]
    assert Comparison.from_json(found.merged(found).to_json()) == found.merged(found)
    assert found.most[2].champion == {"p": "Infinity"}
    json.loads(found.to_json(), parse_constant=pytest.fail)
    big = Differences(rows=1, total=1e308, absolute=1e308, low=1e308, high=1e308, counts={384: 1})
    merged = Comparison(rows=2).merged(Comparison(rows=0))
    assert merged.rows == 2
    assert big.merged(big).mean == math.inf
    text = big.merged(big).model_dump_json()
    assert Differences.model_validate_json(text) == big.merged(big)


# --- merging ------------------------------------------------------------------------------------

numbers = st.floats(-1e6, 1e6) | st.just(0.0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(numbers, numbers), max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_parts_merge_to_the_whole(pairs: list[tuple[float, float]], cuts: list[int]) -> None:
    def part(start: int, stop: int) -> Comparison:
        keys = pa.table({"id": list(range(len(pairs)))[start:stop]})
        one, other = ([pair[i] for pair in pairs[start:stop]] for i in (0, 1))
        tables = (pa.table({"p": pa.array(values, pa.float64())}) for values in (one, other))
        return compared(keys, *tables, Tolerance())

    edges = [0, *sorted(min(cut, len(pairs)) for cut in cuts), len(pairs)]
    merged = Comparison()
    for start, stop in pairwise(edges):
        merged = merged.merged(part(start, stop))
    whole = part(0, len(pairs))
    assert (merged.rows, merged.agreed, merged.most) == (whole.rows, whole.agreed, whole.most)
    if pairs:
        one, other = (x.outputs["p"].differences for x in (merged, whole))
        assert one is not None
        assert other is not None
        assert (one.rows, one.low, one.high, one.counts) == (
            other.rows, other.low, other.high, other.counts,
        )  # fmt: skip
        assert one.total == pytest.approx(other.total, abs=1e-6)
        exact = np.array([b - a for a, b in pairs])
        for share in (0.0, 0.3, 1.0):
            near = np.quantile(exact, share, method="inverted_cdf")
            assert one.quantile(share) == pytest.approx(near, rel=0.08, abs=2e-12)


def test_what_is_kept_stays_small() -> None:
    rng = np.random.default_rng(0)
    total = Comparison()
    for start in range(0, 100_000, 20_000):
        moved = 10 ** rng.uniform(-15, 15, 20_000) * rng.choice([-1, 1], 20_000)
        labels = rng.integers(0, 5000, (2, 20_000)).astype(str)
        keys = pa.table({"id": np.arange(start, start + 20_000)})
        tables = (
            pa.table({"p": pa.array(p), "q": pa.array(q)})
            for p, q in zip((np.zeros(20_000), moved), labels, strict=True)
        )
        total = total.merged(compared(keys, *tables, Tolerance()))
    assert len(total.to_json()) < 40_000
    output = total.outputs["q"]
    changed = sum(change.rows for change in output.changes) + output.other_changes
    assert changed + output.agreed == total.rows == 100_000


# --- it cannot touch the champion ---------------------------------------------------------------


class Spoiling(Model):
    """Writes into all that it is given, if it can."""

    def predict_batch(self, features: Any) -> Any:
        for name in features:
            for values in (features[name].to_numpy(), features[name].array):
                try:
                    values[:] = values[0]
                except (ValueError, TypeError):
                    continue
        features.loc[:, "x"] = -1.0
        return features["x"].to_numpy()


def test_the_champions_rows_are_the_same_bytes_with_and_without_it() -> None:
    source = chunk(1000)
    predictor, challenger = versus(Twice(), Spoiling(), its=manifest(Twice(), 4))
    alone = predictor.score(source)
    by_champion: list[Scored] = []
    for _ in range(2):
        by_champion.append(predictor.score(source))
        outcome = challenger.compare(source, by_champion[-1])
        assert outcome.comparison.failure is None
    assert source == chunk(1000)
    for scored in by_champion:
        assert _bytes(scored.rows) == _bytes(alone.rows)


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _raise(error: BaseException) -> Any:
    def before(_: Any) -> None:
        raise error

    return before


@pytest.mark.parametrize(
    ("challenger", "reason"),
    [
        (Watched(Twice(), _raise(ValueError("cannot"))), "ValueError: cannot"),
        (Watched(Twice(), _raise(MemoryError())), "MemoryError"),
        (Watched(Twice(), _raise(StopIteration("gone"))), "StopIteration: gone"),
        (
            Watched(Twice(), lambda features: features.pop("x")),
            "KeyError: 'x'",
        ),
        (Watched(Wide(1.0)), r"should have returned 10 predictions"),
        (Watched(Labels(1.0)), "should have returned float64 predictions"),
    ],
)
def test_whatever_goes_wrong_switches_it_off(challenger: Watched, reason: str) -> None:
    both = versus(Twice(), challenger, its=manifest(Twice(), 4))
    total, outcomes = run(both, chunk(10), chunk(10, 10), chunk(10, 20))
    assert len(challenger.calls) == 1
    assert [outcome.rows for outcome in outcomes] == [None, None, None]
    assert (total.rows, total.skipped, total.agreement) == (0, 30, None)
    assert total.failure is not None
    assert reason in total.failure
    assert both[1].failure == total.failure


def test_a_column_that_it_needs_and_the_chunk_has_not() -> None:
    its = manifest(Twice(), 4, inputs=inputs("x", "more"))
    total, _ = run(versus(Twice(), Twice(), its=its), chunk(10))
    assert "'more'" in str(total.failure)
    more = pa.array([*([1.0] * 9), None])
    total, _ = run(versus(Twice(), Twice(), its=its), chunk(10, more=more))
    assert "NULL in 1 of 10 rows" in str(total.failure)


def test_another_kind_of_prediction_is_reported_before_it_is_called() -> None:
    challenger = Watched(Labels(1.0))
    its = manifest(Twice(), 4, outputs=(column("string"),))
    total, _ = run(versus(Twice(), challenger, its=its), chunk(10))
    assert challenger.calls == []
    assert "nothing to compare: it predicts prediction (string), the champion" in str(total.failure)


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_its_failure(error: type[BaseException], timeout: float | None) -> None:
    predictor, challenger = versus(
        Twice(), Watched(Twice(), _raise(error())), its=manifest(Twice(), 4), timeout=timeout
    )
    source = chunk(10)
    with pytest.raises(error):
        challenger.compare(source, predictor.score(source))
    challenger.close()


def test_it_hangs_and_the_champion_goes_on(hanging: Hanging) -> None:
    challenger = ThreadSafe(Twice(), hanging.here)
    both = versus(Twice(), challenger, its=manifest(Twice(), 4), timeout=60)
    total, _ = run(both, chunk(10), chunk(10, 10))
    assert challenger.calls == [10]
    assert total.failure == "no answer within 60 s"
    assert total.skipped == 20


def test_nothing_to_compare_in_a_chunk() -> None:
    total, outcomes = run(versus(Slope(1.0), Slope(2.0)), chunk(0), chunk(5))
    assert outcomes[0] == Challenged(Comparison())
    assert total.rows == 5


def test_no_row_that_the_champion_has_predicted() -> None:
    own = manifest(Twice())
    one = Predictor(own, Watched(Twice()), ["id"], KEPT, Limits(Budget(5))).score(chunk(5))
    none = replace(one, rows=one.rows.slice(0, 0))
    found = Challenger(own, Twice(), own, ["id"], KEPT).compare(chunk(5), none)
    assert found.comparison == Comparison()
    assert found.rows is not None
    assert found.rows.schema == one.rows.schema
    assert found.rows.num_rows == 0


def test_after_rejects_it_gets_the_rows_that_are_left() -> None:
    own = manifest(Twice())

    def before(features: pd.DataFrame) -> None:
        if (features["word"] == WORDS[1]).any():
            raise ValueError("not this one")

    challenger = Watched(Twice())
    predictor = Predictor(own, Watched(Twice(), before), ["id"], KEPT, Limits())
    source = chunk(30)
    outcome = Challenger(own, challenger, own, ["id"], KEPT).compare(
        source, predictor.score(source)
    )
    assert challenger.calls == [20]
    assert (outcome.comparison.rows, outcome.comparison.agreed) == (20, 20)
