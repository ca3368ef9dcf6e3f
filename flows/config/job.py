"""One job file, config/jobs/<job>.yaml: source, model, target and how to score."""

import difflib
import os
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
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
from nightshift.adapters.source.relation import SourceSpec
from nightshift.flows.config.checks import Checks
from nightshift.flows.config.cron import Cron, TimeZone
from nightshift.flows.config.quantities import Budget, Duration, MaxDistance, MaxRejects, Tolerance
from nightshift.flows.config.settings import jobs_folder
from nightshift.flows.config.validation import accept_also, describe_problems, refused
from nightshift.flows.config.yaml_file import read_yaml

Granularity = Literal["all", "hour", "day", "month"]
Catchup = Literal["latest", "all", "skip"]

# PostgreSQL cuts names at 63 bytes, and the longest made of a target's is ix_<table>_runs_key.
_LONGEST_TARGET = 51
_JOB_NAME = re.compile(r"\w[\w.-]*")


def _not_blank(value: str) -> str:
    if not value.strip():
        raise refused("it is empty", "Fill it in, or leave it out.")
    return value


_Name = Annotated[str, AfterValidator(_not_blank)]


class _Part(BaseModel):
    # strict: in YAML `chunk_rows: yes` is not a number, and `table: 2013` not a name
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


def _one_or_more(schema: dict[str, Any]) -> None:
    schema["type"] = ["string", "array"]


class Source(_Part):
    """The rows to score: a table, or a SELECT."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["table"]}, {"required": ["query"]}]}
    )

    table: _Name | None = None
    """The table or view to score."""
    schema_: _Name | None = Field(None, alias="schema")
    """The schema of the table; without it, the one that the database looks in by default."""
    query: _Name | None = None
    """A SELECT to score in place of a table."""
    key: tuple[_Name, ...] = Field(min_length=1, json_schema_extra=_one_or_more)
    """The column, or the list of columns, that identifies a row. Declared unique in a table,
    verified in a query."""
    time_column: _Name | None = None
    """When the row happened; decides the row's partition. Needed by `partition_by`."""

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
    """Where readers find the predictions."""

    table: _Name
    """The name of a view that Nightshift makes, over its table `<name>_runs`."""
    index_key: bool = False
    """Keep an index on the key alone, for readers who look up single rows."""

    @field_validator("table")
    @classmethod
    def _fits(cls, value: str) -> str:
        length = len(value.encode())
        if length > _LONGEST_TARGET:
            problem = f"a name of {length} bytes leaves no room for the names derived from it"
            raise refused(problem, f"Take at most {_LONGEST_TARGET}.")
        if value.casefold() == "nightshift" or value.casefold().startswith("nightshift_"):
            raise refused(f"{value!r} is reserved for Nightshift's ledger", "Take another.")
        return value


class Schedule(_Part):
    """When to score, and which partition."""

    cron: Cron
    """Five fields: minute, hour, day, month, weekday. `0 3 * * *` is every day at 3 o'clock."""
    timezone: TimeZone | None = None
    """The zone of the cron line, if it is not the job's."""
    offset: int = Field(1, ge=-366, le=366)
    """Which partition: 1 is the last one that has ended at the scheduled time, 2 the one before
    it, and so on; 0 is the one that contains the scheduled time, -1 the next one."""
    misfire_grace_time: Duration = timedelta(hours=1)
    """A run that starts later than this after its scheduled time counts as missed."""
    catchup: Catchup = "all"
    """Which missed runs are made up for: `all`, only the `latest`, or none (`skip`)."""
    enabled: bool = True
    """`false` pauses the schedule."""


class On(_Part):
    """Events after which to score."""

    model_promoted: Literal["rescore_latest"] | None = None
    """`rescore_latest`: when the alias of the job's model moves, score the latest partition with
    the new version."""
    event: _Name | None = None
    """The name of an event in Prefect's event feed, for example of the job that fills the
    source."""
    match: dict[str, str] = Field(default_factory=dict)
    """Labels that the event's resource must all have."""
    partition: str = "{{ event.payload.partition }}"
    """The partition to score after the event, a template. If it comes out empty: the latest."""

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.model_promoted is None and self.event is None:
            remedy = "Add `model_promoted: rescore_latest`, or `event:` with an event's name."
            raise refused("it names no event", remedy)
        return self


class ChallengerConfig(_Part):
    """Another model, scored over the same rows as the job's, and never shown to readers."""

    model_config = ConfigDict(json_schema_extra=accept_also({"type": "string"}))

    model: _Name
    """`name@challenger`, `name@alias` or `name@7`."""
    tolerance: MaxDistance = Tolerance(share=Decimal("0.01"))
    """How far apart two predictions may be and still agree: `0.05`, or `1%` for a share of
    the champion's."""
    agreement: float | None = Field(None, ge=0, le=1)
    """The share of rows, from 0 to 1, that must agree before its version may be promoted."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


class Shards(_Part):
    """Key ranges of a partition that are scored in parallel and published together."""

    model_config = ConfigDict(
        json_schema_extra=accept_also({"type": "integer", "minimum": 1, "maximum": 1000})
    )

    count: int = Field(1, ge=1, le=1000)
    """How many; `shards: 4` is short for `shards: {count: 4}`."""
    on: Literal["processes", "threads", "dask"] = "processes"
    """What scores them. Threads suit models that release Python's lock; processes and Dask's
    workers load the model once each."""
    at_once: int | None = Field(None, ge=1)
    """How many at a time. By default all, or on this machine as many as it has cores."""
    address: _Name | None = None
    """The Dask scheduler, like `tcp://host:8786`. Without it, Dask runs on this machine, for the
    duration of the run."""

    @model_validator(mode="before")
    @classmethod
    def _by_count(cls, value: object) -> object:
        return {"count": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _address_of_dask(self) -> Self:
        if self.address is not None and self.on != "dask":
            raise refused(f"{self.on} have no address", "Write `on: dask`.", "address")
        return self

    @property
    def workers(self) -> int:
        """How many shards are scored at a time."""
        most = self.count if self.address else min(self.count, os.cpu_count() or 1)
        return self.at_once or most

    @property
    def threads(self) -> int | None:
        """Threads that each worker's libraries may use; None where Dask's operator decides."""
        return None if self.address else max(1, (os.cpu_count() or 1) // self.workers)


class Actuals(_Part):
    """Where the true outcomes are found later, in the database of the predictions."""

    table: _Name
    """A table with the source's key."""
    schema_: _Name | None = Field(None, alias="schema")
    """The schema of the table."""
    column: _Name
    """The column with the outcome."""
    output: _Name | None = None
    """The output to compare with it, if not the first."""


class Job(_Part):
    """A table to be scored with a model, partition by partition."""

    name: str = ""
    """The name of the file without `.yaml`; need not be written."""
    model: _Name
    """`name` (its champion), `name@alias` or `name@7`."""
    source: Source
    """The rows to score: a table, or a SELECT."""
    target: Target
    """Where readers find the predictions."""
    partition_by: Granularity = "all"
    """Score the table hour by hour, day by day or month by month, by `source.time_column`; or
    `all` rows each time."""
    timezone: TimeZone = "UTC"
    """The zone whose clock decides where an hour, a day or a month begins, like
    `America/New_York`."""
    schedule: Schedule | None = None
    """When to score, and which partition."""
    on: On | None = None
    """Events after which to score."""
    retries: int | None = Field(None, ge=0, le=20)
    """How often a step is tried again after a transient error; by default as the settings say."""
    retry_delay: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Seconds before the first retry, doubled each time; by default as the settings say."""
    timeout: Duration | None = None
    """How long scoring one partition may take. Then the run fails; the next one resumes it."""
    checks: Checks = Checks()
    """What is checked before a run is published; every check has a default."""
    predict_timeout: Duration | None = None
    """How long one call of the model may take. Then the rows of its chunk are rejected; the run
    fails at the first call, or at the third timeout."""
    max_rejects: MaxRejects = Budget()
    """How many rows may be rejected (get no prediction) before the run is quarantined: a count,
    or a share like `0.1%`."""
    challenger: ChallengerConfig | None = None
    """Another model, scored over the same rows and never shown to readers; `challenger: name@7`
    is short for `challenger: {model: name@7}`."""
    actuals: Actuals | None = None
    """Where the true outcomes are found later, for `nightshift evaluate`."""
    shards: Shards = Shards()
    """Key ranges of a partition that are scored in parallel."""
    keep: int = Field(3, ge=1)
    """How many runs of a partition `nightshift clean` keeps, apart from those that readers see."""
    max_parallel: int = Field(1, ge=1, le=16)
    """How many partitions are scored in parallel: by a backfill that does not say otherwise, and
    by scheduled and triggered runs that come together; further ones wait."""
    chunk_rows: int | None = Field(None, ge=1, le=10_000_000)
    """Rows that are read, scored and committed together; by default about 16 MB of them."""

    @model_validator(mode="after")
    def _has_time_column(self) -> Self:
        if self.partition_by != "all" and self.source.time_column is None:
            problem = f"`partition_by: {self.partition_by}` needs it"
            remedy = "Name the column that says when a row happened."
            raise refused(problem, remedy, "source.time_column")
        return self

    @model_validator(mode="after")
    def _has_movable_alias(self) -> Self:
        waits = self.on is not None and self.on.model_promoted is not None
        if waits and self.model.rpartition("@")[2].isdigit():
            problem = f"the job's model is {self.model}, which no promotion changes"
            name = self.model.partition("@")[0]
            raise refused(problem, f"Name an alias, like {name}@champion.", "on.model_promoted")
        return self

    @model_validator(mode="after")
    def _challenger_in_one_shard(self) -> Self:
        if self.challenger is not None and self.shards.count > 1:
            problem = "a challenger and its champion are scored in one shard"
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


def load_job(name: str) -> Job:
    """Read config/jobs/<name>.yaml. Raises ConfigurationError, naming file, field and remedy."""
    job = read_job(name)
    if isinstance(job, Job):
        return job
    raise job[0]


def read_job(name: str) -> Job | list[ConfigurationError]:
    """The job, or everything that is wrong with its file."""
    folder = jobs_folder()
    path, names = folder / f"{name}.yaml", job_names(folder)
    if name not in names:  # a name such as ../x is never among them
        problem = "there is no such job"
        if not is_job_name(name):
            problem = "a job's name has letters, digits, '_', '-' and '.' only"
        near = difflib.get_close_matches(name, names, n=1)
        remedy = f"Did you mean {near[0]!r}? " if near else ""
        remedy += f"The jobs in {folder} are: {', '.join(names) or 'none'}."
        return [ConfigurationError(str(path), "", problem, remedy)]
    try:
        file = read_yaml(path)
        job = Job.model_validate({"name": name, **file.content})
    except ConfigurationError as error:
        return [error]
    except pydantic.ValidationError as error:
        return describe_problems(error, Job, file.locate)
    if job.name != name:
        problem = f"it is {job.name!r}, but the file is called {path.name}"
        remedy = "Leave it out, or rename the file."
        return [ConfigurationError(file.locate(["name"]), "name", problem, remedy)]
    return job


def job_names(folder: Path | None = None) -> list[str]:
    """The names of the job files, sorted; an editor's hidden files are left out."""
    files = (folder or jobs_folder()).glob("*.yaml")
    return sorted(file.stem for file in files if is_job_name(file.stem) and file.is_file())


def is_job_name(name: str) -> bool:
    """Whether a job may be called that."""
    return _JOB_NAME.fullmatch(name) is not None
