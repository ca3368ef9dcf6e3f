"""Runs: list, release, rollback; report and evaluate."""

import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson, JobName, OfPartition, OptionalJob

if TYPE_CHECKING:
    from nightshift.adapters.ledger.ledger import Ledger

Reason = Annotated[str, typer.Option(help="Why, in a sentence; kept with who and when.")]

runs = terminal.list_group(
    """List the latest runs; release a quarantined one, or roll a partition back to an earlier one.

    Example: `nightshift runs flight_delays --limit 5`
    """
)


@runs.command("list")
def list_runs(
    job: OptionalJob = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest runs: what was scored with which model, and how it ended.

    A run begins once its model is loaded and its tables are found. What failed before that is
    listed below, from the Prefect server of `nightshift up` or PREFECT_API_URL, if there is one.

    Example: `nightshift runs list flight_delays --limit 5`
    """
    from nightshift.adapters.database.engine import open_engine
    from nightshift.adapters.history.run_history import History
    from nightshift.adapters.ledger.ledger import Ledger
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.settings import load_settings

    settings = load_settings()
    engine = open_engine(settings.target_url())
    try:
        ledger = Ledger(engine, settings.database.schema_)
        # More than are shown: an older run may have taken in a failed attempt.
        records = History(ledger).runs(job, max(limit, 1000)) if ledger.exists() else []
    finally:
        engine.dispose()
    ids = {record.flow_run_id for record in records if record.flow_run_id}
    records = records[:limit]
    if as_json:
        terminal.print_json([asdict(record) for record in records])
        return
    if job is not None and not records:
        load_job(job)  # raises the error that lists the jobs, if there is no such job
    zones = terminal.zones_of(record.job for record in records)
    columns: dict[str, list[Any]] = {
        "run": [record.run_id for record in records],
        "job": [record.job for record in records],
        "partition": [record.partition for record in records],
        "model": [ModelRef(record.model_name, record.model_version) for record in records],
        "role": [record.role for record in records],
        "state": [record.state for record in records],
        "rows": [record.rows for record in records],
        "rejected": [record.rejected for record in records],
        "started": [terminal.format_time(r.started_at, zones[r.job]) for r in records],
        "seconds": [_seconds(record.started_at, record.scored_at) for record in records],
        "error": [record.error for record in records],
    }
    if not any(columns["rejected"]):
        del columns["rejected"]
    if len(set(columns["role"])) < 2:
        del columns["role"]
    rows = list(zip(*columns.values(), strict=True))
    terminal.print_table(list(columns), rows, "No runs yet. `nightshift run JOB` makes one.")
    _say_failed_attempts(settings.state_dir, job, limit, ids)


@runs.command()
def release(
    run: Annotated[int, typer.Argument(help="The number of the quarantined run.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Publish a run that the audit has quarantined.

    Example: `nightshift runs release 12 --reason "the new price list is right"`
    """
    from nightshift.adapters.history.run_history import History
    from nightshift.adapters.ledger.pointer import Pointer
    from nightshift.flows.cli.notify import announce_shown
    from nightshift.flows.config.resources import current_user, open_ledger
    from nightshift.flows.config.settings import load_settings

    _require_reason(reason)
    settings = load_settings()
    with open_ledger(settings) as ledger:
        changed = Pointer(ledger).release(run, current_user(), reason)
        _say_change(changed, f"Released run {run}", as_json)
        announce_shown(settings, History(ledger), run)


@runs.command()
def rollback(
    job: JobName,
    partition: Annotated[
        str,
        typer.Argument(
            help="A day like 2013-10-01, or `all`.", autocompletion=terminal.complete_partition
        ),
    ],
    reason: Reason,
    to: Annotated[
        int | None, typer.Option(help="The run to go back to; else the one before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show readers the predictions of an earlier run again, at once; nothing is scored.

    Example: `nightshift runs rollback flight_delays 2013-10-01 --reason "too high"`
    """
    from nightshift.adapters.history.run_history import History
    from nightshift.adapters.ledger.pointer import Pointer
    from nightshift.flows.cli.notify import announce_shown
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import current_user, open_ledger
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.planning.scheduled_runs import find_partition

    _require_reason(reason)
    wanted = find_partition(load_job(job), partition)
    settings = load_settings()
    with open_ledger(settings) as ledger:
        changed = Pointer(ledger).rollback(
            job, wanted.label, wanted.start, wanted.end, current_user(), reason, to
        )
        _say_change(changed, f"Rolled {job} {wanted.label} back to run {changed.run_id}", as_json)
        announce_shown(settings, History(ledger), changed.run_id, wanted.label)


def evaluate(job: JobName, partition: OfPartition = None, as_json: AsJson = False) -> None:
    """Compare predictions with what happened, for each model version and partition.

    The job names a table or view with one row for each key: `actuals: {table: flights, column:
    arr_delay}`. Of each version, its newest published run and its newest run as a challenger count.

    For numbers: mean absolute error (mae), root mean square error (rmse), and the mean of
    prediction - actual (bias). For classes: accuracy. Booleans, texts, and numbers for which the
    job's checks list `labels` or `shares` are classes; other whole numbers get both.

    Example: `nightshift evaluate flight_delays`
    """
    import sqlalchemy as sa

    from nightshift.adapters.errors import ConfigurationError
    from nightshift.adapters.history.evaluation import evaluate_predictions
    from nightshift.adapters.history.run_history import History
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings

    settings, spec = load_settings(), load_job(job)
    if spec.actuals is None:
        remedy = "Add `actuals: {table: ..., column: ...}`."
        raise ConfigurationError(f"job {job!r}", "actuals", "it is not set", remedy)
    table = sa.table(spec.actuals.table, schema=spec.actuals.schema_)
    with open_ledger(settings) as ledger:
        found = evaluate_predictions(
            History(ledger),
            job,
            spec.target.table,
            spec.source.key,
            table,
            spec.actuals.column,
            spec.actuals.output,
            lambda output: bool(spec.checks.find_listed([output])),
        )
    if partition is not None:
        found = [outcome for outcome in found if outcome.partition == partition]
    if as_json:
        terminal.print_json([asdict(outcome) for outcome in found])
        return
    measures = [
        measure
        for measure in ("mae", "rmse", "bias", "accuracy")
        if any(getattr(outcome, measure) is not None for outcome in found)
    ]
    terminal.print_table(
        ["partition", "model", "role", "run", "state", "rows", *measures],
        [
            [o.partition, o.model, o.role, o.run_id, o.state, o.rows]
            + [getattr(o, measure) for measure in measures]
            for o in found
        ],
        empty="No prediction has an outcome yet.",
    )


def _require_reason(reason: str) -> None:
    from nightshift.adapters.errors import ConfigurationError

    if not reason.strip():
        remedy = 'Give one in a sentence: --reason "..."; it is kept with who and when.'
        raise ConfigurationError("--reason", "", "it is empty", remedy)


def _say_change(changed: Any, text: str, as_json: bool) -> None:
    if as_json:
        terminal.print_json(asdict(changed))
        return
    at = terminal.format_time(
        changed.changed_at, terminal.zones_of([changed.job])[changed.job], True
    )
    terminal.say(f"{text}: readers see {ModelRef(changed.model_name, changed.model_version)}")
    terminal.say(f"  recorded as {changed.changed_by}, {at}")


def _seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else (end - start).total_seconds()


def _say_failed_attempts(state_dir: Path, job: str | None, limit: int, known: set[str]) -> None:
    """What failed before its run began, if there is a Prefect server to ask."""
    from nightshift.flows.orchestrator.server import accepts_events

    if not accepts_events(state_dir):
        return
    from nightshift.flows.orchestrator.failed_runs import failed_attempts

    attempts = failed_attempts(job, limit, known)
    if attempts:
        zones = terminal.zones_of(attempt.job for attempt in attempts)
        terminal.say("\nFailed before the run began:")
        terminal.print_table(
            ["job", "flow run", "state", "started", "error"],
            [
                [
                    attempt.job,
                    attempt.name,
                    attempt.state.lower(),
                    terminal.format_time(attempt.started_at, zones[attempt.job]),
                    attempt.reason,
                ]
                for attempt in attempts
            ],
            empty="",
        )


def report(
    run: Annotated[
        str,
        typer.Argument(
            help="The run's number, or a job's name for its newest run.",
            autocompletion=terminal.complete_job,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write; `-` prints it. Default: in the state folder."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write a run's report as one HTML file: verdict, checks, distributions, drift, rejects.

    Works for runs in any state, however old: it is made from the ledger.

    Example: `nightshift report flight_delays --open`
    """
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.report.facts import load_facts
    from nightshift.flows.report.files import render_report, save_report

    settings = load_settings()
    with open_ledger(settings) as ledger:
        facts = load_facts(ledger, settings, _number(ledger, run))
    page = render_report(facts, settings)
    if output == Path("-"):
        sys.stdout.write(page)
        return
    if output is None:
        path = save_report(page, settings, facts.details.run.run_id)
    else:
        path = output.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    found, verdict = facts.details.run, facts.verdict
    head = f"Run {found.run_id}, {found.job} {found.partition}"
    terminal.say(f"{head}: {verdict.word}. {verdict.reason}".strip())
    if facts.audit is not None and facts.audit.not_judged:
        count = len(facts.audit.not_judged)
        terminal.say(f"{count} checks could not be judged; the report says why.")
    terminal.say(str(path))
    if open_:
        typer.launch(path.as_uri())


def _number(ledger: "Ledger", run: str) -> int:
    """The run of that number, or the newest of that job."""
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.adapters.history.run_details import newest_run
    from nightshift.flows.config.job import load_job

    if run.isdecimal():
        return int(run)
    found = newest_run(ledger, run)
    if found is None:
        load_job(run)  # the error that lists the jobs, if this is none
        problem, remedy = f"job {run!r} has no run yet", f"`nightshift run {run}` makes one."
        raise ConfigurationError("report", "RUN", problem, remedy)
    return found
