"""The audit: all checks of a scored run, between its last row and publishing.

found = audit_run(resources, model, partition, run, snapshot)
if found.verdict == Level.FAIL:    # the run is quarantined; found.reason says why
"""

from collections.abc import Sequence

from nightshift.adapters.history.run_history import History
from nightshift.adapters.ledger.runs import Run
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.columns import check_input, check_output
from nightshift.flows.checks.custom import run_python_check, run_sql_check
from nightshift.flows.checks.drift import check_drift
from nightshift.flows.checks.evidence import Evidence, collect_evidence
from nightshift.flows.checks.results import Audit, CheckResult, Level
from nightshift.flows.checks.volume import check_volume, reconcile
from nightshift.flows.config.checks import Checks
from nightshift.flows.config.job import Job
from nightshift.flows.config.resources import JobResources
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.loaded_model import LoadedModel


def audit_run(
    resources: JobResources,
    model: LoadedModel,
    partition: Partition,
    run: Run,
    snapshot: Sequence[int],
) -> Audit:
    """Check a scored run. `snapshot` has the rows that the source had in each shard.

    Raises TransientError if a query could not be run.
    """
    evidence = collect_evidence(resources, model, partition, run, snapshot)
    found = run_checks(resources.job.checks, evidence)
    rejected = sum(counts.rejected for counts in evidence.ranges)
    if not rejected:
        return found
    rejects = _check_rejects(
        resources.job, History(resources.ledger), run.run_id, rejected, sum(snapshot)
    )
    return Audit.of([rejects, *found.results])


def run_checks(checks: Checks, evidence: Evidence) -> Audit:
    """Run every check. What explains most comes first, so that the reason names the cause.

    Raises TransientError if a query could not be run; any other error of a user's own check is a
    failed result.
    """
    inputs, outputs = evidence.profile.inputs, evidence.profile.outputs
    results = [reconcile(evidence), *check_volume(checks.volume, evidence)]
    for name in inputs:
        results += check_input(checks, evidence, name)
    for name in outputs:
        results += check_output(checks, evidence, name)
    for side, names in (("predictions", outputs), ("inputs", inputs)):
        for name in names:
            results += check_drift(checks, evidence, side, name)
    results += [run_sql_check(check, evidence) for check in checks.sql]
    results += [run_python_check(check, evidence) for check in checks.python]
    return Audit.of(results)


def failing_outputs(
    job: Job, partition: str, model: LoadedModel, profile: Profile
) -> dict[tuple[str, str | None], str]:
    """The checks of single outputs that fail for a run with such a profile, and their texts."""
    evidence = Evidence(job.name, partition, profile, (), model.reference)
    found = [
        result for name in profile.outputs for result in check_output(job.checks, evidence, name)
    ]
    return {(r.name, r.column): r.text for r in found if r.level == Level.FAIL}


def _check_rejects(
    job: Job, history: History, run_id: int, rejected: int, read: int
) -> CheckResult:
    """Whether more rows were rejected than the job allows, and which."""
    rejects = history.rejects(run_id, limit=5)
    kinds = list(history.reject_kinds(run_id).items())
    errors = ", ".join(f"{count:,} x {kind}" for kind, count in kinds[:3])
    keys = ", ".join(reject.key for reject in rejects)
    more = ", ..." if rejected > 5 else ""
    allowed = job.max_rejects.allowed(read)
    level = Level.FAIL if rejected > allowed else Level.WARN
    return CheckResult(
        name="rejects",
        value=rejected,
        fail=allowed,
        level=level,
        reached=level,
        text=f"{rejected:,} of {read:,} rows could not be scored, {job.max_rejects} may be "
        f"({errors}; {rejects[0].error}); their keys: {keys}{more}",
    )
