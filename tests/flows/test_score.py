"""The flow, end to end: S3, PostgreSQL and Prefect are real."""

import threading
from contextvars import copy_context
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from nightshift.adapters.errors import (
    ConfigurationError,
    InvalidPredictions,
    KeyNotUnique,
    Leakage,
    ModelNotFound,
    NightshiftError,
    PartitionBusy,
    PredictionFailed,
    SignatureMismatch,
    TableNotFound,
)
from nightshift.flows.config.settings import load_settings
from nightshift.flows.score import score
from project import Project

pytestmark = pytest.mark.usefixtures("prefect")

FIRST_DAY, SECOND_DAY = "id <= 500", "id > 500"


def test_a_day_and_then_the_whole_table(project: Project) -> None:
    project.fill()
    project.register()
    result = score("orders", "2024-03-01")
    assert (result.rows, result.model, result.resumed_rows) == (500, "doubler@1", 0)
    assert project.scores() == project.expected(FIRST_DAY)
    assert score("orders", "all").rows == 1000
    assert project.scores() == project.expected()
    assert project.states() == [("2024-03-01", "superseded"), ("all", "published")]


def test_a_day_again_replaces_that_day_only(project: Project) -> None:
    project.fill()
    project.register()
    score("orders", "all")
    before = project.scores()
    project.sql("UPDATE orders SET x = x + 0.5")
    score("orders", "2024-03-02")
    old, new = project.scores(), project.expected(SECOND_DAY)
    assert {key: old[key] for key in new} == new
    assert all(old[key] == before[key] for key in range(1, 501))
    assert len(old) == 1000


def test_the_same_partition_twice_leaves_one_published_copy(project: Project) -> None:
    project.fill()
    project.register()
    assert score("orders", "2024-03-01").run_id != score("orders", "2024-03-01").run_id
    assert project.scores() == project.expected(FIRST_DAY)


@pytest.mark.parametrize("rows", [0, 1, 100, 101])
def test_chunk_edges(project: Project, rows: int) -> None:
    project.fill(rows, days=1)
    project.register()
    assert score("orders", "2024-03-01").rows == rows
    assert project.scores() == project.expected()
    chunks = project.sql("SELECT rows FROM nightshift_chunks ORDER BY chunk")
    assert sum(chunk.rows for chunk in chunks) == rows
    assert len(chunks) == -(-rows // 100)


def test_an_empty_partition_is_a_success(project: Project) -> None:
    project.fill()
    project.register()
    assert score("orders", "2031-01-01").rows == 0
    assert project.states() == [("2031-01-01", "published")]


def test_a_query_with_the_partition_as_parameters(project: Project) -> None:
    project.fill()
    project.register()
    query = """
        SELECT id, placed_at, x + 0 AS x FROM orders -- 100% of them
        WHERE placed_at >= :partition_start AND placed_at < :partition_end::timestamptz;"""
    source = {"query": query, "key": ["id"], "time_column": "placed_at"}
    project.write_job(source=source)
    assert score("orders", "2024-03-02").rows == 500
    assert project.scores() == project.expected(SECOND_DAY)


def test_the_model_by_version_and_by_another_alias(project: Project) -> None:
    project.fill()
    project.register()
    project.register()
    project.store.promote("doubler", 1, "stable")
    assert score("orders", "all", "doubler@stable").model == "doubler@1"
    assert score("orders", "all").model == "doubler@2"
    versions = project.sql("SELECT DISTINCT model_version, run_id FROM order_scores")
    assert [tuple(row) for row in versions] == [(2, 2)]


def test_a_failed_run_resumes_after_its_last_chunk(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fill()
    project.register(behaviour="raise", after=3)
    with pytest.raises(PredictionFailed, match=r"ValueError: cannot take it any more"):
        score("orders", "all")
    assert project.states() == [("all", "failed")]
    assert project.scores() == {}
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    result = score("orders", "all")
    assert result.rows == 1000
    assert result.resumed_rows in (100, 200, 300)
    assert project.scores() == project.expected()
    assert project.states() == [("all", "published")]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("DELETE FROM orders WHERE id = 7", marks=pytest.mark.heavy),
        pytest.param("UPDATE orders SET id = 0 WHERE id = 700", marks=pytest.mark.heavy),
        "UPDATE orders SET x = 5 WHERE id = 7",
    ],
)
def test_a_run_starts_over_if_rows_have_changed_behind_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    project.fill()
    project.register(behaviour="raise", after=3)
    with pytest.raises(PredictionFailed):
        score("orders", "all")
    monkeypatch.setenv("DOUBLER_BEHAVES", "1")
    project.sql(change)
    result = score("orders", "all")
    assert (result.run_id, result.resumed_rows) == (2, 0)
    assert project.scores() == project.expected()
    assert project.states() == [("all", "failed"), ("all", "published")]


def stopped_before_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole table is scored, and what wants to audit it stops."""

    def stop(*_: Any) -> None:
        raise ConfigurationError("the audit", "sql", "it stopped", "Begin again.")

    with monkeypatch.context() as patched:
        patched.setattr("nightshift.flows.score.audit_run", stop)
        with pytest.raises(ConfigurationError):
            score("orders", "all")


def test_what_is_scored_already_is_audited_and_published(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fill()
    project.register()
    stopped_before_publishing(monkeypatch)
    assert project.states() == [("all", "failed")]
    result = score("orders", "all")
    assert (result.run_id, result.rows, result.resumed_rows) == (1, 1000, 1000)
    assert project.scores() == project.expected()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("INSERT INTO orders VALUES (1001, '2024-03-02Z', 5)", marks=pytest.mark.heavy),
        pytest.param("DELETE FROM orders WHERE id = 1000", marks=pytest.mark.heavy),
        "UPDATE orders SET x = 5 WHERE id = 1000",
    ],
)
def test_what_was_scored_is_not_published_if_the_source_has_changed(
    project: Project, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    project.fill()
    project.register()
    stopped_before_publishing(monkeypatch)
    project.sql(change)
    assert score("orders", "all").run_id == 2
    assert project.scores() == project.expected()


def test_another_model_does_not_resume_the_failed_run(project: Project) -> None:
    project.fill()
    project.register(behaviour="raise", after=3)
    with pytest.raises(PredictionFailed):
        score("orders", "all")
    project.register()
    assert score("orders", "all").resumed_rows == 0
    assert project.scores() == project.expected()


def test_two_at_once_score_a_partition_once(project: Project) -> None:
    project.fill()
    project.register(seconds=0.5)
    outcomes: list[Any] = []

    def attempt() -> None:
        try:
            outcomes.append(score("orders", "all"))
        except NightshiftError as error:
            outcomes.append(error)

    # The context tells Prefect in a new thread which server is meant.
    threads = [threading.Thread(target=copy_context().run, args=(attempt,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        PartitionBusy.__name__,
        "ScoreResult",
    ]
    assert project.scores() == project.expected()
    assert project.states() == [("all", "published")]


@pytest.mark.parametrize(
    ("behaviour", "error", "text"),
    [
        ("short", InvalidPredictions, r"100 predictions, but returned an array of shape \(99,\)"),
        ("wide", InvalidPredictions, r"array of shape \(100, 2\)"),
        ("text", InvalidPredictions, "float64 predictions"),
        ("raise", PredictionFailed, r"rows with .*id.* from \(1,\) to \(100,\)"),
    ],
)
def test_a_model_that_misbehaves_writes_nothing(
    project: Project, behaviour: str, error: type[Exception], text: str
) -> None:
    project.fill()
    project.sql("UPDATE orders SET x = id")
    project.register(behaviour=behaviour)
    with pytest.raises(error, match=text):
        score("orders", "all")
    assert project.sql("SELECT count(*) FROM order_scores_runs") == [(0,)]
    assert project.sql("SELECT count(*) FROM nightshift_chunks") == [(0,)]
    assert [state for _, state in project.states()] == ["failed"]


def _no_table(project: Project) -> None:
    project.write_job(source={"table": "nope", "key": "id", "time_column": "placed_at"})


def _no_column(project: Project) -> None:
    project.sql("ALTER TABLE orders DROP COLUMN x")


def _text_input(project: Project) -> None:
    project.sql("ALTER TABLE orders ALTER COLUMN x TYPE text")


def _no_unique_key(project: Project) -> None:
    project.sql("ALTER TABLE orders DROP CONSTRAINT orders_pkey")


def _duplicate_keys(project: Project) -> None:
    query = "SELECT id / 2 AS id, placed_at, x FROM orders"
    project.write_job(source={"query": query, "key": "id", "time_column": "placed_at"})


def _no_model(project: Project) -> None:
    project.write_job(model="missing@champion")


def _no_alias(project: Project) -> None:
    project.write_job(model="doubler@challenger")


def _unknown_key(project: Project) -> None:
    project.write_job(chunk_size=100)


@pytest.mark.parametrize(
    ("spoil", "error", "text"),
    [
        (_no_table, TableNotFound, "no table 'nope': it has orders"),
        (_no_column, NightshiftError, "no column 'x', needed as an input of the model"),
        (_text_input, SignatureMismatch, "'x': the model's signature says float64.*text"),
        (_no_unique_key, KeyNotUnique, "no primary key, unique constraint or unique index"),
        (_duplicate_keys, KeyNotUnique, "appears twice"),
        (_no_model, ModelNotFound, "missing"),
        (_no_alias, ModelNotFound, "challenger"),
        (
            _unknown_key,
            ConfigurationError,
            r"orders.yaml, line 2: chunk_size: unknown key.*'chunk_rows'",
        ),
    ],
)
def test_bad_input_is_one_error_before_any_row(
    project: Project, spoil: Any, error: type[Exception], text: str
) -> None:
    project.fill()
    project.register()
    spoil(project)
    with pytest.raises(error, match=text):
        score("orders", "all")
    tables = project.sql("SELECT tablename FROM pg_tables WHERE tablename = 'order_scores_runs'")
    if tables:
        assert project.sql("SELECT count(*) FROM order_scores_runs") == [(0,)]


@pytest.mark.heavy
def test_what_the_model_was_trained_on_is_refused_unless_allowed(project: Project) -> None:
    project.fill()
    project.register(trained_through=date(2024, 3, 1))
    for partition in ("2024-03-01", "all"):
        with pytest.raises(Leakage, match="trained through 2024-03-01"):
            score("orders", partition)
    assert score("orders", "2024-03-02").rows == 500
    assert score("orders", "2024-03-01", allow_leakage=True).rows == 500
    assert project.scores() == project.expected()


@pytest.mark.usefixtures("reports")
def test_what_prefect_shows(project: Project, prefect: str) -> None:
    project.fill()
    project.register()
    state = score("orders", "2024-03-01", return_state=True)
    assert state.is_completed()
    flow_run_id = state.state_details.flow_run_id
    assert isinstance(flow_run_id, UUID)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run_id)
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        artifacts = {
            artifact.type: artifact for artifact in client.read_artifacts(artifact_filter=of_run)
        }
    assert run.name == "orders 2024-03-01 v1"
    assert set(run.tags) == {"orders", "doubler", "2024-03-01"}
    assert artifacts["progress"].data == 100.0
    assert "| rows read | 500 |" in str(artifacts["markdown"].data)
    assert "secret" not in str(run) + str(artifacts)
    rows = project.sql("SELECT flow_run_id FROM nightshift_runs")
    assert rows == [(str(flow_run_id),)]
    page = (load_settings().state_dir / "reports" / "run-1.html").read_text()
    assert "<svg" in page
