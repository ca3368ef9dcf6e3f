"""What can go wrong with the source, the ledger and the predictions."""

import difflib

from nightshift.adapters.errors.root import NightshiftError


class DatabaseError(NightshiftError):
    """The database refused, or holds something that Nightshift refuses."""


class TableNotFound(DatabaseError):
    def __init__(self, table: str, known: tuple[str, ...]) -> None:
        super().__init__(table, known)
        self.table, self.known = table, known

    def __str__(self) -> str:
        there = f"it has {', '.join(self.known)}" if self.known else "it has no tables"
        near = difflib.get_close_matches(self.table, self.known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        return (
            f"The source database has no table {self.table!r}: {there}. {hint}"
            "Correct source.table in the job file."
        )


class ColumnNotFound(DatabaseError):
    def __init__(self, source: str, column: str, needed_for: str, known: tuple[str, ...]) -> None:
        super().__init__(source, column, needed_for, known)
        self.source, self.column, self.needed_for, self.known = source, column, needed_for, known

    def __str__(self) -> str:
        return (
            f"{self.source} has no column {self.column!r}, needed as {self.needed_for}; "
            f"it has {', '.join(self.known)}. Add the column to the source, or correct the job."
        )


class ColumnTypeUnsupported(DatabaseError):
    def __init__(self, source: str, column: str, found: str, needed_for: str) -> None:
        super().__init__(source, column, found, needed_for)
        self.source, self.column, self.found, self.needed_for = source, column, found, needed_for

    def __str__(self) -> str:
        return (
            f"{self.source}: column {self.column!r} has type {self.found}, which cannot serve as "
            f"{self.needed_for}. Cast it in a source query."
        )


class ColumnNameReserved(DatabaseError):
    def __init__(self, source: str, column: str, needed_for: str) -> None:
        super().__init__(source, column, needed_for)
        self.source, self.column, self.needed_for = source, column, needed_for

    def __str__(self) -> str:
        return (
            f"{self.source}: column {self.column!r} cannot be {self.needed_for}: Nightshift has a "
            "column of its own with that name. Give it another name in a source query."
        )


class KeyNotUnique(DatabaseError):
    def __init__(self, source: str, key: tuple[str, ...], problem: str, remedy: str) -> None:
        super().__init__(source, key, problem, remedy)
        self.source, self.key, self.problem, self.remedy = source, key, problem, remedy

    def __str__(self) -> str:
        return (
            f"{self.source}: the key ({', '.join(self.key)}) does not name one row: "
            f"{self.problem}. {self.remedy}"
        )


class RowWithoutTime(DatabaseError):
    def __init__(self, source: str, column: str) -> None:
        super().__init__(source, column)
        self.source, self.column = source, column

    def __str__(self) -> str:
        return (
            f"{self.source} has rows with NULL in the time column {self.column!r}; they belong to "
            "no partition and would get no prediction. Fill them, or leave them out in "
            "a source query."
        )


class RowsHidden(DatabaseError):
    def __init__(self, table: str, role: str) -> None:
        super().__init__(table, role)
        self.table, self.role = table, role

    def __str__(self) -> str:
        return (
            f"Row-level security on the table {self.table!r} would hide rows from the role "
            f"{self.role!r}; they would get no prediction. Let it see all rows (ALTER ROLE "
            f"{self.role} BYPASSRLS), or read a view that holds the rows you mean, owned by the "
            "table's owner."
        )


class ValueUnreadable(DatabaseError):
    def __init__(self, source: str, column: str, row: str, problem: str) -> None:
        super().__init__(source, column, row, problem)
        self.source, self.column, self.row, self.problem = source, column, row, problem

    def __str__(self) -> str:
        return (
            f"{self.source}: column {self.column!r} of the row {self.row} {self.problem}. "
            "Correct the value, or leave the row out in a source query."
        )


class ValueUnstorable(DatabaseError):
    def __init__(self, target: str, column: str, row: str, value: str, database: str) -> None:
        super().__init__(target, column, row, value, database)
        self.target, self.column, self.row = target, column, row
        self.value, self.database = value, database

    def __str__(self) -> str:
        return (
            f"Target {self.target!r}: column {self.column!r} of the row {self.row} would be "
            f"{self.value}, which {self.database} cannot hold. Nothing was written of its chunk. "
            "Fix the model, or store its predictions in another database."
        )


class TargetMismatch(DatabaseError):
    def __init__(self, target: str, problem: str, remedy: str) -> None:
        super().__init__(target, problem, remedy)
        self.target, self.problem, self.remedy = target, problem, remedy

    def __str__(self) -> str:
        return f"Target {self.target!r}: {self.problem}. {self.remedy}"


class LedgerIncompatible(DatabaseError):
    def __init__(self, database: str, problem: str, remedy: str) -> None:
        super().__init__(database, problem, remedy)
        self.database, self.problem, self.remedy = database, problem, remedy

    def __str__(self) -> str:
        return f"The ledger in {self.database} cannot be used: {self.problem}. {self.remedy}"


class PartitionBusy(DatabaseError):
    def __init__(self, job: str, partition: str, run_id: int, owner: str, seconds: float) -> None:
        super().__init__(job, partition, run_id, owner, seconds)
        self.job, self.partition, self.run_id = job, partition, run_id
        self.owner, self.seconds = owner, seconds

    def __str__(self) -> str:
        return (
            f"{self.job} {self.partition} is being scored by run {self.run_id} ({self.owner}, "
            f"last seen {self.seconds:.0f} s ago). Wait for it; if its heartbeat stays away "
            "for longer than the lease, the next run takes over."
        )


class AlreadyPublished(DatabaseError):
    def __init__(self, job: str, partition: str, run_id: int) -> None:
        super().__init__(job, partition, run_id)
        self.job, self.partition, self.run_id = job, partition, run_id

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} is already published; nothing to do for {self.job} "
            f"{self.partition}: readers see newer predictions."
        )


class OwnershipLost(DatabaseError):
    def __init__(self, run_id: int) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} was taken over by another worker, or has ended. This worker's last "
            "write was refused; readers see none of it."
        )


class RunIncomplete(DatabaseError):
    def __init__(self, run_id: int, shards: int) -> None:
        super().__init__(run_id, shards)
        self.run_id, self.shards = run_id, shards

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} cannot end: {self.shards} of its shards are not done. Run the "
            "partition again; it resumes where they stopped."
        )


class RunUnknown(DatabaseError):
    def __init__(self, run_id: int) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"There is no run {self.run_id}. `nightshift runs` lists them."


class Quarantined(DatabaseError):
    def __init__(self, job: str, partition: str, run_id: int, reason: str) -> None:
        super().__init__(job, partition, run_id, reason)
        self.job, self.partition, self.run_id, self.reason = job, partition, run_id, reason

    def __str__(self) -> str:
        return (
            f"{self.reason}. Run {self.run_id} of {self.job} {self.partition} is quarantined: "
            f"readers still see what was published before. `nightshift report {self.run_id}` "
            f"shows the checks, and `nightshift runs release {self.run_id} --reason "
            '"..."` publishes it after all.'
        )


class RunNotQuarantined(DatabaseError):
    def __init__(self, run_id: int, problem: str) -> None:
        super().__init__(run_id, problem)
        self.run_id, self.problem = run_id, problem

    def __str__(self) -> str:
        return (
            f"Run {self.run_id} cannot be released: {self.problem}. Only a quarantined run can "
            "be released; `nightshift runs rollback` shows an earlier run again."
        )


class RunNotReplayable(DatabaseError):
    def __init__(self, run_id: int, problem: str) -> None:
        super().__init__(run_id, problem)
        self.run_id, self.problem = run_id, problem

    def __str__(self) -> str:
        return (
            f"Rows cannot be merged into run {self.run_id}: {self.problem}. Only a published or "
            "quarantined run takes rows; the next run scores a failed one again."
        )


class NothingToRollBackTo(DatabaseError):
    def __init__(self, job: str, partition: str, wanted: int | None, runs: tuple[str, ...]) -> None:
        super().__init__(job, partition, wanted, runs)
        self.job, self.partition, self.wanted, self.runs = job, partition, wanted, runs

    def __str__(self) -> str:
        what = "an earlier run" if self.wanted is None else f"run {self.wanted}"
        there = ", ".join(self.runs)
        choice = f"Name one of these with --to: {there}." if there else "No other run covers it."
        return (
            f"{self.job} {self.partition} cannot be rolled back to {what}: it was never "
            f"published for all of this partition, or its rows are gone. {choice}"
        )


class RowsMissing(DatabaseError):
    def __init__(self, source: str, expected: int, found: int) -> None:
        super().__init__(source, expected, found)
        self.source, self.expected, self.found = source, expected, found

    def __str__(self) -> str:
        return (
            f"{self.source}: the snapshot holds {self.expected:,} rows, but {self.found:,} were "
            "read. Nothing was published. Does the source query give the same rows every time?"
        )


class StatementFailed(DatabaseError):
    def __init__(self, doing: str, problem: str) -> None:
        super().__init__(doing, problem)
        self.doing, self.problem = doing, problem

    def __str__(self) -> str:
        return f"The database refused {self.doing}: {self.problem}"
