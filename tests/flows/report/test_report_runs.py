"""The reports that real runs leave: an artifact and a file each, and the same again later."""

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from nightshift.adapters.errors import ConfigurationError, PredictionFailed, Quarantined, RunUnknown
from nightshift.adapters.history.run_details import read_run_details
from nightshift.flows.backfill import backfill
from nightshift.flows.cli.main import app
from nightshift.flows.config.job import load_job
from nightshift.flows.config.resources import open_resources, open_store
from nightshift.flows.config.settings import load_settings
from nightshift.flows.orchestrator.access import read_variables
from nightshift.flows.report.facts import collect_facts
from nightshift.flows.report.files import flow_run_url, save_report
from nightshift.flows.score import score
from nightshift.flows.scoring.timings import StageTimings
from project import Project

DAY, NEXT = "2024-03-01", "2024-03-02"

pytestmark = pytest.mark.usefixtures("prefect", "reports")


@pytest.fixture
def filled(project: Project) -> Project:
    project.fill(2000)
    project.register()
    settings = project.folder / "config" / "nightshift.yaml"
    content = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump({**content, "state_dir": "state"}))
    return project


def newest_artifact(job: str = "orders") -> Any:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(sort=ArtifactSort.CREATED_DESC, limit=50)
    return next(one for one in found if one.key == f"nightshift-{job}")


def file_of(project: Project, run_id: int) -> str:
    return (project.folder / "state" / "reports" / f"run-{run_id}.html").read_text()


def nightshift(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["report", *arguments])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code
    return result.output


def test_a_published_run_leaves_an_artifact_and_a_file(filled: Project) -> None:
    first = score("orders", DAY)
    second = score("orders", DAY)
    artifact = newest_artifact()
    assert artifact.description == f"orders {DAY}: 1,000 rows published"
    text = str(artifact.data)
    assert text.startswith(f"## Published: orders {DAY}\n")
    assert f"| run | {second.run_id} | {first.run_id} |" in text
    assert "| rows written | 1,000 | 1,000 |" in text
    assert "data:image/svg+xml;base64," in text
    assert "SELECT * FROM order_scores ORDER BY id LIMIT 10;" in text
    page = file_of(filled, second.run_id)
    assert "<h1>Published</h1>" in page
    assert page.count("<svg ") >= 4
    assert "/runs/flow-run/" in page
    assert len(page) < 100_000


def test_a_quarantined_run_says_why_first(filled: Project) -> None:
    score("orders", DAY)
    filled.sql("UPDATE orders SET x = NULL WHERE id > 1000 AND mod(id, 10) > 0")
    with pytest.raises(Quarantined) as raised:
        score("orders", NEXT)
    artifact = newest_artifact()
    assert artifact.description.startswith(f"orders {NEXT}: quarantined: ")
    text = str(artifact.data)
    head, reason, readers = [line for line in text.splitlines() if line][:3]
    assert head == f"## Quarantined: orders {NEXT}"
    assert "NULL" in reason
    assert readers == "Readers see nothing of this partition yet."
    assert "- **fail** " in text
    assert f'nightshift runs release {raised.value.run_id} --reason "..."' in text
    page = file_of(filled, raised.value.run_id)
    assert page.index("Quarantined") < page.index("rows read") < page.index("Checks")
    assert '<tr class="fail">' in page


def test_a_failed_run_has_a_report_too(filled: Project) -> None:
    filled.register(behaviour="raise", after=3)
    with pytest.raises(PredictionFailed):
        score("orders", DAY)
    (run,) = filled.sql("SELECT run_id FROM nightshift_runs")
    text = str(newest_artifact().data)
    assert text.startswith(f"## Failed: orders {DAY}\n")
    assert "cannot take it any more" in text
    assert f"nightshift run orders --partition {DAY}" in text
    assert "cannot take it any more" in file_of(filled, run.run_id)


@pytest.mark.heavy
def test_the_partitions_of_a_backfill_have_no_pictures_and_no_files(filled: Project) -> None:
    filled.sql("DELETE FROM orders WHERE mod(id, 4) > 0")  # too few to tell how they differ
    backfill("orders", date(2024, 3, 1), date(2024, 3, 2))
    text = str(newest_artifact().data)
    assert text.startswith(f"## Published: orders {NEXT}\n")
    assert "data:" not in text
    assert not (filled.folder / "state" / "reports").exists()


@pytest.mark.heavy
def test_a_report_later_is_the_same(filled: Project) -> None:
    run = score("orders", DAY)
    before = file_of(filled, run.run_id)
    said = nightshift(str(run.run_id)).splitlines()
    assert said[0].startswith(f"Run {run.run_id}, orders {DAY}: Published. input x: 333 of 1,000")
    assert said[1] == "7 checks could not be judged; the report says why."
    assert Path(said[2]).read_text() == before
    assert nightshift("orders", "--output", "-") == before
    elsewhere = filled.folder / "elsewhere" / "run.html"
    nightshift("orders", "--output", str(elsewhere))
    assert elsewhere.read_text() == before


@pytest.mark.heavy
def test_open_shows_it_in_the_browser(filled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    run = score("orders", DAY)
    nightshift("orders", "--open")
    (url,) = opened
    assert url.startswith("file:///")
    assert url.endswith(f"/state/reports/run-{run.run_id}.html")


@pytest.mark.heavy
def test_without_the_store_the_rest_is_shown(
    filled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    score("orders", DAY)
    monkeypatch.setenv("NIGHTSHIFT_STORE__URL", str(filled.folder / "gone"))
    page = nightshift("orders", "--output", "-")
    assert "Without the training sample of doubler@1" in page
    assert "<h1>Published</h1>" in page


def test_what_there_is_no_report_of(filled: Project) -> None:
    with pytest.raises(ConfigurationError, match="nothing was scored yet"):
        nightshift("orders")
    score("orders", DAY)
    with pytest.raises(RunUnknown, match="no run 99"):
        nightshift("99")
    with pytest.raises(ConfigurationError, match="Did you mean 'orders'"):
        nightshift("order")
    filled.write_job("others", target={"table": "other_scores"})
    with pytest.raises(ConfigurationError, match="job 'others' has no run yet"):
        nightshift("others")


def test_the_numbers_are_the_database_s(filled: Project) -> None:
    """What the page counts is what a query counts."""
    run = score("orders", DAY)
    settings = load_settings()
    with open_resources(settings, load_job("orders")) as resources:
        found = read_run_details(resources.ledger, run.run_id)
    store = open_store(settings)
    facts = collect_facts(found, store.reference(store.manifest("doubler", 1)))
    ((rows, nulls, low, high),) = filled.sql(
        "SELECT count(*), count(*) FILTER (WHERE x IS NULL), min(x), max(x) FROM orders"
        " WHERE id <= 1000"
    )
    (x,) = facts.inputs
    assert (x.now.rows, x.now.nulls, x.now.low, x.now.high) == (rows, nulls, low, high)
    (prediction,) = facts.outputs
    assert (prediction.now.low, prediction.now.high) == (2 * low, 2 * high)
    assert (found.run.rows, found.chunks) == (rows, 10)
    assert json.loads(found.audit or "")["verdict"] == "warn"


@pytest.mark.parametrize("shards", [1, pytest.param(2, marks=pytest.mark.heavy)])
def test_the_time_of_each_stage_is_kept(filled: Project, shards: int) -> None:
    filled.write_job(shards=shards)
    run = score("orders", "all")
    rows = filled.sql("SELECT timings FROM nightshift_shards")
    assert len(rows) == shards
    for row in rows:
        seconds = StageTimings.from_json(row.timings).seconds
        assert set(seconds) == {"read", "predict", "profile", "write"}
        assert min(seconds.values()) > 0
    assert "Seconds by stage" in file_of(filled, run.run_id)


def test_only_the_newest_files_are_kept(filled: Project) -> None:
    settings = load_settings()
    folder = settings.state_dir / "reports"
    for number in (*range(1, 103), 1000):
        save_report("page", settings, number)
    (folder / "mine.html").write_text("not ours")
    save_report("page", settings, 999)
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 101
    assert {"mine.html", "run-1000.html", "run-999.html", "run-102.html"} <= names
    assert "run-4.html" not in names


def test_the_flow_run_is_where_its_server_is(filled: Project) -> None:
    settings = load_settings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
        assert flow_run_url(settings, "ab") == "http://prefect:4200/runs/flow-run/ab"
        patch.setenv("PREFECT_UI_URL", "https://ui.example.com/")
        assert flow_run_url(settings, "ab") == "https://ui.example.com/runs/flow-run/ab"
        assert flow_run_url(settings, None) is None
        patch.delenv("PREFECT_UI_URL")
        patch.delenv("PREFECT_API_URL")
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            assert flow_run_url(settings, "ab") is None
    read_variables()


@pytest.mark.heavy
def test_the_command_line_starts_without_the_plotting_library() -> None:
    code = (
        "import sys, nightshift.flows.cli.main, nightshift.flows.report.html; "
        "print('matplotlib' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
    assert re.search("Error", found.stderr) is None
