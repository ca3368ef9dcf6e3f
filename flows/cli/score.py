"""Scoring partitions: run, backfill."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

import typer

from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson, JobName, ModelOption

Reprocess = Literal["missing", "failed", "stale_model", "all"]
Order = Literal["oldest_first", "newest_first"]


def run(
    job: JobName,
    partition: Annotated[
        str | None,
        typer.Option(help="A day like 2013-10-01, or `all`; left out, the last that has ended."),
    ] = None,
    model: ModelOption = None,
    allow_leakage: Annotated[
        bool, typer.Option(help="Score rows that the model was trained on, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score one partition of a job's table and publish the predictions.

    Run again after a failure, it goes on after the last committed chunk.

    Example: `nightshift run flight_delays --partition 2013-10-02`
    """
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api
    from nightshift.flows.planning.scheduled_runs import find_partition

    settings, spec = load_settings(), load_job(job)
    cell = find_partition(spec, partition)
    with prefect_api(settings.state_dir) as ready:
        from nightshift.flows.report.artifacts import listening
        from nightshift.flows.score import score

        ready()
        title = f"{job} {cell.label}"
        retries = terminal.announcing_retries(terminal.say_aside)
        with _quiet(as_json, title) as listener, listening(listener), retries:
            result = score(job, cell.label, model, allow_leakage)
    if as_json:
        terminal.print_json(asdict(result) | {"rows_per_second": result.rows_per_second})
        return
    if not result.rows:
        terminal.errors.print(f"[yellow]{job} {result.partition} has no rows in the source.[/]")
    terminal.console.print(
        f"Published [bold]{result.written:,} rows[/] in {result.target}: "
        f"run {result.run_id}, {result.model}, {result.seconds:.1f} s, "
        f"{result.rows_per_second:,.0f} rows/s"
    )
    for remark in result.remarks:
        terminal.errors.print(f"[yellow]Warning:[/] {terminal.escaped(remark)}")
    if result.resumed_rows:
        terminal.console.print(f"  {result.resumed_rows:,} of them were written before it resumed")
    terminal.console.print(f"  {terminal.escaped(result.sql)}")


def backfill(
    job: JobName,
    start: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day to score.")
    ],
    end: Annotated[
        datetime,
        typer.Option("--to", formats=["%Y-%m-%d"], help="The last day to score, included."),
    ],
    reprocess: Annotated[
        Reprocess,
        typer.Option(
            help="missing: what is not published yet; failed: what failed when last tried; "
            "stale_model: what another model version published; all: everything."
        ),
    ] = "missing",
    model: Annotated[
        str | None,
        typer.Option(help="A model in place of the job's: `name`, `name@alias` or `name@7`."),
    ] = None,
    order: Annotated[Order, typer.Option(help="Which partitions come first.")] = "oldest_first",
    max_parallel: Annotated[
        int | None, typer.Option(min=1, max=16, help="How many at a time; else as the job says.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    allow_leakage: Annotated[
        bool, typer.Option(help="Score rows that the model was trained on, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score a range of partitions, each published when it is done.

    Killed and started again within a day, it goes on with its own plan. A partition that fails does
    not stop the others; with `--reprocess failed` it does only those.

    Example: `nightshift backfill flight_delays --from 2013-10-01 --to 2013-12-31 --dry-run`
    """
    from nightshift.adapters.errors import BackfillFailed
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api

    settings, spec = load_settings(), load_job(job)
    with prefect_api(settings.state_dir) as ready:
        from nightshift.flows.backfill import backfill as run
        from nightshift.flows.report.artifacts import listening
        from nightshift.flows.report.backfill import watching

        ready()
        failed = None
        title = f"{job} {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        quiet = as_json or dry_run
        bar = nullcontext(None) if quiet else terminal.progress_bar(title)
        retries = terminal.announcing_retries(terminal.say_aside)
        with bar as listener, listening(listener), retries, watching() as seen:
            try:
                run(
                    job,
                    start.date(),
                    end.date(),
                    reprocess,
                    model,
                    order,
                    max_parallel or spec.max_parallel,
                    dry_run,
                    allow_leakage,
                )
            except BackfillFailed as error:
                failed = error
    _show(seen.model, seen.steps, dry_run, as_json)
    if failed is not None:
        if not as_json:
            told = f"{len(failed.failures)} of {failed.partitions} partitions failed."
            remedy = "The same command with `--reprocess failed` does only these."
            terminal.errors.print(f"[bold red]Error:[/] {told} {remedy}")
        raise typer.Exit(1)


def _show(model: str, steps: Any, dry_run: bool, as_json: bool) -> None:
    if as_json:
        names = ("partition", "state", "reason", "rows", "seconds")
        lines = [{name: getattr(step, name) for name in names} for step in steps]
        terminal.print_json({"model": model, "dry_run": dry_run, "partitions": lines})
        return
    from nightshift.adapters.ledger.backfills import DONE, WAITING
    from nightshift.flows.text import cut, in_full

    columns = ["partition", "state", "rows", "seconds", "why"]
    table = [
        [
            step.partition,
            step.state,
            step.rows if step.rows is None or step.state == DONE else terminal.About(step.rows),
            step.seconds,
            cut(step.reason),
        ]
        for step in steps
    ]
    if dry_run:  # nothing took any time
        columns.remove("seconds")
        table = [[*line[:3], line[4]] for line in table]
    terminal.print_table(columns, table, empty="No partitions.")
    for text in in_full((step.partition, step.reason) for step in steps):
        terminal.say(f"\n{text}")
    if dry_run:
        due = [step for step in steps if step.state == WAITING]
        rows = sum(step.rows or 0 for step in due)
        told = f"{len(due)} of {len(steps)} would be scored, about {rows:,} rows"
    else:
        counts = Counter(step.state for step in steps)
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
    terminal.say(f"\n{told}, with {model}")


@contextmanager
def _quiet(quiet: bool, title: str) -> Iterator[Callable[[int, int], None]]:
    if quiet:
        yield lambda _done, _total: None
        return
    with terminal.progress_bar(title) as listener:
        yield listener
