"""From a chunk to predictions and rejects: the rows that are bad, and only they."""

import json
import math
import threading
import uuid
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

from nightshift.adapters.errors import (
    InvalidPredictions,
    PredictionFailed,
    PredictionTimedOut,
    RejectsExceeded,
    SignatureMismatch,
    StoreUnavailable,
)
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.column import Column
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.store.golden_rows import spread_rows
from nightshift.flows.config.quantities import Budget
from nightshift.flows.scoring.prediction.predictor import Limits, Predictor, Scored
from nightshift.flows.scoring.prediction.rejects import describe_error, jsonable, rejected
from watched import (
    WORDS,
    Hanging,
    MeanOfWord,
    ThreadSafe,
    TreeOfWords,
    Twice,
    Watched,
    chunk,
    manifest,
    trained,
)

KEPT = ["id", "partition_time"]
INF = float("inf")
HIDDEN = [False, False, True, False]


def predictor(model: Model, kept: Any = None, **limits: Any) -> Predictor:
    if kept is None:
        kept = manifest(model)
    return Predictor(kept, model, ["id"], KEPT, Limits(**limits))


def keys(scored: Scored) -> list[int]:
    return [reject.key[0] for reject in scored.rejects]


def check(scored: Scored, source: pa.Table, values: Callable[[pa.Table], Any]) -> None:
    """Each row of the chunk is there once, in order, with its own prediction, or is a reject."""
    assert scored.read == source.num_rows
    good = scored.part_of(source)
    assert scored.rows.select(KEPT).combine_chunks() == good.select(KEPT).combine_chunks()
    predicted = scored.rows.column("prediction").to_numpy()
    np.testing.assert_allclose(predicted, values(good), rtol=1e-9)
    ids = scored.rows.column("id").to_pylist()
    assert sorted(ids + keys(scored)) == source.column("id").to_pylist()
    assert keys(scored) == sorted(keys(scored))


def thrice(source: pa.Table) -> Any:
    return source.column("x").to_numpy() * 3


def poisoned(ids: Any, error: type[BaseException] = ValueError) -> Callable[[Any], None]:
    """Raises if an order of these is in the batch."""
    xs = np.array(sorted(ids)) / 7.0

    def before(features: pd.DataFrame) -> None:
        if np.isin(features["x"].to_numpy(), xs).any():
            raise error("poison")

    return before


# --- when all goes well -------------------------------------------------------------------------


def test_one_call_and_no_thread() -> None:
    model = Watched(trained(TreeOfWords()))
    before = threading.active_count()
    source = chunk(1000, word=pa.array(["apfel"] * 1000))
    scored = predictor(model).score(source)
    assert model.calls == [1000]
    assert threading.active_count() == before
    assert scored.rejects == []
    assert scored.positions is None
    assert scored.part_of(source) is source
    assert scored.keys == ((0,), (999,))
    assert scored.rows.column_names == [*KEPT, "prediction"]
    assert scored.seconds > 0


def test_no_rows() -> None:
    model = Watched(Twice())
    for scorer in (predictor(model), predictor(model, timeout=5)):
        scored = scorer.score(chunk(0))
        assert scored.rows.schema == predictor(model).score(chunk(3)).rows.schema
        assert (scored.rejects, scored.keys, scored.read) == ([], None, 0)


def test_a_chunk_of_other_columns_too_and_a_key_of_two() -> None:
    source = chunk(5, extra=pa.array(["more"] * 5))
    model = Watched(Twice(), poisoned([3]))
    scored = Predictor(manifest(model), model, ["id", "extra"], KEPT).score(source)
    assert [reject.key for reject in scored.rejects] == [(3, "more")]
    assert scored.rejects[0].inputs == {"x": 3 / 7.0, "word": WORDS[0]}
    assert scored.keys == ((0, "more"), (4, "more"))
    check(scored, source, lambda good: good.column("x").to_numpy() * 2)


# --- rows that cannot be predicted --------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 64), st.data())
def test_the_rejects_are_the_poison_and_cost_about_k_log_n_calls(rows: int, data: Any) -> None:
    poison = data.draw(st.sets(st.integers(100, 99 + rows)))
    model = Watched(Twice(), poisoned(poison))
    scorer = predictor(model)
    scorer.score(chunk(2))
    model.calls.clear()
    source = chunk(rows, first=100)
    scored = scorer.score(source)
    assert keys(scored) == sorted(poison)
    check(scored, source, lambda good: good.column("x").to_numpy() * 2)
    probes = 2 if poison else 0  # before and after
    assert len(model.calls) <= 1 + 2 * len(poison) * math.ceil(math.log2(rows)) + probes


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 64), st.data())
def test_a_first_chunk_is_bisected_too_unless_nothing_in_it_can_be_predicted(
    rows: int, data: Any
) -> None:
    poison = data.draw(st.sets(st.integers(0, rows - 1)) | st.just(set(range(rows))))
    model = Watched(Twice(), poisoned(poison))
    probed = set(spread_rows(rows, 16))
    if probed <= poison:
        with pytest.raises(PredictionFailed, match="ValueError: poison"):
            predictor(model).score(chunk(rows))
        assert len(model.calls) == 1 + len(probed)
    else:
        assert keys(predictor(model).score(chunk(rows))) == sorted(poison)


def test_ten_poison_rows_in_100_000() -> None:
    words = [WORDS[0]] * 100_000
    poison = [7, 8, 999, 12_345, 50_000, 50_001, 70_707, 88_888, 99_998, 99_999]
    for row in poison:
        words[row] = f"žluťoučký {row}"
    source = chunk(100_000, word=pa.array(words))
    model = Watched(trained(TreeOfWords()))
    scored = predictor(model).score(source)
    assert keys(scored) == poison
    assert len(model.calls) <= 2 + 2 * 10 * 17
    reject = scored.rejects[3]
    assert reject.kind == "ValueError"
    assert "ValueError: Found unknown categories ['žluťoučký 12345']" in reject.error
    assert reject.inputs == {"x": 12_345 / 7.0, "word": "žluťoučký 12345"}


def test_nan_for_one_category_needs_no_second_call() -> None:
    model = Watched(trained(MeanOfWord()))
    source = chunk(600, word=pa.array(["apfel", "mango", "birne"] * 200))
    scored = predictor(model).score(source)
    assert model.calls == [600]
    assert keys(scored) == list(range(1, 600, 3))
    assert {reject.kind for reject in scored.rejects} == {"NaN"}
    assert "NaN predicted as 'prediction'" in scored.rejects[0].error
    assert np.isfinite(scored.rows.column("prediction").to_numpy()).all()
    assert scored.positions is not None
    assert scored.positions.tolist() == [i for i in range(600) if i % 3 != 1]


class Given(Model):
    """Returns what the test sets, for the rows it is asked about."""

    def __init__(self, values: Any) -> None:
        self.values = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)

    def predict_batch(self, features: Any) -> Any:
        return self.values[(features["x"].to_numpy() * 7).round().astype(int)]


def output(kind: str, name: str = "prediction", **more: Any) -> Column:
    more = {"nullable": False, **more}
    return Column(name=name, type=kind, dtype=kind, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "outputs", "bad"),
    [
        ([1.0, np.nan, 2.0, INF], [output("float64")], {1: "NaN", 3: "inf"}),
        ([1.0, -INF, 2.0, 3.0], [output("float32")], {1: "inf"}),
        ([1.0, np.nan, 2.0, INF], [output("float64", nullable=True)], {}),
        ([1.0, np.nan, 2.0, 3.0], [output("int64")], {1: "NaN"}),
        ([1.0, INF, np.nan, 3.0], [output("int64")], {1: "inf", 2: "NaN"}),
        (np.array(["a", None, np.nan, "b"], object), [output("string")], {1: "NULL", 2: "NaN"}),
        (np.array([True, None, False, pd.NA], object), [output("bool")], {1: "NULL", 3: "NULL"}),
        (
            [[1.0, 2.0], [np.nan, 2.0], [1.0, INF], [1.0, np.nan]],
            [output("float64", "a"), output("float64", "b", nullable=True)],
            {1: "NaN"},
        ),
        (
            [[1.0, 2.0], [np.nan, 2.0], [1.0, INF], [3.0, 4.0]],
            [output("float32[]", length=2)],
            {1: "NaN", 2: "inf"},
        ),
        ([np.nan, 1.0, INF, np.nan], [output("float64")], {0: "NaN", 2: "inf", 3: "NaN"}),
        (np.ma.array([1.0, 2.0, 999.0, 4.0], mask=HIDDEN), [output("float64")], {2: "NaN"}),
        (np.ma.array([1, 2, 999, 4], mask=HIDDEN), [output("int32")], {2: "NULL"}),
        (np.ma.array(["a", "b", "?", "d"], mask=HIDDEN), [output("string")], {2: "NULL"}),
    ],
)
def test_predictions_that_are_missing(values: Any, outputs: list[Column], bad: Any) -> None:
    given = Given(values)
    model = Watched(given)
    described = manifest(Twice(), outputs=tuple(outputs))
    scored = Predictor(described, model, ["id"], KEPT).score(chunk(4))
    assert model.calls == [4]
    assert {reject.key[0]: reject.kind for reject in scored.rejects} == bad
    good = [row for row in range(4) if row not in bad]
    assert scored.rows.column("id").to_pylist() == good
    array = given.values.reshape(4, -1)
    for index, column in enumerate(outputs):
        wanted = array[good] if column.length else array[good, index]
        assert scored.rows.schema.field(column.name).type == column.arrow_type
        np.testing.assert_equal(scored.rows.column(column.name).to_pylist(), wanted.tolist())


def test_null_where_the_model_needs_a_value_is_that_rows_fault() -> None:
    x: list[float | None] = [i / 7.0 for i in range(100)]
    x[13] = x[99] = None
    source = chunk(100, x=pa.array(x), word=pa.array([*(["apfel"] * 99), None]))
    model = Watched(Twice())
    scored = predictor(model).score(source)
    assert model.calls == [98]
    assert keys(scored) == [13, 99]
    assert [reject.kind for reject in scored.rejects] == ["NULL", "NULL"]
    assert "NULL in 'x', 'word'" in scored.rejects[1].error
    assert scored.rejects[0].inputs == {"x": None, "word": "apfel"}


def test_null_poison_and_nan_in_one_chunk() -> None:
    values = np.arange(40) * 1.0
    values[[5, 21]] = np.nan
    x: list[float | None] = [i / 7.0 for i in range(40)]
    x[4] = x[22] = None
    model = Watched(Given(values), poisoned([6, 23]))
    source = chunk(40, x=pa.array(x))
    scored = Predictor(manifest(Twice()), model, ["id"], KEPT).score(source)
    kinds = {reject.key[0]: reject.kind for reject in scored.rejects}
    assert kinds == {
        4: "NULL", 5: "NaN", 6: "ValueError", 21: "NaN", 22: "NULL", 23: "ValueError",
    }  # fmt: skip
    check(scored, source, lambda good: good.column("id").to_numpy())


def test_a_value_that_does_not_fit_its_input_is_that_rows_fault() -> None:
    inputs = (output("int64", "x"), output("string", "word"))
    described = manifest(Twice(), inputs=inputs)
    source = chunk(50, x=pa.array([str(i) if i != 31 else "1.5" for i in range(50)]))
    scored = Predictor(described, Watched(Twice()), ["id"], KEPT).score(source)
    assert [(r.key, r.kind) for r in scored.rejects] == [((31,), "SignatureMismatch")]
    assert "'x'" in scored.rejects[0].error


# --- what no row is to blame for ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoilt", "text"),
    [
        (lambda values: values[:-1], r"64 predictions, .* shape \(63,\)"),
        (lambda values: np.column_stack([values, values]), r"shape \(64, 2\)"),
        (lambda values: np.array(["much"] * len(values), dtype=object), "float64 predictions"),
        (lambda values: [[1.0], [1.0, 2.0]], "inhomogeneous"),
        (lambda _: None, r"shape \(\)"),
    ],
)
def test_wrong_predictions_are_the_models_fault(spoilt: Any, text: str) -> None:
    class Spoilt(Twice):
        def predict_batch(self, features: Any) -> Any:
            return spoilt(super().predict_batch(features))

    model = Watched(Spoilt())
    with pytest.raises(InvalidPredictions, match=text):
        predictor(model, manifest(Twice())).score(chunk(64))
    assert model.calls == [64]


def test_a_column_that_is_not_there_or_of_another_type() -> None:
    scorer = predictor(Watched(Twice()))
    with pytest.raises(SignatureMismatch, match="no such column"):
        scorer.score(chunk(10).drop_columns(["x"]))
    with pytest.raises(SignatureMismatch, match="the data has string"):
        scorer.score(chunk(10, x=pa.array(["1"] * 10)))


def test_a_first_chunk_that_fails_whole_stops_the_run_with_one_error() -> None:
    def before(_: Any) -> None:
        raise RuntimeError("the weights\nare gone")

    model = Watched(Twice(), before)
    text = (
        r"orders@3 .* rows with \('id',\) from \(0,\) to \(49999,\): RuntimeError: the weights are"
    )
    with pytest.raises(PredictionFailed, match=text) as raised:
        predictor(model).score(chunk(50_000))
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert model.calls == [50_000] + [1] * 16


@pytest.mark.parametrize("rows", [1, 7, 2000])
def test_a_first_chunk_of_nothing_but_nan_or_null_stops_the_run(rows: int) -> None:
    model = Watched(Given([np.nan] * rows))
    with pytest.raises(PredictionFailed, match="NaN predicted as 'prediction'"):
        predictor(model, manifest(Twice())).score(chunk(rows))
    with pytest.raises(SignatureMismatch, match=f"NULL in {rows} of {rows} rows"):
        predictor(Watched(Twice())).score(chunk(rows, x=pa.nulls(rows, pa.float64())))


def test_a_model_that_breaks_on_the_way_is_distinguished_from_bad_rows() -> None:
    broken: list[bool] = []

    def before(_: Any) -> None:
        if broken:
            raise RuntimeError("CUDA error: device-side assert triggered")

    model = Watched(Twice(), before)
    scorer = predictor(model, budget=Budget(count=10**9))
    scorer.score(chunk(500))
    broken.append(True)
    with pytest.raises(
        PredictionFailed, match=r"from \(500,\) to \(999,\), nor any more .* \(0,\)"
    ):
        scorer.score(chunk(500, first=500))
    assert model.calls == [500, 500, 1]


def test_what_may_succeed_later_is_left_to_be_retried() -> None:
    def before(_: Any) -> None:
        raise StoreUnavailable("features", "no answer")

    model = Watched(Twice(), before)
    with pytest.raises(StoreUnavailable):
        predictor(model).score(chunk(10))
    assert model.calls == [10]


def test_a_model_that_breaks_among_bad_rows_does_not_make_the_good_ones_rejects() -> None:
    model = Watched(
        Twice(), lambda features: poisoned([300] if len(model.calls) < 9 else range(999))(features)
    )
    scorer = predictor(model, budget=Budget(count=10**9))
    with pytest.raises(PredictionFailed, match=r"from \(0,\) to \(499,\), nor any more .* \(0,\)"):
        scorer.score(chunk(500))


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_at_once(error: type[BaseException], timeout: float | None) -> None:
    model = Watched(Twice(), poisoned([3], error))
    scorer = predictor(model, timeout=timeout)
    with pytest.raises(error):
        scorer.score(chunk(10))
    assert model.calls == [10]
    scorer.close()


# --- the budget ---------------------------------------------------------------------------------


def test_far_more_rejects_than_the_budget_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightshift.flows.scoring.prediction.predictor._LISTED", 100)
    model = Watched(Twice(), poisoned(range(5000, 9000)))
    scorer = predictor(model, budget=Budget(count=3))
    scorer.score(chunk(5000))
    with pytest.raises(RejectsExceeded) as raised:
        scorer.score(chunk(4000, first=5000))
    error = raised.value
    assert (error.model, error.rejects, error.budget) == ("orders@3", 101, "3")
    assert error.rows == 5101
    assert error.examples[0] == ("(5000,)", "ValueError: poison")
    assert "101 of 5,101 rows, and max_rejects is 3; (5000,): ValueError: poison;" in str(error)
    assert len(model.calls) < 250


def test_rejects_found_together_are_counted_together() -> None:
    values = np.where(np.arange(3000) % 2, np.nan, 1.0)
    described = manifest(Twice())
    with pytest.raises(RejectsExceeded, match="1,500 of 3,000 rows"):
        predictor(Given(values), described).score(chunk(3000))
    allowed = {"budget": Budget(share=Decimal("0.5")), "expected_rows": 3000}
    scored = predictor(Given(values), described, **allowed).score(chunk(3000))
    assert len(scored.rejects) == 1500


def test_a_resumed_run_goes_on_counting() -> None:
    model = Watched(Twice(), poisoned([7]))
    limits = {"read_before": 20_000, "rejected_before": 1000}
    with pytest.raises(RejectsExceeded, match="1,001 of 20,008 rows"):
        predictor(model, **limits).score(chunk(10))


# --- memory -------------------------------------------------------------------------------------


def no_memory(error: str = "numpy") -> None:
    if error == "numpy":
        np.empty(2**50)
    if error == "arrow":
        pa.allocate_buffer(2**60)
    raise MemoryError


@pytest.mark.parametrize("error", ["numpy", "arrow", "python"])
def test_out_of_memory_halves_the_chunk_and_keeps_to_what_fitted(error: str) -> None:
    def before(features: Any) -> None:
        if len(features) > 300:
            no_memory(error)

    model = Watched(trained(TreeOfWords()), before)
    scorer = predictor(model)
    source = chunk(2000)
    scored = scorer.score(source)
    assert scored.rejects == []
    assert scored.positions is None
    check(scored, source, lambda good: model.model.predict_batch(good.to_pandas()[["x", "word"]]))
    assert model.calls == [2000, 1, 1000, 500, *[250] * 8]
    assert scorer.most_rows == 250
    model.calls.clear()
    scorer.score(chunk(2000, first=2000))
    assert model.calls == [250] * 8
    scorer.score(chunk(200))
    assert model.calls[8:] == [200]


def test_a_single_row_that_does_not_fit_is_a_reject_and_does_not_slow_the_others() -> None:
    model = Watched(Twice(), poisoned([700], MemoryError))
    scorer = predictor(model)
    source = chunk(1024)
    scored = scorer.score(source)
    assert [(r.key, r.kind) for r in scored.rejects] == [((700,), "MemoryError")]
    check(scored, source, lambda good: good.column("x").to_numpy() * 2)
    assert scorer.most_rows == math.inf


@pytest.mark.parametrize("timeout", [None, 60])
def test_what_did_not_fit_is_let_go_before_the_next_try(timeout: float | None) -> None:
    tried: list[weakref.ref[Any]] = []
    held: list[int] = []

    def before(features: pd.DataFrame) -> None:
        held.append(sum(features() is not None for features in tried))
        tried.append(weakref.ref(features))
        if len(features) > 10:
            no_memory()

    scorer = predictor(Watched(Twice(), before), timeout=timeout)
    assert scorer.score(chunk(100)).rejects == []
    assert set(held) == {0}
    scorer.close()


# --- calls that hang ----------------------------------------------------------------------------


def hangs(hanging: Hanging, *ids: int) -> Callable[[Any], None]:
    """Hangs if an order of these is in the batch."""
    raises = poisoned(ids, InterruptedError)

    def before(features: Any) -> None:
        try:
            raises(features)
        except InterruptedError:
            hanging.here()

    return before


def test_a_call_that_hangs_fails_its_chunk_and_no_other(hanging: Hanging) -> None:
    model = ThreadSafe(Twice(), hangs(hanging, 150))
    scorer = predictor(model, timeout=60)
    for first in (0, 100, 200):
        scored = scorer.score(chunk(100, first))
        if first == 100:
            assert keys(scored) == list(range(100, 200))
            assert {reject.kind for reject in scored.rejects} == {"TimedOut"}
            assert "no answer within 60 s" in scored.rejects[0].error
            assert scored.rows.schema == predictor(Twice()).score(chunk(1)).rows.schema
            assert scored.keys == ((100,), (199,))
        else:
            assert scored.rejects == []
    assert model.calls == [100, 100, 100]
    scorer.close()


def test_rows_of_a_hang_count_as_rejects(hanging: Hanging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightshift.flows.scoring.prediction.predictor._LISTED", 9)
    scorer = predictor(ThreadSafe(Twice(), hangs(hanging, 15)), timeout=60)
    scorer.score(chunk(10))
    with pytest.raises(RejectsExceeded, match="10 of 20 rows"):
        scorer.score(chunk(10, 10))
    scorer.close()


def test_what_was_scored_before_the_hang_is_kept(hanging: Hanging) -> None:
    poison, hang = poisoned([70]), hangs(hanging, 90)

    def before(features: Any) -> None:
        poison(features)
        hang(features)

    scorer = predictor(ThreadSafe(Twice(), before), timeout=60)
    source = chunk(100)
    scored = scorer.score(source)
    kinds = {reject.key[0]: reject.kind for reject in scored.rejects}
    assert kinds[70] == "ValueError"
    assert {kind for key, kind in kinds.items() if key != 70} == {"TimedOut"}
    assert 0 not in kinds
    assert 99 in kinds
    check(scored, source, lambda good: good.column("x").to_numpy() * 2)
    scorer.close()


@pytest.mark.parametrize(
    ("kind", "first", "text"),
    [
        (ThreadSafe, 0, "nothing had been predicted before"),
        (Watched, 100, "is not thread-safe"),
    ],
)
def test_a_hang_that_stops_the_run(
    hanging: Hanging, kind: type[Watched], first: int, text: str
) -> None:
    scorer = predictor(kind(Twice(), hangs(hanging, first)), timeout=60)
    if first:
        scorer.score(chunk(first))
    with pytest.raises(PredictionTimedOut, match=rf"within 60 s, .* because .*{text}"):
        scorer.score(chunk(100, first))
    scorer.close()


def test_a_model_that_is_not_thread_safe_is_loaded_again_after_a_hang(hanging: Hanging) -> None:
    first, second = Watched(Twice(), hangs(hanging, 15)), Watched(Twice())
    own = manifest(first)
    limits = Limits(Budget(10), timeout=60)
    scorer = Predictor(own, first, ["id"], KEPT, limits, renew=lambda: second)
    found = [scorer.score(chunk(10, start)) for start in (0, 10, 20)]
    assert [len(scored.rejects) for scored in found] == [0, 10, 0]
    assert (first.calls, second.calls) == ([10, 10], [10])
    scorer.close()


def test_the_third_hang_stops_the_run(hanging: Hanging) -> None:
    scorer = predictor(ThreadSafe(Twice(), hangs(hanging, 10, 20, 30)), timeout=60)
    for first in (0, 10, 20):
        scorer.score(chunk(10, first))
    with pytest.raises(PredictionTimedOut, match="call number 3"):
        scorer.score(chunk(10, 30))
    scorer.close()


def test_a_limit_changes_nothing_else() -> None:
    seen: ContextVar[str] = ContextVar("seen")
    seen.set("the caller's")
    threads = set()

    def before(features: Any) -> None:
        assert seen.get() == "the caller's"
        threads.add(threading.current_thread())
        poisoned([3, 50])(features)

    model, source = Watched(Twice(), before), chunk(100)
    scorer = predictor(model, timeout=60)
    scored = scorer.score(source)
    assert keys(scored) == [3, 50]
    check(scored, source, lambda good: good.column("x").to_numpy() * 2)
    (thread,) = threads
    assert thread.daemon
    scorer.close()
    thread.join(10)
    assert not thread.is_alive()


# --- what is kept of a reject -------------------------------------------------------------------


def test_inputs_are_json_that_the_signature_reads_back() -> None:
    frame = pd.DataFrame(
        {
            "f": [1.5, np.nan],
            "i": pd.array([1, None], dtype="Int64"),
            "s": ["クルミ 🥜", None],
            "b": [True, False],
            "d": [date(2024, 2, 29), None],
            "t": pd.to_datetime(["2024-03-01 12:00:01.5", None]),
            "z": pd.to_datetime(["2024-03-01 12:00Z", None], utc=True),
            "n": [Decimal("1.10"), None],
        }
    )
    signature = Signature.from_sample(frame, np.zeros(2))
    table = signature.table(frame)
    described = manifest(Twice(), inputs=signature.inputs)
    source = table.append_column("id", pa.array([1, 2]))

    class Raising(Model):
        def predict_batch(self, features: Any) -> Any:
            if len(features) == 2 or self.bad == [str(v) for v in features["s"]]:
                raise ValueError(features["s"].iloc[0])
            return np.zeros(len(features))

    for row in (0, 1):
        model = Raising()
        model.bad = [str(signature.features(table.slice(row, 1))["s"].iloc[0])]  # type: ignore[attr-defined]
        (reject,) = Predictor(described, model, ["id"], ["id"]).score(source).rejects
        text = json.dumps(reject.inputs, allow_nan=False)
        back = signature.features(signature.row(json.loads(text)))
        pd.testing.assert_frame_equal(back, signature.features(table.slice(row, 1)))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (math.nan, "NaN"),
        (-INF, "-Infinity"),
        (2**70, 2**70),
        ("a\0b\ud800", "a\N{REPLACEMENT CHARACTER}b?"),
        ("x" * 600, "x" * 499 + "…"),
        (b"\x00\xff", "00ff"),
        ([1.0, None, math.nan], [1.0, None, "NaN"]),
        (datetime(2024, 3, 1, tzinfo=UTC), "2024-03-01T00:00:00+00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_values_as_json_can_say_them(value: Any, kept: Any) -> None:
    assert jsonable(value) == kept
    json.dumps(jsonable(value), allow_nan=False).encode()


def test_wide_rows_are_cut() -> None:
    names = [f"column_{i}" for i in range(5000)]
    source = pa.table({"id": [0, 1], **{name: [0.0, 1.0] for name in names}})
    (reject,) = rejected(source, ["id"], names, [(1, "ValueError", "ValueError")])
    assert reject.key == (1,)
    assert reject.inputs["column_0"] == 1.0
    assert reject.inputs["…"] == f"{5000 - len(reject.inputs) + 1} more"
    assert len(json.dumps(reject.inputs)) < 50_000


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def test_errors_as_text() -> None:
    assert describe_error(ValueError("a\n  b")) == "ValueError: a b"
    assert describe_error(Mute()) == "Mute"
    assert len(describe_error(ValueError("x" * 10**6))) == 500
    assert describe_error(ValueError("\0\udcff")) == "ValueError: \N{REPLACEMENT CHARACTER}?"


# --- the chunk stays as it is -------------------------------------------------------------------


def test_a_model_that_writes_into_its_features_changes_no_one_elses() -> None:
    def before(features: pd.DataFrame) -> None:
        if len(features) > 30:
            features.loc[:, "x"] = -1.0
            features["word"] = "gone"
            raise ValueError("too many")

    source = chunk(100)
    scored = predictor(Watched(Twice(), before)).score(source)
    assert source == chunk(100)
    check(scored, source, lambda good: good.column("x").to_numpy() * 2)


def test_labels_of_a_real_classifier() -> None:
    tree = DecisionTreeClassifier(random_state=0)
    source = chunk(300)
    frame = source.to_pandas()
    described = {"inputs": (output("float64", "x"),), "outputs": (output("string"),)}
    model = Watched(SklearnModel(tree.fit(frame[["x"]], frame["word"])), poisoned([100]))
    scored = Predictor(manifest(Twice(), **described), model, ["id"], KEPT).score(source)
    labels = scored.rows.column("prediction").to_pylist()
    assert labels == [word for i, word in enumerate(frame["word"]) if i != 100]
