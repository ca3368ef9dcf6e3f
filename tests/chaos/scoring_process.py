"""One run in a process of its own: it scores a partition as the flow does, and may be killed.

The processes are forked from one that has imported everything, so each begins in milliseconds.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")

What = tuple[str, str, str | None]
"""Job, partition, and a model in place of the job's."""

JOB = "orders"
PUBLISHED, KILLED = "published", "killed"
PATIENCE = 120.0
"""Seconds after which a run that has not ended counts as hanging: a failure of the suite."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "tests.chaos.scoring_process",
        "nightshift.flows.score",
        "nightshift.adapters.backends.postgres",
        "nightshift.adapters.store.s3",
        "boto3",
        "sklearn.base",
        "sqlalchemy.dialects.postgresql.psycopg",
    ]
)

# Threads that libraries keep for the life of a process.
_LASTING = ("MainThread", "fsspecIO", "IOThread", "asyncio_", "AnyIO")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    name: str
    """`published`, `killed`, or the name of the error's class."""
    text: str = ""
    seconds: float = 0.0
    """From its first step to its end."""
    attempts: int = 0
    """Steps that were tried again."""
    left: tuple[str, ...] = ()
    """Threads that were still there at its end, and connections that were not given back."""


@dataclass
class ScoringProcess:
    """A process that scores; started by its constructor."""

    environment: Mapping[str, str]
    partition: str
    model: str | None = None
    """In place of the job's."""
    job: str = JOB
    api: str | None = None
    """The Prefect server to run the whole flow with; without one, its steps are taken alone."""
    _ended: Outcome | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._answer, say = _FORKS.Pipe(duplex=False)
        arguments = (
            dict(self.environment),
            (self.job, self.partition, self.model),
            self.api,
            say,
        )
        self.process = _FORKS.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        say.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    @property
    def over(self) -> bool:
        return not self.process.is_alive()

    def outcome(self, patience: float = PATIENCE) -> Outcome:
        """Wait for its end."""
        if self._ended is None:
            self.process.join(patience)
            if self.process.is_alive():
                self.process.kill()
                raise AssertionError(f"a run did not end within {patience:.0f} s")
            try:
                self._ended = self._answer.recv() if self._answer.poll() else Outcome(KILLED)
            except EOFError:
                self._ended = Outcome(KILLED)
            self._answer.close()
        return self._ended


def _work(environment: dict[str, str], what: What, api: str | None, say: Connection) -> None:
    """The child: score, then tell how it ended."""
    os.environ.update(environment)
    folder = os.path.dirname(os.path.dirname(environment["NIGHTSHIFT_CONFIG"]))  # noqa: PTH120
    sys.path.insert(0, folder)  # the model's own module is there
    with open(os.devnull, "w") as nowhere:  # it is the outcome that counts  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    started_at, attempts = time.monotonic(), [0]
    left: tuple[str, ...] = ()
    try:
        with ExitStack() as opened:
            _disturbed(environment.get("CHAOS_CLOCK"), opened)
            if api is None:
                left = _steps(what, attempts)
            else:
                _flow(what, api)
        name, text = PUBLISHED, ""
    except BaseException as error:
        name, text = type(error).__name__, str(error)
    threads = (t.name for t in threading.enumerate() if not t.name.startswith(_LASTING))
    left += () if api else tuple(threads)
    say.send(Outcome(name, text, time.monotonic() - started_at, attempts[0], left))


def _steps(what: What, attempts: list[int]) -> tuple[str, ...]:
    """The product's own recipe, its steps called in a loop in place of Prefect's tasks."""
    from nightshift.adapters.errors import TransientError
    from nightshift.flows.checks.audit import audit_run
    from nightshift.flows.checks.custom import require_checks
    from nightshift.flows.config.job import Job, load_job
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.shard_workers import open_workers
    from nightshift.flows.planning.scheduled_runs import find_partition
    from nightshift.flows.scoring.recipe import Orchestrator, ScoringRun, open_context

    class Loop(Orchestrator):
        def call(self, step: Callable[[], T], timeout: float | None = None) -> T:
            for retry in range(settings.retries):
                try:
                    return step()
                except TransientError:
                    attempts[0] += 1
                    time.sleep(settings.retry_delay * 2**retry)
            return step()

        def open_workers(self, plan: Any) -> Any:
            return open_workers(plan)

        def require_checks(self, job: Job) -> None:
            require_checks(job.name, job.checks)

        def audit(self, context: Any, *of_run: Any) -> Any:
            return audit_run(context.resources, context.model, *of_run)

    job, partition, model = what
    settings, spec, loop = load_settings(), load_job(job), Loop()
    out: set[Any] = set()
    with open_context(settings, spec, model or spec.model, loop) as context:
        engine = context.resources.ledger.engine
        sa.event.listen(engine, "checkout", lambda _, record, __: out.add(record))
        sa.event.listen(engine, "checkin", lambda _, record: out.discard(record))
        ScoringRun(context, find_partition(spec, partition), loop).execute()
    return ("a connection that was not given back",) * len(out)


def _flow(what: What, api: str) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from nightshift.flows.score import score

    tries = int(os.environ.get("PREFECT_CLIENT_MAX_RETRIES", "5"))
    with temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: tries}):
        score(*what)


def _disturbed(clock: str | None, opened: ExitStack) -> None:
    """Have this process's clock jump by so many seconds, back and forth, four times a second."""
    if clock is None:
        return
    from tests.chaos.clock import jumping

    opened.enter_context(jumping(float(clock)))
