"""Looking after an installation: doctor, metrics."""

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

    Says how to fix what is wrong. Exit code 1 if a check failed. Takes at most 15 seconds, whatever
    is down.

    Example: `nightshift doctor`
    """
    from nightshift.flows.operations.doctor import examine

    findings = examine()
    counts = {state: sum(f.state == state for f in findings) for state in _COLOURS}
    if as_json:
        terminal.print_json([asdict(finding) for finding in findings])
    else:
        terminal.console.print(_table(findings))
        warnings = "1 warning" if counts["warn"] == 1 else f"{counts['warn']} warnings"
        terminal.console.print(f"\n{counts['fail']} failed, {warnings}, {counts['ok']} ok")
    if counts["fail"]:
        raise typer.Exit(1)


def metrics(
    port: Annotated[
        int | None,
        typer.Option(help="Serve them on this port until Ctrl-C; else print them once."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Print or serve metrics for Prometheus: rows, rejects, runs by state, age of predictions.

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
    """One line for each finding; below it, how to fix it."""
    table = Table.grid(padding=(0, 2))
    previous = None
    for finding in findings:
        name = finding.check if finding.check != previous else ""
        previous = finding.check
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n{finding.remedy}", style="cyan")
        state = Text(finding.state, style=_COLOURS[finding.state])
        table.add_row(state, Text(name, style="bold"), text)
    return table
