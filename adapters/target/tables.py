"""`<target>_runs`, the rows of every run, and `<target>`, the view that readers use."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from nightshift.adapters.database.types import WHOLE_64, Instant, LongText, double, numbers
from nightshift.adapters.ledger.schema import RUN_ID, LedgerTables
from nightshift.adapters.models.column import Column
from nightshift.adapters.source.columns import PARTITION_TIME


def predictions_table(
    ledger: LedgerTables,
    target: str,
    key: Sequence[tuple[str, "sa.types.TypeEngine[Any]"]],
    with_time: bool,
    outputs: Sequence[Column],
    index_key: bool,
) -> sa.Table:
    """`<target>_runs`: the rows of every run, appended at the right edge of its primary key."""
    name = f"{target}_runs"
    columns: list[sa.Column[Any]] = [sa.Column("run_id", RUN_ID, primary_key=True)]
    columns += [sa.Column(part, kind, primary_key=True) for part, kind in key]
    if with_time:
        columns.append(sa.Column(PARTITION_TIME, Instant, nullable=False))
    columns += [
        sa.Column(output.name, _output_type(output), nullable=output.nullable) for output in outputs
    ]
    known = ledger.metadata.tables.get(sa.Table(name, sa.MetaData(ledger.metadata.schema)).key)
    if known is not None:  # of a challenger, or of an earlier try
        ledger.metadata.remove(known)
    table = sa.Table(name, ledger.metadata, *columns)
    if index_key:
        sa.Index(None, *(table.c[part] for part, _ in key))  # named, and cut to fit, by SQLAlchemy
    return table


class CreateView(sa.schema.ExecutableDDLElement):
    """CREATE VIEW; SQLAlchemy has its own from 2.1 on, with which Prefect 3.8 plans no runs."""

    inherit_cache = False

    def __init__(self, select: "sa.Select[Any]", name: str, schema: str | None) -> None:
        self.select, self.name, self.schema = select, name, schema


@compiles(CreateView)
def _create_view(element: CreateView, compiler: Any, **_: Any) -> str:
    view = sa.Table(element.name, sa.MetaData(), schema=element.schema)
    select = compiler.sql_compiler.process(element.select, literal_binds=True)
    return f"CREATE VIEW {compiler.preparer.format_table(view)} AS {select}"


def readers_view(ledger: LedgerTables, rows: sa.Table) -> "sa.Select[Any]":
    """What `<target>` shows: the rows of published runs, each row from one run."""
    published, runs = ledger.published, ledger.runs
    visible = rows.c.run_id == published.c.run_id
    if PARTITION_TIME in rows.c:
        time = rows.c[PARTITION_TIME]
        visible &= (time >= published.c.range_start) & (time < published.c.range_end)
    shown = [column for column in rows.c if column.name != "run_id"]
    return (
        sa.select(*shown, runs.c.model_version, published.c.run_id, runs.c.scored_at)
        .select_from(published)
        .join(runs, runs.c.run_id == published.c.run_id)
        .join(rows, visible)
    )


def _output_type(output: Column) -> "sa.types.TypeEngine[Any]":
    arrow = output.arrow_type
    if pa.types.is_list(arrow):
        return numbers(arrow)
    if pa.types.is_boolean(arrow):
        return sa.Boolean()
    if pa.types.is_floating(arrow):
        return double(arrow)
    if arrow == pa.uint64():
        return WHOLE_64
    if pa.types.is_integer(arrow):
        return sa.BigInteger()
    return sa.Date() if pa.types.is_date(arrow) else LongText()
