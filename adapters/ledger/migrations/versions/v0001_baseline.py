"""The first version: what a ledger was in the first release, 0.1.0.

Until that is out, a change of the schema is made here, and in tests/adapters/database/releases.

What is there already is left as it is, so that a worker that was killed amid this, on a database
that does not undo it, is no obstacle.
"""

import sqlalchemy as sa
from alembic import op

from nightshift.adapters.database.types import Instant, LongText, Name

revision = "0001"
down_revision = None


def upgrade() -> None:
    connection = op.get_bind()
    metadata = _tables(op.get_context().version_table_schema)
    metadata.create_all(connection)
    inspector = sa.inspect(connection)
    for table in metadata.sorted_tables:
        found = inspector.get_indexes(table.name, schema=table.schema)
        there = [index["column_names"] for index in found]
        for index in table.indexes:
            if [column.name for column in index.columns] not in there:
                index.create(connection)


def _tables(schema: str | None) -> sa.MetaData:
    metadata = sa.MetaData(schema)
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    name, text = Name(), LongText()
    jobs = sa.Table(
        "nightshift_jobs",
        metadata,
        sa.Column("job", name, primary_key=True),
        sa.Column("target", name, nullable=False, unique=True),
    )
    runs = sa.Table(
        "nightshift_runs",
        metadata,
        sa.Column("run_id", number, primary_key=True, autoincrement=True),
        sa.Column("job", name, sa.ForeignKey(jobs.c.job), nullable=False),
        sa.Column("role", name, nullable=False),
        sa.Column("partition", name, nullable=False),
        sa.Column("partition_start", Instant, nullable=False),
        sa.Column("partition_end", Instant, nullable=False),
        sa.Column("model_name", name, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("model_digest", name, nullable=False),
        sa.Column("fingerprint", name, nullable=False),
        sa.Column("state", name, nullable=False),
        sa.Column("owner", name, nullable=False),
        sa.Column("heartbeat_at", Instant, nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("scored_at", Instant),
        sa.Column("published_at", Instant),
        sa.Column("cleaned_at", Instant),
        sa.Column("flow_run_id", name),
        sa.Column("error", text),
        sa.Column("audit", text),
        sa.Column("comparison", text),
        sa.Index("ix_nightshift_runs_job_partition", "job", "partition"),
    )
    sa.Table(
        "nightshift_shards",
        metadata,
        sa.Column("run_id", number, sa.ForeignKey(runs.c.run_id), primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("after_key", text),
        sa.Column("through_key", text),
        sa.Column("owner", name, nullable=False),
        sa.Column("written_at", Instant, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("chunks_written", sa.Integer, nullable=False),
        sa.Column("rows_written", sa.BigInteger, nullable=False),
        sa.Column("rows_rejected", sa.BigInteger, nullable=False),
        sa.Column("profile", text),
        sa.Column("timings", text),
    )
    sa.Table(
        "nightshift_chunks",
        metadata,
        sa.Column("run_id", number, sa.ForeignKey(runs.c.run_id), primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("chunk", sa.Integer, primary_key=True),
        sa.Column("first_key", text, nullable=False),
        sa.Column("last_key", text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("rejected", sa.BigInteger, nullable=False),
        sa.Column("checksum", name),
        sa.Column("committed_at", Instant, nullable=False),
    )
    sa.Table(
        "nightshift_rejects",
        metadata,
        sa.Column("run_id", number, sa.ForeignKey(runs.c.run_id), primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("chunk", sa.Integer, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("row_key", text, nullable=False),
        sa.Column("kind", name, nullable=False),
        sa.Column("error", text, nullable=False),
        sa.Column("inputs", text, nullable=False),
    )
    sa.Table(
        "nightshift_published",
        metadata,
        sa.Column("job", name, sa.ForeignKey(jobs.c.job), primary_key=True),
        sa.Column("range_start", Instant, primary_key=True),
        sa.Column("range_end", Instant, nullable=False),
        sa.Column("run_id", number, sa.ForeignKey(runs.c.run_id), nullable=False),
        sa.Index("ix_nightshift_published_run", "run_id"),
    )
    sa.Table(
        "nightshift_publication_changes",
        metadata,
        sa.Column("change_id", number, primary_key=True, autoincrement=True),
        sa.Column("job", name, sa.ForeignKey(jobs.c.job), nullable=False, index=True),
        sa.Column("range_start", Instant, nullable=False),
        sa.Column("range_end", Instant, nullable=False),
        sa.Column("run_id", number, sa.ForeignKey(runs.c.run_id), nullable=False),
        sa.Column("action", name, nullable=False),
        sa.Column("changed_at", Instant, nullable=False),
        sa.Column("changed_by", name, nullable=False),
        sa.Column("reason", text),
    )
    backfills = sa.Table(
        "nightshift_backfills",
        metadata,
        sa.Column("backfill_id", number, primary_key=True, autoincrement=True),
        sa.Column("job", name, nullable=False, index=True),
        sa.Column("parameters", text, nullable=False),
        sa.Column("model_name", name, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("owner", name, nullable=False),
        sa.Column("heartbeat_at", Instant, nullable=False),
        sa.Column("planned_at", Instant, nullable=False),
        sa.Column("ended_at", Instant),
        sa.Column("flow_run_id", name),
    )
    sa.Table(
        "nightshift_backfill_partitions",
        metadata,
        sa.Column("backfill_id", number, sa.ForeignKey(backfills.c.backfill_id)),
        sa.Column("position", sa.Integer),
        sa.Column("partition", name, nullable=False),
        sa.Column("partition_start", Instant, nullable=False),
        sa.Column("partition_end", Instant, nullable=False),
        sa.Column("state", name, nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("rows", sa.BigInteger),
        sa.Column("seconds", sa.Double),
        sa.Column("changed_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("backfill_id", "position"),
    )
    return metadata
