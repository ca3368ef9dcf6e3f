"""What became of a run, in the words that its report begins with. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from nightshift.adapters.history.run_details import RunDetails
from nightshift.adapters.history.run_history import RunRecord
from nightshift.adapters.ledger.publications import PUBLISH, RELEASE, REPLAY
from nightshift.adapters.ledger.runs import RunState
from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.checks.results import Audit

Tone = Literal["good", "warn", "bad", "idle"]


@dataclass(frozen=True)
class Verdict:
    """The head of a report."""

    word: str
    """`Published`, `Quarantined`, ..."""
    tone: Tone
    reason: str
    """Why it is not published, or what to look at; may be empty."""
    readers: str
    """What readers of the predictions see now."""
    commands: tuple[str, ...] = ()
    """What a person may do about it."""


def verdict(found: RunDetails, audit: Audit | None) -> Verdict:
    """Of a run in any state; `audit` is None if none was made."""
    run = found.run
    if run.state == RunState.PUBLISHED:
        return _published(found, audit)
    if run.state == RunState.SUPERSEDED:
        return Verdict("Superseded", "idle", _warned(audit), f"Readers see {_shown(found)} now.")
    if run.state == RunState.QUARANTINED:
        reason = run.error or (audit and audit.reason) or "The audit failed."
        return Verdict("Quarantined", "bad", reason, _unchanged(found), _commands(found))
    if run.state == RunState.FAILED:
        reason = run.error or "It stopped."
        return Verdict("Failed", "bad", reason, _unchanged(found), _commands(found))
    word = "Scored, not published" if run.state == RunState.SCORED else "Running"
    return Verdict(word, "idle", f"{run.rows:,} rows are written so far.", _unchanged(found))


def moment(instant: datetime | None) -> str:
    """In UTC, to the second."""
    return "" if instant is None else f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def model_of(run: RunRecord) -> str:
    return ModelRef(run.model_name, run.model_version)


def _published(found: RunDetails, audit: Audit | None) -> Verdict:
    run, before = found.run, found.before
    last = next((change for change in found.changes if change.action != REPLAY), None)
    moved = last is not None and last.action != PUBLISH
    if last is not None and moved:
        word = "Released" if last.action == RELEASE else "Rolled back to"
        reason = f"By {last.changed_by}: {last.reason or 'no reason was given'}"
        if audit is not None and audit.reason:
            reason += f". It had been quarantined: {audit.reason}"
    else:
        word, reason = "Published", _warned(audit)
    part = " in a part of its range" if any(s.run_id != run.run_id for s in found.shown) else ""
    since = moment(last.changed_at if last else run.published_at)
    readers = f"Readers see its {run.rows:,} rows{part} since {since}."
    if before is not None and before.partition == run.partition and not moved:
        readers += f" Before: {before.rows:,} rows of run {before.run_id} ({model_of(before)})."
    return Verdict(word, "warn" if reason else "good", reason, readers)


def _warned(audit: Audit | None) -> str:
    if audit is None or not audit.warnings:
        return ""
    more = len(audit.warnings) - 1
    return audit.warnings[0].text + (f" (and {more} more)" if more else "")


def _unchanged(found: RunDetails) -> str:
    if not found.shown:
        return "Readers see nothing of this partition yet."
    return f"Readers go on seeing {_shown(found)}."


def _shown(found: RunDetails) -> str:
    if not found.shown:
        return "nothing of this partition"
    first, more = found.shown[0], len({shown.run_id for shown in found.shown}) - 1
    text = f"run {first.run_id} ({first.model}), published {moment(first.published_at)}"
    return f"{text}, and {more} more" if more else text


def _commands(found: RunDetails) -> tuple[str, ...]:
    run = found.run
    again = f"nightshift run {run.job} --partition {run.partition}"
    newer = any(shown.run_id > run.run_id for shown in found.shown)
    if run.state == RunState.FAILED or newer or found.cleaned:
        return (again,)
    release = f'nightshift runs release {run.run_id} --reason "..."'
    if run.rejected:
        return (f"nightshift rejects {run.job} --run {run.run_id} --replay", release)
    return (release, again)
