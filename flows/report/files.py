"""A run's report, made from what the ledger and the model store keep: now or later, anywhere."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from nightshift.adapters.errors import NightshiftError
from nightshift.adapters.history.run_details import read_run_details
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.adapters.models.reference import ModelRef
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.evidence import usual
from nightshift.flows.config.resources import open_store
from nightshift.flows.config.settings import Settings
from nightshift.flows.orchestrator.server import known_api
from nightshift.flows.report.html import Facts, facts_of, render

_MOST_KEPT = 100
_NAME = re.compile(r"run-(\d+)\.html").fullmatch


def facts_about(ledger: Ledger, settings: Settings, run_id: int) -> tuple[Facts, list[str]]:
    """All that is known of the run, and what could not be had. Raises RunUnknown."""
    found = read_run_details(ledger, run_id, usual)
    training, problem = _training(settings, found.run.model_name, found.run.model_version)
    return facts_of(found, training), problem


def html(facts: Facts, notes: Sequence[str], settings: Settings) -> str:
    """The report as one file's content."""
    return render(facts, flow_run_url(settings, facts.found.run.flow_run_id), notes)


def keep(page: str, settings: Settings, run_id: int) -> Path:
    """Write a run's report into the state folder, which holds the newest 100; its path."""
    folder = settings.state_dir / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"run-{run_id}.html"
    path.write_text(page, encoding="utf-8")
    others = {int(found[1]): file for file in folder.iterdir() if (found := _NAME(file.name))}
    for number in sorted(others)[:-_MOST_KEPT]:
        others[number].unlink(missing_ok=True)
    return path.absolute()


def flow_run_url(settings: Settings, flow_run_id: str | None) -> str | None:
    """The flow run in Prefect's UI, if there is a server that has one."""
    ui = os.environ.get("PREFECT_UI_URL")
    if not ui:
        api = known_api(settings.state_dir) or ""
        ui = api.removesuffix("/api") if api.endswith("/api") else ""
    if not ui or not flow_run_id:
        return None
    return f"{ui.rstrip('/')}/runs/flow-run/{flow_run_id}"


def _training(settings: Settings, name: str, version: int) -> tuple[Profile | None, list[str]]:
    """The profile of the sample that the model was registered with; without it, why."""
    try:
        store = open_store(settings)
        return store.reference(store.manifest(name, version)), []
    except NightshiftError as error:  # the store may be elsewhere, or gone: the rest is still good
        return None, [f"Without the training sample of {ModelRef(name, version)}: {error}"]
