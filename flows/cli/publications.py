"""What readers see, and saw: history, clean."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson, JobName, OfPartition, OptionalJob


def history(job: JobName, partition: OfPartition = None, as_json: AsJson = False) -> None:
    """List which run readers saw when, who changed it, and why.

    Example: `nightshift history flight_delays --partition 2013-10-01`
    """
    from nightshift.adapters.ledger.pointer import Pointer
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.planning.scheduled_runs import find_partition

    spec = load_job(job)
    start = end = None
    if partition is not None:
        wanted = find_partition(spec, partition)
        start, end = wanted.start, wanted.end
    with open_ledger(load_settings()) as ledger:
        changes = Pointer(ledger).changes(job, start, end)
    if as_json:
        terminal.print_json([asdict(change) for change in changes])
        return
    terminal.print_table(
        ["since", "from", "to", "run", "model", "by", "what", "why"],
        [
            [
                terminal.format_time(change.changed_at, spec.zone, seconds=True),
                _day(change.range_start, spec.zone),
                _day(change.range_end, spec.zone),
                change.run_id,
                ModelRef(change.model_name, change.model_version),
                change.changed_by,
                change.action,
                change.reason,
            ]
            for change in changes
        ],
        empty="Nothing has been published there yet.",
    )


def clean(
    job: OptionalJob = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the predictions of old runs that readers do not see.

    The job's `keep` says how many of a partition's newest runs stay, as well as what readers see.

    Example: `nightshift clean flight_delays --dry-run`
    """
    from nightshift.flows.clean import clean_job
    from nightshift.flows.config.job import job_names, load_job
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings

    rows: list[dict[str, Any]] = []
    with open_ledger(load_settings()) as ledger:
        for spec in map(load_job, [job] if job else job_names()):
            found = clean_job(ledger, spec, dry_run)
            rows += [{"job": spec.name, **asdict(old)} for old in found]
    if as_json:
        terminal.print_json(rows)
        return
    terminal.print_table(
        ["job", "run", "partition", "role", "state", "rows"],
        [[r["job"], r["run_id"], r["partition"], r["role"], r["state"], r["rows"]] for r in rows],
        empty="Nothing to delete.",
    )
    if rows:
        verb = "would be deleted" if dry_run else "deleted"
        terminal.console.print(f"\n{sum(row['rows'] for row in rows):,} predictions {verb}")


def _day(instant: datetime, zone: Any) -> str:
    """An end of a range as a person reads it; empty where the range is open."""
    from nightshift.adapters.database.times import BEGINNING, END

    if instant in (BEGINNING, END):
        return ""
    return f"{instant.astimezone(zone):%Y-%m-%d %H:%M}".removesuffix(" 00:00")
