"""What is to be scored, and how far it has come."""

from dataclasses import dataclass
from datetime import datetime

RUNNING, SCORED, FAILED = "running", "scored", "failed"
REJECTED = "rejected"
"""By the audit: its rows are kept, and readers do not see them."""
CHAMPION, CHALLENGER = "champion", "challenger"


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
    unless_done_since: datetime | None = None
    """Do not begin if this was done since: the same model version was published for the partition,
    or the audit has rejected the very same."""
    unless_moved: bool = False
    """And neither if readers have seen anything new of the partition since then, of any model."""


@dataclass(frozen=True)
class Run:
    """A run that this process owns, or one shard of it, and how far it has come."""

    run_id: int
    owner: str
    state: str
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
