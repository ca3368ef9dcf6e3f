"""What may be tried again."""

from nightshift.adapters.errors.root import NightshiftError


class TransientError(NightshiftError):
    """Something cannot be reached at the moment; the same call may succeed later."""


class StoreUnavailable(TransientError):
    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store, self.problem = store, problem

    def __str__(self) -> str:
        return (
            f"The model store {self.store} cannot be reached: {self.problem}. "
            "Check store.url and store.endpoint_url, and that the server is up."
        )


class DatabaseUnavailable(TransientError):
    def __init__(self, database: str, problem: str) -> None:
        super().__init__(database, problem)
        self.database, self.problem = database, problem

    def __str__(self) -> str:
        return (
            f"The database {self.database} cannot be reached: {self.problem}. "
            "Check database.url, and that the server is up; a run resumes where it stopped."
        )


class SnapshotEnded(TransientError):
    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.source = source

    def __str__(self) -> str:
        return (
            f"{self.source}: the snapshot that this worker was to join is gone: the connection of "
            "the run's coordinator has ended. The run resumes with a new snapshot."
        )


class SourceReplaced(TransientError):
    def __init__(self, source: str, tables: tuple[str, ...]) -> None:
        super().__init__(source, tables)
        self.source, self.tables = source, tables

    def __str__(self) -> str:
        return (
            f"{self.source}: {', '.join(self.tables)} was emptied, rewritten or replaced after the "
            "run's snapshot, which sees none of its rows. Nothing was published; the run begins "
            "again. Does a function in the source query read a table that is loaded by TRUNCATE?"
        )


class WorkerLost(TransientError):
    def __init__(self, job: str, partition: str) -> None:
        super().__init__(job, partition)
        self.job, self.partition = job, partition

    def __str__(self) -> str:
        return (
            f"A process that scored a shard of {self.job} {self.partition} was killed, perhaps for "
            "want of memory: see `shards.at_once` and `chunk_rows`. What it wrote is kept; a run "
            "resumes where each shard stopped."
        )
