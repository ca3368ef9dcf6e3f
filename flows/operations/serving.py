"""The process that runs the jobs' deployments and follows changes of the job files."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from prefect.runner import Runner

from nightshift.flows.config.settings import jobs_folder, settings_file
from nightshift.flows.operations.deployments import deploy, wanted_deployments
from nightshift.flows.score import score

Say = Callable[[str], None]

WATCH_SECONDS = 2.0


class _Runner(Runner):
    """Prefect's, ended by SIGTERM as by Ctrl-C."""

    def handle_sigterm(self, *_args: Any, **_kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)


def serve_jobs(limit: int, say: Say) -> None:
    """Register the jobs and run here what falls due, until SIGINT or SIGTERM.

    Job files that are added or changed while it runs are registered, too. `say` gets a line for
    each change and for each file that is wrong.
    """
    # Prefect chooses the folder in which a flow's process starts.
    os.environ["NIGHTSHIFT_CONFIG"] = str(settings_file().absolute())
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)
    # Otherwise a background job of a shell ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(limit, say))


async def _serve(limit: int, say: Say) -> None:
    # With paused deployments, the server would schedule nothing, and missed runs would be unknown.
    runner = _Runner(limit=limit, pause_on_shutdown=False)
    seen = _job_files()
    await _register_jobs(runner, say, all_of_them=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_watch, runner, say, seen)
        await runner.start()


async def _watch(runner: Runner, say: Say, seen: dict[str, Any]) -> None:
    while True:
        await anyio.sleep(WATCH_SECONDS)
        now = _job_files()
        if now == seen:
            continue
        try:
            await _register_jobs(runner, say)
        except Exception as error:  # the server is away, say; it tries again in a moment
            say(f"The job files have changed, but could not be registered yet: {error}")
        else:
            seen = now


async def _register_jobs(runner: Runner, say: Say, all_of_them: bool = False) -> None:
    """Register what the job files ask for now; what is unchanged is left alone."""
    wanted = await anyio.to_thread.run_sync(wanted_deployments)
    for deployed in await anyio.to_thread.run_sync(lambda: list(deploy(wanted.deployments))):
        if deployed.outcome == "gone":
            say(f"{deployed.name} has no job file; `nightshift deploy --remove` removes it.")
        elif deployed.outcome != "unchanged" and not all_of_them:
            say(f"{deployed.name} was {deployed.outcome}")
    for deployment in wanted.deployments:
        await runner.aadd_deployment(deployment)
    for error in wanted.wrong.values():
        say(f"Not served: {error}")
    if all_of_them:
        names = sorted({d.name for d in wanted.deployments if d.flow_name == score.name})
        say(f"Jobs        {', '.join(names) or f'none yet in {jobs_folder()}'}")


def _job_files() -> dict[str, Any]:
    """What changes when a job file does, by file name."""
    found = {}
    for path in jobs_folder().glob("*.yaml"):
        with suppress(FileNotFoundError):
            status = path.stat()
            found[path.name] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
