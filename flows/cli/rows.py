"""Single rows: preview, predict, explain, rejects."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift.adapters.errors import ConfigurationError, PredictionFailed
from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson, JobName, ModelOption, PartitionOption

if TYPE_CHECKING:
    from nightshift.adapters.store.manifest import Manifest
    from nightshift.flows.config.job import Job
    from nightshift.flows.config.settings import Settings

Key = Annotated[
    list[str] | None,
    typer.Option(help="The row's key; of several columns: `a,b`, or once for each, in order."),
]


def preview(
    job: JobName,
    partition: PartitionOption = None,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="How many, in key order.")] = 5,
    model: ModelOption = None,
    as_json: AsJson = False,
) -> None:
    """Predict a few rows of a job and show them with their inputs; nothing is written.

    Example: `nightshift preview flight_delays --rows 3`
    """
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.planning.scheduled_runs import find_partition
    from nightshift.flows.scoring.preview import preview as preview_rows

    spec = load_job(job)
    wanted = find_partition(spec, partition)
    found = preview_rows(load_settings(), spec, wanted, model or spec.model, rows)
    if as_json:
        terminal.print_json([asdict(row) for row in found.rows])
        return
    signature, key = found.manifest.signature, spec.source.key
    inputs = [name for name in signature.input_names if name not in key]
    outputs = signature.output_names
    errors = ["error"] if any(row.error for row in found.rows) else []
    terminal.print_table(
        [*key, *inputs, *(f"-> {name}" for name in outputs), *errors],
        [
            [
                *map(_as_read, row.key.values()),
                *(_as_read(row.inputs[name]) for name in inputs),
                *(_as_read(row.prediction and row.prediction[name]) for name in outputs),
                *(row.error for _ in errors),
            ]
            for row in found.rows
        ],
        empty=f"{job} {wanted.label} has no rows in the source.",
    )
    terminal.say(f"\n{job} {wanted.label} with {found.manifest.reference}; nothing is written")


def _as_read(value: Any) -> str | None:
    """A value without the rounding and the separators of a table of counts."""
    if value is None:
        return None
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def predict(
    job: JobName,
    key: Key = None,
    row: Annotated[
        str | None, typer.Option(help="In place of --key: the inputs as JSON; null if missing.")
    ] = None,
    model: ModelOption = None,
    as_json: AsJson = False,
) -> None:
    """Predict one row with a job's model: of the source, or as given; nothing is written.

    Example: `nightshift predict flight_delays --key 42`, or
    `nightshift predict flight_delays --row '{"dep_delay": 12, "carrier": "UA", ...}'`
    """
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.settings import load_settings

    if (not key) == (row is None):
        raise ConfigurationError("predict", "", "it takes --key or --row", "Give one of the two.")
    settings, spec = load_settings(), load_job(job)
    reference = model or spec.model
    if row is None:
        texts = _split_key(spec.source.key, key or [])
        manifest, predicted = _predict_key(settings, spec, reference, texts)
    else:
        manifest, predicted = _predict_inputs(settings, reference, row)
    if as_json:
        terminal.print_json(predicted)
        return
    for name, value in predicted.items():
        terminal.say(f"{name}: {value}")
    terminal.say(f"  by {manifest.reference}")


def _predict_key(
    settings: "Settings", job: "Job", reference: str, key: list[str]
) -> tuple["Manifest", dict[str, Any]]:
    """The row of the source with this key. Raises ConfigurationError if there is none."""
    from nightshift.flows.planning.scheduled_runs import find_partition
    from nightshift.flows.scoring.preview import preview as preview_rows

    found = preview_rows(settings, job, find_partition(job, "all"), reference, key=key)
    if not found.rows:
        problem = f"{job.source_spec()} has no row with the key {', '.join(key)}"
        raise ConfigurationError("--key", "", problem, "Correct it.")
    (row,) = found.rows
    if row.prediction is None:
        problem = row.error or "it has no prediction"
        raise PredictionFailed(found.manifest.reference, "the row", problem)
    return found.manifest, row.prediction


def _predict_inputs(
    settings: "Settings", reference: str, row: str
) -> tuple["Manifest", dict[str, Any]]:
    """The inputs that the JSON text gives, through the model's `predict`."""
    from nightshift.flows.config.resources import open_store

    store = open_store(settings)
    manifest = store.resolve(reference)
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
        terminal.say_warning(f"the model has no inputs {names}; ignored")
    features = signature.features(signature.row(values))
    model = store.load(manifest)
    try:
        prediction = model.predict(features)
    except Exception as error:  # a model may raise anything
        problem = f"{type(error).__name__}: {error}"
        raise PredictionFailed(manifest.reference, "the row", problem) from error
    predicted: dict[str, Any] = signature.predictions([prediction], 1).to_pylist()[0]
    return manifest, predicted


def _split_key(columns: Sequence[str], key: list[str]) -> list[str]:
    """One text for each key column, from `--key a,b` or `--key a --key b`."""
    texts = key[0].split(",") if len(key) == 1 and len(columns) > 1 else key
    if len(texts) != len(columns):
        problem = f"{len(texts)} values were given"
        remedy = f"Give {len(columns)}, in this order: {', '.join(columns)}."
        raise ConfigurationError("--key", "", problem, remedy)
    return texts


def explain(
    job: JobName,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say where a row's prediction came from: run, model and flow run.

    Example: `nightshift explain flight_delays --key 123`
    """
    from nightshift.adapters.history.lineage import trace_row
    from nightshift.adapters.history.run_history import History
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings

    spec = load_job(job)
    columns = spec.source.key
    texts = _split_key(columns, key or [])
    with open_ledger(load_settings()) as ledger:
        found = trace_row(History(ledger), job, spec.target.table, columns, texts)
    if as_json:
        terminal.print_json([asdict(line) for line in found])
        return
    if not found:
        terminal.say(f"No run of {job} has a row with the key {', '.join(texts)}.")
        raise typer.Exit(1)
    for line in found:
        run, seen = line.run, "readers see it" if line.visible else "readers do not see it"
        role = "" if run.role == "champion" else f", {run.role}"
        terminal.say(f"run {run.run_id}, {run.partition}, {run.state}{role}: {seen}")
        lines: dict[str, Any] = {
            **(line.values or {"no prediction": line.error}),
            "model": ModelRef(run.model_name, run.model_version),
            "scored": terminal.format_time(run.scored_at, spec.zone, seconds=True),
            "flow run": run.flow_run_id,
            "inputs": line.inputs or "not kept; inputs are kept only of rejected rows",
        }
        for name, value in lines.items():
            if value is not None:
                terminal.say(f"  {name}: {value}")


def rejects(
    job: JobName,
    run: Annotated[int | None, typer.Option(help="The run; else the job's newest.")] = None,
    again: Annotated[
        bool, typer.Option("--replay", help="Score only these rows again and merge them in.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the rows that got no prediction, and why; or score only those again.

    `--replay` scores the rows as they are in the source now, with the run's model version. Those
    that get a prediction are merged into the run, up to 200 in a transaction, unless they would
    make a check of the predictions fail (`between`, `labels`, `missing`, ...).

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
        if run is None:  # a challenger's run, which begins later, has no rejects
            champions = (line for line in history.runs(job) if line.role == CHAMPION)
            newest = next(champions, None)
        else:
            newest = history.run(run)
        if newest is None or newest.job != job:
            raise RunUnknown(run or 0)
        found = history.rejects(newest.run_id, limit)
    if again:
        with open_resources(settings, spec) as resources:
            done = replay(settings, resources, newest.run_id)
            if done.merged and newest.state == RunState.PUBLISHED:
                announce_shown(settings, History(resources.ledger), newest.run_id)
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
        rows = f"{newest.rejected:,} rows of run {newest.run_id}, {newest.partition}"
        terminal.say(f"\n{rows}, have no prediction")


def _say_replayed(done: Any, quarantined: bool) -> None:
    terminal.console.print(f"Merged [bold]{done.merged:,} rows[/] into run {done.run_id}")
    if done.gone:
        terminal.say(f"  {done.gone:,} are no longer in the source")
    for key, error in done.errors[:20]:
        terminal.say(f"  still no prediction for {key}: {error}")
    if done.failed > 20:
        terminal.say(f"  and {done.failed - 20:,} more")
    if quarantined and not done.failed:
        release = f'`nightshift runs release {done.run_id} --reason "..."`'
        terminal.say(f"  The run is quarantined; {release} publishes it")
