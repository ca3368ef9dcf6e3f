"""How the command line speaks: option types, completion, tables, progress, times, errors, JSON."""

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from pathlib import Path
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
from typer.core import TyperGroup

from nightshift.flows.text import format_duration, printable

_FOLDED = 12
"""A column of text may become as narrow as this in a terminal; numbers are never folded."""

# --- options and completion ---------------------------------------------------------------------


def complete_job(incomplete: str) -> list[str]:
    """Names of job files: read here, since importing the settings takes a second."""
    settings = Path(os.environ.get("NIGHTSHIFT_CONFIG") or "config/nightshift.yaml")
    names = sorted(file.stem for file in (settings.parent / "jobs").glob("*.yaml"))
    return [name for name in names if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """`name` and `name@alias` of what is in the model store."""
    from nightshift.adapters.errors import NightshiftError
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings

    try:
        store = open_store(load_settings())
        names = store.models()
        found = [*names, *(f"{name}@{alias}" for name in names for alias in store.aliases(name))]
    except NightshiftError:
        return []
    return [reference for reference in found if reference.startswith(incomplete)]


def complete_partition(context: typer.Context, incomplete: str) -> list[str]:
    """The last partitions of the job that have ended, newest first, and `all`."""
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.flows.config.job import load_job
    from nightshift.flows.planning.partitions import find_latest_partition, shift_partition

    jobs = context.params.get("job") or context.params.get("jobs") or ""
    try:
        job = load_job(jobs if isinstance(jobs, str) else jobs[0])
    except ConfigurationError:
        return []
    last = find_latest_partition(datetime.now(UTC), job.partition_by, job.zone)
    ended = [shift_partition(last, -steps, job.partition_by, job.zone).label for steps in range(7)]
    return [label for label in dict.fromkeys([*ended, "all"]) if label.startswith(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
JobName = Annotated[
    str,
    typer.Argument(
        help="The job: the name of its file in config/jobs.", autocompletion=complete_job
    ),
]
OptionalJob = Annotated[
    str | None,
    typer.Argument(help="Only this job's.", autocompletion=complete_job),
]
ModelName = Annotated[str, typer.Argument(help="The model.", autocompletion=complete_model)]
OfPartition = Annotated[
    str | None,
    typer.Option(
        help="Only this one: a day like 2013-10-01, or `all`.",
        autocompletion=complete_partition,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="A model in place of the job's: `name`, `name@alias` or `name@7`.",
        autocompletion=complete_model,
    ),
]
PartitionOption = Annotated[
    str | None,
    typer.Option(
        help="A day like 2013-10-01 (hour, month: as the job says), or `all`; else the last that "
        "has ended.",
        autocompletion=complete_partition,
    ),
]


class ListGroup(TyperGroup):
    """A group whose `list` is called where none of its commands is named: `nightshift models`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with `list` put first where it is meant."""
        if args[:1] != ["--help"] and (args or not ctx.resilient_parsing):
            args = args if args and args[0] in self.commands else ["list", *args]
        return super().parse_args(ctx, args)


def list_group(about: str) -> typer.Typer:
    """A group of commands with its help."""
    return typer.Typer(cls=ListGroup, help=about, rich_markup_mode="markdown")


# --- printing -----------------------------------------------------------------------------------

# A file or a pipe has no width of its own: what a script reads is neither folded nor cut.
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)
errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


class About(int):
    """An estimate, in a table."""


class _RateColumn(ProgressColumn):
    """The current rate; once done, the result states the average."""

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
    """Rows, rows/s and time left; yields a listener for `flows.score.score_with`."""
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

    One line for each row, unless a terminal is too narrow for it: then texts are folded, or, where
    that does not help either, each row becomes lines of `column: value`. Nothing is cut.
    """
    if not rows:
        console.print(empty)
        return
    texts = [[_format_value(value) for value in row] for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    least = indent
    for index, column in enumerate(columns):
        values = [row[index] for row in rows if row[index] is not None]
        number = bool(values) and all(_is_number(value) for value in values)
        width = max(len(column), *(len(row[index]) for row in texts))
        least += (width if number else min(width, _FOLDED)) + 1
        justify: Any = "right" if number else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=number)
    if least > console.width:
        _print_records(columns, texts, indent)
        return
    for row in texts:
        table.add_row(*map(Text, row))  # Text: brackets are not markup
    console.print(Padding(table, (0, 0, 0, indent), expand=False) if indent else table)


def _print_records(columns: Sequence[str], texts: Sequence[Sequence[str]], indent: int) -> None:
    for number, row in enumerate(texts):
        if number:
            console.print()
        for column, value in zip(columns, row, strict=True):
            if value:
                console.print(Padding(Text(f"{column}: {value}"), (0, 0, 0, indent)))


def format_time(at: datetime | None, zone: tzinfo = UTC, seconds: bool = False) -> str | None:
    """`2013-10-01 04:30 EDT`: in that zone, which it names."""
    pattern = "%Y-%m-%d %H:%M:%S %Z" if seconds else "%Y-%m-%d %H:%M %Z"
    return None if at is None else at.astimezone(zone).strftime(pattern)


def zones_of(jobs: Iterable[str]) -> dict[str, tzinfo]:
    """The time zone of each job; UTC where its file is gone or wrong."""
    from nightshift.adapters.errors import ConfigurationError
    from nightshift.flows.config.job import load_job

    zones: dict[str, tzinfo] = {}
    for job in set(jobs):
        try:
            zones[job] = load_job(job).zone
        except ConfigurationError:
            zones[job] = UTC
    return zones


def say(text: str) -> None:
    """A line as it is: brackets are not markup."""
    console.print(Text(text), soft_wrap=True)


def say_aside(text: str) -> None:
    """The same on stderr, where it does not mix with what a script reads."""
    errors.print(Text(text))


def say_error(text: str) -> None:
    """One line that says what is wrong and what to do."""
    errors.print(Text.assemble(("Error:", "bold red"), f" {text}"))


def say_warning(text: str) -> None:
    """What a person should look at; nothing has failed."""
    errors.print(Text.assemble(("Warning:", "yellow"), f" {text}"))


def escaped(text: str) -> str:
    """Text whose square brackets are not markup."""
    return escape(text)


def print_json(value: Any) -> None:
    """Valid JSON: times in ISO 8601; null for NaN and infinity, which JSON lacks."""
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


def _format_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return _format_float(value)
    if isinstance(value, About):
        return f"~{int(value):,}"
    return f"{value:,}" if _is_number(value) else " ".join(str(value).split())


class _Announcer(logging.Handler):
    """Reads retries from Prefect's log, which alone knows when the next one is due."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (_, reason, int(number), int(most), str(when)) if "Retry" in str(record.msg):
                seconds = when.removesuffix(" second(s) from now")
                delay = f"in {format_duration(float(seconds))}" if seconds != when else "at once"
                self._say(f"Trying again {delay} ({number} of {most}): {printable(str(reason))}")


@contextmanager
def announcing_retries(say: Callable[[str], None]) -> Iterator[None]:
    """While in this context, say each retry of a step, with its reason."""
    announcer, log = _Announcer(say), logging.getLogger("prefect.task_runs")
    log.addHandler(announcer)
    try:
        yield
    finally:
        log.removeHandler(announcer)


def _format_float(value: float) -> str:
    """Two decimals; more where these would make a 0 or 1 of what is not: `0.997`, `0.0004`."""
    text = f"{value:,.2f}"
    for digits in range(3, 17):
        if text not in {"0.00", "1.00", "-0.00", "-1.00"} or value in {0.0, 1.0, -1.0}:
            break
        more = f"{value:.{digits}f}"
        if float(more) not in {0.0, 1.0, -1.0}:
            return more
    return text
