"""Events to Prefect about what a command has done, so that the jobs that wait for it run."""

from collections.abc import Callable

from nightshift.adapters.history.run_history import History
from nightshift.adapters.models.reference import ModelRef
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows.cli import terminal
from nightshift.flows.config.resources import any_job_waits
from nightshift.flows.config.settings import Settings
from nightshift.flows.orchestrator.server import accepts_events, flush_logs_and_events


def announce(settings: Settings, emit: Callable[[], None]) -> None:
    """Send the event; say so if there is no Prefect server, and a job waits for events."""
    if not accepts_events(settings.state_dir):
        if any_job_waits():
            terminal.errors.print("No Prefect server is running: jobs with `on:` do not start.")
        return
    emit()
    flush_logs_and_events()


def announce_promotion(settings: Settings, manifest: Manifest, alias: str) -> None:
    """Send the event that the alias names another version."""

    def emit() -> None:
        from nightshift.flows.orchestrator.events import emit_promoted

        emit_promoted(manifest, alias)

    announce(settings, emit)


def announce_shown(
    settings: Settings, history: History, run_id: int, partition: str | None = None
) -> None:
    """Send the event that readers now see this run's predictions of a partition (its own)."""
    run = history.run(run_id)
    target = None if run is None else history.target(run.job)
    if run is None or target is None:
        return

    def emit() -> None:
        from nightshift.flows.orchestrator.events import emit_published
        from nightshift.flows.scoring.run import ScoreResult

        result = ScoreResult(
            job=run.job,
            partition=partition or run.partition,
            run_id=run_id,
            model=ModelRef(run.model_name, run.model_version),
            target=target,
            rows=run.rows + run.rejected,
            resumed_rows=run.rows + run.rejected,
            sql="",
            seconds=0.0,
            rejected=run.rejected,
        )
        emit_published(result)

    announce(settings, emit)
