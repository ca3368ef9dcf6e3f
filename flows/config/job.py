"""One job file, config/jobs/<job>.yaml: source, model, target, and how to go about it."""

import difflib
import os
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.source.source import SourceSpec
from nightshift.flows.config.checks import Checks
from nightshift.flows.config.quantities import Budget, Closeness, Duration, MaxRejects, Tolerance
from nightshift.flows.config.settings import jobs_folder
from nightshift.flows.config.validation import first_problem, refused
from nightshift.flows.config.yaml_file import read_yaml
from nightshift.flows.planning.partitions import (
    Granularity,
    Partition,
    latest_partition,
    parse_partition,
    shifted,
)
from nightshift.flows.planning.scheduled_runs import Catchup, cron_problem, time_zones

# PostgreSQL cuts names at 63 bytes, and the longest made of a target's is ix_<table>_runs_key.
_LONGEST_TARGET = 51
_JOB_NAME = re.compile(r"\w[\w.-]*")


def _not_blank(value: str) -> str:
    if not value.strip():
        raise refused("it is empty", "Fill it in, or leave it out.")
    return value


_Name = Annotated[str, AfterValidator(_not_blank)]


def _known_zone(value: str) -> str:
    if value not in time_zones():
        near = difflib.get_close_matches(value, sorted(time_zones()), n=1)
        remedy = f"Did you mean {near[0]}?" if near else "Write it like America/New_York."
        raise refused(f"{value!r} is no time zone", remedy)
    return value


_Zone = Annotated[str, AfterValidator(_known_zone)]


class _Part(BaseModel):
    # strict: in YAML `chunk_rows: yes` is no number, and `table: 2013` no name
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Part):
    """The rows to score: a table, or a SELECT."""

    table: _Name | None = None
    schema_: _Name | None = Field(None, alias="schema")
    query: _Name | None = None
    key: tuple[_Name, ...] = Field(min_length=1)
    """The columns that name one row; declared unique in a table, verified in a query."""
    time_column: _Name | None = None
    """When the row happened; decides the row's partition."""

    @field_validator("key", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @field_validator("key")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in value if value.count(name) > 1]
        if twice:
            raise refused(f"it names the column {twice[0]!r} twice", "Name each column once.")
        return value

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.table is None and self.query is None:
            raise refused("it has neither `table` nor `query`", "Name the table to score.")
        if self.table is not None and self.query is not None:
            raise refused("it has both `table` and `query`", "Keep the one to score.")
        if self.query is not None and self.schema_ is not None:
            raise refused("a query names its schemas itself", "Leave it out.", "schema")
        return self


class Target(_Part):
    """Where readers find the predictions: a view of this name, over `<name>_runs`."""

    table: _Name
    index_key: bool = False
    """Keep an index on the key alone, for readers who look up single rows."""

    @field_validator("table")
    @classmethod
    def _fits(cls, value: str) -> str:
        length = len(value.encode())
        if length > _LONGEST_TARGET:
            problem = f"a name of {length} bytes leaves no room for what is named after it"
            raise refused(problem, f"Take at most {_LONGEST_TARGET}.")
        if value.casefold() == "nightshift" or value.casefold().startswith("nightshift_"):
            raise refused(f"{value!r} is among the names of Nightshift's ledger", "Take another.")
        return value


class Schedule(_Part):
    """When to score without being asked, and which partition."""

    cron: _Name
    """Five fields: minute, hour, day, month, weekday; `0 3 * * *` is three at night."""
    timezone: _Zone | None = None
    """Of the cron line, if it is not the job's."""
    offset: int = Field(1, ge=-366, le=366)
    """1 is the last partition that had ended at the scheduled time, 2 the one before it, and so
    on; 0 is the one under way then, -1 the next one."""
    misfire_grace_time: Duration = timedelta(hours=1)
    """A run that starts later than this after its scheduled time counts as missed."""
    catchup: Catchup = "all"
    """Which missed runs are made up for: `all`, only the `latest`, or none (`skip`)."""
    enabled: bool = True

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        problem = cron_problem(value)
        if problem is not None:
            raise refused(problem, "Write it like `0 3 * * *`: minute, hour, day, month, weekday.")
        return value


class On(_Part):
    """Events after which to score."""

    model_promoted: Literal["rescore_latest"] | None = None
    """The job's model alias was moved: score the latest partition with the new version."""
    event: _Name | None = None
    """The name of an event in Prefect's feed, for example of the job that fills the source."""
    match: dict[str, str] = Field(default_factory=dict)
    """Labels of the event's resource, all of which it must have."""
    partition: str = "{{ event.payload.partition }}"
    """Which partition to score then, a template; where it gives nothing, the latest one."""

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.model_promoted is None and self.event is None:
            remedy = "Add `model_promoted: rescore_latest`, or `event:` with an event's name."
            raise refused("it names no event", remedy)
        return self


class Challenger(_Part):
    """Another model, scored beside the job's over the same rows and never shown to readers."""

    model: _Name
    """`name@challenger`, `name@alias` or `name@7`."""
    tolerance: Closeness = Tolerance(share=Decimal("0.01"))
    """How far two predictions may be apart and still agree: 0.05, or 1% for a share of them."""
    agreement: float | None = Field(None, ge=0, le=1)
    """The share of rows that must agree before its version may be promoted."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


class Shards(_Part):
    """Key ranges of a partition that are scored side by side, exactly once all together."""

    count: int = Field(1, ge=1, le=1000)
    on: Literal["processes", "threads", "dask"] = "processes"
    """Where: threads suit models that compute without Python's lock; processes and Dask's workers
    load the model once each."""
    at_once: int | None = Field(None, ge=1)
    """How many of them at a time; else all, or on this machine as many as it has cores."""
    address: _Name | None = None
    """Of a Dask scheduler, like tcp://host:8786; else Dask runs on this machine for the time."""

    @model_validator(mode="before")
    @classmethod
    def _by_count(cls, value: object) -> object:
        return {"count": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _address_of_dask(self) -> Self:
        if self.address is not None and self.on != "dask":
            raise refused(f"{self.on} have no address", "Say `on: dask`.", "address")
        return self

    @property
    def workers(self) -> int:
        """How many shards are scored at a time."""
        most = self.count if self.address else min(self.count, os.cpu_count() or 1)
        return self.at_once or most

    @property
    def threads(self) -> int | None:
        """Threads that each worker's libraries may use; None if that is not ours to say."""
        return None if self.address else max(1, (os.cpu_count() or 1) // self.workers)


class Actuals(_Part):
    """Where it is known later what happened; in the database of the predictions."""

    table: _Name
    schema_: _Name | None = Field(None, alias="schema")
    column: _Name
    output: _Name | None = None
    """Which prediction to compare with it, if not the first."""


class Job(_Part):
    """A table to be scored with a model, partition by partition."""

    name: str = ""
    """The name of its file."""
    model: _Name
    """`name` (its champion), `name@alias` or `name@7`."""
    source: Source
    target: Target
    partition_by: Granularity = "all"
    timezone: _Zone = "UTC"
    schedule: Schedule | None = None
    on: On | None = None
    retries: int | None = Field(None, ge=0, le=20)
    """How often a step is tried again after a transient error, if not as the settings say."""
    retry_delay: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Seconds before the first retry, if not as the settings say; doubled each time."""
    timeout: Duration | None = None
    """How long scoring one partition may take; then the run fails, to be resumed."""
    checks: Checks = Checks()
    """What is checked before a run is published."""
    predict_timeout: Duration | None = None
    """How long one call of the model may take; then its chunk's rows are rejects, or the run fails,
    if it is the first call or the third such one."""
    max_rejects: MaxRejects = Budget()
    """How many rows may get no prediction, as a count or as a share like 0.1%, before the run is
    quarantined."""
    challenger: Challenger | None = None
    actuals: Actuals | None = None
    shards: Shards = Shards()
    keep: int = Field(3, ge=1)
    """How many of a partition's runs `nightshift clean` leaves, beside those that readers see."""
    max_parallel: int = Field(1, ge=1, le=16)
    """How many partitions are scored side by side: by a backfill, if it does not say, and of
    nights and triggers that come together, of which more wait."""
    chunk_rows: int | None = Field(None, ge=1, le=10_000_000)
    """Rows read, scored and committed together; left empty, as many as have about 16 MB."""

    @model_validator(mode="after")
    def _time_column_there(self) -> Self:
        if self.partition_by != "all" and self.source.time_column is None:
            problem = f"`partition_by: {self.partition_by}` needs it"
            remedy = "Name the column that says when a row happened."
            raise refused(problem, remedy, "source.time_column")
        return self

    @model_validator(mode="after")
    def _promotable(self) -> Self:
        waits = self.on is not None and self.on.model_promoted is not None
        if waits and self.model.rpartition("@")[2].isdigit():
            problem = f"the job's model is {self.model}, which no promotion moves"
            name = self.model.partition("@")[0]
            raise refused(problem, f"Name an alias, like {name}@champion.", "on.model_promoted")
        return self

    @model_validator(mode="after")
    def _challenger_in_one_shard(self) -> Self:
        if self.challenger is not None and self.shards.count > 1:
            problem = "a challenger is scored beside its champion, in one shard"
            raise refused(problem, "Leave out one of the two.", "challenger")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def source_spec(self) -> SourceSpec:
        return SourceSpec(
            key=self.source.key,
            table=self.source.table,
            schema=self.source.schema_,
            query=self.source.query,
            time_column=self.source.time_column,
            timezone=self.timezone,
            shards=self.shards.count,
        )

    @property
    def offset(self) -> int:
        return 1 if self.schedule is None else self.schedule.offset

    def partition_due(self, instant: datetime) -> Partition:
        """The partition that the schedule wants scored at that time."""
        latest = latest_partition(instant, self.partition_by, self.zone)
        return shifted(latest, 1 - self.offset, self.partition_by, self.zone)

    def partition_of(self, label: str | None) -> Partition:
        """The partition of that label, or the one that is due now."""
        if not label:
            return self.partition_due(datetime.now(UTC))
        try:
            return parse_partition(label, self.partition_by, self.zone)
        except ValueError as error:
            remedy = f"The job is partitioned by {self.partition_by!r}."
            raise ConfigurationError(
                f"job {self.name!r}", "partition", str(error), remedy
            ) from error


def load_job(name: str) -> Job:
    """Read config/jobs/<name>.yaml. Raises ConfigurationError, naming file, field and remedy."""
    folder = jobs_folder()
    path, names = folder / f"{name}.yaml", job_names(folder)
    if name not in names:  # a name such as ../x is never among them
        problem = "there is no such job"
        if _JOB_NAME.fullmatch(name) is None:
            problem = "a job's name has letters, digits, '_', '-' and '.' only"
        near = difflib.get_close_matches(name, names, n=1)
        remedy = f"Did you mean {near[0]!r}? " if near else ""
        remedy += f"The jobs in {folder} are: {', '.join(names) or 'none'}."
        raise ConfigurationError(str(path), "", problem, remedy)
    try:
        job = Job.model_validate({"name": name, **read_yaml(path)})
    except pydantic.ValidationError as error:
        raise first_problem(str(path), error, Job) from error
    if job.name != name:
        problem = f"it is {job.name!r}, but the file is called {path.name}"
        raise ConfigurationError(str(path), "name", problem, "Leave it out, or rename the file.")
    return job


def job_names(folder: Path | None = None) -> list[str]:
    """The jobs there are, by the names of their files; what an editor leaves beside is none."""
    files = (folder or jobs_folder()).glob("*.yaml")
    return sorted(file.stem for file in files if _JOB_NAME.fullmatch(file.stem) and file.is_file())
