"""What one run was asked for and what it did."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreResult:
    """What one run did."""

    job: str
    partition: str
    run_id: int
    model: str
    """`name@version`"""
    target: str
    rows: int
    resumed_rows: int
    """Of these, written by an earlier attempt."""
    sql: str
    """A query that returns the predictions."""
    seconds: float
    """From the first read to the last commit of this attempt."""
    snapshot: tuple[int, ...] = ()
    """Rows of the source's snapshot in each shard, as the database counts them."""
    rejected: int = 0
    """Of the rows, those without a prediction."""
    verdict: str = "ok"
    """The audit's: `ok`, `warn` or `fail`."""
    remarks: tuple[str, ...] = ()
    """What failed or warned in the audit, the most severe first."""
    not_judged: int = 0
    """Checks that had too little to go by; they count neither as passed nor as failed."""

    @property
    def written(self) -> int:
        """The rows that have a prediction."""
        return self.rows - self.rejected

    @property
    def rows_per_second(self) -> float:
        return (self.rows - self.resumed_rows) / self.seconds if self.seconds > 0 else 0.0
