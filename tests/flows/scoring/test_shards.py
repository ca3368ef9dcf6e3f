"""Shards: key ranges scored side by side, exactly once all together."""

import itertools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from nightshift.adapters.errors import ConfigurationError, PredictionFailed, Quarantined
from nightshift.adapters.ledger.ledger import Ledger
from nightshift.flows.score import score, score_with
from nightshift.flows.scoring.resuming import count_rows
from project import Project
from served import start
from waiting import eventually

pytestmark = pytest.mark.usefixtures("prefect")


def fill(project: Project, **shards: object) -> None:
    project.fill()
    project.register()
    project.write_job(shards=shards, chunk_rows=30)


def read_shards(project: Project) -> list[tuple[int, int]]:
    rows = project.sql("SELECT shard, rows_written FROM nightshift_shards ORDER BY run_id, shard")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("count", [3, pytest.param(7, marks=pytest.mark.heavy)])
def test_shards_are_of_equal_size_and_make_the_whole(project: Project, count: int) -> None:
    fill(project, count=count, on="threads")
    assert score("orders", "all").rows == 1000
    assert project.scores() == project.expected()
    sizes = [rows for _, rows in read_shards(project)]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) < count
    assert score("orders", "2024-03-01").rows == 500


@pytest.mark.parametrize(
    "rows", [1, pytest.param(0, marks=pytest.mark.heavy), pytest.param(4, marks=pytest.mark.heavy)]
)
def test_fewer_rows_than_shards(project: Project, rows: int) -> None:
    fill(project, count=4, on="threads")
    project.sql(f"DELETE FROM orders WHERE id > {rows}")
    assert score("orders", "all").rows == rows
    assert project.scores() == project.expected()


def test_a_composite_key_of_texts_and_times(project: Project) -> None:
    project.fill()
    project.register()
    project.sql("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    project.sql("ALTER TABLE orders ALTER note SET NOT NULL, ADD PRIMARY KEY (placed_at, note)")
    source = {"table": "orders", "key": ["placed_at", "note"], "time_column": "placed_at"}
    project.write_job(source=source, shards={"count": 3, "on": "threads"}, chunk_rows=30)
    assert score("orders", "all").rows == 1000
    found = project.sql("SELECT note, prediction::text FROM order_scores ORDER BY note")
    assert found == project.sql(
        "SELECT note, coalesce(2 * x, 'NaN')::text FROM orders ORDER BY note"
    )


def test_what_failed_resumes_where_each_shard_was(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fill()
    project.register(behaviour="raise", after=5)
    project.write_job(shards={"count": 2, "on": "threads", "at_once": 1}, chunk_rows=50)
    with pytest.raises(PredictionFailed):
        score("orders", "all")
    assert project.states() == [("all", "failed")]
    before = dict(read_shards(project))
    assert 0 < sum(before.values()) < 1000
    assert project.scores() == {}
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    result = score("orders", "all")
    assert (result.run_id, result.rows, result.resumed_rows) == (1, 1000, sum(before.values()))
    assert project.scores() == project.expected()


def test_rows_are_reconciled_shard_by_shard(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(project, count=2, on="threads")
    counts = []

    def one_elsewhere(*work: Any) -> tuple[int, ...]:
        counts.append(count_rows(*work))
        return counts[0][0] + 1, counts[0][1] - 1

    monkeypatch.setattr("nightshift.flows.scoring.recipe.count_rows", one_elsewhere)
    with pytest.raises(Quarantined, match=r"first in all, shard 0: 501, but 500 and 0"):
        score("orders", "all")
    assert counts == [(500, 500)]


def test_a_challenger_is_refused(project: Project) -> None:
    fill(project, count=2)
    project.write_job(shards=2, challenger="doubler@1")
    with pytest.raises(ConfigurationError, match="in one shard"):
        score("orders", "all")


@pytest.mark.heavy
@pytest.mark.parametrize("on", ["processes", "dask"])
def test_in_processes_and_on_dask(project: Project, on: str) -> None:
    fill(project, count=2, on=on)
    assert score("orders", "all").rows == 1000
    assert project.scores() == project.expected()
    assert [rows for _, rows in read_shards(project)] == [500, 500]


def test_an_interrupt_stops_all_shards_and_begins_no_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(project, count=4, on="threads", at_once=2)
    from doubler import Doubler  # type: ignore[import-not-found]

    withdrawn, calls = threading.Event(), itertools.count(1)
    original, withdraw = Doubler.predict, Ledger.withdraw

    def predict(self: Any, X: Any) -> Any:  # noqa: N803
        if len(X) == 30 and next(calls) > 4:
            assert withdrawn.wait(60)
        return original(self, X)

    def heard(*arguments: Any) -> None:
        withdraw(*arguments)
        withdrawn.set()

    def interrupt(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr(Doubler, "predict", predict)
    monkeypatch.setattr(Ledger, "withdraw", heard)
    monkeypatch.setattr("nightshift.flows.scoring.shards._POLL", 0.1)
    with pytest.raises(KeyboardInterrupt):
        score_with(interrupt)("orders", "all")
    assert project.count("nightshift_chunks") <= 4  # of 36
    assert {shard for shard, rows in read_shards(project) if rows} <= {0, 1}
    assert project.states() == [("all", "failed")]
    before = sum(rows for _, rows in read_shards(project))
    result = score("orders", "all")
    assert (result.run_id, result.resumed_rows) == (1, before)
    assert project.scores() == project.expected()


@pytest.mark.heavy
def test_ctrl_c_stops_processes_within_a_chunk(project: Project, prefect: str) -> None:
    project.fill(4000)
    project.register(seconds=0.5)
    project.write_job(shards={"count": 2, "on": "processes"}, chunk_rows=50)
    process = start(project, prefect, "run", "orders", "--partition", "all")
    eventually(lambda: project.count("nightshift_chunks") >= 2)
    process.send_signal(signal.SIGINT)  # as `kill` does; a terminal would tell the workers, too
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert project.count("nightshift_chunks") <= 20  # of 80
    assert project.states() == [("all", "failed")]
    assert project.scores() == {}


@pytest.mark.heavy
@pytest.mark.parametrize("on", ["processes", "dask"])
def test_a_worker_killed_in_mid_run_costs_no_row(project: Project, tmp_path: Path, on: str) -> None:
    """The shard that it had is taken over by another worker, which resumes it."""
    project.fill(2000, days=1)
    victim = tmp_path / "victim"
    project.register(behaviour="die once", after=3, seconds=0.05, victim=str(victim))
    project.write_job(shards={"count": 2, "on": on}, chunk_rows=50)
    result = score("orders", "all")
    assert (result.rows, result.run_id) == (2000, 1)
    killed = int(victim.read_text())
    assert killed != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(killed, signal.SIGCONT)
    assert project.scores() == project.expected()
    written = project.sql("SELECT count(*) FROM order_scores_runs")
    assert [tuple(row) for row in written] == [(2000,)]
