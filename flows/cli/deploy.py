"""The commands of nights and ranges: deploy, serve, backfill."""

from collections import Counter
from contextlib import nullcontext
from datetime import datetime
from typing import Annotated, Any, Literal

import typer

from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson

JobName = Annotated[str, typer.Argument(help="The job: the name of its file in config/jobs.")]
Reprocess = Literal["missing", "failed", "stale_model", "all"]
Order = Literal["oldest_first", "newest_first"]


def add_to(app: typer.Typer) -> None:
    """Make these commands of `nightshift`."""
    for command in (deploy, serve, backfill):
        app.command()(command)


def deploy(
    work_pool: Annotated[
        str | None,
        typer.Option(help="The work pool whose workers run the flows; else `nightshift serve`."),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove deployments whose job file is gone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register each job with Prefect: its schedule, its triggers, its forms in the UI.

    What has not changed is left alone, runs that are late stay, and so does what other projects
    have registered: a job whose name one of them has is refused. A job file that is wrong does not
    stand in the way of the others. `nightshift up` and `serve` do all this by themselves.

    Example: `nightshift deploy --work-pool kubernetes`
    """
    from dataclasses import asdict

    api = _required_api()
    from nightshift.flows.operations.deployments import check_work_pool, wanted_deployments
    from nightshift.flows.operations.deployments import deploy as bring_about

    if work_pool is not None:
        check_work_pool(work_pool)
    wanted = wanted_deployments(work_pool)
    outcomes = []
    for deployed in bring_about(wanted.deployments, remove):
        outcomes.append(deployed)
        if not as_json:
            terminal.console.print(f"{deployed.outcome:<10} {deployed.name}")
    if as_json:
        wrong = [{"name": name, "outcome": "wrong"} for name in wanted.wrong]
        terminal.print_json([*map(asdict, outcomes), *wrong])
    else:
        if any(outcome.outcome == "gone" for outcome in outcomes):
            terminal.console.print("`nightshift deploy --remove` removes what is gone.")
        if any(outcome.outcome == "unchanged" for outcome in outcomes):
            terminal.console.print("What else a job file says, each run reads as it starts.")
        where = f"workers of the pool {work_pool}" if work_pool else "`nightshift serve`"
        terminal.console.print(f"At {api.removesuffix('/api')}, run by {where}")
    for error in wanted.wrong.values():
        terminal.errors.print(f"[bold red]Error:[/] {terminal.escaped(str(error))}")
    if wanted.wrong:
        raise typer.Exit(2)


def serve(
    limit: Annotated[int, typer.Option(min=1, help="How many flow runs at once.")] = 4,
) -> None:
    """Register the jobs with Prefect and run what is scheduled, triggered or asked for.

    Until Ctrl-C. Job files that are added or changed meanwhile are taken in. Runs that fell due
    while nothing served are late, and each job's `catchup` decides about them.

    Example: `nightshift serve`
    """
    api = _required_api()
    from nightshift.flows.operations.serving import serve_jobs

    terminal.console.print(f"Prefect UI  {api.removesuffix('/api')}")
    terminal.console.print("Press Ctrl-C to stop.")
    serve_jobs(limit, terminal.say)
    terminal.console.print("\nStopped.")


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
        from nightshift.flows.cli.retries import announcing_retries
        from nightshift.flows.report.artifacts import listening
        from nightshift.flows.report.backfill import watching

        ready()
        failed = None
        title = f"{job} {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        quiet = as_json or dry_run
        bar = nullcontext(None) if quiet else terminal.progress_bar(title)
        retries = announcing_retries(terminal.say_aside)
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


def _required_api() -> str:
    """The Prefect API that others will use, too; a server for the time would be no use."""
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.access import require_access
    from nightshift.flows.orchestrator.server import known_api

    api = known_api(load_settings().state_dir)
    if api is None:
        remedy = "Start one with `nightshift up`, or name one in PREFECT_API_URL."
        raise ConfigurationError("Prefect", "", "there is no Prefect server", remedy)
    return require_access(api)
