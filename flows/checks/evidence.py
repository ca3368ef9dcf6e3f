"""Between scored and published: gather the evidence and make the checks. Free of Prefect."""

from collections.abc import Sequence

import sqlalchemy as sa

from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.history.run_history import EarlierRun, History
from nightshift.adapters.ledger.runs import Run
from nightshift.adapters.ledger.shards import Shard
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.audit import (
    Audit,
    CheckResult,
    Evidence,
    RangeCounts,
    audit,
    comparable_rows,
)
from nightshift.flows.checks.columns import check_output
from nightshift.flows.config.job import Job
from nightshift.flows.config.resources import JobResources
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.loaded_model import LoadedModel


def audited(
    desk: JobResources, served: LoadedModel, cell: Partition, run: Run, snapshot: Sequence[int]
) -> Audit:
    """What the checks find in a scored run. `snapshot` is how many rows the source had in each
    shard, counted there.
    """
    shards = desk.ledger.shards(run.run_id)
    rejected, read = sum(shard.progress.rejected for shard in shards), sum(snapshot)
    history, start = History(desk.ledger), cell.start or BEGINNING
    name, label = desk.job.name, cell.label
    last = history.earlier_run(name, label, start, run.run_id, usual)
    previous = history.previous_audit(name, label, start, run.run_id)
    volumes = history.volumes(name, start, run.run_id)
    evidence = Evidence(
        job=name,
        partition=label,
        profile=profile_of(shards),
        ranges=_ranges(label, shards, snapshot),
        reference=served.reference if served.reference.rows else None,
        last=None if last is None or not last.profiles else _together(last.profiles),
        last_has_same_model=last is None or _is_same(last, served),
        previous=None if previous is None else Audit.from_json(previous),
        usual_rows=comparable_rows(cell.start, desk.job.partition_by, desk.job.zone, volumes),
        run_sql=lambda text: ask(desk, cell, run, text),
    )
    found = audit(desk.job.checks, evidence)
    if not rejected:
        return found
    return Audit.of([_of_rejects(desk.job, history, run, rejected, read), *found.results])


def profile_of(shards: Sequence[Shard]) -> Profile:
    """What a run's shards have read and predicted, all together."""
    return _together([s.progress.profile for s in shards if s.progress.profile is not None])


def failing_outputs(
    job: Job, partition: str, served: LoadedModel, profile: Profile
) -> dict[tuple[str, str | None], str]:
    """The checks of single outputs that fail for a run with such a profile, and what they say."""
    evidence = Evidence(job.name, partition, profile, (), served.reference)
    found = [
        result for name in profile.outputs for result in check_output(job.checks, evidence, name)
    ]
    return {(r.name, r.column): r.text for r in found if r.level == "fail"}


def ask(desk: JobResources, cell: Partition, run: Run, text: str) -> object:
    """The one value of a check's query, which may name :run_id and the partition's bounds."""
    known = {
        "run_id": run.run_id,
        "partition_start": cell.start or BEGINNING,
        "partition_end": cell.end or END,
    }
    query = sa.text(text)
    given = {name: value for name, value in known.items() if name in query.compile().params}
    options = {"postgresql_readonly": True, "nightshift_read_only": True}
    engine = desk.ledger.engine.execution_options(**options)
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


def _of_rejects(job: Job, history: History, run: Run, rejected: int, read: int) -> CheckResult:
    """Whether more rows got no prediction than the job puts up with, and which."""
    rejects = history.rejects(run.run_id, limit=5)
    kinds = list(history.reject_kinds(run.run_id).items())
    told = ", ".join(f"{count:,} x {kind}" for kind, count in kinds[:3])
    keys = ", ".join(reject.key for reject in rejects)
    more = ", ..." if rejected > 5 else ""
    allowed = job.max_rejects.allowed(read)
    level = "fail" if rejected > job.max_rejects.allowed(read) else "warn"
    return CheckResult.model_validate(
        {
            "name": "rejects",
            "value": rejected,
            "fail": allowed,
            "level": level,
            "reached": level,
            "text": f"{rejected:,} of {read:,} rows could not be scored, {job.max_rejects} may be "
            f"({told}; {rejects[0].error}); their keys: {keys}{more}",
        }
    )


def usual(audit: str | None) -> bool:
    """Whether a run is one to compare others with. Those from before there were audits are."""
    return audit is None or Audit.from_json(audit).steady


def _together(texts: Sequence[str]) -> Profile:
    profile = Profile()
    for text in texts:
        profile = profile.merged(Profile.from_json(text))
    return profile


def _is_same(last: EarlierRun, served: LoadedModel) -> bool:
    manifest = served.manifest
    return (last.model_name, last.model_version) == (manifest.name, manifest.version)
