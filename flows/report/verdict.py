"""What became of a run, in the words that its report begins with. Pure."""

from dataclasses import dataclass
from typing import Literal

from nightshift.adapters.history.run_details import RunDetails
from nightshift.adapters.history.run_history import RunRecord
from nightshift.adapters.ledger.publications import PUBLISH, RELEASE, REPLAY
from nightshift.adapters.ledger.runs import RunState
from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.checks.results import Audit
from nightshift.flows.text import format_time

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
    """What can be done about it."""


def decide_verdict(details: RunDetails, audit: Audit | None) -> Verdict:
    """Of a run in any state; `audit` is None if it did not come to its checks."""
    run = details.run
    match run.state:
        case RunState.PUBLISHED:
            return _describe_published(details, audit)
        case RunState.SUPERSEDED:
            readers = f"Readers see {_describe_visible(details)} now."
            return Verdict("Superseded", "idle", _first_warning(audit), readers)
        case RunState.QUARANTINED:
            word, reason = "Quarantined", run.error or (audit and audit.reason) or ""
            reason = reason or "The audit failed."
        case RunState.FAILED:
            word, reason = "Failed", run.error or "It stopped."
        case _:
            word = "Scored, not published" if run.state == RunState.SCORED else "Running"
            written = f"{run.rows:,} rows are written so far."
            return Verdict(word, "idle", written, _describe_unchanged(details))
    return Verdict(word, "bad", reason, _describe_unchanged(details), _list_commands(details))


def model_of(run: RunRecord) -> ModelRef:
    return ModelRef(run.model_name, run.model_version)


def _describe_published(details: RunDetails, audit: Audit | None) -> Verdict:
    run, before = details.run, details.before
    last = next((change for change in details.changes if change.action != REPLAY), None)
    moved = last is not None and last.action != PUBLISH
    if last is not None and moved:
        word = "Released" if last.action == RELEASE else "Rolled back to"
        reason = f"By {last.changed_by}: {last.reason or 'no reason was given'}"
        if audit is not None and audit.reason:
            reason += f". It had been quarantined: {audit.reason}"
    else:
        word, reason = "Published", _first_warning(audit)
    partly = any(shown.run_id != run.run_id for shown in details.shown)
    part = " in a part of its range" if partly else ""
    since = format_time(last.changed_at if last else run.published_at)
    readers = f"Readers have seen its {run.rows:,} rows{part} since {since}."
    if before is not None and before.partition == run.partition and not moved:
        readers += f" Before: {before.rows:,} rows of run {before.run_id} ({model_of(before)})."
    return Verdict(word, "warn" if reason else "good", reason, readers)


def _first_warning(audit: Audit | None) -> str:
    if audit is None or not audit.warnings:
        return ""
    more = len(audit.warnings) - 1
    return audit.warnings[0].text + (f" (and {more} more)" if more else "")


def _describe_unchanged(details: RunDetails) -> str:
    if not details.shown:
        return "Readers see nothing of this partition yet."
    return f"Readers still see {_describe_visible(details)}."


def _describe_visible(details: RunDetails) -> str:
    if not details.shown:
        return "nothing of this partition"
    first, more = details.shown[0], len({shown.run_id for shown in details.shown}) - 1
    text = f"run {first.run_id} ({first.model}), published {format_time(first.published_at)}"
    return f"{text}, and {more} more" if more else text


def _list_commands(details: RunDetails) -> tuple[str, ...]:
    run = details.run
    again = f"nightshift run {run.job} --partition {run.partition}"
    newer = any(shown.run_id > run.run_id for shown in details.shown)
    if run.state == RunState.FAILED or newer or details.cleaned:
        return (again,)
    release = f'nightshift runs release {run.run_id} --reason "..."'
    if run.rejected:
        return (f"nightshift rejects {run.job} --run {run.run_id} --replay", release)
    return (release, again)
