"""What a check may ask of a scored run, and how it is collected from the ledger."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from nightshift.adapters.database.engine import read_only
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.history.run_history import EarlierRun, History
from nightshift.adapters.ledger.runs import Run
from nightshift.adapters.ledger.shards import Shard
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.results import Audit
from nightshift.flows.config.job import Granularity
from nightshift.flows.config.resources import JobResources
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.loaded_model import LoadedModel

USUAL_RUNS = 4


@dataclass(frozen=True)
class RangeCounts:
    """Rows of one key range: a shard's, or the whole partition's."""

    label: str
    snapshot: int
    """Rows of the source's snapshot."""
    written: int
    rejected: int = 0


@dataclass(frozen=True)
class Evidence:
    """What is known of a run once its last row is scored. Users' own checks get it, too."""

    job: str
    partition: str
    profile: Profile
    """Of the run's inputs and predictions, column by column."""
    ranges: tuple[RangeCounts, ...]
    reference: Profile | None = None
    """Of the sample that the model was registered with."""
    last: Profile | None = None
    """Of the last published run before this partition (or before now) that was steady, or that a
    person released. An odd run is not taken: ordinary ones would look odd compared with it."""
    last_has_same_model: bool = True
    previous: Audit | None = None
    """Of the partition before, published or not; of a job without partitions, of its run
    before. Never of an earlier attempt at the same partition."""
    usual_rows: tuple[int, ...] = ()
    """Rows of recent comparable runs; see `comparable_rows`."""
    run_sql: Callable[[str], object] | None = None
    """Executes a query that returns one value."""


def collect_evidence(
    resources: JobResources,
    model: LoadedModel,
    partition: Partition,
    run: Run,
    snapshot: Sequence[int],
) -> Evidence:
    """What the checks of a scored run go by. `snapshot` has the source's rows in each shard."""
    shards, history = resources.ledger.shards(run.run_id), History(resources.ledger)
    job, label, start = resources.job, partition.label, partition.start or BEGINNING
    last = history.earlier_run(job.name, label, start, run.run_id, is_basis)
    previous = history.previous_audit(job.name, label, start, run.run_id)
    volumes = history.volumes(job.name, start, run.run_id)
    return Evidence(
        job=job.name,
        partition=label,
        profile=profile_shards(shards),
        ranges=_ranges(label, shards, snapshot),
        reference=model.reference if model.reference.rows else None,
        last=None if last is None or not last.profiles else merge_profiles(last.profiles),
        last_has_same_model=last is None or _is_same(last, model),
        previous=None if previous is None else Audit.from_json(previous),
        usual_rows=comparable_rows(partition.start, job.partition_by, job.zone, volumes),
        run_sql=lambda text: _run_query(resources, partition, run, text),
    )


def profile_shards(shards: Sequence[Shard]) -> Profile:
    """What all shards of a run have read and predicted."""
    return merge_profiles([s.progress.profile for s in shards if s.progress.profile is not None])


def merge_profiles(texts: Sequence[str]) -> Profile:
    """One profile from the JSON of several. Raises ValueError for what is not a profile."""
    profile = Profile()
    for text in texts:
        profile = profile.merged(Profile.from_json(text))
    return profile


def is_basis(audit: str | None) -> bool:
    """Whether later runs may be compared with a run that has this audit, as JSON."""
    return audit is None or Audit.from_json(audit).is_steady


def comparable_rows(
    start: datetime | None,
    partition_by: Granularity,
    zone: ZoneInfo,
    history: Iterable[tuple[datetime | None, int]],
) -> tuple[int, ...]:
    """Rows of the last four comparable runs: of the same weekday, and of the same hour.

    `history` has the start of each published partition of the job and its rows; the partition
    itself and later ones are left out. Months, and runs of the whole table, all compare.
    """

    def kind(at: datetime) -> tuple[int, ...]:
        local = at.astimezone(zone)
        kinds = {"day": (local.weekday(),), "hour": (local.weekday(), local.hour)}
        return kinds.get(partition_by, ())

    known = list(history)
    if start is None:
        return tuple(rows for begin, rows in known if begin is None)[-USUAL_RUNS:]
    found = [
        (begin, rows)
        for begin, rows in known
        if begin is not None and begin < start and kind(begin) == kind(start)
    ]
    return tuple(rows for _, rows in sorted(found)[-USUAL_RUNS:])


def _run_query(resources: JobResources, partition: Partition, run: Run, text: str) -> object:
    """The one value of a check's query, which may use :run_id and the partition's bounds."""
    known = {
        "run_id": run.run_id,
        "partition_start": partition.start or BEGINNING,
        "partition_end": partition.end or END,
    }
    query = sa.text(text)
    given = {name: value for name, value in known.items() if name in query.compile().params}
    engine = read_only(resources.ledger.engine)
    with translate_errors(engine, "a check's query"), engine.connect() as connection:
        return connection.execute(query, given).scalar_one()


def _ranges(
    label: str, shards: Sequence[Shard], snapshot: Sequence[int]
) -> tuple[RangeCounts, ...]:
    return tuple(
        RangeCounts(
            label if len(shards) == 1 else f"{label}, shard {shard.progress.shard}",
            rows,
            shard.progress.rows,
            shard.progress.rejected,
        )
        for shard, rows in zip(shards, snapshot, strict=True)
    )


def _is_same(last: EarlierRun, model: LoadedModel) -> bool:
    manifest = model.manifest
    return (last.model_name, last.model_version) == (manifest.name, manifest.version)
