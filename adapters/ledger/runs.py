"""What is to be scored, and how far it has come."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

CHAMPION, CHALLENGER = "champion", "challenger"


class RunState(StrEnum):
    """How far a run has come."""

    RUNNING = "running"
    SCORED = "scored"
    """All rows are written; the audit has not decided yet."""
    PUBLISHED = "published"
    """Readers see its rows, in all of its range or in parts of it."""
    SUPERSEDED = "superseded"
    """Readers see later runs in all of its range."""
    QUARANTINED = "quarantined"
    """The audit failed: its rows are kept, and readers do not see them."""
    FAILED = "failed"


@dataclass(frozen=True)
class RunRequest:
    """What is to be scored, with what."""

    job: str
    target: str
    partition: str
    start: datetime | None
    end: datetime | None
    model_name: str
    model_version: int
    model_digest: str
    fingerprint: str
    """Digest of everything that decides a run's rows; only a run with the same one is resumed."""
    role: str = CHAMPION
    """A challenger's runs are scored alongside the champion's and never published."""
    flow_run_id: str | None = None
    unless_published_since: datetime | None = None
    """Do not begin if, since then, the same model version was published for the partition, or a run
    with the same fingerprint was quarantined."""
    unless_changed: bool = False
    """Do not begin either if the partition was published since then with any model."""


@dataclass(frozen=True)
class Run:
    """A run that this process owns, or one shard of it, and how far it has come."""

    run_id: int
    owner: str
    state: RunState
    chunks: int
    rows: int
    """Predictions written so far."""
    last_key: str | None
    """The last committed key as the ledger's JSON, or None."""
    rejected: int = 0
    """Rows without a prediction so far."""
    profile: str | None = None
    """JSON of the profile of its rows so far, as recorded with the last chunk."""
    shard: int = 0

    @property
    def resumed(self) -> bool:
        return self.chunks > 0

    @property
    def seen(self) -> int:
        """Source rows that are written or rejected."""
        return self.rows + self.rejected


@dataclass(frozen=True)
class RejectedRow:
    """A row without a prediction, as the ledger stores it."""

    key: str
    """Its key as the ledger's JSON."""
    kind: str
    error: str
    inputs: str
    """JSON of the model's inputs."""
