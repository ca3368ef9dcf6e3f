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
