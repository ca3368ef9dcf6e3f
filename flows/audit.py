"""Between scored and published: gather the evidence and make the checks. Free of Prefect."""

from collections import Counter

import sqlalchemy as sa

from adapters.database.engine import translated
from adapters.database.history import Former, History
from adapters.database.run import Run
from adapters.database.times import BEGINNING, END
from adapters.profile import Profile
from flows.checks import Audit, CheckResult, Evidence, RangeCounts, audit, comparable_rows
from flows.desk import Desk
from flows.job import Job
from flows.limits import exceeds
from flows.partitions import Partition
from flows.served import Served


def audited(desk: Desk, served: Served, cell: Partition, run: Run, read: int) -> Audit:
    """What the checks find in a scored run of which so many rows were read."""
    shards = [shard.progress for shard in desk.ledger.shards(run.run_id)]
    written = sum(part.rows for part in shards)
    rejected = sum(part.rejected for part in shards)
    profile = _together([part.profile for part in shards if part.profile is not None])
    history, start = History(desk.ledger), cell.start or BEGINNING
    name, label = desk.job.name, cell.label
    last = history.former(name, label, start, run.run_id, usual)
    previous = history.previous_audit(name, label, start, run.run_id)
    volumes = history.volumes(name, start, run.run_id)
    evidence = Evidence(
        job=name,
        partition=label,
        profile=profile,
        ranges=(RangeCounts(label, read, written, rejected),),
        reference=served.reference if served.reference.rows else None,
        last=None if last is None or not last.profiles else _together(last.profiles),
        last_has_same_model=last is None or _is_same(last, served),
        previous=None if previous is None else Audit.from_json(previous),
        usual_rows=comparable_rows(cell.start, desk.job.partition, desk.job.zone, volumes),
        run_sql=lambda text: ask(desk, cell, run, text),
    )
    found = audit(desk.job.checks, evidence)
    if not rejected:
        return found
    return Audit.of([_of_rejects(desk.job, history, run, rejected, read), *found.results])


def ask(desk: Desk, cell: Partition, run: Run, text: str) -> object:
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
    with translated(engine, "a check's query"), engine.connect() as connection:
        return connection.execute(query, given).scalar_one()


def _of_rejects(job: Job, history: History, run: Run, rejected: int, read: int) -> CheckResult:
    """Whether more rows got no prediction than the job puts up with, and which."""
    rejects = history.rejects(run.run_id, limit=1000)
    kinds = Counter(reject.kind for reject in rejects)
    told = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
    keys = ", ".join(reject.key for reject in rejects[:5])
    more = ", ..." if rejected > 5 else ""
    allowed = job.max_rejects.allowed(read)
    level = "fail" if exceeds(job.max_rejects, rejected, read) else "warn"
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


def _together(texts: "list[str] | tuple[str, ...]") -> Profile:
    profile = Profile()
    for text in texts:
        profile = profile.merged(Profile.from_json(text))
    return profile


def _is_same(last: Former, served: Served) -> bool:
    manifest = served.manifest
    return (last.model_name, last.model_version) == (manifest.name, manifest.version)
