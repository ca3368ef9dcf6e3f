"""Delete predictions that retention no longer keeps: as a command, and as a scheduled flow."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from prefect import flow, get_run_logger

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.target.retention import Removable, Retention
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.config.resources import NOTHING_YET, open_ledger
from nightshift.flows.config.settings import load_settings
from nightshift.flows.orchestrator.states import Skipped, convert_errors


def clean_job(ledger: Ledger, job: Job, dry_run: bool = False) -> Iterable[Removable]:
    """Delete the predictions of the job's old runs, yielding each run; or only list them."""
    retention = Retention(ledger, job.keep)
    if dry_run:
        return retention.removable(job.name)
    return retention.clean(job.name, job.target.table, job.source.key)


@contextmanager
def _ledger() -> Iterator[Ledger]:
    """Raises Skipped if nothing was ever scored, which is not a failure."""
    settings = load_settings()
    with ExitStack() as stack:
        try:
            ledger = stack.enter_context(open_ledger(settings))
        except ConfigurationError as error:
            if error.place != NOTHING_YET:
                raise
            raise Skipped(str(error)) from error
        yield ledger


@flow(name="clean")
@convert_errors
def clean(dry_run: bool = False) -> int:
    """Delete the predictions of old runs that readers do not see, of all jobs.

    Args:
        dry_run: Only log what would be deleted.
    """
    log, rows = get_run_logger(), 0
    with _ledger() as ledger:
        for name in job_names():
            try:
                job = load_job(name)
            except ConfigurationError as error:  # other jobs' old runs still go
                log.warning("Skipped: %s", error)
                continue
            for old in clean_job(ledger, job, dry_run):
                rows += old.rows
                what = "Would delete" if dry_run else "Deleted"
                log.info("%s run %s of %s %s", what, old.run_id, job.name, old.partition)
    return rows
