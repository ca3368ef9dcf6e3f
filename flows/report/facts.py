"""Everything a report says about a run, collected once: html.py and markdown.py write it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nightshift.adapters.errors import NightshiftError
from nightshift.adapters.history.run_details import RunDetails, read_run_details
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.evidence import is_basis, merge_profiles
from nightshift.flows.checks.results import Audit
from nightshift.flows.config.resources import open_store
from nightshift.flows.config.settings import Settings
from nightshift.flows.report.challenger import ChallengerResult, summarize_challenger
from nightshift.flows.report.column_drift import ColumnDrift, measure_drift
from nightshift.flows.report.verdict import Verdict, decide_verdict, model_of
from nightshift.flows.scoring.challenger.comparison import Comparison
from nightshift.flows.scoring.timings import StageTimings

T = TypeVar("T")


@dataclass(frozen=True)
class ReportFacts:
    """What a report says about a run."""

    details: RunDetails
    audit: Audit | None
    verdict: Verdict
    inputs: Sequence[ColumnDrift]
    outputs: Sequence[ColumnDrift]
    challenger: ChallengerResult | None
    stages: StageTimings
    notes: Sequence[str]
    """What could not be read, and why."""


def load_facts(ledger: Ledger, settings: Settings, run_id: int) -> ReportFacts:
    """From the ledger and the model store. Raises RunUnknown."""
    details = read_run_details(ledger, run_id, is_basis)
    run = details.run
    try:
        store = open_store(settings)
        training = store.reference(store.manifest(run.model_name, run.model_version))
    except NightshiftError as error:  # the store may be elsewhere, or gone: the rest is still good
        note = f"Without the training sample of {model_of(run)}: {error}"
        return collect_facts(details, None, [note])
    return collect_facts(details, training)


def collect_facts(
    details: RunDetails,
    training: Profile | None,
    notes: Sequence[str] = (),
    columns: bool = True,
) -> ReportFacts:
    """Parse a run's documents; one that cannot be read is left out, and noted.

    `training` is the profile of the sample that its model was registered with. Without `columns`,
    nothing is said about single inputs and outputs, which takes most of the time.
    """
    notes = list(notes)

    def read(what: str, parse: Callable[[], T]) -> T | None:
        try:
            return parse()
        except ValueError as error:
            reason, *_ = str(error).splitlines()
            notes.append(f"The {what} cannot be read: {reason}")
            return None

    text, comparison = details.audit, details.comparison
    audit = None if text is None else read("audit", lambda: Audit.from_json(text))
    now = last = Profile()
    if columns:
        now = read("profile", lambda: merge_profiles(details.profiles)) or now
        earlier = details.earlier_profiles
        last = read("last run's profile", lambda: merge_profiles(earlier)) or last
    challenger = None
    if details.challenger is not None and comparison is not None:
        compared = read("comparison", lambda: Comparison.from_json(comparison))
        if compared is not None:
            challenger = summarize_challenger(details.challenger, compared)
    stages = StageTimings()
    for timings in details.timings:
        found = read("timings", lambda timings=timings: StageTimings.from_json(timings))  # type: ignore[misc]
        stages = stages.merged(found or StageTimings())
    known = training or Profile()
    return ReportFacts(
        details,
        audit,
        decide_verdict(details, audit),
        measure_drift(now.inputs, last.inputs, known.inputs, audit, "input"),
        measure_drift(now.outputs, last.outputs, known.outputs, audit, "prediction"),
        challenger,
        stages,
        notes,
    )
