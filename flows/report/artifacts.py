"""The report of a run: a short one as a Prefect artifact, the whole of it as a file."""

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from nightshift.adapters.history.run_details import read_run_details
from nightshift.adapters.ledger.runs import RunState
from nightshift.flows.checks.evidence import is_basis
from nightshift.flows.config.settings import load_settings
from nightshift.flows.report.facts import collect_facts
from nightshift.flows.report.files import render_report, save_report
from nightshift.flows.report.markdown import render_markdown
from nightshift.flows.scoring.context import RunContext
from nightshift.flows.scoring.run import ScoreResult


def show_result(context: RunContext, result: ScoreResult, in_backfill: bool) -> None:
    """Report a run that is published or quarantined: a short artifact of the flow run and the job,
    and a file. In a backfill, only the artifact.
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
        # A backfill has a picture of all its partitions; its runs' artifacts leave out the columns.
        facts = collect_facts(details, context.model.reference, columns=not in_backfill)
        line, markdown = render_markdown(facts, str(source), sql)
        key = f"nightshift-{artifact_key(details.run.job)}"
        create_markdown_artifact(key=key, description=line, markdown=markdown)
        if not in_backfill:
            settings = load_settings()
            path = save_report(render_report(facts, settings), settings, run_id)
            get_run_logger().info("The report of run %s is %s", run_id, path)
    except Exception as error:  # a report is not worth a run
        get_run_logger().warning("The report of run %s could not be made: %s", run_id, error)


def artifact_key(job: str) -> str:
    """A job's name in the letters that an artifact's key may have: a-z, 0-9 and dashes."""
    return "".join(
        letter if letter.isascii() and letter.isalnum() else "-" for letter in job.lower()
    )
