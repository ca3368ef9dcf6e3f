"""Backfills, end to end: the plan, what fails, what is stopped or killed, what overlaps."""

import json
import re
import signal
import threading
from contextvars import copy_context
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import State

from command import Nightshift
from nightshift.adapters.errors import BackfillFailed, ConfigurationError
from nightshift.adapters.ledger.backfills import Step
from nightshift.flows.backfill import BackfillResult, backfill
from nightshift.flows.score import score
from project import Project
from served import start
from waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect")

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 4)
DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]


def decisions(result: BackfillResult) -> dict[str, tuple[str, str]]:
    return {step.partition: (step.state, step.reason) for step in result.steps}


def states(result: BackfillResult) -> list[str]:
    return [step.state for step in result.steps]


@pytest.fixture
def days(project: Project) -> Project:
    """400 orders over four days, a hundred each, none scored."""
    project.fill(400, days=4)
    project.sql("ANALYZE orders")
    project.register()
    return project


@pytest.mark.heavy
def test_a_range_with_a_gap(days: Project) -> None:
    score("orders", "2024-03-02")
    result = backfill("orders", FIRST, LAST)
    assert states(result) == ["published", "skipped", "published", "published"]
    assert result.steps[1].reason == "published by run 1 with doubler@1"
    assert days.scores() == days.expected()
    again = backfill("orders", FIRST, LAST)
    assert states(again) == ["skipped"] * 4
    assert len(days.states()) == 4


@pytest.mark.heavy
def test_a_dry_run_shows_the_very_list(days: Project) -> None:
    before = days.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    dry = backfill("orders", FIRST, LAST, dry_run=True, order="newest_first")
    assert days.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == before
    assert [step.partition for step in dry.steps] == DAYS[::-1]
    assert all(40 < (step.rows or 0) < 250 for step in dry.steps)
    real = backfill("orders", FIRST, LAST, order="newest_first")
    assert [step.partition for step in real.steps] == [step.partition for step in dry.steps]
    runs = days.sql("SELECT partition FROM nightshift_runs ORDER BY run_id")
    assert [run.partition for run in runs] == DAYS[::-1]


@pytest.mark.heavy
def test_what_the_model_was_trained_on_is_skipped_unless_allowed(days: Project) -> None:
    days.register(trained_through=date(2024, 3, 2))
    for dry_run in (True, False):
        result = backfill("orders", FIRST, LAST, dry_run=dry_run)
        assert [step.state == "skipped" for step in result.steps] == [True, True, False, False]
        assert result.steps[1].reason.startswith("doubler@2 was trained on it")
    assert backfill("orders", FIRST, LAST, allow_leakage=True).count("published") == 2
    assert days.scores() == days.expected()


@pytest.mark.heavy
def test_reprocess(days: Project) -> None:
    score("orders", "2024-03-01")
    days.register()
    score("orders", "2024-03-02")

    def plan(reprocess: Any) -> list[str]:
        dry = backfill("orders", FIRST, LAST, reprocess=reprocess, dry_run=True)
        return [step.partition[-1] for step in dry.steps if step.state == "waiting"]

    assert plan("missing") == ["3", "4"]
    assert plan("failed") == []
    assert plan("stale_model") == ["1"]
    assert plan("all") == ["1", "2", "3", "4"]
    result = backfill("orders", FIRST, LAST, reprocess="stale_model")
    assert result.model == "doubler@2"
    assert decisions(result)["2024-03-03"] == ("skipped", "not published yet")
    versions = days.sql("SELECT DISTINCT model_version FROM order_scores")
    assert [row.model_version for row in versions] == [2]


def test_one_that_fails_does_not_stop_the_others(
    days: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    days.sql("UPDATE orders SET x = -1 WHERE id BETWEEN 101 AND 200")
    days.register(behaviour="negative")
    with pytest.raises(BackfillFailed) as failed:
        backfill("orders", FIRST, LAST)
    assert [partition for partition, _ in failed.value.failures] == ["2024-03-02"]
    assert str(failed.value).startswith("1 of 4 partitions failed. 2024-03-02: doubler@2 could not")
    assert days.scores() == days.expected("id NOT BETWEEN 101 AND 200")

    dry = backfill("orders", FIRST, LAST, reprocess="failed", dry_run=True)
    assert states(dry) == ["skipped", "waiting", "skipped", "skipped"]
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    result = backfill("orders", FIRST, LAST, reprocess="failed")
    assert states(result) == ["skipped", "published", "skipped", "skipped"]
    assert days.scores() == days.expected()
    assert backfill("orders", FIRST, LAST, reprocess="failed").count("skipped") == 4


@pytest.mark.heavy
def test_ctrl_c_stops_all_that_are_side_by_side_within_a_chunk(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fill(1600, days=4)
    project.register(seconds=0.3)
    main = threading.get_ident()

    def interrupt() -> None:
        eventually(lambda: project.count("nightshift_chunks") >= 2)
        signal.pthread_kill(main, signal.SIGINT)

    person = threading.Thread(target=interrupt)
    person.start()
    with pytest.raises(KeyboardInterrupt):
        backfill("orders", FIRST, LAST, max_parallel=2)
    person.join()
    assert project.count("nightshift_chunks") < 8  # of the 4 of each day
    assert project.scores() == {}
    errors = project.sql("SELECT DISTINCT state, error FROM nightshift_runs")
    assert errors == [("failed", "interrupted")]
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    result = backfill("orders", FIRST, LAST, max_parallel=3)
    assert states(result) == ["published"] * 4
    assert project.scores() == project.expected()


@pytest.mark.heavy
def test_two_that_overlap_score_each_partition_once(days: Project) -> None:
    days.register(seconds=0.3)
    results: list[BackfillResult] = []
    ranges = [(date(2024, 3, 1), date(2024, 3, 3)), (date(2024, 3, 2), date(2024, 3, 4))]

    def attempt(start: date, end: date) -> None:
        results.append(backfill("orders", start, end))

    threads = [
        threading.Thread(target=copy_context().run, args=(attempt, *days_)) for days_ in ranges
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert sum(result.count("published") for result in results) == 4
    assert sorted(days.states()) == [(day, "published") for day in DAYS]
    assert days.scores() == days.expected()


@pytest.mark.heavy
def test_what_prefect_shows(days: Project) -> None:
    state: State[Any] = backfill("orders", FIRST, LAST, return_state=True)
    run_id = state.state_details.flow_run_id
    assert isinstance(run_id, UUID)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        (artifact,) = client.read_artifacts(artifact_filter=of_run)
        day = FlowRunFilter(tags=FlowRunFilterTags(all_=["orders", "doubler", "2024-03-03"]))
        (partition,) = client.read_flow_runs(
            flow_run_filter=day, sort=FlowRunSort.START_TIME_DESC, limit=1
        )
    assert run.name == "orders 2024-03-01 to 2024-03-04"
    assert set(run.tags) == {"orders", "doubler"}
    assert partition.name == "orders 2024-03-03 v1"
    assert "data:image/svg+xml;base64," in str(artifact.data)
    assert "400 rows published" in str(artifact.data)


def test_a_range_that_ends_before_it_starts(project: Project) -> None:
    with pytest.raises(ConfigurationError, match="2024-03-01 is before the start, 2024-03-04"):
        backfill("orders", LAST, FIRST)


def leave(days: Project, monkeypatch: pytest.MonkeyPatch, ago: str = "1 minute") -> None:
    """A plan that its owner does not carry out any more, of which it was scoring the first day."""

    def stop(runner: Any, steps: list[Step], _: int) -> None:
        steps[0].state = "running"
        runner.backfills.record_step(runner.plan, steps[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nightshift.flows.backfill._Runner.run", stop)
        with pytest.raises(KeyboardInterrupt):
            backfill("orders", FIRST, LAST)
    days.sql(f"UPDATE nightshift_backfills SET heartbeat_at = now() - interval '{ago}'")


def test_what_was_published_after_the_plan_was_made_is_left_alone(
    days: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(days, monkeypatch)
    days.sql("UPDATE orders SET x = x + 1")
    days.register()
    score("orders", "2024-03-02")  # a scheduled run, with a newer model
    days.store.promote("doubler", 1)
    result = backfill("orders", FIRST, LAST)
    assert (result.backfill_id, result.model) == (1, "doubler@1")
    assert states(result) == ["published", "skipped", "published", "published"]
    assert result.steps[1].reason.startswith("Run 1 is already published")
    versions = days.sql("SELECT DISTINCT model_version FROM order_scores WHERE run_id = 1")
    assert [row.model_version for row in versions] == [2]


@pytest.mark.parametrize(
    "change",
    [
        "another model",
        pytest.param("two days", marks=pytest.mark.heavy),
        pytest.param("another process", marks=pytest.mark.heavy),
    ],
)
def test_a_plan_that_is_not_gone_on_with(
    days: Project, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    leave(days, monkeypatch, "2 days" if change == "two days" else "1 minute")
    if change == "another model":
        days.register()
    if change == "another process":  # was faster
        monkeypatch.setattr("nightshift.flows.backfill.Backfills.take_over", lambda *_: None)
    result = backfill("orders", FIRST, LAST)
    assert result.backfill_id == 2
    assert states(result) == ["published"] * 4
    left = "SELECT DISTINCT state FROM nightshift_backfill_partitions WHERE backfill_id = 2"
    assert days.sql(left) == [("published",)]


@pytest.mark.heavy
def test_killed_and_started_again_it_goes_on_with_its_plan(days: Project, prefect: str) -> None:
    days.register(seconds=1.0)
    range_ = ["--from", "2024-03-01", "--to", "2024-03-04"]
    process = start(days, prefect, "backfill", "orders", *range_)
    eventually(lambda: _published(days) >= 1)
    process.kill()
    process.communicate()
    before = _published(days)
    assert 1 <= before < 4

    dry = backfill("orders", FIRST, LAST, dry_run=True)
    assert [step.state for step in dry.steps].count("published") == before
    result = backfill("orders", FIRST, LAST)
    assert (result.backfill_id, result.model) == (1, "doubler@2")
    assert states(result) == ["published"] * 4
    assert days.scores() == days.expected()
    assert len([state for _, state in days.states() if state == "published"]) == 4
    assert days.sql("SELECT count(*) FROM nightshift_backfills") == [(1,)]


def _published(project: Project) -> int:
    if project.sql("SELECT to_regclass('nightshift_backfill_partitions')") == [(None,)]:
        return 0
    steps = "SELECT count(*) FROM nightshift_backfill_partitions WHERE state = 'published'"
    return int(project.sql(steps)[0][0])


def test_the_command(
    days: Project, nightshift: Nightshift, monkeypatch: pytest.MonkeyPatch
) -> None:
    days.sql("UPDATE orders SET x = -1 WHERE id BETWEEN 101 AND 200")
    days.register(behaviour="negative")
    command = ["backfill", "orders", "--from", "2024-03-01", "--to", "2024-03-04"]
    plan = json.loads(nightshift(*command, "--dry-run", "--json").stdout)
    assert [step["state"] for step in plan["partitions"]] == ["waiting"] * 4
    header, first, *_, summary = nightshift(*command, "--dry-run").stdout.splitlines()
    assert header.split() == ["partition", "state", "rows", "why"]
    assert re.fullmatch(r"2024-03-01 +waiting +~\d+ +not published yet *", first)
    assert re.fullmatch(r"4 of 4 would be scored, about \d+ rows, with doubler@2", summary)
    failed = nightshift(*command, code=1)
    assert "3 published, 1 failed, with doubler@2" in failed.stdout
    assert failed.stderr.startswith("Error: 1 of 4 partitions failed. The same command with")
    assert (failed.stdout + failed.stderr).count("cannot take negative numbers") == 1
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    repeated = nightshift(*command, "--reprocess", "failed").stdout
    assert "3 skipped, 1 published, with doubler@2" in repeated
