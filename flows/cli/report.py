"""The command that makes a run's report: one HTML file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift.flows.cli import terminal

if TYPE_CHECKING:
    from nightshift.adapters.ledger.ledger import Ledger


def add_to(app: typer.Typer) -> None:
    """Make it a command of `nightshift`."""
    app.command()(report)


def report(
    run: Annotated[
        str, typer.Argument(help="The run's number, or a job's name for its newest run.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write; `-` prints it. Else in the state folder."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write a run's report: verdict, counts, checks, distributions, drift, rejects.

    Made from the ledger, at any time after, for a run in any state.

    Example: `nightshift report flight_delays --open`
    """
    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.report.files import facts_about, html, keep
    from nightshift.flows.report.verdict import verdict

    settings = load_settings()
    with open_ledger(settings) as ledger:
        facts, notes = facts_about(ledger, settings, _number(ledger, run))
    page = html(facts, notes, settings)
    if output == Path("-"):
        sys.stdout.write(page)
        return
    if output is None:
        path = keep(page, settings, facts.found.run.run_id)
    else:
        path = output.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    told = verdict(facts.found, facts.audit)
    head = f"Run {facts.found.run.run_id}, {facts.found.run.job} {facts.found.run.partition}"
    terminal.console.print(terminal.escaped(f"{head}: {told.word}. {told.reason}".strip()))
    terminal.console.print(terminal.escaped(str(path)))
    if open_:
        typer.launch(path.as_uri())


def _number(ledger: "Ledger", run: str) -> int:
    """The run of that number, or the newest one of that job."""
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
