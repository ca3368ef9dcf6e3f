"""The commands for the keys that models are signed with."""

import typer

from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson

keys = typer.Typer(invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    """Make these commands of `nightshift`."""
    app.add_typer(keys, name="keys")


@keys.callback()
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """The keys that models are signed with: list those trusted here, and the one that signs here.

    Example: `nightshift keys`
    """
    if context.invoked_subcommand is None:
        _list_keys(as_json)


@keys.command("list")
def list_them(as_json: AsJson = False) -> None:
    """The same: list the keys.

    Example: `nightshift keys list`
    """
    _list_keys(as_json)


@keys.command()
def create(as_json: AsJson = False) -> None:
    """Make the key pair that this machine signs models with, where trust.sign_key says.

    The private half stays here; the public half goes into trust.keys wherever models are scored.

    Example: `nightshift keys create`
    """
    from nightshift.flows.config.resources import create_key
    from nightshift.flows.config.settings import load_settings

    public = create_key(load_settings())
    text = public.read_text(encoding="utf-8").strip()
    if as_json:
        terminal.print_json({"path": str(public), "public": text})
        return
    terminal.console.print(
        f"Private key  {public.with_suffix('.pem')} (keep it here, keep it secret)"
    )
    terminal.console.print(f"Public key   {public}")
    terminal.console.print(f"             {text}")


def _list_keys(as_json: bool) -> None:
    from nightshift.adapters.store.trust_policy import SigningKey, key_id
    from nightshift.flows.config.settings import load_settings

    settings = load_settings()
    private = settings.sign_key()
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
        ["key", "trusted", "signs here", "public half"],
        [
            [*(("no", "yes")[word] if isinstance(word, bool) else word for word in row.values())]
            for row in rows
        ],
        empty="There is no key yet. `nightshift keys create` makes one.",
    )
