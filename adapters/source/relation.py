"""What a job's source is: a table or query, its columns, key and time column. Runs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import sqlalchemy as sa

from nightshift.adapters.errors import (
    ColumnNameReserved,
    ColumnNotFound,
    ColumnTypeUnsupported,
    SignatureMismatch,
)
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import PARTITION_TIME, RESERVED, SourceColumn
from nightshift.adapters.source.user_query import bound_query


@dataclass(frozen=True)
class SourceSpec:
    """What a job reads: a table, or a SELECT that may use :partition_start and :partition_end."""

    key: tuple[str, ...]
    table: str | None = None
    schema: str | None = None
    query: str | None = None
    time_column: str | None = None
    timezone: str = "UTC"
    """The zone of a time column that has none, or holds dates."""
    shards: int = 1
    """The number of key ranges that are read in parallel, from one snapshot."""

    def __str__(self) -> str:
        return f"table {self.table!r}" if self.table else "the source query"

    @property
    def kept_columns(self) -> list[str]:
        """The columns of a chunk that are stored with its predictions."""
        return [*self.key, *([] if self.time_column is None else [PARTITION_TIME])]


@dataclass(frozen=True)
class Relation:
    """A source and the columns that its database declares for it."""

    spec: SourceSpec
    columns: dict[str, SourceColumn]
    dialect: sa.Dialect

    @property
    def key_columns(self) -> list[SourceColumn]:
        return [self.column(name, "the key") for name in self.spec.key]

    def column(self, name: str, needed_for: str) -> SourceColumn:
        """Raises ColumnNotFound."""
        if name not in self.columns:
            raise ColumnNotFound(str(self.spec), name, needed_for, tuple(self.columns))
        return self.columns[name]

    def declared_types(self, names: Sequence[str]) -> dict[str, str]:
        """How the database declares these columns; part of a run's fingerprint."""
        return {name: self.column(name, "a column").display for name in names}

    def clause(self, start: datetime | None, end: datetime | None) -> sa.FromClause:
        """What stands after FROM; a query gets the partition's bounds."""
        columns = [sa.column(column.name, column.sql) for column in self.columns.values()]
        if self.spec.table is not None:
            return sa.table(self.spec.table, *columns, schema=self.spec.schema)
        query = bound_query(self.spec.query or "", start, end, self.dialect)
        return query.columns(*columns).subquery("source")

    def check_key(self) -> None:
        """Raises ColumnNotFound, ColumnNameReserved, ColumnTypeUnsupported."""
        for part in self.key_columns:
            if part.name in RESERVED:
                raise ColumnNameReserved(str(self.spec), part.name, "a key column")
            if not part.can_be_key:
                raise ColumnTypeUnsupported(str(self.spec), part.name, part.display, "a key column")

    def check_inputs(self, signature: Signature) -> None:
        """Raises ColumnNotFound, ColumnNameReserved, ColumnTypeUnsupported, SignatureMismatch."""
        spec = self.spec
        if spec.time_column is not None:
            time = self.column(spec.time_column, "the time column")
            if not (pa.types.is_timestamp(time.arrow) or pa.types.is_date(time.arrow)):
                raise ColumnTypeUnsupported(str(spec), time.name, time.display, "the time column")
            if PARTITION_TIME in signature.input_names:
                raise ColumnNameReserved(str(spec), PARTITION_TIME, "an input of the model")
        for wanted in signature.inputs:
            column = self.column(wanted.name, f"an input of the model ({wanted.type})")
            if not wanted.accepts(column.arrow):
                remedy = "Cast the column in a source query, or train on what the table holds."
                raise SignatureMismatch(wanted.name, wanted.type, column.display, remedy)
            if wanted.name in spec.key and pa.types.is_floating(
                column.chunk_type(wanted.arrow_type)
            ):  # a rounded key would not identify its row
                both = f"a key column and an input of the model ({wanted.type}) at once"
                raise ColumnTypeUnsupported(str(spec), wanted.name, column.display, both)
