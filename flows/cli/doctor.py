"""The commands for whoever keeps it running: doctor, metrics."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from nightshift.flows.cli import terminal
from nightshift.flows.cli.terminal import AsJson

if TYPE_CHECKING:
    from nightshift.flows.operations.doctor import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def doctor(as_json: AsJson = False) -> None:
    """Check what a run needs: database, store, keys, jobs, Prefect, versions, abandoned runs.

    Says how to mend what is wrong. Exit code 1 if anything is; over in 15 seconds, whatever is
    down.

    Example: `nightshift doctor`
    """
    from nightshift.flows.operations.doctor import examine

    findings = examine()
    counts = {state: sum(f.state == state for f in findings) for state in _COLOURS}
    if as_json:
        terminal.print_json([asdict(finding) for finding in findings])
    else:
        terminal.console.print(_table(findings))
        told = [f"{counts['fail']} to mend", f"{counts['warn']} to look at", f"{counts['ok']} fine"]
        terminal.console.print("\n" + ", ".join(told))
    if counts["fail"]:
        raise typer.Exit(1)


def metrics(
    port: Annotated[
        int | None,
        typer.Option(help="Answer Prometheus on this port until Ctrl-C; else print them once."),
    ] = None,
    host: Annotated[str, typer.Option(help="Of which address.")] = "127.0.0.1",
) -> None:
    """Rows, rejects, runs by state, the age of what readers see: for Prometheus, from the ledger.

    Example: `nightshift metrics --port 9109`
    """
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.operations.metrics import metrics_text, serve_metrics

    settings = load_settings()
    if port is None:
        print(metrics_text(settings), end="")
        return
    with serve_metrics(settings, host, port) as url:
        terminal.console.print(f"Metrics at {url}; press Ctrl-C to stop.")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _table(findings: "Sequence[Finding]") -> Table:
    """One line for each finding; below it, what mends it."""
    table = Table.grid(padding=(0, 2))
    previous = None
    for finding in findings:
        name = finding.check if finding.check != previous else ""
        previous = finding.check
        told = Text(finding.told)
        if finding.remedy:
            told.append(f"\n{finding.remedy}", style="cyan")
        state = Text(finding.state, style=_COLOURS[finding.state])
        table.add_row(state, Text(name, style="bold"), told)
    return table
