"""Deleting what nobody needs any more: as a command, and as a flow on a schedule."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect import flow, get_run_logger

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.target.retention import Removable, Retention
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.config.resources import NOTHING_YET, open_ledger
from nightshift.flows.config.settings import load_settings
from nightshift.flows.orchestrator.states import Skipped, told


def removable(ledger: Ledger, job: Job) -> list[Removable]:
    """The runs whose predictions would go now."""
    return Retention(ledger, job.keep).removable(job.name)


def clean_job(ledger: Ledger, job: Job) -> Iterator[Removable]:
    """Delete them, a run at a time."""
    return Retention(ledger, job.keep).clean(job.name, job.target.table, job.source.key)


@contextmanager
def _ledger() -> Iterator[Ledger]:
    """Raises Skipped if nothing was ever scored: that is no failure."""
    settings = load_settings()
    with ExitStack() as held:
        try:
            ledger = held.enter_context(open_ledger(settings))
        except ConfigurationError as error:
            if error.place != NOTHING_YET:
                raise
            raise Skipped(str(error)) from error
        yield ledger


@flow(name="clean")
@told
def clean(dry_run: bool = False) -> int:
    """Delete the predictions of old runs that readers do not see, of all jobs.

    Args:
        dry_run: Only tell what would be deleted.
    """
    log, rows = get_run_logger(), 0
    with _ledger() as ledger:
        for name in job_names():
            try:
                job = load_job(name)
            except ConfigurationError as error:  # no reason to keep what the others do not need
                log.warning("Left alone: %s", error)
                continue
            for old in removable(ledger, job) if dry_run else clean_job(ledger, job):
                rows += old.rows
                what = "Would delete" if dry_run else "Deleted"
                log.info("%s run %s of %s %s", what, old.run_id, job.name, old.partition)
    return rows
