"""How the command line speaks: tables, a progress bar, errors, JSON."""

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from nightshift.flows.text import in_a_line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
JobName = Annotated[str, typer.Argument(help="The job: the name of its file in config/jobs.")]
ModelOption = Annotated[
    str | None,
    typer.Option(help="A model in place of the job's: `name`, `name@alias` or `name@7`."),
]

# A file or a pipe has no width of its own: what a script reads is neither folded nor cut.
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)
errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


class About(int):
    """An estimate, in a table."""


class _RateColumn(ProgressColumn):
    """Of the last moments; what is over has one rate, which its result tells."""

    def render(self, task: Task) -> Text:
        if task.speed is None or task.finished:
            return Text("")
        return Text(f"{task.speed:,.0f} rows/s", style="cyan")


class _RowsColumn(MofNCompleteColumn):
    def render(self, task: Task) -> Text:
        total = "?" if task.total is None else f"{task.total:,.0f}"
        return Text(f"{task.completed:,.0f} of {total} rows")


@contextmanager
def progress_bar(title: str) -> Iterator[Any]:
    """Rows, rows/s and time left; gives a listener for `report.artifacts.listening`."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        _RowsColumn(),
        _RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    ]
    progress = Progress(*columns, console=console)
    task = progress.add_task(title, total=None)

    def listen(done: int, total: int) -> None:
        progress.start()  # only now: what fails before the first row shows no bar
        progress.update(task, completed=done, total=total)

    try:
        yield listen
    finally:
        if progress.live.is_started:
            progress.stop()


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str, indent: int = 0
) -> None:
    """Rows as a table, numbers to the right; `empty` if there are none.

    One line for each row, unless a terminal is too narrow for it.
    """
    if not rows:
        console.print(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        values = [row[index] for row in rows if row[index] is not None]
        number = bool(values) and all(_is_number(value) for value in values)
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))  # Text: brackets are no markup
    console.print(Padding(table, (0, 0, 0, indent), expand=False) if indent else table)


def say(text: str) -> None:
    """A line as it is: brackets are no markup."""
    console.print(Text(text), soft_wrap=True)


def say_aside(text: str) -> None:
    """A line as it is, where it does not mix with what a script reads."""
    errors.print(Text(text))


def say_error(text: str) -> None:
    """One line that says what is wrong and what to do."""
    errors.print(Text.assemble(("Error:", "bold red"), f" {text}"))


def escaped(text: str) -> str:
    """Text in which square brackets are no markup."""
    return escape(text)


def print_json(value: Any) -> None:
    """As JSON proper: times in ISO 8601, and null for a NaN or an infinity, which JSON lacks."""
    print(json.dumps(_jsonable(value), indent=2, default=str, ensure_ascii=False))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, date | time) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, About):
        return f"~{int(value):,}"
    return f"{value:,}" if _is_number(value) else " ".join(str(value).split())


class _Announcer(logging.Handler):
    """Hears of retries from Prefect's log, which alone knows when the next one is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (_, reason, int(number), int(most), str(when)) if "Retry" in str(record.msg):
                seconds = when.removesuffix(" second(s) from now")
                told = f"in {float(seconds):.1f} s" if seconds != when else "at once"
                self._say(f"Trying again {told} ({number} of {most}): {in_a_line(str(reason))}")


@contextmanager
def announcing_retries(say: Callable[[str], None]) -> Iterator[None]:
    """While in this context, each retry of a step is said, with its reason."""
    announcer, log = _Announcer(say), logging.getLogger("prefect.task_runs")
    log.addHandler(announcer)
    try:
        yield
    finally:
        log.removeHandler(announcer)
