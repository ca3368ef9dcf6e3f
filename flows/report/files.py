"""A run's report as an HTML file, made at any time from what the ledger and the store keep."""

import os
import re
from pathlib import Path

from nightshift.flows.config.settings import Settings
from nightshift.flows.orchestrator.server import known_api
from nightshift.flows.report.facts import ReportFacts
from nightshift.flows.report.html import render_html

_MOST_KEPT = 100
_NAME = re.compile(r"run-(\d+)\.html").fullmatch


def render_report(facts: ReportFacts, settings: Settings) -> str:
    """The file's content, with a link to the flow run where there is one."""
    return render_html(facts, flow_run_url(settings, facts.details.run.flow_run_id))


def save_report(page: str, settings: Settings, run_id: int) -> Path:
    """Write a run's report to the state folder, which keeps the newest 100; its absolute path."""
    folder = settings.state_dir / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"run-{run_id}.html"
    path.write_text(page, encoding="utf-8")
    others = {int(found[1]): file for file in folder.iterdir() if (found := _NAME(file.name))}
    for number in sorted(others)[:-_MOST_KEPT]:
        others[number].unlink(missing_ok=True)
    return path.absolute()


def flow_run_url(settings: Settings, flow_run_id: str | None) -> str | None:
    """The flow run in Prefect's UI; None without a flow run or a server."""
    api = known_api(settings.state_dir) if flow_run_id else None
    if api is None:
        return None
    from prefect.settings import get_current_settings  # a second of imports

    prefect = get_current_settings()
    ui = os.environ.get("PREFECT_UI_URL") or (prefect.api.url == api and prefect.ui_url)
    return f"{(ui or api.removesuffix('/api')).rstrip('/')}/runs/flow-run/{flow_run_id}"
