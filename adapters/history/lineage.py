"""Where a row's predictions came from: which run wrote them, with which model."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightshift.adapters.database.engine import open_reader
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.types import reflect_table
from nightshift.adapters.errors import StatementFailed
from nightshift.adapters.history.run_history import History, RunRecord
from nightshift.adapters.source.columns import PARTITION_TIME, encode_key


@dataclass(frozen=True)
class Lineage:
    """One prediction of a row, and the run that made it."""

    run: RunRecord
    visible: bool
    """Whether readers see this one."""
    values: dict[str, Any] | None
    """The prediction columns; None if the row was rejected."""
    error: str | None
    """Why it was rejected."""
    inputs: str | None
    """JSON of a rejected row's inputs; those of other rows are not stored."""


def trace_row(
    history: History, job: str, target: str, key: Sequence[str], texts: Sequence[str]
) -> list[Lineage]:
    """Every stored prediction of one row, newest run first.

    `texts` are the values of the key columns as a person writes them. Raises StatementFailed for
    one that is not a value of its column.
    """
    engine, tables = history.engine, history.tables
    schema = tables.runs.schema
    with (
        translate_errors(engine, f"to look for the key {', '.join(texts)}"),
        open_reader(engine) as c,
    ):
        rows = reflect_table(engine, f"{target}_runs", schema)
        view = sa.table(target, sa.column("run_id"), *map(sa.column, key), schema=schema)
        wanted = [_typed(rows.c[name], text) for name, text in zip(key, texts, strict=True)]
        mine = sa.and_(*(rows.c[name] == value for name, value in zip(key, wanted, strict=True)))
        shown = sa.and_(*(view.c[name] == value for name, value in zip(key, wanted, strict=True)))
        visible = set(c.scalars(sa.select(view.c.run_id).where(shown)))
        found = c.execute(sa.select(rows).where(mine)).mappings().all()
        rejects, runs = tables.rejects, tables.runs
        refused = c.execute(
            sa.select(rejects)
            .join(runs, runs.c.run_id == rejects.c.run_id)
            .where(runs.c.job == job, rejects.c.row_key == encode_key(tuple(wanted)))
        ).mappings()
        rejected = refused.all()
    hidden = {"run_id", *key, PARTITION_TIME}
    made = [
        Lineage(run, run.run_id in visible, values, None, None)
        for row in found
        if (run := history.run(row["run_id"])) is not None
        for values in [{name: value for name, value in row.items() if name not in hidden}]
    ]
    made += [
        Lineage(run, False, None, row["error"], row["inputs"])
        for row in rejected
        if (run := history.run(row["run_id"])) is not None
    ]
    return sorted(made, key=lambda line: -line.run.run_id)


def _typed(column: sa.Column[Any], text: str) -> Any:
    """A key's value in the column's own Python type."""
    kind = column.type.python_type
    try:
        if issubclass(kind, datetime):
            return datetime.fromisoformat(text)
        parse = getattr(kind, "fromisoformat", kind)
        return parse(text)
    except (ValueError, ArithmeticError) as error:
        problem = f"{text!r} is not a valid value for {column.name!r} ({column.type})"
        raise StatementFailed("to look for a key", problem) from error
