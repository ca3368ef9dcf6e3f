"""What one run is asked for, and what it did."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from nightshift.adapters.errors import Leakage
from nightshift.adapters.ledger.runs import CHAMPION, RunRequest
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.context import RunContext
from nightshift.flows.scoring.stream import chunk_rows


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
    """Of these, read by an earlier attempt."""
    sql: str
    """A query that returns the predictions."""
    seconds: float
    """From the first read to the last commit of this attempt."""
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


def require_no_leakage(manifest: Manifest, partition: Partition, zone: ZoneInfo) -> None:
    """Raises Leakage if the model was trained on rows of the partition."""
    if leaks(manifest, partition.start, zone):
        raise Leakage(manifest.reference, str(manifest.trained_through), partition.label)


def leaks(manifest: Manifest, start: datetime | None, zone: ZoneInfo) -> bool:
    """Whether the model was trained on days of a partition that starts then. None: of any time."""
    through = manifest.trained_through
    return through is not None and (start is None or start.astimezone(zone).date() <= through)


def request_run(
    context: RunContext,
    partition: Partition,
    manifest: Manifest,
    role: str,
    flow_run_id: str | None,
) -> RunRequest:
    """What to ask the ledger for. The fingerprint covers everything that decides a run's rows."""
    resources, job = context.resources, context.resources.job
    names = [*job.source.key, *manifest.signature.input_names]
    decisive = {
        "model": manifest.blob.digest,
        "source": job.source.model_dump(mode="json"),
        "types": resources.source.types(names),
        "outputs": [column.model_dump(mode="json") for column in manifest.signature.outputs],
        "target": job.target.table,
        "partition": [partition.label, str(partition.start), str(partition.end)],
        "timezone": job.timezone,
        "chunk_rows": chunk_rows(job, manifest.signature),
        "shards": job.shards.count,
    }
    text = json.dumps(decisive, sort_keys=True)
    return RunRequest(
        job=job.name,
        target=job.target.table,
        partition=partition.label,
        start=partition.start,
        end=partition.end,
        model_name=manifest.name,
        model_version=manifest.version,
        model_digest=manifest.blob.digest,
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        role=role,
        flow_run_id=flow_run_id,
        unless_published_since=context.unless_published_since if role == CHAMPION else None,
        unless_changed=context.unless_changed,
    )
