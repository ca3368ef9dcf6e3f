"""How good predictions were, once it is known what happened: computed where both tables are."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from adapters.database.engine import open_reader, translated
from adapters.database.history import History
from adapters.database.moving import PUBLISHED, SUPERSEDED
from adapters.database.run import REJECTED, SCORED
from adapters.database.types import table_there
from adapters.errors import ColumnNotFound, TableNotFound


@dataclass(frozen=True)
class Outcome:
    """How one run's predictions compare with what happened. Numbers have the first three metrics,
    labels the last.
    """

    model: str
    """`name@version`"""
    role: str
    partition: str
    run_id: int
    rows: int
    """Of its predictions, those whose outcome is known."""
    mae: float | None
    """Mean absolute error."""
    rmse: float | None
    """Root of the mean squared error."""
    bias: float | None
    """Mean of prediction - actual."""
    accuracy: float | None
    """Share of labels that were right."""


def outcomes(
    history: History,
    job: str,
    target: str,
    key: tuple[str, ...],
    actuals: sa.TableClause,
    column: str,
    output: str | None,
) -> list[Outcome]:
    """One line per partition and model version, of its newest run that is kept.

    `actuals` has the job's key columns and `column`, what happened, NULL while it is not known;
    `output` names the prediction, by default the first. Raises TableNotFound, ColumnNotFound.
    """
    engine, runs = history.engine, history.tables.runs
    schema = runs.schema
    name = str(actuals.fullname)
    with translated(engine, f"to compare with {name!r}"), open_reader(engine) as connection:
        try:
            known = table_there(engine, actuals.name, actuals.schema)
        except sa.exc.NoSuchTableError as error:
            there = sa.inspect(connection).get_table_names(schema=actuals.schema)
            raise TableNotFound(name, tuple(sorted(there))) from error
        rows = table_there(engine, f"{target}_runs", schema)
        for wanted in (*key, column):
            if wanted not in known.c:
                needed = "an actual" if wanted == column else "the key"
                raise ColumnNotFound(f"table {name!r}", wanted, needed, tuple(known.c.keys()))
        outputs = [c for c in rows.c if c.name not in {"run_id", "partition_time", *key}]
        if output is not None and output not in rows.c:
            named = tuple(c.name for c in outputs)
            raise ColumnNotFound(f"table {rows.name!r}", output, "actuals.output", named)
        predicted = outputs[0] if output is None else rows.c[output]
        newest = (
            sa.select(sa.func.max(runs.c.run_id))
            .where(runs.c.job == job, runs.c.cleaned_at.is_(None))
            .where(runs.c.state.in_([PUBLISHED, SUPERSEDED, REJECTED, SCORED]))
            .group_by(runs.c.role, runs.c.partition, runs.c.model_name, runs.c.model_version)
        )
        joined = rows.join(known, sa.and_(*(rows.c[part] == known.c[part] for part in key)))
        statement = (
            sa.select(
                rows.c.run_id, sa.func.count().label("rows"), *_metrics(predicted, known.c[column])
            )
            .select_from(joined)
            .where(rows.c.run_id.in_(newest), known.c[column].is_not(None), _there(predicted))
            .group_by(rows.c.run_id)
        )
        found = connection.execute(statement).mappings().all()
        lines = connection.execute(
            sa.select(runs).where(runs.c.run_id.in_([r["run_id"] for r in found]))
        )
        about = {line["run_id"]: line for line in lines.mappings()}
    return sorted(
        (
            Outcome(
                model=f"{line['model_name']}@{line['model_version']}",
                role=line["role"],
                partition=line["partition"],
                run_id=row["run_id"],
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


def _there(predicted: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether a row has a prediction: neither NULL nor NaN, with which no mean is a number."""
    there: sa.ColumnElement[bool] = predicted.is_not(None)
    if isinstance(predicted.type, sa.Float):
        there &= sa.func.lower(sa.cast(predicted, sa.Text())) != "nan"
    return there


def _metrics(predicted: sa.Column[Any], actual: sa.Column[Any]) -> list[sa.Label[Any]]:
    numbers = all(
        isinstance(c.type, sa.Numeric | sa.Float | sa.Integer) for c in (predicted, actual)
    )
    if numbers:
        error: sa.ColumnElement[float] = sa.cast(predicted, sa.Double()) - sa.cast(
            actual, sa.Double()
        )
        return [
            sa.func.avg(sa.func.abs(error)).label("mae"),
            sa.func.avg(error * error).label("mse"),
            sa.func.avg(error).label("bias"),
        ]
    right = sa.cast(predicted, sa.Text()) == sa.cast(actual, sa.Text())
    return [sa.func.avg(sa.case((right, 1.0), else_=0.0)).label("accuracy")]


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
