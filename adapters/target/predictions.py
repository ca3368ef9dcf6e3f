"""One job's predictions: writes the rows of every run, and creates the view that readers use."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from nightshift.adapters.database.capabilities import CAPABILITIES, capabilities
from nightshift.adapters.database.engine import read_only
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.errors import (
    ConfigurationError,
    KeyNotUnique,
    TargetMismatch,
    ValueUnstorable,
)
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.ledger.runs import RejectedRow, Run
from nightshift.adapters.models.column import Column
from nightshift.adapters.source.columns import RESERVED, Key, encode_key
from nightshift.adapters.source.source import Source
from nightshift.adapters.target.key_types import key_types
from nightshift.adapters.target.tables import CreateView, predictions_table, readers_view


class PredictionTable:
    """For any SQLAlchemy dialect; the backends override `_insert`."""

    def __init__(
        self,
        ledger: Ledger,
        source: Source,
        target: str,
        outputs: Sequence[Column],
        index_key: bool = False,
    ) -> None:
        self.ledger = ledger
        self.engine = ledger.engine
        self.source = source
        self.target = target
        self.outputs = outputs
        key = source.key_columns
        self._check_names([column.name for column in key])
        with_time = source.spec.time_column is not None
        typed = [(column.name, kind) for column, kind in zip(key, key_types(key), strict=True)]
        self.rows = predictions_table(ledger.tables, target, typed, with_time, outputs, index_key)

    def create(self) -> None:
        """Create the ledger, the table and the view where they are missing.

        Raises TargetMismatch, as `check` does.
        """
        self.check()
        self.ledger.create()
        with translate_errors(self.engine, f"to create the view {self.target!r}"):
            if self._is_view():
                return
            try:
                with self.engine.begin() as connection:
                    select = readers_view(self.ledger.tables, self.rows)
                    schema = self.rows.schema
                    connection.execute(CreateView(select, self.target, schema))
            except sa.exc.DBAPIError:
                if not self._is_view():  # else another worker has just created it
                    raise

    def check(self) -> None:
        """Check that this job can write to the target. Changes nothing.

        Raises TargetMismatch if another table or view has the target's names, or other columns.
        Raises ConfigurationError if several processes would write where only one can, or if the
        database is not tested to hold predictions.
        """
        here = capabilities(self.engine.dialect)
        if not here.target:
            problem = f"{here.title} is not tested to keep Nightshift's guarantees to readers"
            remedy = (
                "Read from it as database.source_url, and store predictions in a tested database: "
            )
            known = sorted({one.title for one in CAPABILITIES.values() if one.target})
            raise ConfigurationError(
                "nightshift.yaml", "database.url", problem, remedy + ", ".join(known) + "."
            )
        self._check_lengths()
        if self.source.spec.shards > 1 and here.writers == "one process":
            problem = f"{here.title} can be written by one process at a time"
            remedy = "Score in one shard, or store the predictions in another database."
            raise ConfigurationError("the job", "shards", problem, remedy)
        view, table, schema = self.target, self.rows.name, self.rows.schema
        with translate_errors(self.engine, f"to look at {view!r}"):
            inspector = sa.inspect(read_only(self.engine))
            is_view = self._is_view()
            has_table = inspector.has_table(table, schema=schema)
            taken = not is_view and inspector.has_table(view, schema=schema)
            # Asked again: another worker may have just created the view.
            if (is_view and not has_table) or (taken and not self._is_view()):
                raise self._not_ours()
            if has_table:
                self._check_table(inspector)
            if is_view:
                select = readers_view(self.ledger.tables, self.rows)
                wanted = {column.name for column in select.selected_columns}
                if wanted != self._view_columns(inspector):
                    raise self._not_ours()

    def write(
        self,
        run: Run,
        chunk: int,
        rows: pa.Table,
        rejects: Sequence[RejectedRow] = (),
        profile: str | None = None,
        keys: tuple[Key, Key] | None = None,
        checksum: str | None = None,
    ) -> None:
        """Write one chunk and its ledger entry in one transaction: all of it or nothing.

        `rows` has the key columns, `partition_time` where the job has a time column, and the
        outputs, in key order; `keys` are the first and the last of the chunk as it was read, if
        some of its rows are among the rejects; `checksum` is of its rows as they were read.
        Raises OwnershipLost, KeyNotUnique, ValueUnstorable, DatabaseUnavailable.
        """
        self._refuse_unstorable(rows)
        first, last = keys or (self._key(rows, 0), self._key(rows, rows.num_rows - 1))
        texts = encode_key(first), encode_key(last)
        with translate_errors(self.engine, f"to write to {self.rows.name!r}"):
            try:
                with self.engine.begin() as connection:
                    self.ledger.record_chunk(
                        connection, run, chunk, texts, rows.num_rows, rejects, profile, checksum
                    )
                    self.insert(connection, run.run_id, rows)
            except Exception as error:
                if _violates_unique(error):
                    source = self.source.spec
                    problem = f"a key between {texts[0]} and {texts[1]} appears twice"
                    remedy = "Make each key appear once in the source."
                    raise KeyNotUnique(str(source), source.key, problem, remedy) from error
                raise

    def insert(self, connection: sa.Connection, run_id: int, rows: pa.Table) -> None:
        """Add rows to a run, within a transaction that also updates the ledger."""
        if rows.num_rows:
            same = pa.nulls(rows.num_rows, pa.int8()).fill_null(0)
            stamp = pa.array([run_id], pa.int64()).take(same)
            self._insert(connection, rows.add_column(0, "run_id", stamp))

    def _insert(self, connection: sa.Connection, rows: pa.Table) -> None:
        connection.execute(sa.insert(self.rows), rows.to_pylist())

    # --- inside ---------------------------------------------------------------------------------

    def _key(self, rows: pa.Table, index: int) -> Key:
        return tuple(rows.column(name)[index].as_py() for name in self.source.spec.key)

    def _check_names(self, key: Sequence[str]) -> None:
        for output in self.outputs:
            if output.name in RESERVED or output.name in key:
                problem = f"the model's output {output.name!r} has the name of another column"
                raise TargetMismatch(self.target, problem, "Publish it with another output name.")

    def _refuse_unstorable(self, rows: pa.Table) -> None:
        """Raise ValueUnstorable for NaN and infinity where the database cannot hold them."""
        here = capabilities(self.engine.dialect)
        if here.not_finite != "refused":
            return
        for output in self.outputs:
            column = rows.column(output.name)
            if pa.types.is_list(column.type):
                column = pc.list_flatten(column)
            if not pa.types.is_floating(column.type):
                continue
            finite = pc.fill_null(pc.is_finite(column), True)
            at = pc.index(finite, False).as_py()
            if at >= 0:
                at //= output.length or 1
                key = ", ".join(str(part) for part in self._key(rows, at))
                value = str(rows.column(output.name)[at])
                raise ValueUnstorable(self.target, output.name, f"({key})", value, here.title)

    def _check_lengths(self) -> None:
        """Raise TargetMismatch for names that the database would truncate."""
        here = capabilities(self.engine.dialect)
        longest = here.longest_name or self.engine.dialect.max_identifier_length
        in_bytes = here.name_unit == "bytes"
        for name in (self.rows.name, *self.rows.columns.keys()):
            if len(name.encode() if in_bytes else name) > longest:
                most = f"{longest} {here.name_unit}"
                problem = f"the name {name!r} is longer than the {most} a name may have"
                raise TargetMismatch(self.target, problem, "Give it a shorter one.")

    def _check_table(self, inspector: sa.Inspector) -> None:
        table, schema = self.rows, self.rows.schema
        columns = inspector.get_columns(table.name, schema=schema)
        key = inspector.get_pk_constraint(table.name, schema=schema)["constrained_columns"]
        found = {column["name"]: self._kind(column["type"]) for column in columns}
        wanted = {column.name: self._kind(column.type) for column in table.columns}
        required = {column["name"] for column in columns if not column["nullable"]}
        keys = [column.name for column in table.primary_key]
        differences = []
        if missing := [name for name in wanted if name not in found]:
            differences.append(f"missing columns: {', '.join(missing)}")
        if extra := [name for name in found if name not in wanted]:
            differences.append(f"unexpected columns: {', '.join(extra)}")
        for name in [name for name in wanted if name in found]:
            if found[name] != wanted[name]:
                there, here = found[name].lower(), wanted[name].lower()
                differences.append(f"{name} is {there} there, not {here}")
            elif table.columns[name].nullable and name in required:
                differences.append(f"{name} may not be NULL there")
        if set(key) != set(keys):
            differences.append(f"its key is ({', '.join(key)}), not ({', '.join(keys)})")
        if differences:
            listed = "; ".join(differences)
            problem = f"{table.name!r} has other columns or types than this job writes: {listed}"
            remedy = "A model with other outputs, or other keys, needs a job and target of its own."
            raise TargetMismatch(self.target, problem, remedy)

    def _not_ours(self) -> TargetMismatch:
        problem = "a table or view of that name exists, and it is not Nightshift's"
        return TargetMismatch(self.target, problem, "Name another target.table.")

    def _kind(self, kind: "sa.types.TypeEngine[Any]") -> str:
        """The part of a column's type that must match: its family, and what a write would silently
        lose.
        """
        here = kind.dialect_impl(self.engine.dialect)
        if isinstance(here, sa.types.TypeDecorator):
            here = here.impl_instance
        exact = (sa.Float, sa.DateTime, sa.ARRAY)  # width, time zone, dimensions
        if isinstance(here, exact) or isinstance(kind, exact):
            return kind.compile(self.engine.dialect)
        if isinstance(here, sa.Boolean) and capabilities(self.engine.dialect).boolean_is_integer:
            return "Integer"
        families = (sa.Boolean, sa.Integer, sa.Numeric, sa.Date, sa.Uuid)
        return next((f.__name__ for f in families if isinstance(here, f)), "String")

    def _view_columns(self, inspector: sa.Inspector) -> set[str]:
        """The columns of the existing view."""
        return {c["name"] for c in inspector.get_columns(self.target, schema=self.rows.schema)}

    def _is_view(self) -> bool:
        views = sa.inspect(read_only(self.engine)).get_view_names(schema=self.rows.schema)
        return self.target in views


def _violates_unique(error: BaseException) -> bool:
    cause = getattr(error, "orig", None) or error
    if getattr(cause, "sqlstate", None) == "23505":
        return True
    named = any(word in str(cause).lower() for word in ("unique", "duplicate"))
    return named and "IntegrityError" in {kind.__name__ for kind in type(cause).__mro__}
