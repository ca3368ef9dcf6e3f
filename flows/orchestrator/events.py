"""The events that Nightshift sends to Prefect's event feed; docs/events.md describes them.

An event's name says what happened, its resource has the labels to match, its payload the values
that a triggered flow can take as parameters.
"""

from prefect.events import emit_event

from nightshift.adapters.store.model_store import Manifest
from nightshift.flows.scoring.run import ScoreResult

MODEL_PROMOTED = "nightshift.model.promoted"
PARTITION_PUBLISHED = "nightshift.partition.published"
RUN_QUARANTINED = "nightshift.run.quarantined"


def emit_published(result: ScoreResult) -> None:
    """Readers see new predictions of this partition."""
    emit_event(PARTITION_PUBLISHED, resource=_resource(result), payload=_payload(result))


def emit_quarantined(result: ScoreResult, reason: str, project: str) -> None:
    """A run failed its audit: readers do not see it, and a person should look at it."""
    emit_event(
        RUN_QUARANTINED,
        resource={**_resource(result), "nightshift.project": project},
        payload={**_payload(result), "reason": reason},
    )


def _resource(result: ScoreResult) -> dict[str, str]:
    return {
        "prefect.resource.id": f"nightshift.partition.{result.job}.{result.partition}",
        "prefect.resource.name": f"{result.job} {result.partition}",
        "nightshift.job": result.job,
        "nightshift.partition": result.partition,
        "nightshift.target": result.target,
    }


def _payload(result: ScoreResult) -> dict[str, str | int]:
    return {
        "job": result.job,
        "partition": result.partition,
        "model": result.model,
        "target": result.target,
        "run_id": result.run_id,
        "rows": result.written,
        "rejected": result.rejected,
        "verdict": result.verdict,
        "not_judged": result.not_judged,
    }


def emit_promoted(manifest: Manifest, alias: str) -> None:
    """An alias now names this version."""
    emit_event(
        MODEL_PROMOTED,
        resource={
            "prefect.resource.id": f"nightshift.model.{manifest.name}",
            "prefect.resource.name": manifest.name,
            "nightshift.model": manifest.name,
            "nightshift.alias": alias,
        },
        payload={
            "model": manifest.name,
            "alias": alias,
            "version": manifest.version,
            "reference": manifest.reference,
        },
    )
