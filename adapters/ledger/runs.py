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
    """Digest of all that decides a run's rows; only a run with the same one is resumed."""
    role: str = CHAMPION
    """A challenger's runs are scored beside the champion's and never published."""
    flow_run_id: str | None = None
    unless_published_since: datetime | None = None
    """Do not begin if, since then, the same model version was published for the partition, or a run
    with the same fingerprint was quarantined."""
    unless_changed: bool = False
    """And neither if readers have seen anything new of the partition since then, of any model."""


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
    """Rows that got no prediction so far."""
    profile: str | None = None
    """What was entered with the last chunk: the profile of its rows so far."""
    shard: int = 0

    @property
    def resumed(self) -> bool:
        return self.chunks > 0

    @property
    def seen(self) -> int:
        """Source rows that it is done with."""
        return self.rows + self.rejected


@dataclass(frozen=True)
class RejectedRow:
    """A row that got no prediction, as the ledger keeps it."""

    key: str
    """Its key as the ledger's JSON."""
    kind: str
    error: str
    inputs: str
    """What the model was given, as JSON."""
