"""Steps of a run as Prefect tasks, called again after transient errors."""

from collections.abc import Callable
from typing import Any, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from nightshift.adapters.errors import TransientError
from nightshift.flows.config.job import Job
from nightshift.flows.config.settings import Settings

_JITTER = 0.5  # of a delay: how much longer it may take

T = TypeVar("T")


def make_task(
    step: Callable[[], T], settings: Settings, job: Job, timeout: float | None
) -> Task[[], T]:
    """A task with the job's retries, or else those of the settings, and a timeout in seconds.

    Each delay is twice the one before it, with jitter: otherwise all runs that a server's restart
    has stopped would come back at once.
    """
    retries = settings.retries if job.retries is None else job.retries
    delay = settings.retry_delay if job.retry_delay is None else job.retry_delay
    return Task(
        step,
        cache_policy=NO_CACHE,
        retries=retries,
        retry_delay_seconds=[delay * 2**i for i in range(retries)],
        retry_jitter_factor=_JITTER,
        retry_condition_fn=_is_transient,
        timeout_seconds=timeout,
    )


def _is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether to call a failed step again: the error's type decides."""
    try:
        state.result()
    except TransientError:
        return True
    except Exception:  # any other error would come again
        return False
    return False
