"""The ledger's tables."""

import sqlalchemy as sa

from nightshift.adapters.database.types import Instant, LongText, Name
from nightshift.adapters.ledger.runs import RunState

RUN_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts up INTEGER only
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
        self.schema_version = sa.Table(
            "nightshift_schema_version",
            self.metadata,
            sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        )
        self.jobs = sa.Table(
            "nightshift_jobs",
            self.metadata,
            sa.Column("job", _NAME, primary_key=True),
            sa.Column("target", _NAME, nullable=False, unique=True),
        )
        self.runs = sa.Table(
            "nightshift_runs",
            self.metadata,
            sa.Column("run_id", RUN_ID, primary_key=True, autoincrement=True),
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
            sa.Column("run_id", RUN_ID, sa.ForeignKey(self.runs.c.run_id), primary_key=True),
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
            sa.Column("run_id", RUN_ID, sa.ForeignKey(self.runs.c.run_id), primary_key=True),
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
            sa.Column("run_id", RUN_ID, sa.ForeignKey(self.runs.c.run_id), primary_key=True),
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
            sa.Column("run_id", RUN_ID, sa.ForeignKey(self.runs.c.run_id), nullable=False),
            sa.Index("ix_nightshift_published_run", "run_id"),
        )
        # Each change of what readers see: who made it, when and why.
        self.changes = sa.Table(
            "nightshift_publication_changes",
            self.metadata,
            sa.Column("change_id", RUN_ID, primary_key=True, autoincrement=True),
            sa.Column("job", _NAME, sa.ForeignKey(self.jobs.c.job), nullable=False, index=True),
            sa.Column("range_start", Instant, nullable=False),
            sa.Column("range_end", Instant, nullable=False),
            sa.Column("run_id", RUN_ID, sa.ForeignKey(self.runs.c.run_id), nullable=False),
            sa.Column("action", _NAME, nullable=False),
            sa.Column("changed_at", Instant, nullable=False),
            sa.Column("changed_by", _NAME, nullable=False),
            sa.Column("reason", _TEXT),
        )
        # A backfill's plan, and how far it has come.
        self.backfills = sa.Table(
            "nightshift_backfills",
            self.metadata,
            sa.Column("backfill_id", RUN_ID, primary_key=True, autoincrement=True),
            sa.Column("job", _NAME, nullable=False, index=True),
            sa.Column("parameters", _TEXT, nullable=False),
            sa.Column("model_name", _NAME, nullable=False),
            sa.Column("model_version", sa.Integer, nullable=False),
            sa.Column("owner", _NAME, nullable=False),
            sa.Column("heartbeat_at", Instant, nullable=False),
            sa.Column("planned_at", Instant, nullable=False),
            sa.Column("ended_at", Instant),
            sa.Column("flow_run_id", _NAME),
        )
        self.backfill_partitions = sa.Table(
            "nightshift_backfill_partitions",
            self.metadata,
            sa.Column("backfill_id", RUN_ID, sa.ForeignKey(self.backfills.c.backfill_id)),
            sa.Column("position", sa.Integer),
            sa.Column("partition", _NAME, nullable=False),
            sa.Column("partition_start", Instant, nullable=False),
            sa.Column("partition_end", Instant, nullable=False),
            sa.Column("state", _NAME, nullable=False),
            sa.Column("reason", _TEXT, nullable=False),
            sa.Column("rows", sa.BigInteger),
            sa.Column("seconds", sa.Double),
            sa.Column("changed_at", Instant, nullable=False),
            sa.PrimaryKeyConstraint("backfill_id", "position"),
        )
        self.ledger = tuple(self.metadata.sorted_tables)
        """All of these, each after those that it refers to; targets are added to the metadata."""
