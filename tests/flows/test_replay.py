"""Rows that got no prediction: kept with their reasons, listed, scored again, merged."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from nightshift.adapters.errors import Quarantined
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.cli.main import app
from nightshift.flows.orchestrator.events import PARTITION_PUBLISHED, RUN_QUARANTINED
from nightshift.flows.score import score
from project import Project

pytestmark = pytest.mark.usefixtures("prefect")


def counters(project: Project) -> list[tuple[int, int]]:
    rows = project.sql("SELECT rows_written, rows_rejected FROM nightshift_shards ORDER BY run_id")
    return [tuple(row) for row in rows]


def poison(project: Project, *ids: int) -> None:
    """Rows at which the model raises: those with negative numbers."""
    project.fill()
    project.sql("UPDATE orders SET x = id")
    project.register(behaviour="negative")
    project.sql(f"UPDATE orders SET x = -id WHERE id IN ({', '.join(map(str, ids))})")


def test_a_reject_quarantines_a_run_by_default(project: Project) -> None:
    poison(project, 150, 700)
    with pytest.raises(Quarantined, match=r"2 of 1,000 rows could not be scored, 0 may be"):
        score("orders", "all")
    assert project.scores() == {}
    assert project.states() == [("all", "quarantined")]
    assert counters(project) == [(998, 2)]
    found = project.sql("SELECT row_key, kind, inputs FROM nightshift_rejects ORDER BY chunk")
    assert [(row.row_key, row.kind, json.loads(row.inputs)) for row in found] == [
        ("[150]", "ValueError", {"x": -150.0}),
        ("[700]", "ValueError", {"x": -700.0}),
    ]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The events that are sent: their names and payloads."""
    events: list[tuple[str, dict[str, Any]]] = []

    def emit(name: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        assert resource["nightshift.partition"] == payload["partition"]
        events.append((name, payload))

    monkeypatch.setattr("nightshift.flows.orchestrator.events.emit_event", emit)
    return events


def test_some_may_be_rejected_and_are_merged_later(
    project: Project, sent: list[tuple[str, dict[str, Any]]]
) -> None:
    poison(project, 150, 700)
    project.write_job(max_rejects="1%", checks={"columns": {"x": {"far_outside": "off"}}})
    result = score("orders", "all")
    assert (result.rows, result.rejected, result.verdict) == (1000, 2, "warn")
    assert len(project.scores()) == 998
    project.sql("UPDATE orders SET x = 7 WHERE id = 150")
    done = CliRunner().invoke(app, ["rejects", "orders", "--replay"])
    assert done.exit_code == 1
    assert "Merged 1 rows into run 1" in done.output
    assert "still no prediction for [700]" in done.output
    assert [(name, payload["rows"]) for name, payload in sent] == [
        (PARTITION_PUBLISHED, 998),
        (PARTITION_PUBLISHED, 999),
    ]
    assert project.scores()[150] == 14.0
    assert counters(project) == [(999, 1)]
    project.sql("DELETE FROM orders WHERE id = 700")
    done = CliRunner().invoke(app, ["rejects", "orders", "--replay"])
    assert (done.exit_code, "1 are no longer in the source" in done.output) == (0, True)
    moves = project.sql(
        "SELECT action, reason FROM nightshift_publication_changes ORDER BY change_id"
    )
    assert [move.action for move in moves] == ["publish", "replay"]
    assert moves[1].reason == "1 rejected rows replayed"


def test_a_quarantined_run_is_completed_and_released(
    project: Project, sent: list[tuple[str, dict[str, Any]]]
) -> None:
    poison(project, 150)
    with pytest.raises(Quarantined):
        score("orders", "2024-03-01")
    listed = CliRunner().invoke(app, ["rejects", "orders"])
    assert "[150]" in listed.output
    assert "1 rows of run 1, 2024-03-01, have no prediction" in listed.output
    project.sql("UPDATE orders SET x = 7 WHERE id = 150")
    done = CliRunner().invoke(app, ["rejects", "orders", "--replay"])
    assert done.exit_code == 0, done.output
    assert project.scores() == {}
    released = CliRunner().invoke(app, ["runs", "release", "1", "--reason", "row corrected"])
    assert released.exit_code == 0, released.output
    assert [name for name, _ in sent] == [RUN_QUARANTINED, PARTITION_PUBLISHED]
    assert sent[1][1] == {
        "job": "orders",
        "partition": "2024-03-01",
        "model": "doubler@1",
        "target": "order_scores",
        "run_id": 1,
        "rows": 500,
        "rejected": 0,
        "verdict": "ok",
        "not_judged": 0,
    }
    assert project.scores() == project.expected("id <= 500")
    moves = CliRunner().invoke(app, ["history", "orders", "--json"])
    assert [move["action"] for move in json.loads(moves.output)] == ["release"]
    traced = CliRunner().invoke(app, ["explain", "orders", "--key", "150"])
    assert "readers see it" in traced.output


def test_all_rejects_are_replayed_however_many(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightshift.flows.replay._AT_ONCE", 3)
    bad = range(10, 110, 10)
    poison(project, *bad)
    with pytest.raises(Quarantined, match=r"10 x ValueError"):
        score("orders", "all")
    project.sql("UPDATE orders SET x = 7 WHERE id NOT IN (20, 30, 40, 90)")
    project.sql("DELETE FROM orders WHERE id = 100")
    done = CliRunner().invoke(app, ["rejects", "orders", "--replay", "--json"])
    assert done.exit_code == 1
    result = json.loads(done.output)
    assert (result["merged"], result["gone"], result["failed"]) == (5, 1, 4)
    assert [key for key, _ in result["errors"]] == ["[20]", "[30]", "[40]", "[90]"]
    assert counters(project) == [(995, 5)]
    again = CliRunner().invoke(app, ["rejects", "orders", "--replay"])
    assert "still no prediction for [90]" in again.output
    assert "release" not in again.output
    (shard,) = project.sql("SELECT profile FROM nightshift_shards")
    profile = Profile.from_json(shard.profile)
    assert profile.rows == profile.outputs["prediction"].rows == 995
    assert profile.inputs["x"].rows == 1000  # a reject's inputs are counted once


def test_what_the_checks_do_not_allow_is_not_merged(project: Project) -> None:
    poison(project, 150, 160, 700)
    checks = {"predictions": {"between": [0, 2000]}, "columns": {"x": {"far_outside": "off"}}}
    project.write_job(max_rejects="1%", checks=checks)
    score("orders", "all")
    project.sql("UPDATE orders SET x = CASE id WHEN 160 THEN 1e6 ELSE 7 END WHERE id < 701")
    done = CliRunner().invoke(app, ["rejects", "orders", "--replay"])
    assert done.exit_code == 1
    assert "Merged 2 rows into run 1" in done.output
    output = " ".join(done.output.split())
    assert "still no prediction for [160]: prediction: about" in output
    assert "are not between 0 and 2,000 (found 2 to 2e+06)" in output
    assert 160 not in project.scores()
    assert counters(project) == [(999, 1)]


def test_a_run_after_a_quarantine_starts_over(project: Project) -> None:
    poison(project, 150)
    with pytest.raises(Quarantined):
        score("orders", "all")
    project.sql("UPDATE orders SET x = id")
    result = score("orders", "all")
    assert (result.run_id, result.resumed_rows) == (2, 0)
    assert project.scores() == project.expected()
