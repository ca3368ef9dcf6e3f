"""How good predictions were, once the actual values are known: computed in the database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.types import reflect_table
from nightshift.adapters.errors import ColumnNotFound, KeyNotUnique, TableNotFound
from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger.runs import CHALLENGER, CHAMPION, RunState
from nightshift.adapters.models.reference import ModelRef
from nightshift.adapters.source.source import users_tables


@dataclass(frozen=True)
class Evaluation:
    """How one run's predictions compare with what happened. Numbers have the first three metrics,
    classes the last: booleans, texts, and what the caller says is one. Whole numbers, which may
    be either, have all four.
    """

    model: str
    """`name@version`"""
    role: str
    partition: str
    run_id: int
    state: RunState
    """`published` or `superseded`; of a challenger `scored`."""
    rows: int
    """Of its predictions, those whose outcome is known."""
    mae: float | None
    """Mean absolute error."""
    rmse: float | None
    """Root of the mean squared error."""
    bias: float | None
    """Mean of prediction - actual."""
    accuracy: float | None
    """Share of classes that were right."""


def evaluate_predictions(
    history: History,
    job: str,
    target: str,
    key: tuple[str, ...],
    actuals: sa.TableClause,
    column: str,
    output: str | None,
    is_class: Callable[[str], bool] = lambda _: False,
) -> list[Evaluation]:
    """One line per partition and model version, of its newest run that readers saw, or of its
    newest as a challenger, if it is kept.

    `actuals` has the job's key columns and `column`, what happened, NULL while it is not known;
    `output` names the prediction, by default the first; `is_class` tells of an output of numbers
    whether they are classes. Raises TableNotFound, ColumnNotFound, and KeyNotUnique if something
    happened to a row twice.
    """
    engine, runs = history.engine, history.tables.runs
    schema = runs.schema
    name = str(actuals.fullname)
    with translate_errors(engine, f"to compare with {name!r}"), open_reader(engine) as connection:
        try:
            known = reflect_table(engine, actuals.name, actuals.schema)
        except sa.exc.NoSuchTableError as error:
            there = users_tables(sa.inspect(connection), actuals.schema)
            raise TableNotFound(name, tuple(there)) from error
        rows = reflect_table(engine, f"{target}_runs", schema)
        for wanted in (*key, column):
            if wanted not in known.c:
                needed = "an actual" if wanted == column else "the key"
                raise ColumnNotFound(f"table {name!r}", wanted, needed, tuple(known.c.keys()))
        outputs = [c for c in rows.c if c.name not in {"run_id", "partition_time", *key}]
        if output is not None and output not in rows.c:
            named = tuple(c.name for c in outputs)
            raise ColumnNotFound(f"table {rows.name!r}", output, "actuals.output", named)
        predicted = outputs[0] if output is None else rows.c[output]
        happened = _there(known.c[column])
        _refuse_twice(connection, known, key, happened)
        seen = (runs.c.role == CHAMPION) & runs.c.state.in_(
            [RunState.PUBLISHED, RunState.SUPERSEDED]
        )
        newest = (
            sa.select(sa.func.max(runs.c.run_id))
            .where(runs.c.job == job, runs.c.cleaned_at.is_(None))
            .where(seen | ((runs.c.role == CHALLENGER) & (runs.c.state == RunState.SCORED)))
            .group_by(runs.c.role, runs.c.partition, runs.c.model_name, runs.c.model_version)
        )
        joined = rows.join(known, sa.and_(*(rows.c[part] == known.c[part] for part in key)))
        metrics = _metrics(predicted, known.c[column], is_class(predicted.name))
        statement = (
            sa.select(rows.c.run_id, sa.func.count().label("rows"), *metrics)
            .select_from(joined)
            .where(rows.c.run_id.in_(newest), happened, _there(predicted))
            .group_by(rows.c.run_id)
        )
        found = connection.execute(statement).mappings().all()
        lines = connection.execute(
            sa.select(runs).where(runs.c.run_id.in_([r["run_id"] for r in found]))
        )
        about = {line["run_id"]: line for line in lines.mappings()}
    return sorted(
        (
            Evaluation(
                model=ModelRef(line["model_name"], line["model_version"]),
                role=line["role"],
                partition=line["partition"],
                run_id=row["run_id"],
                state=line["state"],
                rows=row["rows"],
                mae=_float(row.get("mae")),
                rmse=None if row.get("mse") is None else float(row["mse"]) ** 0.5,
                bias=_float(row.get("bias")),
                accuracy=_float(row.get("accuracy")),
            )
            for row in found
            for line in [about[row["run_id"]]]
        ),
        key=lambda outcome: (outcome.partition, outcome.role, outcome.run_id),
    )


def _refuse_twice(
    connection: sa.Connection,
    known: sa.Table,
    key: Sequence[str],
    happened: sa.ColumnElement[bool],
) -> None:
    """A prediction would count once for each row with its key."""
    parts = [known.c[part] for part in key]
    twice = sa.select(*parts).where(happened, *(part.is_not(None) for part in parts))
    twice = twice.group_by(*parts).having(sa.func.count() > 1).limit(1)
    found = connection.execute(twice).first()
    if found is not None:
        problem = f"({', '.join(map(str, found))}) appears more than once"
        remedy = "Name a table or view with one row for each key as actuals.table."
        raise KeyNotUnique(f"table {known.name!r}", tuple(key), problem, remedy)


def _there(values: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether a row has a value: neither NULL nor NaN, with which no mean is a number."""
    there: sa.ColumnElement[bool] = values.is_not(None)
    if isinstance(values.type, sa.Float):
        there &= sa.func.lower(sa.cast(values, sa.Text())) != "nan"
    return there


def _metrics(
    predicted: sa.Column[Any], actual: sa.Column[Any], of_classes: bool
) -> list[sa.Label[Any]]:
    metrics: list[sa.Label[Any]] = []
    numbers = _is_number(predicted) and _is_number(actual)
    flags = _is_flag(predicted) or (_is_flag(actual) and not isinstance(predicted.type, sa.Float))
    if numbers and not flags and not of_classes:
        error = _as_float(predicted) - _as_float(actual)
        metrics = [
            sa.func.avg(sa.func.abs(error)).label("mae"),
            sa.func.avg(error * error).label("mse"),
            sa.func.avg(error).label("bias"),
        ]
        if isinstance(predicted.type, sa.Float):
            return metrics
    alike = _as_float if numbers else _as_text
    right = alike(predicted) == alike(actual)
    return [*metrics, sa.func.avg(sa.case((right, 1.0), else_=0.0)).label("accuracy")]


def _is_number(column: sa.Column[Any]) -> bool:
    """Booleans, too: a flag is TRUE in one table and 1 in another."""
    return isinstance(column.type, sa.Numeric | sa.Float | sa.Integer | sa.Boolean)


def _is_flag(column: sa.Column[Any]) -> bool:
    """MariaDB's and MySQL's BOOLEAN is a TINYINT(1)."""
    if isinstance(column.type, mysql.TINYINT):
        return column.type.display_width == 1
    return isinstance(column.type, sa.Boolean)


def _as_float(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    if isinstance(column.type, sa.Boolean):
        return sa.case((column, 1.0), else_=0.0)
    return sa.cast(column, sa.Double())


def _as_text(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    if isinstance(column.type, sa.Boolean):
        return sa.case((column, "true"), else_="false")
    return sa.cast(column, sa.Text())


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
