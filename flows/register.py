"""What a version must have shown as a challenger before an alias may name it."""

from nightshift.adapters.errors import AgreementTooLow, ConfigurationError
from nightshift.adapters.history.comparisons import ComparedRun, newest_comparison
from nightshift.adapters.store.model_store import Manifest
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.config.resources import NOTHING_YET, open_ledger, uses_alias
from nightshift.flows.config.settings import Settings
from nightshift.flows.scoring.challenger.comparison import Comparison


def require_agreement(settings: Settings, manifest: Manifest, alias: str) -> None:
    """Raises AgreementTooLow for the first job that uses the alias and asks for more agreement
    than the version had in its last run as that job's challenger; also if there was no such run.
    """
    for name in job_names():
        try:
            job = load_job(name)
        except ConfigurationError:
            continue  # it could not run with any version, and says so itself
        if not uses_alias(job, manifest.name, alias) or job.challenger is None:
            continue
        level = job.challenger.agreement
        if level is None:
            continue
        agreement, run_id, problem = _shown(_compared(settings, job, manifest))
        if problem is None and agreement is not None and agreement < level:
            problem = f"in run {run_id} it did in {_percent(agreement)}"
        if problem is not None:
            raise AgreementTooLow(
                manifest.reference, alias, name, level, agreement, run_id, problem
            )


def _compared(settings: Settings, job: Job, manifest: Manifest) -> ComparedRun | None:
    try:
        with open_ledger(settings) as ledger:
            return newest_comparison(ledger, job.name, manifest.name, manifest.version)
    except ConfigurationError as error:
        if error.place == NOTHING_YET:
            return None
        raise


def _shown(run: ComparedRun | None) -> tuple[float | None, int | None, str | None]:
    """Agreement and run; and why that is not good enough, whatever the level."""
    if run is None:
        return None, None, "no run has compared the two yet"
    found = Comparison.from_json(run.comparison)
    failure = found.failure or run.error
    if failure is not None:
        problem = f"in run {run.run_id} it was switched off ({' '.join(failure.split())})"
        return found.agreement, run.run_id, problem
    if found.agreement is None:
        return None, run.run_id, f"run {run.run_id} had no row to compare"
    return found.agreement, run.run_id, None


def _percent(share: float) -> str:
    """Never rounded up to what it is not."""
    return f"{int(share * 10_000) / 100:g} %"
