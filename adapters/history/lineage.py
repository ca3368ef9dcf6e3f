"""Where a row of the predictions came from: which run wrote it, in which chunk, with what."""

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
    """One prediction of a row, and who made it."""

    run: RunRecord
    visible: bool
    """Whether readers see this one."""
    values: dict[str, Any] | None
    """The prediction columns; None if the row was rejected."""
    chunk: int | None
    committed_at: datetime | None
    error: str | None
    """Why it was rejected."""
    inputs: str | None
    """Of a rejected row, what the model was given, as JSON; of others it is not kept."""


def trace_row(
    history: History, job: str, target: str, key: Sequence[str], texts: Sequence[str]
) -> list[Lineage]:
    """Every prediction of one row that is kept, newest run first.

    `texts` are the values of the key columns as a person writes them.
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
        chunks = [_chunk_of(c, history, row["run_id"], rows, key, wanted) for row in found]
        rejected = refused.all()
    hidden = {"run_id", *key, PARTITION_TIME}
    made = [
        Lineage(run, run.run_id in visible, values, chunk, at, None, None)
        for row, (chunk, at) in zip(found, chunks, strict=True)
        if (run := history.run(row["run_id"])) is not None
        for values in [{name: value for name, value in row.items() if name not in hidden}]
    ]
    made += [
        Lineage(run, False, None, row["chunk"], None, row["error"], row["inputs"])
        for row in rejected
        if (run := history.run(row["run_id"])) is not None
    ]
    return sorted(made, key=lambda origin: -origin.run.run_id)


def _typed(column: sa.Column[Any], text: str) -> Any:
    """A key's value in the column's own Python type."""
    kind = column.type.python_type
    try:
        if issubclass(kind, datetime):
            return datetime.fromisoformat(text)
        parse = getattr(kind, "fromisoformat", kind)
        return parse(text)
    except (ValueError, ArithmeticError) as error:
        problem = f"{text!r} is no value of {column.name!r} ({column.type})"
        raise StatementFailed("to look for a key", problem) from error


def _chunk_of(
    connection: sa.Connection,
    history: History,
    run_id: int,
    rows: sa.Table,
    key: Sequence[str],
    wanted: Sequence[Any],
) -> tuple[int | None, datetime | None]:
    """The chunk of the run that has the row: as many rows come before the row as before it."""
    chunks = history.tables.chunks
    parts = [rows.c[name] for name in key]
    values = [sa.bindparam(None, v, p.type) for p, v in zip(parts, wanted, strict=True)]
    earlier = sa.select(sa.func.count()).where(
        rows.c.run_id == run_id, sa.tuple_(*parts) < sa.tuple_(*values)
    )
    before = connection.scalar(earlier) or 0
    through = sa.func.sum(chunks.c.rows).over(order_by=[chunks.c.shard, chunks.c.chunk])
    counted = sa.select(chunks.c.chunk, chunks.c.committed_at, through.label("through"))
    counted_chunks = counted.where(chunks.c.run_id == run_id).subquery()
    found = connection.execute(
        sa.select(counted_chunks.c.chunk, counted_chunks.c.committed_at)
        .where(counted_chunks.c.through > before)
        .order_by(counted_chunks.c.through)
        .limit(1)
    ).first()
    return (None, None) if found is None else (found.chunk, found.committed_at)
