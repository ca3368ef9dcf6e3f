"""The command line, as a person and a script use it."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from command import Nightshift
from nightshift.adapters.errors import ModelNotFound
from nightshift.flows.cli.main import LazyCommand, app
from nightshift.flows.config.job import load_job
from nightshift.flows.planning.partitions import find_latest_partition
from nightshift.flows.score import score
from project import Project


def commands(group: TyperGroup, path: str = "") -> list[str]:
    """Every command, and every group that is one itself, as a person types it."""
    found = []
    for name, entry in group.commands.items():
        command = entry.load() if isinstance(entry, LazyCommand) else entry
        found.append(f"{path}{name}")
        if isinstance(command, TyperGroup):
            found += commands(command, f"{path}{name} ")
    return sorted(found)


def test_the_whole_way(project: Project, saved: tuple[str, str], nightshift: Nightshift) -> None:
    project.fill()
    project.sql("UPDATE orders SET x = mod(id * 7, 300)")  # on both days alike
    model, sample = saved
    project.write_job(model="big")
    assert "The model store is empty" in nightshift("models").stdout
    assert "No runs yet" in nightshift("runs").stdout
    register = ["register", model, "--name", "big", "--sample", sample]
    first = nightshift(*register, "--metric", "auc=0.9").stdout
    assert "Registered big@1 (sklearn)" in first
    assert "bool" not in first
    probability = ["--setting", "output=predict_proba", "--promote", "champion", "--json"]
    assert json.loads(nightshift(*register, *probability).stdout)["version"] == 2
    listed = json.loads(nightshift("models", "--json").stdout)
    assert [(row["version"], row["aliases"]) for row in listed] == [(2, ["champion"]), (1, [])]
    assert listed[1]["metrics"] == {"auc": 0.9}
    assert "big@champion is now version 1" in nightshift("promote", "big", "1").stdout

    ran = json.loads(nightshift("run", "orders", "--partition", "2024-03-01", "--json").stdout)
    assert (ran["rows"], ran["model"], ran["run_id"]) == (500, "big@1", 1)
    again = nightshift("run", "orders", "--partition", "2024-03-02").stdout
    assert "Published 500 rows in order_scores: run 2, big@1" in again
    assert "SELECT * FROM order_scores ORDER BY id LIMIT 10;" in again
    one = json.loads(
        nightshift("predict", "orders", "--row", '{"x": 299, "y": 1}', "--json").stdout
    )
    assert one == {"prediction": True}
    assert "big@1" in nightshift("predict", "orders", "--row", '{"x": 299}').stdout

    runs = json.loads(nightshift("runs", "orders", "--json").stdout)
    assert [(run["partition"], run["state"], run["rows"]) for run in runs] == [
        ("2024-03-02", "published", 500),
        ("2024-03-01", "published", 500),
    ]
    assert nightshift("runs", "--limit", "1").stdout.splitlines()[2:3] in ([], [""])


def test_runs_tells_what_failed_before_there_was_one(
    project: Project, nightshift: Nightshift
) -> None:
    project.fill()
    project.register()
    nightshift("run", "orders", "--partition", "2024-03-01")
    project.write_job(model="missing@champion")
    with pytest.raises(ModelNotFound):
        score("orders", "2024-03-02")
    lines = nightshift("runs", "orders", "--limit", "1").stdout.splitlines()
    assert lines[2:4] == ["", "Failed before the run began:"]
    assert "orders 2024-03-02" in lines[5]
    assert "missing" in lines[5]
    assert len(lines) == 6


def test_one_of_several_jobs_may_fail(project: Project, nightshift: Nightshift) -> None:
    project.fill()
    project.register()
    project.write_job("others", target={"table": "other_scores"})
    project.write_job("broken", source={"table": "nowhere", "key": "id"}, partition_by="all")
    several = ["run", "broken", "nope", "orders", "others", "--partition", "all"]
    done = nightshift(*several, code=1)
    assert "Error: nope: " in done.stderr
    assert "Error: broken: " in done.stderr
    lines = [line.split()[:3] for line in done.stdout.splitlines()[-5:]]
    assert lines[1] == ["broken", "all", "failed"]
    assert lines[2] == ["nope", "failed"]
    assert lines[3:] == [["orders", "all", "published"], ["others", "all", "published"]]
    (project.folder / "config" / "jobs" / "broken.yaml").unlink()
    results = json.loads(nightshift("run", "--all", "--partition", "all", "--json").stdout)
    assert [(one["job"], one["rows"]) for one in results] == [("orders", 1000), ("others", 1000)]


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        ({}, ["--model", "doubler@missing"], "missing"),
        ({}, ["--partition", "2024-02-30"], "2024-02-30"),
        ({"source": {"table": "orders", "key": "no"}, "partition_by": "all"}, [], "no column 'no'"),
    ],
)
def test_what_cannot_run_is_refused_before_a_server_starts(
    project: Project,
    nightshift: Nightshift,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    arguments: list[str],
    says: str,
) -> None:
    def start(*_: object) -> None:
        raise AssertionError("a server was started")

    project.fill()
    project.register()
    project.write_job(**changes)
    monkeypatch.setattr("nightshift.flows.orchestrator.server.prefect_api", start)
    code = 2 if "--partition" in arguments else 1
    assert says in nightshift("run", "orders", *arguments, code=code).stderr
    if code == 1:
        assert says in nightshift("backfill", "orders", "--last", "1", *arguments, code=1).stderr


@pytest.mark.parametrize(
    ("days", "says"),
    [
        ([], "--from or --last"),
        (["--last", "2", "--to", "2024-03-01"], "--from or --last"),
        (["--from", "2024-03-02", "--to", "2024-03-01"], "is before the start"),
        (["--from", "2999-01-01"], "is before the start"),
    ],
)
def test_a_wrong_range_is_refused(
    project: Project, nightshift: Nightshift, days: list[str], says: str
) -> None:
    assert says in nightshift("backfill", "orders", *days, code=2).stderr


@pytest.mark.parametrize("granularity", ["day", "month"])
def test_the_last_partitions_that_have_ended(
    project: Project, nightshift: Nightshift, granularity: str
) -> None:
    project.fill()
    project.register()
    project.write_job(partition_by=granularity)
    backfill = ["backfill", "orders", "--dry-run", "--json"]
    plan = json.loads(nightshift(*backfill, "--last", "3").stdout)["partitions"]
    ended = [step["partition"] for step in plan]
    assert len(ended) == 3
    job = load_job("orders")
    assert ended[-1] == find_latest_partition(datetime.now(UTC), granularity, job.zone).label
    start = f"{ended[1]}-01"[:10]
    plan = json.loads(nightshift(*backfill, "--from", start).stdout)["partitions"]
    assert [step["partition"] for step in plan] == ended[1:]


def test_a_preview_shows_rows_and_writes_nothing(project: Project, nightshift: Nightshift) -> None:
    project.fill()
    project.register()
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    arguments = ["preview", "orders", "--partition", "2024-03-02", "--rows", "3"]
    assert json.loads(nightshift(*arguments, "--json").stdout) == [
        {
            "key": {"id": 501},
            "inputs": {"x": None},
            "prediction": {"prediction": None},
            "error": None,
        },
        {
            "key": {"id": 502},
            "inputs": {"x": 502 / 7},
            "prediction": {"prediction": 1004 / 7},
            "error": None,
        },
        {
            "key": {"id": 503},
            "inputs": {"x": 503 / 7},
            "prediction": {"prediction": 1006 / 7},
            "error": None,
        },
    ]
    shown = nightshift(*arguments).stdout.splitlines()
    assert shown[0].split() == ["id", "x", "->", "prediction"]
    assert shown[-1] == "orders 2024-03-02 with doubler@1; nothing is written"
    assert "has no rows" in nightshift("preview", "orders", "--partition", "2020-01-01").stdout
    assert project.sql(tables) == [("orders",)]


def test_a_preview_shows_what_a_run_would_reject(project: Project, nightshift: Nightshift) -> None:
    project.fill()
    project.register(behaviour="negative")
    project.sql("UPDATE orders SET x = -1 WHERE id = 502")
    arguments = ["preview", "orders", "--partition", "2024-03-02", "--rows", "3", "--json"]
    rows = json.loads(nightshift(*arguments).stdout)
    assert rows[1]["prediction"] is None
    assert "cannot take negative numbers" in rows[1]["error"]
    assert "cannot take negative" in nightshift("predict", "orders", "--key", "502", code=1).stderr


def test_a_row_is_predicted_by_its_key(project: Project, nightshift: Nightshift) -> None:
    project.fill()
    project.register()
    predict = ["predict", "orders", "--key"]
    assert json.loads(nightshift(*predict, "502", "--json").stdout) == {"prediction": 1004 / 7}
    assert "no row with the key 5000" in nightshift(*predict, "5000", code=2).stderr
    assert "'x' is not a valid value for 'id'" in nightshift(*predict, "x", code=2).stderr
    assert "--key or --row" in nightshift("predict", "orders", code=2).stderr

    project.sql("ALTER TABLE orders ALTER note SET NOT NULL, ADD UNIQUE (note, id)")
    key = ["note", "id"]
    project.write_job(source={"table": "orders", "key": key, "time_column": "placed_at"})
    assert "doubler@1" in nightshift(*predict, "note 502,502").stdout
    assert "doubler@1" in nightshift(*predict, "note 502", "--key", "502").stdout
    assert "Give 2, in this order: note, id." in nightshift(*predict, "502", code=2).stderr


def test_lists_have_a_name_of_their_own(project: Project, nightshift: Nightshift) -> None:
    project.register()
    assert nightshift("models", "list").stdout == nightshift("models").stdout
    (key,) = json.loads(nightshift("keys", "list", "--json").stdout)
    assert (key["trusted"], key["signs here"]) == (True, True)
    shown = nightshift("keys").stdout
    assert key["key"] in shown
    assert key["key"] in nightshift("models", "show", "doubler@1").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run", "nope"], 2, "nope.yaml: there is no such job. The jobs in .* are: orders."),
        (
            ["run", "orders", "--partition", "tuesday"],
            2,
            "'tuesday' is not a valid day: write it like",
        ),
        (["run", "orders", "--partition", "all"], 1, "'doubler' is not in the model store|doubler"),
        (["predict", "orders", "--row", "{"], 1, "doubler"),
        (["promote", "doubler", "7"], 1, "doubler"),
        (["register", "model.exe", "--name", "x", "--sample", "y.parquet"], 2, "model.exe"),
    ],
)
def test_wrong_input(
    project: Project, nightshift: Nightshift, arguments: list[str], code: int, text: str
) -> None:
    project.fill()
    done = nightshift(*arguments, code=code)
    assert done.stdout == ""
    assert re.search(text, done.stderr), done.stderr
    assert done.stderr.startswith("Error: ")


def test_what_readers_see_changes_only_for_a_reason(
    project: Project, nightshift: Nightshift
) -> None:
    for command in (["release", "1"], ["rollback", "orders", "all"]):
        error = nightshift("runs", *command, "--reason", " ", code=2).stderr
        assert "--reason: it is empty" in error


def test_promote_refuses_what_no_run_could_open(
    project: Project, nightshift: Nightshift, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fill()
    project.register()
    project.register()
    monkeypatch.setenv("NIGHTSHIFT_TRUST__PICKLE", "never")
    assert "is a pickle" in nightshift("promote", "doubler", "1", code=1).stderr
    assert project.store.resolve("doubler").version == 2
    assert "is now version 1" in nightshift("promote", "doubler", "1", "--force").stdout


def test_promote_refuses_what_breaks_a_job(project: Project, nightshift: Nightshift) -> None:
    project.fill()
    project.register()
    project.register()
    (project.folder / "config" / "jobs" / "half.yaml").write_text("model: doubler")
    project.sql("ALTER TABLE orders DROP COLUMN x")
    error = nightshift("promote", "doubler", "1", code=1).stderr
    assert "orders: table 'orders' has no column 'x'" in error
    assert "half" not in error


@pytest.mark.parametrize("row", ["{", "[1]", '{"y": 1}', '{"x": "many"}'])
def test_a_wrong_row(project: Project, nightshift: Nightshift, row: str) -> None:
    project.register()
    code = 2 if row in ("{", "[1]") else 1
    error = nightshift("predict", "orders", "--row", row, code=code).stderr
    assert "--row" in error if code == 2 else "Column 'x'" in error


def test_a_row_that_the_model_cannot_take(project: Project, nightshift: Nightshift) -> None:
    project.register(behaviour="negative")
    project.write_job()
    error = nightshift("predict", "orders", "--row", '{"x": -1}', code=1).stderr
    assert "doubler@1 could not predict the row: ValueError: cannot take negative" in error


def test_a_folder_without_a_project(
    nightshift: Nightshift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIGHTSHIFT_CONFIG")
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", "elsewhere/nightshift.yaml")
    error = nightshift("models", code=2).stderr
    assert "elsewhere/nightshift.yaml: there is no such file" in error


@pytest.mark.parametrize("command", commands(typer.main.get_command(app)))
def test_every_command_teaches_with_an_example(command: str) -> None:
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert f"Example: nightshift {command}" in " ".join(shown.output.split())
