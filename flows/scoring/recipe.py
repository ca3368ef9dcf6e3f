"""The recipe: the steps of one run, in order. Free of Prefect.

    with open_context(settings, job, "churn@champion", orchestrator) as context:  # load, check
        result = ScoringRun(context, partition, orchestrator).execute()  # score, audit, publish

The orchestrator calls each step, and again after a transient error: as Prefect tasks in
flows/score.py, in a plain loop in the chaos tests.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol, TypeVar

from nightshift.adapters.errors import (
    AlreadyPublished,
    NightshiftError,
    OwnershipLost,
    Quarantined,
    RejectsExceeded,
    RowsMissing,
    RunTimedOut,
    TransientError,
)
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.runs import CHALLENGER, CHAMPION, Run, RunRequest, RunState
from nightshift.adapters.source.snapshot import Snapshot
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.config.job import Job, Shards
from nightshift.flows.config.resources import JobResources, current_user, open_resources
from nightshift.flows.config.settings import Settings
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.challenger.run import ChallengerRun
from nightshift.flows.scoring.context import RunContext
from nightshift.flows.scoring.loaded_model import LoadedModel, load
from nightshift.flows.scoring.resuming import count_remaining, count_rows, is_unchanged
from nightshift.flows.scoring.run import ScoreResult, request_run, require_no_leakage
from nightshift.flows.scoring.shards import Submit, score_shards
from nightshift.flows.scoring.stream import chunk_rows, stream

T = TypeVar("T")
Log = logging.Logger | logging.LoggerAdapter[Any]


class StepTimedOut(Exception):
    """A step did not end within its timeout."""


class Finding(Protocol):
    """What a check found."""

    @property
    def level(self) -> str: ...
    @property
    def text(self) -> str: ...


class AuditReport(Protocol):
    """What the audit of a scored run found. The checks are a floor above; see flows/checks."""

    @property
    def verdict(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def findings(self) -> Sequence[Finding]: ...
    @property
    def not_judged(self) -> Sequence[Finding]: ...
    @property
    def rejected(self) -> int: ...
    def to_json(self) -> str: ...


class Orchestrator(ABC):
    """What a run is given by whatever runs it."""

    flow_run_id: str | None = None

    @property
    def log(self) -> Log:
        return logging.getLogger("nightshift.run")

    @abstractmethod
    def call(self, step: Callable[[], T], timeout: float | None = None) -> T:
        """Call a step, and again after a TransientError, as often as it is to be tried.

        Raises what the last call raised, or StepTimedOut after so many seconds in one call.
        """

    @abstractmethod
    def require_checks(self, job: Job) -> None:
        """Raises ConfigurationError for a check of the job that is not installed."""

    @abstractmethod
    def audit(
        self, context: RunContext, partition: Partition, run: Run, snapshot: Sequence[int]
    ) -> AuditReport:
        """Check a scored run. `snapshot` has the source's rows in each shard."""

    @abstractmethod
    def open_workers(self, plan: Shards) -> AbstractContextManager[Submit]:
        """Workers for shards; yields what hands a shard to one of them."""

    def track(
        self, title: str, done: int, total: int
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Show progress; yields what is called with the rows of each committed chunk.

        What that raises stops the run.
        """
        return nullcontext(lambda _: None)

    def published(self, context: RunContext, result: ScoreResult) -> None:  # noqa: B027 - optional
        """The ledger has the run as published."""

    def quarantined(  # noqa: B027
        self, context: RunContext, result: ScoreResult, reason: str
    ) -> None:
        """The ledger has the run as quarantined."""

    def failed(self, context: RunContext, run_id: int) -> None:  # noqa: B027
        """The ledger has the run as failed."""


@contextmanager
def open_context(
    settings: Settings, job: Job, reference: str, orchestrator: Orchestrator
) -> Iterator[RunContext]:
    """Load the model version that the reference names now, and check the tables."""
    log = orchestrator.log

    def load_model() -> LoadedModel:
        model = load(settings, reference)
        log.info("Model %s (%s)", model.manifest.reference, model.manifest.adapter)
        return model

    model = orchestrator.call(load_model)
    with open_resources(settings, job) as resources:

        def check_tables() -> PredictionTable:
            """Refuse what cannot work before a row is read; create the tables if missing."""
            orchestrator.require_checks(job)
            signature = model.manifest.signature
            job.checks.require_known_columns((*signature.input_names, *signature.output_names))
            resources.source.check(signature)
            predictions = resources.predictions(model.manifest.signature)
            predictions.create()
            return predictions

        predictions = orchestrator.call(check_tables)
        challenger = _load_challenger(settings, resources, log)
        yield RunContext(resources, predictions, model, challenger)


def _load_challenger(settings: Settings, resources: JobResources, log: Log) -> LoadedModel | None:
    """The job's challenger, or None if anything is wrong with it: the champion scores anyway."""
    config = resources.job.challenger
    if config is None:
        return None
    try:
        model = load(settings, config.model)
        resources.source.check(model.manifest.signature)
        resources.predictions(model.manifest.signature).check()
    except Exception as error:  # loading a model may raise anything
        log.warning("Without the challenger %s: %s", config.model, error)
        return None
    return model


class ScoringRun:
    """One run of one partition. Resumes what an earlier run has left unfinished."""

    run: Run
    """As `score` has started or resumed it."""
    result: ScoreResult
    """As the steps up to now have filled it."""

    def __init__(
        self,
        context: RunContext,
        partition: Partition,
        orchestrator: Orchestrator,
        allow_leakage: bool = False,
    ) -> None:
        self.context, self.partition = context, partition
        self.orchestrator, self.allow_leakage = orchestrator, allow_leakage
        self.owner = new_owner()
        self._resources, self._log = context.resources, orchestrator.log
        self._ledger, self._job = context.resources.ledger, context.resources.job
        self._counted: tuple[int, ...] = ()

    def execute(self) -> ScoreResult:
        """Every step, in order.

        Raises Leakage, PartitionBusy, AlreadyPublished, OwnershipLost, Quarantined, RowsMissing,
        RejectsExceeded, RunTimedOut, and what the source, the model and the target raise. A run
        that fails can be resumed; readers see it only once it is published.
        """
        job, call = self._job, self.orchestrator.call
        if not self.allow_leakage:
            require_no_leakage(self.context.manifest, self.partition, job.zone)
        timeout = None if job.timeout is None else job.timeout.total_seconds()
        try:
            call(self.score, timeout)
        except StepTimedOut as error:
            raise RunTimedOut(job.name, self.partition.label, timeout or 0.0) from error
        with self._recording_failures(), self._ledger.keep_alive(self.run):
            call(self.audit)
            call(self.publish)
        return self.result

    def score(self) -> None:
        """Stream the partition through the model, one transaction per chunk."""
        started = perf_counter()
        request = self._request(self.context.model, CHAMPION)
        self.run = self._ledger.begin(request, self.owner)
        self._log.info(
            "Run %s begins after %s committed rows", self.run.run_id, f"{self.run.seen:,}"
        )
        try:
            self._score(request, started)
        except BaseException as error:
            self._record_failure(error)
            raise

    def audit(self) -> None:
        """Compare what was scored with what is usual. Raises Quarantined if a check fails."""
        found = self.orchestrator.audit(self.context, self.partition, self.run, self._counted)
        for check in found.findings:
            self._log.warning("%s: %s", check.level.upper(), check.text)
        not_judged = len(found.not_judged)
        if not_judged:
            self._log.info("%s (%s checks not judged)", found.not_judged[0].text, not_judged)
        self._ledger.note(self.run, audit=found.to_json())
        self.result = replace(
            self.result,
            rejected=found.rejected,
            verdict=found.verdict,
            remarks=tuple(check.text for check in found.findings),
            not_judged=not_judged,
        )
        if found.reason is not None:
            self._ledger.quarantine(self.run, found.reason)
            self.orchestrator.quarantined(self.context, self.result, found.reason)
            label = self.partition.label
            raise Quarantined(self._job.name, label, self.run.run_id, found.reason)

    def publish(self) -> None:
        """Make this run's predictions the ones that readers see."""
        self._ledger.publish(self.run, current_user())
        self._log.info("Published %s rows in %s", f"{self.result.written:,}", self.result.target)
        self.orchestrator.published(self.context, self.result)

    # --- scoring --------------------------------------------------------------------------------

    def _score(self, request: RunRequest, started: float) -> None:
        source, ledger = self._resources.source, self._ledger
        signature = self.context.manifest.signature
        timings, seconds = None, 0.0
        with ExitStack() as stack:
            stack.enter_context(ledger.keep_alive(self.run))
            opening = source.snapshot(signature, self.partition.start, self.partition.end)
            snapshot = stack.enter_context(opening)
            chunks = chunk_rows(self._job, signature), signature.input_names
            if not is_unchanged(ledger, source, snapshot, self.run.run_id, *chunks):
                self._log.info("Rows before the resume point have changed; starting a new run")
                self.run = ledger.begin(request, self.owner, resume=False)
                stack.enter_context(ledger.keep_alive(self.run))
            run, expected = self.run, 0
            if run.state != RunState.SCORED:
                expected = count_remaining(source, snapshot, ledger.shards(run.run_id))
                started_at = perf_counter()
                timings = self._write(snapshot, expected, started)
                seconds = perf_counter() - started_at
            if run.state != RunState.SCORED and self._job.shards.count == 1 and not run.seen:
                self._counted = (expected,)
            else:
                self._counted = count_rows(source, snapshot, ledger.shards(run.run_id))
        if run.state != RunState.SCORED:
            ledger.score(run, timings)
        rows = run.seen + expected
        self._log.info("Scored %s rows in %.1f s", f"{rows:,}", seconds)
        self.result = ScoreResult(
            job=self._job.name,
            partition=self.partition.label,
            run_id=run.run_id,
            model=self.context.manifest.reference,
            target=self._job.target.table,
            rows=rows,
            resumed_rows=run.seen,
            sql=self._resources.reading_sql(),
            seconds=seconds,
        )

    def _write(self, snapshot: Snapshot, expected: int, started: float) -> str | None:
        """Score and write the `expected` rows that are left; returns the stage timings as JSON.

        Raises RowsMissing if the source sent another number of rows than it counted.
        """
        context, run, job = self.context, self.run, self._job
        title, timings, done = f"{job.name} {self.partition.label}", None, 0
        with ExitStack() as stack:
            challenger = stack.enter_context(self._run_challenger())
            if challenger is not None:
                challenger.limit(job.timeout, expected, started)
            track = self.orchestrator.track(title, run.seen, run.seen + expected)
            show = stack.enter_context(track)

            def advance(rows: int) -> None:
                nonlocal done
                done += rows
                show(rows)

            if job.shards.count > 1:
                open_workers = self.orchestrator.open_workers
                score_shards(context, self.partition, run, snapshot, open_workers, advance)
            else:
                keys = self._resources.source.decode_range(run.last_key, None)
                timings = stream(
                    self._resources,
                    context.model,
                    context.predictions,
                    snapshot,
                    run,
                    keys,
                    expected,
                    advance,
                    challenger,
                ).to_json()
            if done != expected:
                raise RowsMissing(str(self._resources.source.spec), expected, done)
        return timings

    @contextmanager
    def _run_challenger(self) -> Iterator[ChallengerRun | None]:
        """The challenger's run alongside; None if the job has no challenger, or it cannot run."""
        challenger = self.context.challenger
        if challenger is None:
            yield None
            return
        request = self._request(challenger, CHALLENGER)
        champion, warn = self.context.model, self._log.warning
        with ChallengerRun.alongside(
            self._resources, champion, challenger, request, self.run, warn
        ) as run:
            yield run

    def _request(self, model: LoadedModel, role: str) -> RunRequest:
        flow_run_id = self.orchestrator.flow_run_id
        return request_run(self.context, self.partition, model.manifest, role, flow_run_id)

    # --- failing --------------------------------------------------------------------------------

    @contextmanager
    def _recording_failures(self) -> Iterator[None]:
        """A run that is neither published nor quarantined has failed."""
        try:
            yield
        except (Quarantined, AlreadyPublished, OwnershipLost):
            raise
        except BaseException as error:
            self._record_failure(error)
            raise

    def _record_failure(self, error: BaseException) -> None:
        """Record the failure in the ledger, if that can be reached. Without it, the run can be
        resumed as well, once its owner's lease has ended.
        """
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted" if interrupted else str(error) or type(error).__name__
        try:
            # A run with too many rejects would have too many again, so the next one starts over.
            self._ledger.fail(self.run, reason, resumable=not isinstance(error, RejectsExceeded))
        except NightshiftError as second:
            self._log.warning("The failure could not be entered in the ledger: %s", second)
            return
        if isinstance(error, Exception) and not isinstance(error, TransientError):  # is retried
            self.orchestrator.failed(self.context, self.run.run_id)
