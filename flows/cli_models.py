"""The commands of a model's life: publish, promote, rollback, models."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.errors import ConfigurationError, JobsBroken, LibraryNotInstalled
from flows import terminal
from flows.terminal import AsJson

Name = Annotated[str, typer.Argument(help="The model.")]
AliasOption = Annotated[str, typer.Option(help="The alias.")]
Force = Annotated[
    bool, typer.Option(help="Even if jobs that use the alias could not run, or ask for agreement.")
]

models = typer.Typer(help="What is in the model store.", invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    """Make these commands of `nightshift`."""
    for command in (publish, promote, rollback):
        app.command()(command)
    app.add_typer(models, name="models")


def publish(
    path: Annotated[
        str, typer.Argument(help="The saved model: .joblib, .ubj, .onnx, ..., or models:/name@a.")
    ],
    name: Annotated[str, typer.Option(help="The model's name in the store.")],
    sample: Annotated[
        Path,
        typer.Option(help="Inputs as a .parquet or .csv file, best the whole training frame."),
    ],
    adapter: Annotated[
        str | None, typer.Option(help="The adapter, where the file's ending does not tell it.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="A setting of the adapter: output=predict_proba.")
    ] = None,
    as_: Annotated[
        str | None, typer.Option("--as", help="Convert first: `onnx`, if it predicts the same.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric to keep with the version: mae=11.2.")
    ] = None,
    description: Annotated[str, typer.Option(help="A sentence about this version.")] = "",
    trained_through: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The last day of the training data."),
    ] = None,
    sign_key: Annotated[
        Path | None, typer.Option(help="A private key file in place of trust.sign_key.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option("--promote", help="Move this alias to the new version.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a trained model into the store, as its next version, signed with the local key.

    The signature is taken from the sample; some of its rows are kept, with their predictions,
    and replayed wherever the model is loaded.

    Example: `nightshift publish model.joblib --name churn --sample train.parquet --promote
    champion`
    """
    from adapters.registry import adapter_for_file
    from flows import desk
    from flows.settings import load_settings

    settings = load_settings()
    classes = settings.trust.classes
    model = adapter_for_file(path, adapter, _pairs("--setting", setting, _value), classes)
    metrics = _pairs("--metric", metric, float)
    frame = _read_sample(sample)
    if as_ is not None:
        model = _converted(as_, model, frame)
    through = None if trained_through is None else trained_through.date()
    manifest = desk.publish(
        name,
        model,
        frame,
        sign_key,
        metrics=metrics,
        description=description,
        trained_through=through,
    )
    if alias is not None:
        _promote(name, manifest.version, alias, force=False)
    if as_json:
        terminal.print_json(manifest.model_dump(mode="json"))
        return
    inputs, outputs = manifest.signature.input_names, manifest.signature.output_names
    terminal.console.print(f"Published [bold]{name}@{manifest.version}[/] ({manifest.adapter})")
    terminal.console.print(f"  reads   {', '.join(inputs)}\n  writes  {', '.join(outputs)}")
    terminal.console.print("  signed" if manifest.seal else "  not signed (trust.sign_key)")
    if alias is not None:
        terminal.console.print(f"  {name}@{alias} is now version {manifest.version}")


def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="The version that the alias shall name.")],
    alias: AliasOption = "champion",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Move an alias to a version; the next run uses it.

    Refused if a job that uses the alias could not run with the version; or if the job says
    `challenger: {model: churn@challenger, agreement: 0.95}`, and the version did not agree so
    much with the champion when it was last scored beside it.

    Example: `nightshift promote churn 7`
    """
    _say_moved(name, alias, _promote(name, version, alias, force), as_json)


def rollback(
    name: Annotated[str, typer.Argument(help="The model; with --partition, the job.")],
    alias: AliasOption = "champion",
    partition: Annotated[
        str | None, typer.Option(help="A job's partition, to show its earlier predictions again.")
    ] = None,
    to: Annotated[
        int | None, typer.Option(help="The run to go back to; else the one before.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; kept with who and when. Needed with --partition.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go back: a model's alias to the version before, or a job's partition to the run before.

    A model: the next run uses the version that the alias named before. A partition: readers see
    the predictions of an earlier run at once; nothing is scored.

    Example: `nightshift rollback churn`, or
    `nightshift rollback flight_delays --partition 2013-10-01 --reason "too high"`
    """
    from flows.cli_runs import roll_back
    from flows.desk import open_store
    from flows.settings import load_settings

    if partition is not None:
        roll_back(name, partition, to, reason, as_json)
        return
    settings = load_settings()
    store = open_store(settings)
    moved = store.rollback(name, alias)
    manifest = store.manifest(name, moved.version)
    _announce(settings, manifest, alias)
    _say_moved(name, alias, moved, as_json)
    store.load(manifest)  # too late to refuse, but not to say that no run can open it


@models.callback()
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models in the store: versions, aliases, adapters, metrics.

    Example: `nightshift models`
    """
    if context.invoked_subcommand is None:
        _list_models(as_json)


@models.command("list")
def list_them(as_json: AsJson = False) -> None:
    """The same: list the models in the store.

    Example: `nightshift models list`
    """
    _list_models(as_json)


def _list_models(as_json: bool) -> None:
    from flows.desk import open_store
    from flows.settings import load_settings

    store = open_store(load_settings())
    rows: list[dict[str, Any]] = []
    for name in store.models():
        aliases: dict[int, list[str]] = {}
        for alias, pointer in store.aliases(name).items():
            aliases.setdefault(pointer.version, []).append(alias)
        for version in reversed(store.versions(name)):
            manifest = store.manifest(name, version)
            rows.append(
                {
                    "model": name,
                    "version": version,
                    "aliases": sorted(aliases.get(version, [])),
                    "adapter": manifest.adapter,
                    "size": manifest.blob.size,
                    "published": f"{manifest.created_at:%Y-%m-%d %H:%M}",
                    "by": manifest.created_by,
                    "signed": manifest.seal is not None,
                    "metrics": manifest.metrics,
                }
            )
    if as_json:
        terminal.print_json(rows)
        return
    terminal.print_table(
        ["model", "version", "aliases", "adapter", "kB", "published (UTC)", "by", "metrics"],
        [
            [
                row["model"],
                row["version"],
                ", ".join(row["aliases"]),
                row["adapter"],
                -(-row["size"] // 1000),
                row["published"],
                row["by"],
                ", ".join(f"{key} {value:g}" for key, value in row["metrics"].items()),
            ]
            for row in rows
        ],
        empty="The model store is empty. `nightshift publish` adds to it.",
    )


@models.command()
def show(
    reference: Annotated[str, typer.Argument(help="`name`, `name@alias` or `name@7`.")],
    as_json: AsJson = False,
) -> None:
    """Show one version: its signature, libraries, metrics and where its aliases have been.

    Example: `nightshift models show churn@champion`
    """
    from flows.desk import open_store
    from flows.settings import load_settings

    store = open_store(load_settings())
    manifest = store.resolve(reference)
    aliases = store.aliases(manifest.name)
    if as_json:
        pointers = {name: alias.model_dump(mode="json") for name, alias in aliases.items()}
        terminal.print_json(manifest.model_dump(mode="json") | {"aliases": pointers})
        return
    say = terminal.console.print
    about = terminal.escaped(manifest.description)
    say(f"[bold]{manifest.reference}[/] ({manifest.adapter}) {about}")
    say(f"  published  {manifest.created_at:%Y-%m-%d %H:%M} UTC by {manifest.created_by}")
    say(f"  signed by  {manifest.seal.key if manifest.seal else 'nobody'}")
    say(f"  digest     {manifest.blob.digest}, {manifest.blob.size:,} bytes")
    say(f"  trained    through {manifest.trained_through or 'an unknown day'}")
    for metric, value in manifest.metrics.items():
        say(f"  {metric:<10} {value:g}")
    say(f"  libraries  {', '.join(f'{name} {v}' for name, v in manifest.libraries.items())}\n")
    columns = [("reads", c) for c in manifest.signature.inputs]
    columns += [("writes", c) for c in manifest.signature.outputs]
    terminal.print_table(
        ["", "column", "type", "missing values"],
        [[way, c.name, c.type, "yes" if c.nullable else "no"] for way, c in columns],
        empty="",
    )
    for name, alias in aliases.items():
        moves = ", ".join(
            f"{move.version} ({move.at:%Y-%m-%d %H:%M} by {move.by})" for move in alias.history
        )
        say(f"\n  {manifest.name}@{name} is version {alias.version}; it was, in turn, {moves}")


@models.command()
def diff(
    name: Name,
    older: Annotated[int, typer.Argument(help="A version.")],
    newer: Annotated[int, typer.Argument(help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Tell two versions apart: signature, libraries, predictions for the golden rows.

    Example: `nightshift models diff churn 6 7`
    """
    from dataclasses import asdict

    from flows.desk import open_store
    from flows.settings import load_settings

    difference = open_store(load_settings()).diff(name, older, newer)
    if as_json:
        terminal.print_json(asdict(difference))
    else:
        for line in difference.lines() or ["No difference."]:
            terminal.console.print(terminal.escaped(line))


def _promote(name: str, version: int, alias: str, force: bool) -> Any:
    from flows.desk import broken_jobs, open_store
    from flows.gate import require_agreement
    from flows.settings import load_settings

    settings = load_settings()
    store = open_store(settings)
    manifest = store.manifest(name, version)
    if not force:
        store.load(manifest)  # what no run could open shall not become what runs use
        broken = broken_jobs(settings, manifest, alias)
        if broken:
            raise JobsBroken(manifest.reference, alias, tuple(broken.items()))
        require_agreement(settings, manifest, alias)
    moved = store.promote(name, version, alias)
    _announce(settings, manifest, alias)
    return moved


def _announce(settings: Any, manifest: Any, alias: str) -> None:
    """Tell Prefect, so that jobs that wait for it run; say so if there is nobody to tell."""
    from flows.desk import any_job_waits
    from flows.server import send_the_rest, tells_events

    if not tells_events(settings.state_dir):
        if any_job_waits():
            terminal.errors.print("No Prefect server runs, so the jobs with `on:` are not told.")
        return
    from flows.events import emit_promoted

    emit_promoted(manifest, alias)
    send_the_rest()


def _say_moved(name: str, alias: str, moved: Any, as_json: bool) -> None:
    if as_json:
        terminal.print_json(moved.model_dump(mode="json"))
        return
    terminal.console.print(f"{name}@{alias} is now version {moved.version}: the next runs use it")
    terminal.console.print("  Readers see what was published before, until then.")


def _converted(kind: str, model: Any, sample: Any) -> Any:
    if kind != "onnx":
        remedy = "Only `--as onnx` is known."
        raise ConfigurationError("--as", "", f"{kind!r} is no format to convert to", remedy)
    try:
        from adapters.libraries.onnx_conversion import to_onnx
    except ModuleNotFoundError as error:
        raise LibraryNotInstalled("onnx", error.name or "onnx", "onnx") from error
    return to_onnx(model, sample)


def _read_sample(path: Path) -> Any:
    import pandas as pd

    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".parquet": pd.read_parquet,
        ".csv": pd.read_csv,
    }
    if path.suffix not in readers:
        problem = f"{path.name!r} is neither .parquet nor .csv"
        raise ConfigurationError("--sample", "", problem, "Save the sample as one of these.")
    if not path.is_file():
        raise ConfigurationError("--sample", "", f"there is no file {path}", "Correct the path.")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError) as error:
        remedy = "Save it with DataFrame.to_parquet."
        problem = f"{path} cannot be read ({error})"
        raise ConfigurationError("--sample", "", problem, remedy) from error


def _pairs(option: str, texts: list[str] | None, kind: Callable[[str], Any]) -> dict[str, Any]:
    pairs = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        try:
            pairs[name] = kind(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigurationError(option, "", f"{text!r} is no pair", "Write it like name=1.")
    return pairs


def _value(text: str) -> Any:
    """A setting's value as YAML reads it: 1 is a number, true a boolean, [a, b] a list."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(text) from error
