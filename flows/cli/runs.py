"""The commands of a run's afterlife: release, history, explain, evaluate, clean."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson

JobName = Annotated[str, typer.Argument(help="The job: the name of its file in config/jobs.")]
Reason = Annotated[str, typer.Option(help="Why, in a sentence; it is kept with who and when.")]
PartitionOption = Annotated[
    str | None, typer.Option(help="A day like 2013-10-01, or `all`; left out, every one.")
]


def add_to(app: typer.Typer) -> None:
    """Make these commands of `nightshift`."""
    for command in (release, history, explain, rejects, evaluate, clean):
        app.command()(command)


def release(
    run: Annotated[int, typer.Argument(help="The quarantined run, by its number.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Publish a run that the audit has quarantined, after all.

    Example: `nightshift release 12 --reason "the new price list is right"`
    """
    from nightshift.adapters.history.run_history import History
    from nightshift.adapters.ledger.pointer import Pointer
    from nightshift.flows.cli.notify import announce_shown
    from nightshift.flows.config.resources import open_ledger, person
    from nightshift.flows.config.settings import load_settings

    settings = load_settings()
    with open_ledger(settings) as ledger:
        moved = Pointer(ledger).release(run, person(), reason)
        _say_moved(moved, f"Released run {run}", as_json)
        announce_shown(settings, History(ledger), run)


def roll_back(job: str, partition: str, to: int | None, reason: str | None, as_json: bool) -> None:
    """Show an earlier run's predictions of a partition again."""
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.adapters.history.run_history import History
    from nightshift.adapters.ledger.pointer import Pointer
    from nightshift.flows.cli.notify import announce_shown
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_ledger, person
    from nightshift.flows.config.settings import load_settings

    if not reason:
        remedy = 'Say it in a sentence: --reason "..."; it is kept with who and when.'
        raise ConfigurationError("rollback", "--reason", "a rollback needs a reason", remedy)
    cell = load_job(job).partition_of(partition)
    settings = load_settings()
    with open_ledger(settings) as ledger:
        moved = Pointer(ledger).rollback(
            job, cell.label, cell.start, cell.end, person(), reason, to
        )
        _say_moved(moved, f"Rolled {job} {cell.label} back to run {moved.run_id}", as_json)
        announce_shown(settings, History(ledger), moved.run_id, cell.label)


def history(job: JobName, partition: PartitionOption = None, as_json: AsJson = False) -> None:
    """Tell which run readers saw when, who moved them there, and why.

    Example: `nightshift history flight_delays --partition 2013-10-01`
    """
    from nightshift.adapters.ledger.pointer import Pointer
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings

    spec = load_job(job)
    start = end = None
    if partition is not None:
        cell = spec.partition_of(partition)
        start, end = cell.start, cell.end
    with open_ledger(load_settings()) as ledger:
        moves = Pointer(ledger).moves(job, start, end)
    if as_json:
        terminal.print_json([asdict(move) for move in moves])
        return
    terminal.print_table(
        ["since (UTC)", "from", "to", "run", "model", "by", "what", "why"],
        [
            [
                f"{move.moved_at:%Y-%m-%d %H:%M:%S}",
                _day(move.range_start, spec.zone),
                _day(move.range_end, spec.zone),
                move.run_id,
                f"{move.model_name}@{move.model_version}",
                move.moved_by,
                move.action,
                move.reason,
            ]
            for move in moves
        ],
        empty="Nothing was published there yet.",
    )


def explain(
    job: JobName,
    key: Annotated[
        list[str], typer.Option(help="The row's key; once for each of its columns, in order.")
    ],
    as_json: AsJson = False,
) -> None:
    """Tell where a row's prediction came from: run, model, chunk and flow run.

    Example: `nightshift explain flight_delays --key 123`
    """
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.adapters.history.lineage import origins
    from nightshift.adapters.history.run_history import History
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings

    spec = load_job(job)
    columns = spec.source.key
    if len(key) != len(columns):
        remedy = f"Give {len(columns)}, in this order: {', '.join(columns)}."
        raise ConfigurationError("explain", "--key", f"{len(key)} values were given", remedy)
    with open_ledger(load_settings()) as ledger:
        found = origins(History(ledger), job, spec.target.table, columns, key)
    if as_json:
        terminal.print_json([asdict(origin) for origin in found])
        return
    if not found:
        terminal.console.print(f"No run of {job} has a row with the key {', '.join(key)}.")
        raise typer.Exit(1)
    for origin in found:
        run, seen = origin.run, "readers see it" if origin.visible else "readers do not see it"
        head = f"run {run.run_id}, {run.partition}, {run.state}"
        if run.role != "champion":
            head += f", {run.role}"
        terminal.console.print(f"[bold]{terminal.escaped(head)}[/]: {seen}")
        lines: dict[str, Any] = {
            **(origin.values or {"no prediction": origin.error}),
            "model": f"{run.model_name}@{run.model_version}",
            "chunk": origin.chunk,
            "committed (UTC)": origin.committed_at and f"{origin.committed_at:%Y-%m-%d %H:%M:%S}",
            "flow run": run.flow_run_id,
            "inputs": origin.inputs or "not kept; a row's inputs are kept only if it is rejected",
        }
        for name, value in lines.items():
            if value is not None:
                terminal.console.print(terminal.escaped(f"  {name}: {value}"))


def rejects(
    job: JobName,
    run: Annotated[int | None, typer.Option(help="The run; else the job's newest.")] = None,
    again: Annotated[
        bool, typer.Option("--replay", help="Score only these rows again, and merge them in.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the rows that got no prediction, and why; or score only those again.

    Replayed, rows are scored as they are in the source now, with the run's model version; those
    that have a prediction now are merged into the run, up to 200 of them in a transaction. A row
    by which a check of the predictions would fail (`between`, `labels`, `missing`, ...) stays out.

    Example: `nightshift rejects flight_delays --replay`
    """
    from nightshift.adapters.errors import RunUnknown
    from nightshift.adapters.history.run_history import History
    from nightshift.adapters.ledger.runs import CHAMPION, RunState
    from nightshift.flows.cli.notify import announce_shown
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_ledger, open_resources
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.replay import replay

    settings, spec = load_settings(), load_job(job)
    with open_ledger(settings) as ledger:
        history = History(ledger)
        if run is None:  # a challenger's run, which is begun later, has no rejects
            champions = (line for line in history.runs(job) if line.role == CHAMPION)
            newest = next(champions, None)
        else:
            newest = history.run(run)
        if newest is None or newest.job != job:
            raise RunUnknown(run or 0)
        found = history.rejects(newest.run_id, limit)
    if again:
        with open_resources(settings, spec) as desk:
            done = replay(settings, desk, newest.run_id)
            if done.merged and newest.state == RunState.PUBLISHED:
                announce_shown(settings, History(desk.ledger), newest.run_id)
        if as_json:
            terminal.print_json(asdict(done))
        else:
            _say_replayed(done, newest.state == RunState.QUARANTINED)
        if done.failed:
            raise typer.Exit(1)
        return
    if as_json:
        terminal.print_json([asdict(reject) for reject in found])
        return
    terminal.print_table(
        ["key", "kind", "error", "inputs"],
        [[reject.key, reject.kind, reject.error, reject.inputs] for reject in found],
        empty=f"Run {newest.run_id} has a prediction for every row.",
    )
    if found:
        told = f"{newest.rejected:,} rows of run {newest.run_id}, {newest.partition}"
        terminal.console.print(f"\n{told}, have no prediction")


def _say_replayed(done: Any, quarantined: bool) -> None:
    terminal.console.print(f"Merged [bold]{done.merged:,} rows[/] into run {done.run_id}")
    if done.gone:
        terminal.console.print(f"  {done.gone:,} are no longer in the source")
    for key, error in done.errors[:20]:
        terminal.console.print(terminal.escaped(f"  still none for {key}: {error}"))
    if done.failed > 20:
        terminal.console.print(f"  and {done.failed - 20:,} more")
    if quarantined and not done.failed:
        release_it = f'`nightshift release {done.run_id} --reason "..."` publishes it'
        terminal.console.print(f"  The run is quarantined; {release_it}")


def evaluate(job: JobName, partition: PartitionOption = None, as_json: AsJson = False) -> None:
    """Compare predictions with what happened, for each version and partition.

    The job says where that is: `actuals: {table: flights, column: arr_delay}`, a table or view
    with one row for each key. Of each version the newest run that readers saw counts, and the
    newest as a challenger.

    Numbers are told by their mean absolute error (mae), its root mean square (rmse) and the mean
    of prediction - actual (bias). Classes are told by their accuracy: booleans, texts, and numbers
    for which the job's checks list `labels` or `shares`. Other whole numbers are told by both.

    Example: `nightshift evaluate flight_delays`
    """
    import sqlalchemy as sa

    from nightshift.adapters.errors import ConfigurationError
    from nightshift.adapters.history.evaluation import outcomes
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
        found = outcomes(
            History(ledger),
            job,
            spec.target.table,
            spec.source.key,
            table,
            spec.actuals.column,
            spec.actuals.output,
            lambda output: bool(spec.checks.listed([output])),
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


def clean(
    job: Annotated[str | None, typer.Argument(help="Only this job's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the predictions of old runs that readers do not see.

    Kept are the runs that readers see and the newest of each partition: as many as the job's
    `keep` says.

    Example: `nightshift clean flight_delays --dry-run`
    """
    from nightshift.flows.clean import clean_job, removable
    from nightshift.flows.config.job import job_names, load_job
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings

    rows: list[dict[str, Any]] = []
    with open_ledger(load_settings()) as ledger:
        for spec in map(load_job, [job] if job else job_names()):
            found = removable(ledger, spec) if dry_run else clean_job(ledger, spec)
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


def _say_moved(moved: Any, text: str, as_json: bool) -> None:
    if as_json:
        terminal.print_json(asdict(moved))
        return
    terminal.console.print(f"{text}: readers see {moved.model_name}@{moved.model_version}")
    terminal.console.print(f"  entered as {moved.moved_by}, {moved.moved_at:%Y-%m-%d %H:%M:%S} UTC")


def _day(instant: datetime, zone: Any) -> str:
    """An end of a range as a person reads it; nothing for one that has no end."""
    from nightshift.adapters.database.times import BEGINNING, END

    if instant in (BEGINNING, END):
        return ""
    return f"{instant.astimezone(zone):%Y-%m-%d %H:%M}".removesuffix(" 00:00")
