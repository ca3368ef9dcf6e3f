"""`nightshift ...`: the table of commands. A command's module is imported when it is called."""

import importlib
import sys
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_TRY_LATER = 1, 2, 75  # 75: EX_TEMPFAIL of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells

EVERY_DAY = "Every day"
MODELS = "Models"
TROUBLE = "When something is wrong"
OPERATE = "Set up and operate"


class Entry(NamedTuple):
    """A line of the table: where the command is, and what `nightshift --help` says about it."""

    target: str
    """`module:name` in nightshift.flows.cli; a function, or a typer.Typer with commands."""
    help: str
    panel: str


COMMANDS = {
    "run": Entry("score:run", "Score a partition of one or more jobs.", EVERY_DAY),
    "backfill": Entry("score:backfill", "Score a range of partitions.", EVERY_DAY),
    "preview": Entry("rows:preview", "Predict a few rows; nothing is written.", EVERY_DAY),
    "predict": Entry("rows:predict", "Predict one row; nothing is written.", EVERY_DAY),
    "runs": Entry("runs:runs", "List the latest runs; release one, roll one back.", EVERY_DAY),
    "report": Entry("runs:report", "Write a run's report as an HTML file.", EVERY_DAY),
    "evaluate": Entry("runs:evaluate", "Compare predictions with what happened.", EVERY_DAY),
    "register": Entry("register:register", "Add a trained model to the store.", MODELS),
    "promote": Entry("models:promote", "Move an alias to a version.", MODELS),
    "models": Entry("models:models", "List models; show, compare, roll back.", MODELS),
    "validate": Entry("init:validate", "Check all files, without connecting.", TROUBLE),
    "doctor": Entry("doctor:doctor", "Check what a run needs, and say how to fix it.", TROUBLE),
    "rejects": Entry("rows:rejects", "List rows without a prediction; replay them.", TROUBLE),
    "explain": Entry("rows:explain", "Say where a row's prediction came from.", TROUBLE),
    "history": Entry("publications:history", "List what readers saw when, and why.", TROUBLE),
    "init": Entry("init:init", "Make a project, or a job for a table.", OPERATE),
    "keys": Entry("register:keys", "List the keys that sign models; create one.", OPERATE),
    "up": Entry("deploy:up", "Start database, Prefect server and scheduler here.", OPERATE),
    "serve": Entry("deploy:serve", "Run what is scheduled or triggered.", OPERATE),
    "deploy": Entry("deploy:deploy", "Register the jobs with a Prefect server.", OPERATE),
    "clean": Entry("publications:clean", "Delete the predictions of old runs.", OPERATE),
    "metrics": Entry("doctor:metrics", "Print or serve metrics for Prometheus.", OPERATE),
    "demo": Entry("demo:main", "Score 336,776 real flights.", OPERATE),
}
"""Command -> entry, in the order of `nightshift --help`: the most frequent first."""


class LazyCommand(TyperCommand):
    """Stands for a command until it is called, or its own help is asked for."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.help, rich_help_panel=entry.panel)
        self._target = entry.target

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """The context of the command itself, which takes over from here."""
        return self.load().make_context(*args, **kwargs)

    def load(self) -> Any:
        """The command itself."""
        module, name = self._target.split(":")
        found = getattr(importlib.import_module(f"nightshift.flows.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(**_STYLE, add_completion=False)
            single.command(self.name)(found)
            found = single
        command: Any = typer.main.get_command(found)
        command.name = self.name
        return command


class Nightshift(TyperGroup):
    """All commands; none of their modules is imported yet."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands.update({name: LazyCommand(name, entry) for name, entry in COMMANDS.items()})

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was called. Ctrl-C is not an error: say what is kept, and end."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo(
                "Stopped. Committed rows are kept; the same command continues after them.", err=True
            )
            raise typer.Exit(EXIT_INTERRUPTED) from None


_STYLE: dict[str, Any] = {
    "rich_markup_mode": "markdown",
    "pretty_exceptions_show_locals": False,  # locals may hold secrets
}

app = typer.Typer(
    **_STYLE,
    cls=Nightshift,
    help="Score database tables with machine-learning models, exactly once.",
    no_args_is_help=True,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 75 try again later, 130 stopped.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nightshift {version('nightshift-batch')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. An error of ours becomes one line and an exit code."""
    try:
        app()
    except Exception as error:
        from nightshift.adapters.errors import NightshiftError
        from nightshift.flows.cli import terminal

        if _is_cancelled(error):
            terminal.say_error(str(error))
            sys.exit(EXIT_INTERRUPTED)
        if not isinstance(error, NightshiftError):
            raise
        terminal.say_error(str(error))
        sys.exit(exit_code(error))


def _is_cancelled(error: Exception) -> bool:
    """Whether the flow run was cancelled in Prefect; without importing it, which takes seconds."""
    exceptions = sys.modules.get("prefect.exceptions")
    return exceptions is not None and isinstance(error, exceptions.CancelledRun)


def exit_code(error: Exception) -> int:
    """The exit code for an error of ours."""
    from nightshift.adapters.errors import ConfigurationError, TransientError

    if isinstance(error, TransientError):
        return EXIT_TRY_LATER
    return EXIT_WRONG_INPUT if isinstance(error, ConfigurationError) else EXIT_FAILED
