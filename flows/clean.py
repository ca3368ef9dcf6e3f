"""Deleting what nobody needs any more: as a command, and as a flow on a schedule."""

from collections.abc import Iterator

from prefect import flow, get_run_logger

from adapters.database.ledger import Ledger
from adapters.database.retention import Removable, Retention
from flows.desk import open_ledger
from flows.endings import told
from flows.job import Job, job_names, load_job
from flows.settings import load_settings


def removable(ledger: Ledger, job: Job) -> list[Removable]:
    """The runs whose predictions would go now."""
    return Retention(ledger, job.keep).removable(job.name)


def clean_job(ledger: Ledger, job: Job) -> Iterator[Removable]:
    """Delete them, a run at a time."""
    return Retention(ledger, job.keep).clean(job.name, job.target.table, job.source.key)


@flow(name="clean")
@told
def clean(dry_run: bool = False) -> int:
    """Delete the predictions of old runs that readers do not see, of all jobs.

    Args:
        dry_run: Only tell what would be deleted.
    """
    log, rows = get_run_logger(), 0
    with open_ledger(load_settings()) as ledger:
        for job in map(load_job, job_names()):
            for old in removable(ledger, job) if dry_run else clean_job(ledger, job):
                rows += old.rows
                what = "Would delete" if dry_run else "Deleted"
                log.info("%s run %s of %s %s", what, old.run_id, job.name, old.partition)
    return rows
