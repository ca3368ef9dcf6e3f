"""Adding models to the store: register, keys."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift.adapters.errors import ConfigurationError, LibraryNotInstalled, NightshiftError
from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson

if TYPE_CHECKING:
    from nightshift.adapters.store.manifest import Manifest

keys = terminal.list_group(
    """List the keys that models are signed with; create one.

    Example: `nightshift keys`
    """
)


def register(
    path: Annotated[
        str, typer.Argument(help="The saved model: .joblib, .ubj, .onnx, ..., or models:/name@a.")
    ],
    name: Annotated[str, typer.Option(help="The model's name in the store.")],
    sample: Annotated[
        Path,
        typer.Option(help="Inputs as .parquet or .csv; best the whole training frame."),
    ],
    adapter: Annotated[
        str | None, typer.Option(help="The adapter, if the file's ending does not say.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="A setting of the adapter: output=predict_proba.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The sample's column of labels, which is not an input.")
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
    """Add a trained model to the store, as the next version of its name, signed with the local key.

    The sample gives the inputs and their types. Some of its rows are kept with their predictions,
    and predicted again wherever the model is loaded: a model that predicts differently is refused.

    Example: `nightshift register model.joblib --name churn --sample train.parquet --target churned`
    """
    from nightshift.adapters.models.registry import adapter_for_file
    from nightshift.adapters.store.manifest import checked_name
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.register import find_job
    from nightshift.flows.register import register as register_model

    if alias is not None:
        checked_name(alias, "alias")
    classes = load_settings().trust.classes
    model = adapter_for_file(path, adapter, _pairs("--setting", setting, _value), classes)
    metrics = _pairs("--metric", metric, float)
    frame = _read_sample(sample)
    if as_ is not None:
        model = _converted(as_, model, frame, target)
    through = None if trained_through is None else trained_through.date()
    manifest = register_model(
        name,
        model,
        frame,
        sign_key,
        target=target,
        metrics=metrics,
        description=description,
        trained_through=through,
    )
    if alias is not None:
        _promote(manifest, alias)
    if as_json:
        terminal.print_json(manifest.model_dump(mode="json"))
        return
    inputs, outputs = manifest.signature.input_names, manifest.signature.output_names
    terminal.console.print(f"Registered [bold]{manifest.reference}[/] ({manifest.adapter})")
    terminal.console.print(f"  reads   {', '.join(inputs)}\n  writes  {', '.join(outputs)}")
    if manifest.left_out:
        terminal.say(f"  left out of the sample: {', '.join(manifest.left_out)}")
    for warning in manifest.warnings:
        terminal.say_warning(warning)
    terminal.console.print(
        "  signed" if manifest.signature_block else "  not signed (trust.sign_key)"
    )
    if alias is None:
        terminal.say(f"Next: nightshift promote {name} {manifest.version}")
    else:
        terminal.say(f"  {name}@{alias} is now version {manifest.version}")
        job = find_job(name, alias)
        step = (
            f"run {job}" if job else f"init --job {name} --table TABLE --key COLUMN --model {name}"
        )
        terminal.say(f"Next: nightshift {step}")


def _promote(manifest: "Manifest", alias: str) -> None:
    from nightshift.flows.cli.notify import announce_promotion
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.register import promote

    settings = load_settings()
    try:
        promote(settings, manifest, alias)
    except NightshiftError:
        command = f"nightshift promote {manifest.name} {manifest.version} --alias {alias}"
        terminal.say_aside(f"Registered {manifest.reference}, not promoted. Promote it: {command}")
        raise
    announce_promotion(settings, manifest, alias)


def _converted(kind: str, model: Any, sample: Any, target: str | None) -> Any:
    if kind != "onnx":
        remedy = "Only `--as onnx` is known."
        raise ConfigurationError("--as", "", f"{kind!r} is not a format to convert to", remedy)
    from nightshift.adapters.models.sampling import select_inputs

    try:
        from nightshift.adapters.libraries.onnx_conversion import to_onnx
    except ModuleNotFoundError as error:
        raise LibraryNotInstalled("onnx", error.name or "onnx", "onnx") from error
    return to_onnx(model, select_inputs(sample, model.input_names, target)[0])


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
            raise ConfigurationError(option, "", f"{text!r} is not a pair", "Write it like name=1.")
    return pairs


def _value(text: str) -> Any:
    """A setting's value as YAML reads it: 1 is a number, true a boolean, [a, b] a list."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(text) from error


@keys.command()
def create(as_json: AsJson = False) -> None:
    """Create the key pair that this machine signs models with, where trust.sign_key says.

    The private key stays here. The public key goes into trust.keys wherever models are scored.

    Example: `nightshift keys create`
    """
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.register import create_key

    settings = load_settings()
    public = create_key(settings)
    text = public.read_text(encoding="utf-8").strip()
    if as_json:
        terminal.print_json({"path": str(public), "public": text})
        return
    terminal.console.print(f"Private key  {public.with_suffix('.pem')} (keep it here and secret)")
    terminal.console.print(f"Public key   {public}")
    terminal.console.print(f"             {text}")
    if text not in settings.trust_policy().keys:
        terminal.say_aside("Models signed with it are not trusted here yet. In nightshift.yaml:")
        terminal.say_aside(f"trust: {{keys: [{', '.join([*settings.trust.keys_, text])}]}}")


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys that are trusted here, and the one that signs here.

    Example: `nightshift keys list`
    """
    from nightshift.adapters.store.keys import SigningKey, key_id
    from nightshift.flows.config.settings import load_settings

    settings = load_settings()
    private = settings.trust.sign_key
    own = SigningKey.load(private).public if private and private.is_file() else None
    trusted = settings.trust_policy().keys
    found = dict.fromkeys([*trusted, *([own] if own else [])])
    rows = [
        {"key": key_id(key), "trusted": key in trusted, "signs here": key == own, "public": key}
        for key in found
    ]
    if as_json:
        terminal.print_json(rows)
        return
    terminal.print_table(
        ["key", "trusted", "signs here", "public key"],
        [
            [*(("no", "yes")[word] if isinstance(word, bool) else word for word in row.values())]
            for row in rows
        ],
        empty="No keys yet. `nightshift keys create` makes one.",
    )
