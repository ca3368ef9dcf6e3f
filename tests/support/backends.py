"""A database with the classes under test, and short ways to use them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.dialects.base import Capabilities
from nightshift.adapters.database.dialects.mysql import MYSQL
from nightshift.adapters.database.types import Instant, LongText, Name
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import Run, RunRequest
from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import KeyRange
from nightshift.adapters.source.relation import SourceSpec
from nightshift.adapters.source.source import Source
from nightshift.adapters.target.predictions import PredictionTable

ALL_BACKENDS = ("fast", "generic", "lite")

OTHER_DATABASES = ("maria", "duck")
"""These backends come to every test of a backend, but in a quick run only to those of CORE."""
CORE = frozenset(
    {
        "test_a_failed_run_is_resumed_where_it_stopped",
        "test_a_new_run",
        "test_a_zombie_changes_nothing",
        "test_chunk_edges",
        "test_every_output_type",
        "test_floats_to_the_last_bit",
        "test_local_times_at_the_very_bounds",
        "test_resumes_within_a_composite_key",
        "test_the_same_partition_twice_leaves_one_copy",
        "test_the_same_values_in_every_backend",
        "test_what_others_do_is_not_seen",
    }
)

Row = dict[str, Any]
Model = Callable[[Row], Any]


def sign(
    inputs: Mapping[str, str] | None = None, outputs: Mapping[str, str] | None = None
) -> Signature:
    """A signature from names and types; every column may be NULL."""
    return Signature(
        inputs=tuple(_column(name, kind) for name, kind in (inputs or {"x": "float64"}).items()),
        outputs=tuple(
            _column(name, kind) for name, kind in (outputs or {"prediction": "float64"}).items()
        ),
    )


def _column(name: str, kind: str) -> Column:
    length = 2 if kind.endswith("[]") else None
    made = {"name": name, "type": kind, "dtype": kind, "nullable": True, "length": length}
    return Column.model_validate(made)


class Timestamp(Instant):
    """MariaDB's own type for instants, to the microsecond."""

    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return dialect.type_descriptor(mysql.TIMESTAMP(fsp=6))


@dataclass
class Backend:
    """A backend: PostgreSQL's, the generic one on PostgreSQL, SQLite's, MariaDB's or DuckDB's."""

    name: str
    engine: sa.Engine
    source_class: type[Source]
    predictions_class: type[PredictionTable]
    lease: float = 60

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def is_duckdb(self) -> bool:
        return self.engine.dialect.name == "duckdb"

    @property
    def is_mysql(self) -> bool:
        return self.engine.dialect.name in MYSQL

    @property
    def is_postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @property
    def can(self) -> Capabilities:
        return capabilities(self.engine.dialect)

    @property
    def is_fast(self) -> bool:
        return self.name == "fast"

    def execute(self, *statements: str) -> None:
        if self.is_duckdb:  # in one transaction it does not see that referring rows are gone
            for statement in statements:
                with self.engine.begin() as connection:
                    connection.exec_driver_sql(statement)
            return
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def quote(self, name: str) -> str:
        """A name, in the quotes of this database, for a statement in plain SQL."""
        preparer = self.engine.dialect.identifier_preparer
        return preparer.quote_identifier(name)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def table(
        self, name: str, columns: Iterable[sa.Column[Any]], rows: Sequence[Row] = ()
    ) -> sa.Table:
        """A new table with these rows."""
        table = sa.Table(name, sa.MetaData(), *(self.declare(column) for column in columns))
        table.create(self.engine)
        self.insert(table, rows)
        return table

    def declare(self, column: sa.Column[Any]) -> sa.Column[Any]:
        """The column with the types that hold the same values in this database."""
        if self.is_mysql or self.is_duckdb:
            column.autoincrement = False  # MariaDB would replace a 0 by the next number
        if self.is_mysql and isinstance(column.type, sa.DateTime):
            column.type = Timestamp() if column.type.timezone else mysql.DATETIME(fsp=6)
        elif self.is_mysql and isinstance(column.type, sa.String):
            length = column.type.length
            in_key = column.primary_key or column.unique or length
            column.type = Name(length or 255) if in_key else LongText()
        return column

    def insert(self, table: sa.Table, rows: Sequence[Row]) -> None:
        with self.engine.begin() as connection:
            if rows:
                connection.execute(sa.insert(table), list(rows))

    def numbers(self, name: str, count: int, step: int = 1) -> sa.Table:
        """A table of ids 0, step, 2 x step, ... with x = id / 2."""
        columns = [sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("x", sa.Double)]
        return self.table(
            name, columns, [{"id": i * step, "x": i * step / 2} for i in range(count)]
        )

    def source(self, key: str | tuple[str, ...] = "id", **spec: Any) -> Source:
        key = (key,) if isinstance(key, str) else key
        return self.source_class(self.engine, SourceSpec(key=key, **spec))

    def ledger(self, lease: float | None = None, schema: str | None = None) -> Ledger:
        return Ledger(self.engine, schema, self.lease if lease is None else lease)

    def predictions(
        self,
        source: Source,
        target: str = "scores",
        outputs: Mapping[str, str] | None = None,
        ledger: Ledger | None = None,
        index_key: bool = False,
    ) -> PredictionTable:
        columns = sign(outputs=outputs).outputs
        backend = self.predictions_class
        return backend(ledger or self.ledger(), source, target, columns, index_key)

    # --- a run, as in the flow ------------------------------------------------------------------

    def read(
        self,
        source: Source,
        signature: Signature | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        after: tuple[Any, ...] | None = None,
        rows: int = 1000,
    ) -> list[pa.Table]:
        """All chunks of one snapshot, which must hold as many rows as it counts."""
        with source.snapshot(signature or sign(), start, end) as snapshot:
            expected = snapshot.count(KeyRange(after))
            chunks = list(snapshot.chunks(KeyRange(after), rows))
        assert sum(chunk.num_rows for chunk in chunks) == expected
        return chunks

    def write(
        self,
        predictions: PredictionTable,
        run: Run,
        chunk: int,
        values: pa.Table,
        model: Model | None = None,
    ) -> None:
        """Predict a chunk, by the first input where no model is given, and write it."""
        first = model or (lambda row: row["x"])
        given = [first(row) for row in values.to_pylist()]
        output = predictions.outputs[0]
        rows = values.select(predictions.source.kept_columns)
        rows = rows.append_column(output.name, pa.array(given, output.arrow_type))
        predictions.write(run, chunk, rows)

    def score(
        self,
        predictions: PredictionTable,
        request: RunRequest,
        model: Model | None = None,
        publish: bool = True,
        rows: int = 1000,
        owner: str | None = None,
    ) -> Run:
        """Start or resume a run, score its rows and publish them."""
        ledger, source = predictions.ledger, predictions.source
        run = ledger.begin(request, owner or new_owner())
        if run.state != "scored":
            after = None if run.last_key is None else source.decode_key(run.last_key)
            with source.snapshot(sign(), request.start, request.end) as snapshot:
                for number, values in enumerate(snapshot.chunks(KeyRange(after), rows), run.chunks):
                    self.write(predictions, run, number, values, model)
            ledger.score(run)
        if publish:
            ledger.publish(run)
        return run

    def view(self, target: str = "scores", key: str = "id", value: str = "prediction") -> Row:
        """What readers see: key -> value. Fails if a key appears twice."""
        quote = self.engine.dialect.identifier_preparer.quote
        with self.engine.connect() as connection:
            table = sa.table(target, sa.column(key), sa.column(value))
            found = connection.execute(sa.select(table.c[key], table.c[value])).all()
        seen = {row[0]: row[1] for row in found}
        assert len(seen) == len(found), f"a key of {quote(target)} appears twice"
        return seen


def request_of(
    partition: str = "all",
    start: datetime | None = None,
    end: datetime | None = None,
    job: str = "job",
    target: str = "scores",
    fingerprint: str = "one",
    version: int = 1,
) -> RunRequest:
    return RunRequest(
        job=job,
        target=target,
        partition=partition,
        start=start,
        end=end,
        model_name="model",
        model_version=version,
        model_digest="digest",
        fingerprint=fingerprint,
    )
