"""Workers for shards, on a Prefect task runner: threads, processes or Dask."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import Flow, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TagsContext, TaskRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from nightshift.adapters.errors import LibraryNotInstalled
from nightshift.flows.config.job import Shards
from nightshift.flows.scoring.shards import Assignment, PendingShard, Submit, score_shard

_score_shard = task(cache_policy=NO_CACHE, task_run_name="shard {assignment.shard}")(score_shard)


@dataclass(frozen=True)
class _Pending:
    future: PrefectFuture[int]

    def wait(self, seconds: float) -> bool:
        self.future.wait(seconds)
        return self.future.state.is_final()

    def result(self) -> int:
        return self.future.result()


@contextmanager
def open_workers(plan: Shards) -> Iterator[Submit]:
    """Yields what hands a shard to a worker. Workers are waited for at the end."""
    with TagsContext(current_tags=set()), _without_objects(), task_runner(plan) as runner:

        def submit(assignment: Assignment) -> PendingShard:
            return _Pending(runner.submit(_score_shard, {"assignment": assignment}))

        yield submit


@contextmanager
def _without_objects() -> Iterator[None]:
    """Workers get Prefect's context pickled, with the flow and the step that run here. Those hold
    connections and models: stand-ins of the same names go in their place.
    """
    run, step = FlowRunContext.get(), TaskRunContext.get()
    with ExitStack() as stack:
        if run is not None and run.flow is not None:
            flow = Flow(_stand_in, name=run.flow.name)
            stack.enter_context(run.model_copy(update={"flow": flow}))
        if step is not None:
            named = Task(_stand_in, name=step.task.name)
            stack.enter_context(step.model_copy(update={"task": named}))
        yield


def _stand_in() -> None:
    """Is never called."""


def task_runner(plan: Shards) -> TaskRunner[Any]:
    """Raises LibraryNotInstalled for Dask without its extra."""
    if plan.on == "threads":
        return ThreadPoolTaskRunner(max_workers=plan.workers)
    if plan.on == "processes":
        return ProcessPoolTaskRunner(max_workers=plan.workers)
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ModuleNotFoundError as error:
        raise LibraryNotInstalled("dask", "prefect_dask", "dask") from error
    if plan.address is not None:
        return DaskTaskRunner(address=plan.address)
    cluster = {"n_workers": plan.workers, "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=cluster)
