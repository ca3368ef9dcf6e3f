"""The report of a backfill: one Prefect artifact with a picture of its partitions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from nightshift.adapters.database.ticking import Ticker
from nightshift.adapters.errors import NightshiftError
from nightshift.adapters.ledger.backfills import Backfill, Backfills, Step, StepState
from nightshift.flows.config.job import Granularity
from nightshift.flows.orchestrator.progress import Listener
from nightshift.flows.report.artifacts import artifact_key
from nightshift.flows.report.partition_calendar import data_uri, draw
from nightshift.flows.text import format_duration, list_full_texts, shorten_reason

_MOST_LINES = 500


@dataclass
class Watched:
    """A backfill's steps while they change, for a caller in the same process."""

    model: str = ""
    steps: Sequence[Step] = ()


class BackfillProgress:
    """Updates the artifact and the plan's heartbeat while in its context."""

    INTERVAL = 2.0

    def __init__(
        self,
        title: str,
        job: str,
        granularity: Granularity,
        model: str,
        plan: Backfill,
        backfills: Backfills,
        listener: Listener | None,
    ) -> None:
        self._title, self._granularity, self._model = title, granularity, model
        self._plan, self._backfills = plan, backfills
        self._listener = listener
        self._rows_before = _rows(plan.steps, StepState.PUBLISHED)
        self._started = time.monotonic()
        self._tickers = (
            Ticker(self._show, self.INTERVAL, "backfill-progress"),
            Ticker(self._renew, backfills.ledger.lease / 4, "backfill-heartbeat"),
        )
        self._log = get_run_logger()
        self._shown = self._markdown()
        self._artifact = UUID(
            str(create_markdown_artifact(self._shown, key=_key(job), description=self._title))
        )

    def __enter__(self) -> Self:
        for ticker in self._tickers:
            ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for ticker in self._tickers:
            ticker.stop()
        self._show()

    def _renew(self) -> None:
        try:
            self._backfills.renew(self._plan)
        except NightshiftError as error:
            self._log.warning("No heartbeat: %s", error)

    def _show(self) -> None:
        if self._listener is not None:
            done = _rows(self._plan.steps, StepState.PUBLISHED)
            self._listener(
                done, done + _rows(self._plan.steps, StepState.WAITING, StepState.RUNNING)
            )
        markdown = self._markdown()
        if markdown == self._shown:
            return
        try:
            with get_client(sync_client=True) as client:
                update = ArtifactUpdate(data=markdown, description=self._title)
                client.update_artifact(self._artifact, update)
            self._shown = markdown
        except Exception as error:  # a picture is not worth a backfill
            self._log.warning("The artifact could not be updated: %s", error)

    def _markdown(self) -> str:
        steps = self._plan.steps
        rows = _rows(steps, StepState.PUBLISHED)
        seconds = time.monotonic() - self._started
        rate = (rows - self._rows_before) / seconds if seconds > 0 else 0.0
        left = _rows(steps, StepState.WAITING, StepState.RUNNING)
        pace = f"{rows:,} rows published"
        if rate > 0:
            pace += f", {rate:,.0f} rows/s"
        if left > 0:
            pace += f", about {left:,} rows left"
            if rate > 0:
                pace += f", {format_duration(left / rate)} to go"
        failed = [step for step in steps if step.state == StepState.FAILED]
        lines = [
            f"### {self._title} with {self._model}",
            "",
            _picture(steps, self._granularity),
            "",
            pace,
        ]
        if failed:
            lines += ["", *_table(failed)]
        return "\n".join(lines)


def show_plan(job: str, granularity: Granularity, model: str, steps: Sequence[Step]) -> None:
    """Show a dry run's plan as an artifact: the picture, then every partition."""
    waiting = sum(step.state == StepState.WAITING for step in steps)
    rows = _rows(steps, StepState.WAITING)
    create_markdown_artifact(
        key=_key(job),
        description=f"The plan: {waiting} of {len(steps)} partitions",
        markdown="\n".join(
            [
                f"### {job} with {model}: the plan",
                "",
                _picture(steps, granularity),
                "",
                f"{waiting} of {len(steps)} partitions would be scored, about {rows:,} rows",
                "",
                *_table(steps),
            ]
        ),
    )


def _picture(steps: Sequence[Step], granularity: Granularity) -> str:
    in_time = sorted(steps, key=lambda step: step.start.timestamp() if step.start else 0)
    svg = draw([(step.partition, step.state) for step in in_time], granularity)
    return f"![The partitions by state]({data_uri(svg)})"


def _table(steps: Sequence[Step]) -> list[str]:
    """One line of Markdown for each step; reasons that are too long for it follow below."""
    lines = ["| partition | | rows | why |", "|---|---|--:|---|"]
    for step in steps[:_MOST_LINES]:
        rows = "" if step.rows is None else f"{step.rows:,}"
        if rows and step.state != StepState.PUBLISHED:
            rows = f"~{rows}"  # an estimate
        lines.append(f"| {step.partition} | {step.state} | {rows} | {_shorten(step.reason)} |")
    if len(steps) > _MOST_LINES:
        lines.append(f"| and {len(steps) - _MOST_LINES:,} more | | | |")
    for text in list_full_texts((step.partition, step.reason) for step in steps):
        lines += ["", f"`{text.replace('`', ' ')}`"]
    return lines


def _shorten(reason: str) -> str:
    return shorten_reason(reason).replace("|", r"\|")


def _rows(steps: Sequence[Step], *states: str) -> int:
    return sum(step.rows or 0 for step in steps if step.state in states)


def _key(job: str) -> str:
    return f"nightshift-backfill-{artifact_key(job)}"
