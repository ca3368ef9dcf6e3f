"""Job files: what loads, and the one clear error for what does not."""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pydantic
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.source.relation import SourceSpec
from nightshift.flows.config.checks import Checks
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.planning.partitions import find_latest_partition, parse_partition
from nightshift.flows.planning.scheduled_runs import find_due_partition, find_partition

ROOT = Path(__file__).parents[3]
JOB: dict[str, Any] = {
    "model": "doubler@champion",
    "source": {"table": "orders", "key": "id", "time_column": "placed_at"},
    "target": {"table": "order_scores"},
    "partition_by": "day",
}
MISSING = object()

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NIGHTSHIFT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config" / "jobs").mkdir(parents=True)
    return tmp_path / "config" / "jobs"


@pytest.fixture
def write(folder: Path) -> Write:
    """Write a job file: as it is, or the usual job with changes such as `source__key=...`."""

    def write(content: str | None = None, file: str = "orders", **changes: Any) -> Path:
        text = yaml.safe_dump(changed(**changes)) if content is None else content
        path = folder / f"{file}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def changed(**changes: Any) -> dict[str, Any]:
    job = {key: dict(value) if isinstance(value, dict) else value for key, value in JOB.items()}
    for path, value in changes.items():
        place, (*sections, last) = job, path.split("__")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
        if value is MISSING:
            del place[last]
    return job


def refused(name: str = "orders") -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        load_job(name)
    assert raised.value.remedy[-1] in ".?"
    return raised.value


# --- what loads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", job_names(ROOT / "config" / "jobs"))
def test_the_projects_own_jobs_load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTSHIFT_CONFIG", raising=False)
    monkeypatch.chdir(ROOT)
    assert load_job(name).name == name


def test_the_demo_is_among_them() -> None:
    assert "flight_delays" in job_names(ROOT / "config" / "jobs")


def test_a_job(write: Write) -> None:
    write(timezone="Asia/Kolkata", source__schema="sales", source__key=["id", "line"])
    job = load_job("orders")
    assert job.name == "orders"
    assert job.zone == ZoneInfo("Asia/Kolkata")
    assert job.source_spec() == SourceSpec(
        key=("id", "line"),
        table="orders",
        schema="sales",
        time_column="placed_at",
        timezone="Asia/Kolkata",
    )
    assert (job.chunk_rows, job.target.index_key, job.schedule) == (None, False, None)


def test_as_little_as_can_be(write: Write) -> None:
    write("model: m\nsource: {query: SELECT 1 AS id, key: id}\ntarget: {table: t}\n")
    job = load_job("orders")
    assert (job.partition_by, job.timezone) == ("all", "UTC")
    assert job.source_spec().query == "SELECT 1 AS id"
    assert job.source_spec().key == ("id",)


def test_names_in_any_script(write: Write) -> None:
    write(file="größe_日本", source__table="bestellungen_für", source__key="schlüssel")
    job = load_job("größe_日本")
    assert job.name == "größe_日本"
    assert job.source.table == "bestellungen_für"


def test_a_job_does_not_change(write: Write) -> None:
    write()
    job = load_job("orders")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        job.model = "another"  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        job.source.table = "another"  # type: ignore[misc]


def test_which_partition(write: Write) -> None:
    write(timezone="America/New_York")
    job = load_job("orders")
    assert find_partition(job, "2013-10-01") == parse_partition("2013-10-01", "day", job.zone)
    assert find_partition(job, "all").start is None
    now = find_partition(job, None)
    assert now.start is not None
    assert now.end is not None
    assert now == find_latest_partition(now.end, "day", job.zone)
    with pytest.raises(
        ConfigurationError, match="'today' is not a valid day: write it like"
    ) as raised:
        find_partition(job, "today")
    assert (raised.value.place, raised.value.field) == ("job 'orders'", "partition")


# --- what does not ------------------------------------------------------------------------------

TOO_LONG = "ä" * 26  # 52 bytes


@pytest.mark.parametrize(
    ("changes", "field", "problem", "remedy"),
    [
        ({"modle": "m"}, "modle", "unknown key", "Did you mean 'model'? Known keys are name,"),
        ({"model": MISSING, "modle": "m"}, "modle", "unknown key", "Did you mean 'model'?"),
        ({"source__tabel": "x"}, "source.tabel", "unknown key", "Did you mean 'table'?"),
        ({"source__schema_": "x"}, "source.schema_", "unknown key", "Did you mean 'schema'?"),
        ({"target__tabel": "x"}, "target.tabel", "unknown key", "Did you mean 'table'?"),
        ({"schedule__corn": "x"}, "schedule.corn", "unknown key", "Did you mean 'cron'?"),
        ({"on__evnt": "x"}, "on.evnt", "unknown key", "Did you mean 'event'?"),
        ({"zzz": 1}, "zzz", "unknown key", "Known keys are name, model, source, target"),
        ({"model": MISSING}, "model", "it is required", "Add it."),
        ({"source": MISSING}, "source", "it is required", "Add it."),
        ({"target__table": MISSING}, "target.table", "it is required", "Add it."),
        ({"source__key": MISSING}, "source.key", "it is required", "Add it."),
        ({"model": ""}, "model", "it is empty", "Fill it in"),
        ({"model": None}, "model", "it should be a valid string (found None)", "Correct it."),
        ({"model": 7}, "model", "it should be a valid string (found 7)", "Correct it."),
        ({"source": "orders"}, "source", "it should hold keys and values", "`key: value`"),
        ({"source": None}, "source", "it should hold keys and values", "`key: value`"),
        ({"target": ["x"]}, "target", "it should hold keys and values", "`key: value`"),
        ({"source__table": MISSING}, "source", "it has neither `table` nor `query`", "Name the"),
        ({"source__query": "SELECT 1"}, "source", "it has both `table` and `query`", "Keep"),
        ({"source__table": " "}, "source.table", "it is empty", "Fill it in, or leave it out."),
        ({"source__table": False}, "source.table", "valid string (found False)", "Correct it."),
        ({"source__table": 2013}, "source.table", "valid string (found 2013)", "Correct it."),
        (
            {"source__table": MISSING, "source__query": "SELECT 1", "source__schema": "s"},
            "source.schema",
            "a query names its schemas itself",
            "Leave it out.",
        ),
        ({"source__query": "\n"}, "source.query", "it is empty", "Fill it in, or leave it out."),
        ({"source__key": []}, "source.key", "at least 1 item", "Correct it."),
        ({"source__key": ""}, "source.key.0", "it is empty", "Fill it in"),
        ({"source__key": ["id", ""]}, "source.key.1", "it is empty", "Fill it in"),
        ({"source__key": ["id", 7]}, "source.key.1", "valid string (found 7)", "Correct it."),
        ({"source__key": 7}, "source.key", "it should be a valid tuple (found 7)", "Correct it."),
        ({"source__key": {"id": 1}}, "source.key", "it should be a valid tuple", "Correct it."),
        (
            {"source__key": ["id", "line", "id"]},
            "source.key",
            "it names the column 'id' twice",
            "Name each column once.",
        ),
        (
            {"source__time_column": MISSING},
            "source.time_column",
            "`partition_by: day` needs it",
            "Name the column that says when a row happened.",
        ),
        ({"source__time_column": ""}, "source.time_column", "it is empty", "Fill it in"),
        ({"target__table": ""}, "target.table", "it is empty", "Fill it in"),
        ({"target__table": TOO_LONG}, "target.table", "a name of 52 bytes", "Take at most 51."),
        (
            {"target__table": "nightshift"},
            "target.table",
            "reserved for Nightshift's ledger",
            "Take another.",
        ),
        ({"target__table": "Nightshift_Runs"}, "target.table", "ledger", "Take another."),
        ({"target__index_key": "yes"}, "target.index_key", "valid boolean (found 'yes')", "."),
        ({"target__index_key": 1}, "target.index_key", "valid boolean (found 1)", "."),
        ({"partition_by": "week"}, "partition_by", "'hour', 'day' or 'month' (found 'week')", "."),
        ({"partition_by": "Day"}, "partition_by", "'hour', 'day' or 'month' (found 'Day')", "."),
        (
            {"timezone": "Mars"},
            "timezone",
            "'Mars' is not a time zone",
            "Write it like America/New_",
        ),
        ({"timezone": "America"}, "timezone", "'America' is not a time zone", "Did you mean"),
        ({"timezone": ""}, "timezone", "'' is not a time zone", "Write it like America/New_York."),
        ({"timezone": "UTC "}, "timezone", "'UTC ' is not a time zone", "Did you mean UTC?"),
        ({"timezone": "../UTC"}, "timezone", "'../UTC' is not a time zone", "Did you mean UTC?"),
        ({"timezone": "/etc/passwd"}, "timezone", "'/etc/passwd' is not a time zone", "."),
        ({"timezone": "localtime"}, "timezone", "'localtime' is not a time zone", "."),
        ({"timezone": "Zürich"}, "timezone", "'Zürich' is not a time zone", "."),
        (
            {"timezone": "America/new_york"},
            "timezone",
            "'America/new_york' is not a time zone",
            "Did you mean America/New_York?",
        ),
        ({"timezone": 1}, "timezone", "it should be a valid string (found 1)", "Correct it."),
        ({"chunk_rows": 0}, "chunk_rows", "greater than or equal to 1 (found 0)", "Correct it."),
        ({"chunk_rows": -5}, "chunk_rows", "greater than or equal to 1 (found -5)", "."),
        ({"chunk_rows": 10_000_001}, "chunk_rows", "less than or equal to 10000000", "."),
        ({"chunk_rows": True}, "chunk_rows", "valid integer (found True)", "Correct it."),
        ({"chunk_rows": "100"}, "chunk_rows", "valid integer (found '100')", "Correct it."),
        ({"chunk_rows": 1.5}, "chunk_rows", "valid integer (found 1.5)", "Correct it."),
        ({"retry_delay": float("nan")}, "retry_delay", "(found nan)", "Correct it."),
        ({"timeout": 30}, "timeout", "it is not a length of time", "Write it like 90s, 30m, 2h or"),
        ({"schedule__cron": "at three"}, "schedule.cron", "", "Write it like `0 3 * * *`"),
        ({"name": "other"}, "name", "it is 'other', but the file is called orders.yaml", "Leave"),
        ({"name": ""}, "name", "it is '', but the file is called orders.yaml", "Leave it out"),
        ({"name": "Orders"}, "name", "it is 'Orders', but", "rename the file."),
        ({"name": 7}, "name", "it should be a valid string (found 7)", "Correct it."),
    ],
)
def test_what_a_job_may_not_say(
    changes: dict[str, Any], field: str, problem: str, remedy: str, write: Write
) -> None:
    write(**changes)
    error = refused()
    assert error.field == field
    where = re.fullmatch(r"config/jobs/orders\.yaml(, line \d+)?", error.place)
    assert where is not None
    assert problem in error.problem
    assert remedy in error.remedy
    assert str(error).startswith(f"{error.place}: {field}: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is required"),
        ("- a", "it holds a list, not keys and values"),
        ("model: m\nmodel: n", "the key model appears twice"),
        ("model: {", "it cannot be read as YAML"),
        ("1: x", "the key 1 must be a string; quote it"),
        ("source: {1: x}", "the key 1 must be a string; quote it"),
        ("partition_by: 2013-13-01", "it cannot be read as YAML"),
    ],
)
def test_what_a_job_file_may_not_be(content: str, problem: str, write: Write) -> None:
    write(content)
    error = refused()
    assert error.place.startswith("config/jobs/orders.yaml")
    assert problem in error.problem


@pytest.mark.parametrize(
    ("accepted", "value"),
    [
        ("name", "orders"),
        ("chunk_rows", 1),
        ("chunk_rows", 10_000_000),
        ("target__table", "ä" * 25 + "x"),
        ("target__table", "nightshifts"),
        ("timezone", "Etc/GMT+12"),
        ("timezone", "EST5EDT"),
        ("partition_by", "all"),
    ],
)
def test_what_is_just_right(accepted: str, value: Any, write: Write) -> None:
    write(**{accepted: value})
    found: Any = load_job("orders")
    for part in accepted.split("__"):
        found = getattr(found, part)
    assert found == value


# --- which files are jobs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("order", "there is no such job"),
        ("ORDERS", "there is no such job"),
        ("orders.yaml", "there is no such job"),
        ("..", "a job's name has"),
        ("../nightshift", "a job's name has"),
        ("../../etc/passwd", "a job's name has"),
        ("sub/orders", "a job's name has"),
        ("/etc/passwd", "a job's name has"),
        ("", "a job's name has"),
        (".hidden", "a job's name has"),
        ("-orders", "a job's name has"),
        ("orders\n", "a job's name has"),
        ("orders\0", "a job's name has"),
        ("*", "a job's name has"),
        ("my orders", "a job's name has"),
        ("a" * 300, "there is no such job"),
        ("folder", "there is no such job"),
    ],
)
def test_what_is_no_job(name: str, problem: str, write: Write, folder: Path) -> None:
    write()
    write(file="my orders")
    write(file=".hidden")
    (folder / "sub").mkdir()
    write(file="sub/orders")
    (folder / "folder.yaml").mkdir()
    (folder / ".#orders.yaml").symlink_to("gone")
    (folder.parent / "nightshift.yaml").write_text(yaml.safe_dump(JOB))
    assert job_names() == ["orders"]
    error = refused(name)
    assert error.problem.startswith(problem)
    assert "The jobs in config/jobs are: orders." in error.remedy


def test_the_nearest_job(write: Write) -> None:
    write()
    write(file="flight_delays")
    assert refused("flight_delay").remedy == (
        "Did you mean 'flight_delays'? The jobs in config/jobs are: flight_delays, orders."
    )


def test_no_jobs(folder: Path) -> None:
    assert "The jobs in config/jobs are: none." in refused().remedy
    folder.rmdir()
    assert "The jobs in config/jobs are: none." in refused().remedy


def test_jobs_are_next_to_the_settings(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", str(folder.parent / "nightshift.yaml"))
    monkeypatch.chdir("/")
    assert load_job("orders").name == "orders"


# --- anything at all ----------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def every_field() -> Iterator[str]:
    known = {"source": ["table", "schema", "query", "key", "time_column"], "schedule": ["cron"]}
    for name in Job.model_fields:
        yield name
        yield from (f"{name}__{inner}" for inner in known.get(name, []))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(every_field())), values, max_size=3))
def test_any_yaml_is_a_job_or_a_configuration_error(changes: dict[str, Any]) -> None:
    nested = {path: value for path, value in changes.items() if path.split("__")[0] not in changes}
    sections = {path: value for path, value in changes.items() if "__" not in path}
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("NIGHTSHIFT_CONFIG", os.path.join(place, "nightshift.yaml"))  # noqa: PTH118
        path = Path(place) / "jobs" / "orders.yaml"
        path.parent.mkdir()
        job = changed(**nested, **sections)
        path.write_text(yaml.safe_dump(job, allow_unicode=True), encoding="utf-8")
        with suppress(ConfigurationError):
            assert load_job("orders").name == "orders"


def test_due_partitions_follow_each_other(write: Write) -> None:
    write(schedule__cron="0 3 * * *", schedule__offset=2, timezone="Africa/Cairo")
    job = load_job("orders")
    begin = parse_partition("2023-04-20", "day", job.zone).start
    assert begin is not None
    due = [find_due_partition(job, begin + timedelta(days=day, hours=5)) for day in range(14)]
    assert due[0].label == "2023-04-18"
    for earlier, later in itertools.pairwise(due):
        assert earlier.end == later.start


def test_checks_of_a_column_that_the_model_lacks_are_refused() -> None:
    checks = Checks.model_validate({"columns": {"amuont": {"nulls": "off"}}})
    with pytest.raises(ConfigurationError, match="Did you mean 'amount'") as caught:
        checks.require_known_columns(("amount", "prediction"))
    assert caught.value.field == "checks.columns.amuont"
