"""The tables, once: the ledger's, and each job's predictions with the view that readers use."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from nightshift.adapters.database.types import WHOLE_64, Instant, LongText, Name, double, numbers
from nightshift.adapters.ledger.runs import RunState
from nightshift.adapters.models.column import Column

PARTITION_TIME = "partition_time"
RESERVED = ("run_id", PARTITION_TIME, "model_version", "scored_at")
"""Names that Nightshift gives to columns of the predictions; no key or output may have them."""


_RUN_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts up INTEGER only
_NAME, _TEXT = Name(), LongText()


class _State(Name):
    """A run's state."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else RunState(value).value

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> RunState | None:
        return None if value is None else RunState(value)


class LedgerTables:
    """The tables that say which run wrote what, and which run readers see."""

    def __init__(self, schema: str | None) -> None:
        self.metadata = sa.MetaData(schema=schema)
        self.jobs = sa.Table(
            "nightshift_jobs",
            self.metadata,
            sa.Column("job", _NAME, primary_key=True),
            sa.Column("target", _NAME, nullable=False, unique=True),
        )
        self.runs = sa.Table(
            "nightshift_runs",
            self.metadata,
            sa.Column("run_id", _RUN_ID, primary_key=True, autoincrement=True),
            sa.Column("job", _NAME, sa.ForeignKey(self.jobs.c.job), nullable=False),
            sa.Column("role", _NAME, nullable=False),
            sa.Column("partition", _NAME, nullable=False),
            sa.Column("partition_start", Instant, nullable=False),
            sa.Column("partition_end", Instant, nullable=False),
            sa.Column("model_name", _NAME, nullable=False),
            sa.Column("model_version", sa.Integer, nullable=False),
            sa.Column("model_digest", _NAME, nullable=False),
            sa.Column("fingerprint", _NAME, nullable=False),
            sa.Column("state", _State, nullable=False),
            sa.Column("owner", _NAME, nullable=False),
            sa.Column("heartbeat_at", Instant, nullable=False),
            sa.Column("started_at", Instant, nullable=False),
            sa.Column("scored_at", Instant),
            sa.Column("published_at", Instant),
            sa.Column("cleaned_at", Instant),  # its predictions were deleted
            sa.Column("flow_run_id", _NAME),
            sa.Column("error", _TEXT),
            sa.Column("audit", _TEXT),  # JSON of nightshift.flows.checks.audit.Audit
            sa.Column("comparison", _TEXT),  # JSON of a challenger's Comparison
            sa.Index("ix_nightshift_runs_job_partition", "job", "partition"),
        )
        # How far each key range of a run has come, and who scores it.
        self.shards = sa.Table(
            "nightshift_shards",
            self.metadata,
            sa.Column("run_id", _RUN_ID, sa.ForeignKey(self.runs.c.run_id), primary_key=True),
            sa.Column("shard", sa.Integer, primary_key=True),
            sa.Column("after_key", _TEXT),  # its range: beyond this key, NULL for no bound,
            sa.Column("through_key", _TEXT),  # up to this one, included
            sa.Column("owner", _NAME, nullable=False),
            sa.Column("written_at", Instant, nullable=False),
            sa.Column("done", sa.Boolean, nullable=False),
            sa.Column("chunks_written", sa.Integer, nullable=False),
            sa.Column("rows_written", sa.BigInteger, nullable=False),
            sa.Column("rows_rejected", sa.BigInteger, nullable=False),
            sa.Column("profile", _TEXT),  # JSON of nightshift.adapters.profiles.profile.Profile
            sa.Column("timings", _TEXT),  # JSON of nightshift.flows.scoring.timings.StageTimings
        )
        self.chunks = sa.Table(
            "nightshift_chunks",
            self.metadata,
            sa.Column("run_id", _RUN_ID, sa.ForeignKey(self.runs.c.run_id), primary_key=True),
            sa.Column("shard", sa.Integer, primary_key=True),
            sa.Column("chunk", sa.Integer, primary_key=True),
            sa.Column("first_key", _TEXT, nullable=False),
            sa.Column("last_key", _TEXT, nullable=False),
            sa.Column("rows", sa.BigInteger, nullable=False),
            sa.Column("rejected", sa.BigInteger, nullable=False),
            sa.Column("checksum", _NAME),  # of its rows, as they were read
            sa.Column("committed_at", Instant, nullable=False),
        )
        # Rows that got no prediction, with what they held.
        self.rejects = sa.Table(
            "nightshift_rejects",
            self.metadata,
            sa.Column("run_id", _RUN_ID, sa.ForeignKey(self.runs.c.run_id), primary_key=True),
            sa.Column("shard", sa.Integer, primary_key=True),
            sa.Column("chunk", sa.Integer, primary_key=True),
            sa.Column("position", sa.Integer, primary_key=True),
            sa.Column("row_key", _TEXT, nullable=False),
            sa.Column("kind", _NAME, nullable=False),
            sa.Column("error", _TEXT, nullable=False),
            sa.Column("inputs", _TEXT, nullable=False),
        )
        # The pointer: which run readers see, for each range of the source's time. The ranges of a
        # job never overlap, so one run may cover a year while another has replaced a day of it.
        self.published = sa.Table(
            "nightshift_published",
            self.metadata,
            sa.Column("job", _NAME, sa.ForeignKey(self.jobs.c.job), primary_key=True),
            sa.Column("range_start", Instant, primary_key=True),
            sa.Column("range_end", Instant, nullable=False),
            sa.Column("run_id", _RUN_ID, sa.ForeignKey(self.runs.c.run_id), nullable=False),
            sa.Index("ix_nightshift_published_run", "run_id"),
        )
        # Each time the pointer moved: who moved it, when and why.
        self.changes = sa.Table(
            "nightshift_publication_changes",
            self.metadata,
            sa.Column("change_id", _RUN_ID, primary_key=True, autoincrement=True),
            sa.Column("job", _NAME, sa.ForeignKey(self.jobs.c.job), nullable=False, index=True),
            sa.Column("range_start", Instant, nullable=False),
            sa.Column("range_end", Instant, nullable=False),
            sa.Column("run_id", _RUN_ID, sa.ForeignKey(self.runs.c.run_id), nullable=False),
            sa.Column("action", _NAME, nullable=False),
            sa.Column("changed_at", Instant, nullable=False),
            sa.Column("changed_by", _NAME, nullable=False),
            sa.Column("reason", _TEXT),
        )


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
    columns: list[sa.Column[Any]] = [sa.Column("run_id", _RUN_ID, primary_key=True)]
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
