"""The SELECTs that read one partition of a source. Nothing here runs them."""

import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.times import first_local_time
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import (
    ALL_KEYS,
    PARTITION_TIME,
    Key,
    KeyRange,
    KeySet,
    SourceColumn,
)
from nightshift.adapters.source.relation import Relation


class Statements:
    """The SELECTs over the rows with start <= time < end. None is unbounded."""

    def __init__(self, relation: Relation, start: datetime | None, end: datetime | None) -> None:
        self.relation, self.spec = relation, relation.spec
        self._start, self._end = start, end
        self._from = relation.clause(start, end)
        self._key = [self._from.c[name] for name in self.spec.key]

    def rows(self, signature: Signature, keys: KeyRange | KeySet) -> "sa.Select[Any]":
        """The key columns, the model's inputs and `partition_time`, in key order."""
        names = list(dict.fromkeys([*self.spec.key, *signature.input_names]))
        wanted = {column.name: column.arrow_type for column in signature.inputs}
        selected = [self._sent(self._from.c[name], wanted.get(name)) for name in names]
        if self.spec.time_column is not None:
            selected.append(self._from.c[self.spec.time_column].label(PARTITION_TIME))
        return self._select(*selected, keys=keys).order_by(*self._key)

    def all_relations(self) -> "sa.Select[Any]":
        """A SELECT of this partition that reads, and locks, what any of the others may read."""
        return self.count() if self.spec.table else self._select(sa.literal_column("*"))

    def count(self, keys: KeyRange = ALL_KEYS) -> "sa.Select[Any]":
        return self._select(sa.func.count(), keys=keys)

    def keys(self, keys: KeyRange) -> "sa.Select[Any]":
        """The keys alone, in order."""
        selected = [self._sent(column, None) for column in self._key]
        return self._select(*selected, keys=keys).order_by(*self._key)

    def rows_without_time(self) -> "sa.Select[Any] | None":
        """A row of any partition whose time is NULL; None if the schema rules them out."""
        time = self.spec.time_column
        if time is None or not self.relation.columns[time].nullable:
            return None
        everywhere = self.relation.clause(None, None)
        found = sa.select(sa.literal(1)).select_from(everywhere)
        return found.where(everywhere.c[time].is_(None)).limit(1)

    def invalid_keys(self) -> "sa.Select[Any] | None":
        """A key that is NULL or, in a query, duplicated; None if the schema rules them out."""
        if not any(column.nullable for column in self.relation.key_columns):
            return None
        nulls = sa.or_(*(column.is_(None) for column in self._key))
        rows = self._select(*self._key)
        if self.spec.table is None:
            rows = rows.group_by(*self._key).having(sa.or_(sa.func.count() > 1, nulls))
        else:
            rows = rows.where(nulls)
        return rows.limit(1)

    # --- what a backend may override -------------------------------------------------------------

    def _sent(
        self, column: "sa.ColumnElement[Any]", wanted: pa.DataType | None
    ) -> "sa.ColumnElement[Any]":
        """The column as the database is asked to send it: drivers differ on decimals."""
        found = self.relation.columns[column.name]
        if pa.types.is_decimal(found.arrow) and pa.types.is_floating(found.chunk_type(wanted)):
            return sa.cast(column, sa.Double()).label(found.name)
        if pa.types.is_decimal(found.arrow) or found.as_text:
            return sa.cast(column, sa.Text()).label(found.name)
        return column

    def _bound(self, column: SourceColumn, value: Any) -> "sa.ColumnElement[Any]":
        """A bound of the partition, to be compared with the time column."""
        return sa.bindparam(None, value, column.sql)

    # --- inside ---------------------------------------------------------------------------------

    def _select(
        self, *columns: "sa.ColumnElement[Any]", keys: KeyRange | KeySet = ALL_KEYS
    ) -> "sa.Select[Any]":
        statement = sa.select(*columns).select_from(self._from)
        return statement.where(*self._in_partition(), *self._with_keys(keys))

    def _in_partition(self) -> list[sa.ColumnElement[bool]]:
        if self.spec.time_column is None:
            return []
        time = self._from.c[self.spec.time_column]
        kind, zone = self.relation.columns[self.spec.time_column], ZoneInfo(self.spec.timezone)
        bounds = []
        for instant, compare in ((self._start, operator.ge), (self._end, operator.lt)):
            if instant is not None:
                value = first_local_time(kind.arrow, instant, zone)
                bounds.append(compare(time, self._bound(kind, value)))
        return bounds

    def _with_keys(self, keys: KeyRange | KeySet) -> list[sa.ColumnElement[bool]]:
        if isinstance(keys, KeySet):
            return [sa.or_(*(self._equals(key) for key in keys.keys))]
        bounds = ((keys.after, operator.gt), (keys.through, operator.le))
        return [self._compared(key, compare) for key, compare in bounds if key is not None]

    def _compared(self, key: Key, compare: Callable[[Any, Any], Any]) -> sa.ColumnElement[bool]:
        columns, values = self._key, self._parameters(key)
        found: sa.ColumnElement[bool]
        if len(columns) > 1 and capabilities(self.relation.dialect).row_values:
            found = compare(sa.tuple_(*columns), sa.tuple_(*values))
            return found
        found = compare(columns[-1], values[-1])
        beyond = operator.gt if compare is operator.gt else operator.lt
        for column, value in zip(columns[-2::-1], values[-2::-1], strict=True):
            found = sa.or_(beyond(column, value), sa.and_(column == value, found))
        return found

    def _equals(self, key: Key) -> sa.ColumnElement[bool]:
        pairs = zip(self._key, self._parameters(key), strict=True)
        return sa.and_(*(column == value for column, value in pairs))

    def _parameters(self, key: Key) -> Sequence[sa.BindParameter[Any]]:
        return [
            sa.bindparam(None, value, column.sql)
            for column, value in zip(self.relation.key_columns, key, strict=True)
        ]


def render(dialect: sa.Dialect, statement: "sa.Select[Any]") -> tuple[str, Any]:
    """A statement and its parameters as the driver takes them, where a backend calls it itself."""
    compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    values = {}
    for parameter, name in compiled.bind_names.items():
        process = parameter.type.dialect_impl(dialect).bind_processor(dialect)
        value = compiled.params[name]
        values[name] = value if process is None else process(value)
    positions = compiled.positiontup
    return compiled.string, values if positions is None else [values[name] for name in positions]
