"""Predictions and what happened: which runs count, and how each kind of prediction is evaluated."""

from typing import Any

import pytest
import sqlalchemy as sa

from backends import Backend, request_of
from nightshift.adapters.errors import KeyNotUnique
from nightshift.adapters.history.evaluation import Evaluation, evaluate_predictions
from nightshift.adapters.history.run_history import History
from nightshift.adapters.target.predictions import PredictionTable

BACKENDS = ("fast", "lite")


def scored(backend: Backend, kind: str, model: Any) -> PredictionTable:
    """A published run over ids 0 to 9."""
    backend.numbers("t", 10)
    predictions = backend.predictions(backend.source(table="t"), outputs={"prediction": kind})
    predictions.create()
    backend.score(predictions, request_of(), model)
    return predictions


def compared(
    backend: Backend, predictions: PredictionTable, kind: Any, values: list[Any], **options: Any
) -> list[Evaluation]:
    """With what happened: `values` of the ids 0, 1, ..."""
    columns = [sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("real", kind)]
    rows = [{"id": number, "real": value} for number, value in enumerate(values)]
    actuals = backend.table("happened", columns, rows)
    history = History(predictions.ledger)
    return evaluate_predictions(history, "job", "scores", ("id",), actuals, "real", None, **options)


@pytest.mark.parametrize(
    ("kind", "model", "actual", "values", "accuracy"),
    [
        ("bool", lambda row: row["id"] > 1, sa.Integer, [1, 0, 1, 1], 0.75),
        ("bool", lambda row: row["id"] > 1, sa.Boolean, [True, False, True, True], 0.75),
        ("int64", lambda row: row["id"] % 2, sa.Boolean, [False, True, True, True], 0.75),
        ("string", lambda row: "ab"[row["id"] % 2], sa.String(5), ["a", "b", "a", "a"], 0.75),
        ("string", lambda row: ("false", "true")[row["id"] % 2], sa.Boolean, [False, True], 1.0),
    ],
)
def test_classes_have_an_accuracy(
    backend: Backend, kind: str, model: Any, actual: Any, values: list[Any], accuracy: float
) -> None:
    if backend.name == "maria" and (kind, actual) == ("string", sa.Boolean):
        pytest.skip("its booleans are the numbers 0 and 1, which no text is equal to")
    (found,) = compared(backend, scored(backend, kind, model), actual, values)
    assert (found.rows, found.accuracy) == (len(values), accuracy)
    assert (found.mae, found.rmse, found.bias) == (None, None, None)


@pytest.mark.parametrize("kind", ["int64", "uint64"])
@pytest.mark.parametrize(
    ("actual", "values"), [(sa.Integer, [0, 1, 2, 7]), (sa.Double, [0.0, 1.0, 2.0, 7.0])]
)
def test_whole_numbers_have_both_unless_they_are_classes(
    backend: Backend, kind: str, actual: Any, values: list[Any]
) -> None:
    predictions = scored(backend, kind, lambda row: row["id"] % 5)
    (found,) = compared(backend, predictions, actual, values)
    assert (found.rows, found.accuracy) == (4, 0.75)
    assert (found.mae, found.rmse, found.bias) == (1.0, 2.0, -1.0)
    backend.execute("DROP TABLE happened")
    (found,) = compared(backend, predictions, actual, values, is_class=lambda _: True)
    assert (found.mae, found.rmse, found.bias, found.accuracy) == (None, None, None, 0.75)


def test_floats_have_an_error_unless_they_are_classes(backend: Backend) -> None:
    predictions = scored(backend, "float64", lambda row: float(row["id"] % 2))
    (found,) = compared(backend, predictions, sa.Boolean, [True, True])
    assert (found.mae, found.bias, found.accuracy) == (0.5, -0.5, None)
    backend.execute("DROP TABLE happened")
    (found,) = compared(
        backend, predictions, sa.Integer, [0, 1, 1, 1], is_class=lambda name: name == "prediction"
    )
    assert (found.mae, found.accuracy) == (None, 0.75)


def test_only_what_readers_saw_counts(backend: Backend) -> None:
    predictions = scored(backend, "float64", lambda row: float(row["id"]))
    quarantined = backend.score(
        predictions, request_of(fingerprint="two"), lambda row: row["x"] + 99, publish=False
    )
    predictions.ledger.quarantine(quarantined, "odd")
    backend.score(predictions, request_of(fingerprint="three", version=2), publish=False)
    (found,) = compared(backend, predictions, sa.Double, [0.0, 1.0])
    assert (found.model, found.state, found.mae) == ("model@1", "published", 0.0)


def test_what_happened_to_a_row_twice_is_refused(backend: Backend) -> None:
    predictions = scored(backend, "float64", lambda row: float(row["id"]))
    columns = [sa.Column("id", sa.BigInteger), sa.Column("real", sa.Double)]
    rows = [{"id": 1, "real": 1.0}, {"id": 2, "real": None}, {"id": 2, "real": 2.0}]
    actuals = backend.table("happened", columns, rows)
    history = History(predictions.ledger)
    (found,) = evaluate_predictions(history, "job", "scores", ("id",), actuals, "real", None)
    assert found.rows == 2  # what is not known yet does not count
    backend.insert(actuals, [{"id": 2, "real": 2.5}])
    with pytest.raises(KeyNotUnique, match=r"table 'happened'.*\(2\) appears more than once"):
        evaluate_predictions(history, "job", "scores", ("id",), actuals, "real", None)
