"""`nightshift ...`: the command line. Exit codes: 0 done, 1 failed, 2 wrong input, 75 try later."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from nightshift.adapters.errors import (
    ConfigurationError,
    NightshiftError,
    PredictionFailed,
    TransientError,
)
from nightshift.flows.cli import deploy, doctor, keys, models, register, report, terminal
from nightshift.flows.cli import runs as run_commands
from nightshift.flows.cli.terminal import AsJson

app = typer.Typer(
    help="Score database tables with machine-learning models, exactly once.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # locals may hold secrets
    add_completion=False,
)

register.add_to(app)
models.add_to(app)
keys.add_to(app)
deploy.add_to(app)
doctor.add_to(app)
run_commands.add_to(app)
report.add_to(app)

EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_TRY_LATER = 1, 2, 75  # 75: EX_TEMPFAIL of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

JobName = Annotated[str, typer.Argument(help="The job: the name of its file in config/jobs.")]
ModelOption = Annotated[
    str | None,
    typer.Option(help="A model in place of the job's: `name`, `name@alias` or `name@7`."),
]


def main() -> None:
    """The entry point: errors of ours become one line and an exit code."""
    try:
        app()
    except NightshiftError as error:
        terminal.errors.print(f"[bold red]Error:[/] {terminal.escaped(str(error))}")
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        terminal.errors.print(
            "Stopped. What is committed is kept; the same command goes on from it."
        )
        sys.exit(EXIT_INTERRUPTED)


def _exit_code(error: NightshiftError) -> int:
    if isinstance(error, TransientError):
        return EXIT_TRY_LATER
    return EXIT_WRONG_INPUT if isinstance(error, ConfigurationError) else EXIT_FAILED


@app.command()
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

    settings, spec = load_settings(), load_job(job)
    cell = spec.partition_of(partition)
    with prefect_api(settings.state_dir) as ready:
        from nightshift.flows.cli.retries import announcing_retries
        from nightshift.flows.report.artifacts import listening
        from nightshift.flows.score import score

        ready()
        title = f"{job} {cell.label}"
        retries = announcing_retries(terminal.say_aside)
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


@app.command()
def predict(
    job: JobName,
    row: Annotated[str, typer.Option(help="The model's inputs as JSON; null for a missing one.")],
    model: ModelOption = None,
    as_json: AsJson = False,
) -> None:
    """Predict one row with a job's model, through its `predict`; nothing is written.

    Example: `nightshift predict flight_delays --row '{"dep_delay": 12, "carrier": "UA", ...}'`
    """
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings

    store = open_store(load_settings())
    manifest = store.resolve(model or load_job(job).model)
    try:
        values = json.loads(row)
    except json.JSONDecodeError as error:
        remedy = """Write it like --row '{"distance": 1400, "carrier": "UA"}'."""
        raise ConfigurationError("--row", "", f"it is not JSON ({error})", remedy) from error
    if not isinstance(values, dict):
        remedy = "Write the inputs' names and values in braces."
        raise ConfigurationError("--row", "", "it is not a JSON object", remedy)
    signature = manifest.signature
    unknown = sorted(values.keys() - set(signature.input_names))
    if unknown:
        names = ", ".join(map(repr, unknown))
        terminal.errors.print(terminal.escaped(f"Ignored, no inputs of the model: {names}"))
    features = signature.features(signature.row(values))
    opened = store.load(manifest)
    try:
        prediction = opened.predict(features)
    except Exception as error:  # whatever a model may raise
        problem = f"{type(error).__name__}: {error}"
        raise PredictionFailed(manifest.reference, "the row", problem) from error
    predicted = signature.predictions([prediction], 1).to_pylist()[0]
    if as_json:
        terminal.print_json(predicted)
        return
    for name, value in predicted.items():
        terminal.console.print(f"{terminal.escaped(name)}: [bold]{terminal.escaped(str(value))}[/]")
    terminal.console.print(f"  by {manifest.name}@{manifest.version}")


@app.command()
def runs(
    job: Annotated[str | None, typer.Argument(help="Only this job's runs.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest runs: what was scored with what, and how it ended.

    A run begins when its model is loaded and its tables are found. What failed before that is
    listed below them if a Prefect server is known: that of `nightshift up`, or PREFECT_API_URL.

    Example: `nightshift runs flight_delays --limit 5`
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
        # More than are shown: an attempt is no run of its own if an older one has taken it in.
        records = History(ledger).runs(job, max(limit, 1000)) if ledger.exists() else []
    finally:
        engine.dispose()
    ids = {record.flow_run_id for record in records if record.flow_run_id}
    records = records[:limit]
    if as_json:
        terminal.print_json([asdict(record) for record in records])
        return
    if job is not None and not records:
        load_job(job)  # the error that lists the jobs, if this is none
    columns: dict[str, list[Any]] = {
        "run": [record.run_id for record in records],
        "job": [record.job for record in records],
        "partition": [record.partition for record in records],
        "model": [f"{record.model_name}@{record.model_version}" for record in records],
        "role": [record.role for record in records],
        "state": [record.state for record in records],
        "rows": [record.rows for record in records],
        "rejected": [record.rejected for record in records],
        "started (UTC)": [f"{record.started_at:%Y-%m-%d %H:%M}" for record in records],
        "seconds": [_seconds(record.started_at, record.scored_at) for record in records],
        "error": [record.error for record in records],
    }
    if not any(columns["rejected"]):
        del columns["rejected"]
    if len(set(columns["role"])) < 2:
        del columns["role"]
    rows = list(zip(*columns.values(), strict=True))
    terminal.print_table(list(columns), rows, "No runs yet. `nightshift run JOB` makes one.")
    _tell_attempts(settings.state_dir, job, limit, ids)


def _seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else (end - start).total_seconds()


def _tell_attempts(state_dir: Path, job: str | None, limit: int, runs: set[str]) -> None:
    """What failed before there was a run, if there is a Prefect server to ask."""
    from nightshift.flows.orchestrator.server import tells_events

    if not tells_events(state_dir):
        return
    from nightshift.flows.orchestrator.failed_runs import failed_attempts

    attempts = failed_attempts(job, limit, runs)
    if attempts:
        terminal.say("\nFailed before there was a run:")
        terminal.print_table(
            ["job", "flow run", "state", "started (UTC)", "error"],
            [
                [
                    attempt.job,
                    attempt.name,
                    attempt.state.lower(),
                    f"{attempt.started_at:%Y-%m-%d %H:%M}" if attempt.started_at else None,
                    attempt.reason,
                ]
                for attempt in attempts
            ],
            empty="",
        )


@app.command()
def up(
    port: Annotated[int, typer.Option(help="The port of the Prefect server and its UI.")] = 4200,
) -> None:
    """Start the local services and keep them running until Ctrl-C.

    The embedded database, if the settings use it, a Prefect server with its UI, and the process
    that runs the jobs' nights, backfills and triggers. Other nightshift commands in this project
    use them while they run.

    Example: `nightshift up`
    """
    import signal

    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import announced, prefect_api, running_api

    settings = load_settings()
    running = running_api(settings.state_dir)
    if running is not None:
        terminal.console.print(f"It is running already: {running.removesuffix('/api')}")
        return
    for ending in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores INT
        signal.signal(ending, signal.default_int_handler)
    try:
        with prefect_api(settings.state_dir, port) as ready:
            target = settings.target_url()
            shown = target.set(drivername=target.get_backend_name())
            database = (shown if shown.password else shown.set(password=None)).render_as_string()
            url = ready()
            with announced(settings.state_dir, url):
                from nightshift.flows.operations.serving import serve_jobs

                ui = url.removesuffix("/api")
                terminal.console.print(f"Prefect UI  {ui}")
                terminal.console.print(f"Backfill    {ui}/deployments, then Run > Custom run")
                terminal.console.print(f"Database    {database}")
                terminal.console.print("Press Ctrl-C to stop.")
                serve_jobs(4, terminal.say)
    except KeyboardInterrupt:
        pass
    terminal.console.print("\nStopped.")


@app.command()
def demo() -> None:
    """Score 336,776 real flights with a model trained here, and show what came of it.

    It makes, in the database of the settings (PostgreSQL, or `embedded`), the table `flights`, the
    predictions and the ledger of runs; in the model store the model `arrival_delay`; and a key to
    sign it with, where `trust.sign_key` says. A table `flights` of your own is left alone.

    Example: `nightshift demo`
    """
    from nightshift.flows.cli.demo import main as play

    play()


@contextmanager
def _quiet(quiet: bool, title: str) -> Iterator[Callable[[int, int], None]]:
    if quiet:
        yield lambda _done, _total: None
        return
    with terminal.progress_bar(title) as listener:
        yield listener
