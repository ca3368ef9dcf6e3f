"""What a person sees of a run: its progress and its result, in the terminal and as artifacts."""

import threading
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext, SyncClientContext

from nightshift.adapters.history.run_details import read_run_details
from nightshift.adapters.ledger.runs import RunState
from nightshift.flows.checks.evidence import is_basis
from nightshift.flows.config.settings import load_settings
from nightshift.flows.report.facts import collect_facts
from nightshift.flows.report.files import render_report, save_report
from nightshift.flows.report.markdown import render_markdown
from nightshift.flows.scoring.context import RunContext
from nightshift.flows.scoring.run import ScoreResult

Listener = Callable[[int, int], None]
"""Called with (rows done, rows in all) after each committed chunk."""


class Progress:
    """How far a run is; a Prefect artifact, renewed every two seconds until it is closed.

    By a thread of its own: a Prefect server that is slow or away must not hold up the run.
    """

    INTERVAL = 2.0
    LAST = 5.0
    """Seconds that the end of a run waits for its last state to be shown."""

    def __init__(
        self, title: str, done: int, total: int, listener: Listener | None, at_once: bool = True
    ) -> None:
        """Without `at_once`, no artifact is made for runs shorter than one interval."""
        self.title, self.done, self.total = title, done, total
        self._listener = listener
        self._start, self._begun = done, time.monotonic()
        self._artifact: UUID | None = None
        self._tell()
        self._over = threading.Event()
        # In the caller's context, to which the artifact belongs.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._renew, at_once), name="progress", daemon=True
        )
        self._thread.start()

    def advance(self, rows: int) -> None:
        self.done += rows
        self._tell()

    def close(self) -> None:
        self._over.set()
        self._thread.join(self.LAST)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    @property
    def _percent(self) -> float:
        return 100.0 * self.done / self.total if self.total else 100.0

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener(self.done, self.total)

    def _renew(self, at_once: bool) -> None:
        if not at_once and self._over.wait(self.INTERVAL):
            return
        self._show()
        while not self._over.wait(self.INTERVAL):
            self._show()
        self._show()

    def _show(self) -> None:
        rate = (self.done - self._start) / max(self.seconds, 1e-9)
        text = f"{self.title}: {self.done:,} of {self.total:,} rows, {rate:,.0f} rows/s"
        if rate > 0 and self.done < self.total:
            text += f", {(self.total - self.done) / rate:,.0f} s left"
        try:
            if self._artifact is None:
                made = create_progress_artifact(self._percent, description=text)
                self._artifact = UUID(str(made))
            else:
                update_progress_artifact(self._artifact, self._percent, description=text)
        except Exception as error:  # of whatever kind: nothing but the picture suffers
            get_run_logger().warning("The progress could not be shown: %s", error)


def show_result(context: RunContext, result: ScoreResult, in_backfill: bool) -> None:
    """Report a run that is published or quarantined: in short as an artifact of the flow run and of
    the job, and as a file. In a backfill, as a short artifact only.
    """
    _show(context, result.run_id, result.sql, in_backfill)


def show_failure(context: RunContext, run_id: int, in_backfill: bool) -> None:
    """The same for a run that failed, unless another process already resumes it."""
    _show(context, run_id, "", in_backfill, only=RunState.FAILED)


def _show(
    context: RunContext, run_id: int, sql: str, in_backfill: bool, only: str | None = None
) -> None:
    """A failing report never fails the run."""
    try:
        source = context.resources.job.source_spec()
        details = read_run_details(context.resources.ledger, run_id, is_basis)
        if only is not None and details.run.state != only:
            return
        sql = sql if details.run.state == RunState.PUBLISHED else details.sql
        # A backfill has a picture of all its partitions; its runs are shown without their columns.
        facts = collect_facts(details, context.model.reference, columns=not in_backfill)
        line, markdown = render_markdown(facts, str(source), sql)
        key = f"nightshift-{artifact_key(details.run.job)}"
        create_markdown_artifact(key=key, description=line, markdown=markdown)
        if not in_backfill:
            settings = load_settings()
            path = save_report(render_report(facts, settings), settings, run_id)
            get_run_logger().info("The report of run %s is %s", run_id, path)
    except Exception as error:  # whatever it is, it is not worth a run
        get_run_logger().warning("The report of run %s could not be made: %s", run_id, error)


def label_run(name: str, tags: Iterable[str]) -> None:
    """Give this flow run the name and tags by which people look for it."""
    context, api = FlowRunContext.get(), SyncClientContext.get()
    if context is None or context.flow_run is None or api is None:
        return
    run = context.flow_run
    api.client.update_flow_run(run.id, name=name, tags={*run.tags, *tags})


def artifact_key(job: str) -> str:
    """A job's name in the letters that Prefect allows in an artifact's key."""
    return "".join(
        letter if letter.isascii() and letter.isalnum() else "-" for letter in job.lower()
    )
