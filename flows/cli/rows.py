"""Single rows: predict, explain, rejects."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from nightshift.adapters.errors import ConfigurationError, PredictionFailed
from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson, JobName, ModelOption


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
    terminal.console.print(f"  by {manifest.reference}")


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
    from nightshift.adapters.history.lineage import trace_row
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
        found = trace_row(History(ledger), job, spec.target.table, columns, key)
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
            "model": ModelRef(run.model_name, run.model_version),
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
        release_it = f'`nightshift runs release {done.run_id} --reason "..."` publishes it'
        terminal.console.print(f"  The run is quarantined; {release_it}")
