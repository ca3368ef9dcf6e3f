"""Scoring partitions: run, backfill."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, date, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nightshift.adapters.errors import ConfigurationError, NightshiftError, TransientError
from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson, JobName, ModelOption, PartitionOption

if TYPE_CHECKING:
    from nightshift.flows.config.job import Job
    from nightshift.flows.config.settings import Settings
    from nightshift.flows.scoring.run import ScoreResult

Reprocess = Literal["missing", "failed", "stale_model", "all"]
Order = Literal["oldest_first", "newest_first"]
Leakage = Annotated[bool, typer.Option(help="Score rows that the model was trained on, too.")]


def run(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            help="One or more jobs: the names of their files in config/jobs.",
            autocompletion=terminal.complete_job,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every job of the project.")] = False,
    partition: PartitionOption = None,
    model: ModelOption = None,
    allow_leakage: Leakage = False,
    as_json: AsJson = False,
) -> None:
    """Score one partition of a job's table and publish the predictions.

    After a failure, the same command continues after the last committed chunk. Several jobs run
    one after the other: one that fails does not stop the others, and the exit code is then 1.

    Example: `nightshift run flight_delays --partition 2013-10-02`
    """
    from nightshift.flows.config.job import job_names, load_job
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api
    from nightshift.flows.planning.scheduled_runs import find_partition

    if bool(jobs) == every:
        raise ConfigurationError("run", "", "it takes jobs or --all", "Give one of the two.")
    settings, names = load_settings(), list(dict.fromkeys(jobs or job_names()))
    alone = len(names) == 1 and not every
    labels, results, failures = {}, {}, {}

    def attempt(name: str, step: Callable[[str], None]) -> None:
        try:
            step(name)
        except NightshiftError as error:
            if alone:
                raise
            failures[name] = str(error)
            terminal.say_error(f"{name}: {error}")

    def check(name: str) -> None:
        job = load_job(name)
        labels[name] = find_partition(job, partition).label
        _require_runnable(settings, job, model)

    def score_job(name: str) -> None:
        results[name] = _score(name, labels[name], model, allow_leakage, as_json)

    for name in names:
        attempt(name, check)
    checked = [name for name in names if name not in failures]
    if checked:
        with prefect_api(settings.state_dir) as ready:
            import_module("nightshift.flows.score")  # takes seconds; the server starts in that time
            ready()
            for name in checked:
                attempt(name, score_job)
    if as_json:
        found = [_as_json(name, results.get(name), failures.get(name)) for name in names]
        terminal.print_json(found[0] if alone else found)
    elif not alone:
        terminal.print_table(
            ["job", "partition", "outcome", "run", "rows"],
            [_summary(name, labels.get(name), results.get(name)) for name in names],
            empty="No jobs. `nightshift init` makes one.",
        )
    if failures:
        raise typer.Exit(1)


def _require_runnable(settings: "Settings", job: "Job", model: str | None) -> None:
    """Raise what the run would end with anyway, before a Prefect server is started for it."""
    from nightshift.flows.config.resources import open_resources, open_store

    with suppress(TransientError):  # the run tries again
        manifest = open_store(settings).resolve(model or job.model)
        with open_resources(settings, job) as resources:
            resources.source.check(manifest.signature)
            resources.predictions(manifest.signature).check()


def _score(
    job: str, partition: str, model: str | None, allow_leakage: bool, quiet: bool
) -> "ScoreResult":
    from nightshift.flows.score import score_with

    retries = terminal.announcing_retries(terminal.say_aside)
    with _progress(quiet, f"{job} {partition}") as listener, retries:
        result = score_with(listener)(job, partition, model, allow_leakage)
    if quiet:
        return result
    if not result.rows:
        terminal.say_warning(f"{job} {result.partition} has no rows in the source.")
    terminal.console.print(
        f"Published [bold]{result.written:,} rows[/] in {result.target}: "
        f"run {result.run_id}, {result.model}, {result.seconds:.1f} s, "
        f"{result.rows_per_second:,.0f} rows/s"
    )
    for remark in result.remarks:
        terminal.say_warning(remark)
    if result.not_judged:
        count = f"{result.not_judged} check{'s' * (result.not_judged > 1)}"
        report = f"`nightshift report {result.run_id}`"
        terminal.say(f"  {count} could not judge this run; {report} says why")
    if result.resumed_rows:
        terminal.say(f"  {result.resumed_rows:,} of them were written before it resumed")
    terminal.say(f"  {result.sql}")
    return result


def _as_json(job: str, result: "ScoreResult | None", failure: str | None) -> dict[str, Any]:
    if result is None:
        return {"job": job, "error": failure}
    return asdict(result) | {"rows_per_second": result.rows_per_second}


def _summary(job: str, partition: str | None, result: "ScoreResult | None") -> list[Any]:
    if result is None:
        return [job, partition, "failed", None, None]
    return [job, partition, "published", result.run_id, result.written]


def backfill(
    job: JobName,
    start: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="The first day to score."),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            "--to", formats=["%Y-%m-%d"], help="The last day, included; else the last that ended."
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="In place of --from: the last partitions that ended."),
    ] = None,
    reprocess: Annotated[
        Reprocess,
        typer.Option(
            help="missing: what is not published yet; failed: what failed when last tried; "
            "stale_model: what another model version published; all: everything."
        ),
    ] = "missing",
    model: ModelOption = None,
    order: Annotated[Order, typer.Option(help="Which partitions come first.")] = "oldest_first",
    max_parallel: Annotated[
        int | None, typer.Option(min=1, max=16, help="How many at a time; else as the job says.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    allow_leakage: Leakage = False,
    as_json: AsJson = False,
) -> None:
    """Score a range of partitions, each published when it is done.

    Killed and started again within a day, it continues its own plan. A partition that fails does
    not stop the others; `--reprocess failed` then scores only those.

    Example: `nightshift backfill flight_delays --from 2013-10-01 --to 2013-12-31 --dry-run`
    """
    from nightshift.adapters.errors import BackfillFailed
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api

    settings, spec = load_settings(), load_job(job)
    first, final = _days(spec, start and start.date(), end and end.date(), last)
    _require_runnable(settings, spec, model)
    failed = None
    with prefect_api(settings.state_dir) as ready:
        from nightshift.flows.backfill import backfill_with
        from nightshift.flows.report.backfill import Watched

        ready()
        seen = Watched()
        bar = _progress(as_json or dry_run, f"{job} {first} to {final}")
        retries = terminal.announcing_retries(terminal.say_aside)
        with bar as listener, retries:
            try:
                backfill_with(listener, seen)(
                    job,
                    first,
                    final,
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
            count = f"{len(failed.failures)} of {failed.partitions} partitions failed."
            remedy = "The same command with `--reprocess failed` scores only these."
            terminal.say_error(f"{count} {remedy}")
        raise typer.Exit(1)


def _days(job: "Job", start: date | None, end: date | None, last: int | None) -> tuple[date, date]:
    """The first and the last day of the range. Raises ConfigurationError."""
    from nightshift.flows.planning.partitions import find_latest_partition, shift_partition

    if (start is None) == (last is None) or (last is not None and end is not None):
        remedy = "Write `--from 2013-10-01`, `--from 2013-10-01 --to 2013-12-31` or `--last 7`."
        raise ConfigurationError("backfill", "", "it takes --from or --last", remedy)
    by, zone = job.partition_by, job.zone
    if last is not None and by == "hour":
        problem, remedy = "the job is partitioned by hour", "Name whole days by --from and --to."
        raise ConfigurationError("backfill", "--last", problem, remedy)
    ended = find_latest_partition(datetime.now(UTC), by, zone)

    def first_day(partition: Any) -> date:
        return (partition.start or datetime.now(UTC)).astimezone(zone).date()

    if start is None:
        return first_day(shift_partition(ended, 1 - (last or 1), by, zone)), first_day(ended)
    if end is None:
        end = max(start, first_day(ended)) if by == "all" else first_day(ended)
    if end < start:
        problem = f"{end} is before the start, {start}"
        raise ConfigurationError("backfill", "--to", problem, "Both days are included.")
    return start, end


def _show(model: str, steps: Any, dry_run: bool, as_json: bool) -> None:
    if as_json:
        names = ("partition", "state", "reason", "rows", "seconds")
        lines = [{name: getattr(step, name) for name in names} for step in steps]
        terminal.print_json({"model": model, "dry_run": dry_run, "partitions": lines})
        return
    from nightshift.adapters.ledger.backfills import StepState
    from nightshift.flows.text import list_full_texts, shorten_reason

    columns = ["partition", "state", "rows", "seconds", "why"]
    table = [
        [
            step.partition,
            step.state,
            step.rows
            if step.rows is None or step.state == StepState.PUBLISHED
            else terminal.About(step.rows),
            step.seconds,
            shorten_reason(step.reason),
        ]
        for step in steps
    ]
    if dry_run:  # nothing has taken time
        columns.remove("seconds")
        table = [[*line[:3], line[4]] for line in table]
    terminal.print_table(columns, table, empty="No partitions.")
    for text in list_full_texts((step.partition, step.reason) for step in steps):
        terminal.say(f"\n{text}")
    if dry_run:
        due = [step for step in steps if step.state == StepState.WAITING]
        rows = sum(step.rows or 0 for step in due)
        total = f"{len(due)} of {len(steps)} would be scored, about {rows:,} rows"
    else:
        counts = Counter(step.state for step in steps)
        total = ", ".join(f"{count} {state}" for state, count in counts.items())
    terminal.say(f"\n{total}, with {model}")


@contextmanager
def _progress(quiet: bool, title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what is called with rows done and rows in all."""
    if quiet:
        yield lambda _done, _total: None
        return
    with terminal.progress_bar(title) as listener:
        yield listener
