"""Registered models: promote; models list, show, rollback, diff."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from nightshift.adapters.errors import RecordInvalid
from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson, ModelName

AliasOption = Annotated[str, typer.Option(help="The alias.")]
Force = Annotated[
    bool, typer.Option(help="Even if a job that uses the alias could not run, or asks for more.")
]

models = terminal.list_group(
    """List the models in the store; show one, compare versions, go back.

    Example: `nightshift models`
    """
)


def promote(
    name: ModelName,
    version: Annotated[int, typer.Argument(help="The version that the alias will name.")],
    alias: AliasOption = "champion",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Move an alias to a version; the next run uses it.

    Refused if a job that uses the alias could not run with the version. Also refused if the job
    says `challenger: {model: churn@challenger, agreement: 0.95}` and the version agreed less with
    the champion when both last scored the same rows.

    Example: `nightshift promote churn 7`
    """
    from nightshift.flows import register
    from nightshift.flows.cli.notify import announce_promotion
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings

    settings = load_settings()
    manifest = open_store(settings).manifest(name, version)
    moved = register.promote(settings, manifest, alias, force=force)
    announce_promotion(settings, manifest, alias)
    _say_moved(name, alias, moved, as_json)


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List all versions: aliases, adapter, size, metrics.

    Example: `nightshift models list`
    """
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings

    store = open_store(load_settings())
    rows = [row for name in store.models() for row in _versions(store, name)]
    if as_json:
        terminal.print_json(rows)
        return
    terminal.print_table(
        ["model", "version", "aliases", "adapter", "kB", "registered (UTC)", "by", "metrics"],
        [
            [
                row["model"],
                row["version"],
                ", ".join(row["aliases"]),
                row["adapter"] or "damaged",
                row["size"] and -(-row["size"] // 1000),
                row["registered"],
                row["by"],
                ", ".join(f"{key} {value:g}" for key, value in row["metrics"].items()),
            ]
            for row in rows
        ],
        empty="The model store is empty. `nightshift register` adds to it.",
    )


def _versions(store: Any, name: str) -> Iterator[dict[str, Any]]:
    """A model's versions, newest first; a damaged one is reported and hides no other."""
    aliases: dict[int, list[str]] = {}
    try:
        for alias, pointer in store.aliases(name).items():
            aliases.setdefault(pointer.version, []).append(alias)
    except RecordInvalid as error:
        terminal.say_aside(str(error))
    for version in reversed(store.versions(name)):
        manifest = None
        try:
            manifest = store.manifest(name, version)
        except RecordInvalid as error:
            terminal.say_aside(str(error))
        yield {
            "model": name,
            "version": version,
            "aliases": sorted(aliases.get(version, [])),
            "adapter": manifest and manifest.adapter,
            "size": manifest and manifest.blob.size,
            "registered": manifest and f"{manifest.created_at:%Y-%m-%d %H:%M}",
            "by": manifest and manifest.created_by,
            "signed": manifest and manifest.signature_block is not None,
            "metrics": manifest.metrics if manifest else {},
        }


@models.command()
def show(
    reference: Annotated[str, typer.Argument(help="`name`, `name@alias` or `name@7`.")],
    as_json: AsJson = False,
) -> None:
    """Show one version: signature, libraries, metrics, and what its aliases have named.

    Example: `nightshift models show churn@champion`
    """
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings

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
    say(f"  registered  {manifest.created_at:%Y-%m-%d %H:%M} UTC by {manifest.created_by}")
    say(f"  signed by  {manifest.signature_block.key if manifest.signature_block else 'no key'}")
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
def rollback(name: ModelName, alias: AliasOption = "champion", as_json: AsJson = False) -> None:
    """Move an alias back to the version that it named before; the next run uses it.

    Example: `nightshift models rollback churn`
    """
    from nightshift.flows.cli.notify import announce_promotion
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings

    settings = load_settings()
    store = open_store(settings)
    moved = store.rollback(name, alias)
    manifest = store.manifest(name, moved.version)
    announce_promotion(settings, manifest, alias)
    _say_moved(name, alias, moved, as_json)
    store.load(manifest)  # too late to refuse, but in time to say that no run can open it


@models.command()
def diff(
    name: ModelName,
    older: Annotated[int, typer.Argument(help="A version.")],
    newer: Annotated[int, typer.Argument(help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Compare two versions: signature, libraries, predictions for the golden rows.

    Example: `nightshift models diff churn 6 7`
    """
    from dataclasses import asdict

    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings

    difference = open_store(load_settings()).diff(name, older, newer)
    if as_json:
        terminal.print_json(asdict(difference))
    else:
        for line in difference.lines() or ["No difference."]:
            terminal.console.print(terminal.escaped(line))


def _say_moved(name: str, alias: str, moved: Any, as_json: bool) -> None:
    if as_json:
        terminal.print_json(moved.model_dump(mode="json"))
        return
    terminal.say(f"{name}@{alias} is now version {moved.version}: the next run uses it")
    terminal.say("  Until then, readers see what is published now.")
