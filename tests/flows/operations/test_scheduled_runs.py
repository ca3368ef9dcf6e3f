"""Failing scheduled runs, each really brought about, through the real flow.

Whatever happens upstream or in the model, readers go on seeing the rows of the last good run,
the flow run's message begins with the reason, and each counter is what the database holds.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import yaml
from prefect import get_client
from typer.testing import CliRunner

from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.flows.cli.main import app
from nightshift.flows.orchestrator.events import RUN_QUARANTINED
from nightshift.flows.orchestrator.server import flush_logs_and_events
from nightshift.flows.register import register
from nightshift.flows.score import score
from project import Project
from served import post
from waiting import eventually
from watched import Hanging

pytestmark = pytest.mark.usefixtures("prefect")

# A model as it is in the wild: categories, missing values, steps. `before` and `after` are what
# a test does to its batches, other than the 32 rows that are replayed at each load.
MODEL_CODE = '''
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeRegressor

before = after = None


class Fares(RegressorMixin, BaseEstimator):
    """A fare by distance and carrier."""

    def fit(self, X, y):
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        encoded = ColumnTransformer(
            [("carrier", OneHotEncoder(handle_unknown="ignore"), ["carrier"])],
            remainder="passthrough",
        )
        self.steps_ = make_pipeline(encoded, DecisionTreeRegressor(max_depth=12, random_state=0))
        self.steps_.fit(X, y)
        return self

    def predict(self, X):
        watched = len(X) != 32
        if watched and before is not None:
            before(X)
        if (X["distance"] < 0).any():
            raise ValueError("a distance cannot be negative")
        fares = self.steps_.predict(X)
        fares[X["carrier"] == "ZZ"] = np.nan  # it has ceased to fly
        return fares if after is None or not watched else after(fares)
'''

SOURCE = """
    SELECT o.id, o.distance, c.carrier FROM orders o JOIN carriers c ON c.order_id = o.id
"""


@dataclass
class ScheduledJob:
    """A job that scores its whole table again and again."""

    project: Project
    model: Any
    seen: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """What readers saw after the last good run."""

    def readers(self) -> dict[int, tuple[Any, ...]]:
        rows = self.project.sql("SELECT * FROM order_scores")
        found = {row.id: tuple(row) for row in rows}
        assert len(found) == len(rows)
        return found

    def good(self, times: int = 1) -> None:
        for _ in range(times):
            result = score("orders", "all")
            assert (result.verdict, result.rejected) == ("ok", 0), result.remarks
        self.seen = self.readers()
        assert len(self.seen) == result.rows == self.project.count("orders")

    def bad(self, reason: str, rejects: int = 0) -> int:
        """The run fails for the reason, and readers do not notice; the run."""
        state = score("orders", "all", return_state=True)
        assert state.is_failed(), state
        assert state.message is not None
        assert state.message.startswith(reason), state.message
        assert self.readers() == self.seen
        run_state = self._flow_run(state.state_details.flow_run_id)
        assert (run_state.type, run_state.message) == (state.type, state.message)
        run_id = self.counted()
        rejected = "SELECT count(*) FROM nightshift_rejects WHERE run_id = "
        assert self.project.sql(f"{rejected}{run_id}") == [(rejects,)]
        return run_id

    def counted(self) -> int:
        """The newest run, whose counters equal what the tables hold."""
        run_id = self.project.sql("SELECT max(run_id) FROM nightshift_runs")[0][0]
        mine = f"WHERE run_id = {run_id}"
        counters = (
            "sum(rows_written), sum(rows_rejected), sum(chunks_written) FROM nightshift_shards"
        )
        chunks = "coalesce(sum(rows), 0), coalesce(sum(rejected), 0), count(*)"
        (shards,) = self.project.sql(f"SELECT {counters} {mine}")
        (entered,) = self.project.sql(f"SELECT {chunks} FROM nightshift_chunks {mine}")
        held = tuple(
            self.project.sql(f"SELECT count(*) FROM {table} {mine}")[0][0]
            for table in ("order_scores_runs", "nightshift_rejects", "nightshift_chunks")
        )
        assert tuple(map(int, shards)) == tuple(map(int, entered)) == held
        return int(run_id)

    def quarantined(self, reason: str, rejects: int = 0) -> int:
        """So bad that the audit finds it; announced, and a person may release it."""
        run_id = self.bad(reason, rejects)
        assert self.project.states()[-1] == ("all", "quarantined")
        (rows,) = self.project.sql("SELECT rows_written + rows_rejected FROM nightshift_shards"
                                   f" WHERE run_id = {run_id}")  # fmt: skip
        assert rows[0] == len(self.project.sql(SOURCE))
        (event,) = self.events(run_id)
        assert event["payload"]["reason"].startswith(reason)
        assert event["resource"]["nightshift.job"] == "orders"
        return run_id

    def released_and_rolled_back(self, run_id: int) -> None:
        """What quarantine keeps from readers, release shows; and rollback undoes."""
        say("runs", "release", str(run_id), "--reason", "it is so")
        seen = self.project.sql("SELECT DISTINCT run_id FROM order_scores")
        assert [row.run_id for row in seen] == [run_id]
        rows = self.project.sql(f"SELECT id FROM order_scores_runs WHERE run_id = {run_id}")
        assert set(self.readers()) == {row.id for row in rows}
        say("runs", "rollback", "orders", "all", "--reason", "it was not")
        assert self.readers() == self.seen
        moves = self.project.sql(
            "SELECT action, reason FROM nightshift_publication_changes ORDER BY change_id"
        )
        assert [tuple(move) for move in moves[-2:]] == [
            ("release", "it is so"),
            ("rollback", "it was not"),
        ]

    def events(self, run_id: int) -> list[dict[str, Any]]:
        """Those that the Prefect server has of the run's quarantine."""
        flush_logs_and_events()
        of_run = self.project.sql(
            f"SELECT flow_run_id FROM nightshift_runs WHERE run_id = {run_id}"
        )
        related = {"id": [f"prefect.flow-run.{of_run[0][0]}"]}
        wanted = {"event": {"name": [RUN_QUARANTINED]}, "related": related}
        with get_client(sync_client=True) as client:
            api = str(client.api_url).rstrip("/")

        def found() -> list[dict[str, Any]]:
            events: list[dict[str, Any]] = post(api, "/events/filter", {"filter": wanted})["events"]
            return events

        return eventually(found, 20)

    def _flow_run(self, flow_run_id: UUID | None) -> Any:
        assert flow_run_id is not None
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run_id).state


def say(*arguments: str) -> str:
    """What a nightshift command printed that went well."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def fares(rows: int = 2000, nullable: bool = True) -> pd.DataFrame:
    """The same orders as the database has, for training."""
    ids = np.arange(1, rows + 1)
    distance = (ids * 37 % 1000) + 50.0
    if nullable:
        distance[ids % 20 == 0] = np.nan
    return pd.DataFrame({"distance": distance, "carrier": [f"C{i % 4}" for i in ids]})


@pytest.fixture
def scheduled(project: Project, monkeypatch: pytest.MonkeyPatch) -> ScheduledJob:
    """A model is published, its job is there, and a table of 2,000 orders."""
    return prepared(project, monkeypatch)


def prepared(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    rows: int = 2000,
    nullable: bool = True,
    **job: Any,
) -> ScheduledJob:
    (project.folder / "fares.py").write_text(MODEL_CODE)
    monkeypatch.delitem(sys.modules, "fares", raising=False)
    import fares as module  # type: ignore[import-not-found]

    missing = "CASE WHEN mod(i, 20) > 0 THEN mod(i * 37, 1000) + 50.0 END"
    distance = missing if nullable else "mod(i * 37, 1000) + 50.0"
    project.sql("CREATE TABLE orders (id int PRIMARY KEY, distance double precision)")
    project.sql(f"INSERT INTO orders SELECT i, {distance} FROM generate_series(1, {rows}) i")
    project.sql("CREATE TABLE carriers (order_id int PRIMARY KEY, carrier text)")
    project.sql(
        f"INSERT INTO carriers SELECT i, 'C' || mod(i, 4) FROM generate_series(1, {rows}) i"
    )
    source = {"query": SOURCE, "key": "id"}
    shape = {"model": "fares", "source": source, "partition_by": None, "chunk_rows": 500}
    project.write_job(**{**shape, **job})
    sample = fares(nullable=nullable)
    target = sample["distance"].fillna(500) / 10 + sample["carrier"].str[1].astype(int)
    manifest = register("fares", SklearnModel(module.Fares().fit(sample, target)), sample)
    project.store.promote("fares", manifest.version)
    return ScheduledJob(project, module)


# --- upstream -----------------------------------------------------------------------------------

UPSTREAM = {
    "a column turned to NULL": (
        "UPDATE orders SET distance = NULL",
        "input distance: 2,000 of 2,000 rows (100%) are NULL or NaN; 5% are usual",
    ),
    "units changed": (
        "UPDATE orders SET distance = distance * 1000",
        "input distance: 1,900 of 2,000 rows (95%) are far outside the training range",
    ),
    "a join that drops a third": (
        "DELETE FROM carriers WHERE mod(order_id, 3) = 0",
        "1,334 rows, 33.3% fewer than usual (2,000, of the last 3 comparable runs)",
    ),
    "a join that doubles the categories": (
        "UPDATE carriers SET carrier = lower(carrier)",
        "input carrier: 2,000 of 2,000 rows (100%) have a category that was not in the",
    ),
}


@pytest.mark.parametrize(
    "fault",
    [
        "a column turned to NULL",
        *(pytest.param(fault, marks=pytest.mark.heavy) for fault in list(UPSTREAM)[1:]),
    ],
)
def test_what_goes_wrong_upstream_is_quarantined(scheduled: ScheduledJob, fault: str) -> None:
    statement, reason = UPSTREAM[fault]
    scheduled.good(times=3 if "usual (" in reason else 1)
    scheduled.project.sql(statement)
    scheduled.released_and_rolled_back(scheduled.quarantined(reason))


@pytest.mark.heavy
def test_a_null_where_the_model_needs_a_value_stops_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole column is nothing that rows are to blame for: no storm of rejects."""
    scheduled = prepared(project, monkeypatch, nullable=False)
    scheduled.good()
    project.sql("UPDATE orders SET distance = NULL")
    scheduled.bad(
        "Column 'distance': the model's signature says float64 not null, the data has NULL"
    )
    assert project.states()[-1] == ("all", "failed")


@pytest.mark.heavy
def test_what_stays_wrong_is_quarantined_again_and_what_is_fixed_is_published(
    scheduled: ScheduledJob,
) -> None:
    scheduled.good()
    scheduled.project.sql("UPDATE orders SET distance = distance * 1000")
    for _ in range(2):
        scheduled.quarantined("input distance: 1,900 of 2,000 rows (95%) are far outside")
    scheduled.project.sql("UPDATE orders SET distance = distance / 1000")
    before = fares_of(scheduled.seen)
    scheduled.good()
    assert fares_of(scheduled.seen) == before
    assert [state for _, state in scheduled.project.states()] == [
        "superseded", "quarantined", "quarantined", "published",
    ]  # fmt: skip


# --- the model ----------------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_model_that_returns_a_constant(scheduled: ScheduledJob) -> None:
    scheduled.good()
    scheduled.model.after = lambda found: np.full(len(found), 42.0)
    run = scheduled.quarantined("prediction: 100% of 2,000 rows are 42")
    scheduled.released_and_rolled_back(run)


@pytest.mark.heavy
def test_a_new_version_that_was_constant_from_the_start(scheduled: ScheduledJob) -> None:
    """Its own sample has nothing to compare with: the last published run has."""
    scheduled.good()
    sample = fares()
    blunt = scheduled.model.Fares().fit(sample, np.full(len(sample), 21.0))
    scheduled.project.store.promote("fares", register("fares", SklearnModel(blunt), sample).version)
    scheduled.quarantined("prediction: 100% of 2,000 rows are 21")


@pytest.mark.heavy
def test_a_category_that_the_model_has_nothing_for(scheduled: ScheduledJob) -> None:
    """NaN for one category: those rows are rejects, the others have their predictions."""
    scheduled.good()
    scheduled.project.sql("UPDATE carriers SET carrier = 'ZZ' WHERE order_id <= 40")
    run = scheduled.quarantined("40 of 2,000 rows could not be scored, 0 may be", rejects=40)
    found = scheduled.project.sql("SELECT row_key, kind, inputs FROM nightshift_rejects")
    assert {row.row_key for row in found} == {f"[{i}]" for i in range(1, 41)}
    assert all('"carrier": "ZZ"' in row.inputs for row in found)
    scheduled.released_and_rolled_back(run)
    assert len(scheduled.readers()) == 2000


POISONED = [7, 499, 500, 501, 777, 1000, 1001, 1234, 1999, 2000]


def test_poison_rows_are_rejected_and_the_others_kept(scheduled: ScheduledJob) -> None:
    scheduled.good()
    among = ", ".join(map(str, POISONED))
    scheduled.project.sql(f"UPDATE orders SET distance = -5 WHERE id IN ({among})")
    calls = calls_of(scheduled)
    run = scheduled.quarantined("10 of 2,000 rows could not be scored, 0 may be", rejects=10)
    assert len(calls) < 2 * len(POISONED) * 12  # 2 k log2(n) calls, and no more
    assert rejected(scheduled, run) == POISONED
    good = {key: fare for key, fare in fares_of(scheduled.seen).items() if key not in POISONED}
    scheduled.released_and_rolled_back(run)
    say("runs", "rollback", "orders", "all", "--to", str(run), "--reason", "they may go")
    assert fares_of(scheduled.readers()) == good


@pytest.mark.heavy
def test_ten_poison_rows_in_a_hundred_thousand(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduled = prepared(project, monkeypatch, rows=100_000, chunk_rows=25_000)
    scheduled.good()
    poisoned = [7, 9_999, 25_000, 25_001, 33_333, 50_505, 64_000, 77_777, 99_990, 100_000]
    among = ", ".join(map(str, poisoned))
    project.sql(f"UPDATE orders SET distance = -5 WHERE id IN ({among})")
    calls = calls_of(scheduled)
    run = scheduled.quarantined("10 of 100,000 rows could not be scored, 0 may be", rejects=10)
    assert len(calls) < 2 * len(poisoned) * 17
    assert rejected(scheduled, run) == poisoned
    scheduled.released_and_rolled_back(run)


def test_a_call_that_hangs_costs_its_chunk_and_not_the_run(
    scheduled: ScheduledJob, hanging: Hanging
) -> None:
    scheduled.good()
    scheduled.project.write_job(**job_of(scheduled), predict_timeout="60s")
    calls = calls_of(scheduled, lambda number: hanging.here() if number == 3 else None)
    run = scheduled.quarantined("500 of 2,000 rows could not be scored, 0 may be", rejects=500)
    assert len(calls) == 4
    kinds = scheduled.project.sql("SELECT DISTINCT kind, error FROM nightshift_rejects")
    assert [tuple(row) for row in kinds] == [("TimedOut", "no answer within 60 s, with others")]
    assert rejected(scheduled, run) == list(range(1001, 1501))
    say("rejects", "orders", "--replay")  # the model has come to its senses
    scheduled.counted()
    assert scheduled.readers() == scheduled.seen
    say("runs", "release", str(run), "--reason", "nothing is missing any more")
    same = fares_of(scheduled.seen)
    assert fares_of(scheduled.readers()) == same


@pytest.mark.heavy
def test_the_first_call_that_hangs_ends_the_run(scheduled: ScheduledJob, hanging: Hanging) -> None:
    scheduled.good()
    scheduled.project.write_job(**job_of(scheduled), predict_timeout="60s")
    calls_of(scheduled, lambda _: hanging.here())
    scheduled.bad("fares@1 did not predict the rows with ('id',) from (1,) to (500,) within 60 s")
    assert scheduled.project.states()[-1] == ("all", "failed")


def test_too_little_memory_halves_the_batches_and_the_run_goes_on(scheduled: ScheduledJob) -> None:
    scheduled.good()
    sizes: list[int] = []

    def little_memory(batch: pd.DataFrame) -> None:
        sizes.append(len(batch))
        if len(batch) > 150:
            raise MemoryError("a machine with room for 150 rows")

    scheduled.model.before = little_memory
    before = fares_of(scheduled.seen)
    scheduled.good()
    assert fares_of(scheduled.seen) == before
    assert scheduled.counted() == 2
    assert [size for size in sizes if size > 150] == [500, 250]  # learned once
    assert sum(size for size in sizes if 1 < size <= 150) == 2000  # but for one row to try


@pytest.mark.heavy
def test_no_memory_at_all_ends_the_run(scheduled: ScheduledJob) -> None:
    scheduled.good()
    calls = calls_of(scheduled, lambda _: _no_memory())
    scheduled.bad("fares@1 could not predict")
    assert len(calls) < 20  # no storm


@pytest.mark.heavy
def test_after_a_failed_run_whose_cause_has_gone_the_run_is_resumed(
    scheduled: ScheduledJob,
) -> None:
    scheduled.good()
    calls_of(scheduled, lambda number: _broken() if number > 2 else None)
    scheduled.bad("fares@1 could not predict")
    rows = scheduled.project.sql("SELECT sum(rows_written) FROM nightshift_shards WHERE run_id = 2")
    assert rows == [(1000,)]
    scheduled.model.before = None
    same = fares_of(scheduled.seen)
    result = score("orders", "all")
    assert (result.run_id, result.resumed_rows, result.rows) == (2, 1000, 2000)
    assert fares_of(scheduled.readers()) == same
    scheduled.counted()


# --- what the tests do to the model --------------------------------------------------------------


def calls_of(scheduled: ScheduledJob, then: Callable[[int], None] = lambda _: None) -> list[int]:
    """The sizes of the model's batches from now on; `then` happens in each, by its number."""
    sizes: list[int] = []

    def before(batch: pd.DataFrame) -> None:
        sizes.append(len(batch))
        then(len(sizes))

    scheduled.model.before = before
    return sizes


def _no_memory() -> None:
    raise MemoryError("none at all")


def _broken() -> None:
    raise RuntimeError("the library has lost its connection to the device")


def fares_of(readers: dict[int, tuple[Any, ...]]) -> dict[int, float]:
    return {key: row[1] for key, row in readers.items()}


def rejected(scheduled: ScheduledJob, run: int) -> list[int]:
    found = scheduled.project.sql(f"SELECT row_key FROM nightshift_rejects WHERE run_id = {run}")
    return sorted(int(row.row_key.strip("[]")) for row in found)


def job_of(scheduled: ScheduledJob) -> dict[str, Any]:
    """What its job file says, to be written again with something else."""
    path = scheduled.project.folder / "config" / "jobs" / "orders.yaml"
    return {"partition_by": None, **yaml.safe_load(path.read_text())}
