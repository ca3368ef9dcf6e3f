"""The audit: what must be true of a run before its predictions are published. Pure.

    found = audit(job.checks, Evidence(job.name, "2013-10-01", profile, ranges, reference, ...))
    if found.verdict == "fail":    # the run is quarantined; found.reason says why

A check of a user's own is a query in the job file, or a function of an installed package:

    [project.entry-points."nightshift.checks"]
    plausible = "my_package.checks:plausible"

    def plausible(evidence: Evidence, most: float) -> tuple[float, str]:
        share = ...
        return share, "share of fares above the most expensive one"    # or the number, or a bool

with `python: [{name: plausible, settings: {most: 900}, fail: 0.02}]`. A number above the levels
warns or fails, True passes, False fails, and so does a check that raises, or that does not answer
within its `timeout`, 10 minutes unless the job file says otherwise.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from importlib.metadata import entry_points
from zoneinfo import ZoneInfo

from nightshift.adapters.errors import ConfigurationError, TransientError
from nightshift.flows.checks.columns import check_input, check_output
from nightshift.flows.checks.drift import check_drift
from nightshift.flows.checks.results import (
    Audit,
    CheckResult,
    Evidence,
    RangeCounts,
    graded,
    percent,
)
from nightshift.flows.config.checks import Checks, Levels, PythonCheck, SqlCheck
from nightshift.flows.config.job import Granularity
from nightshift.flows.scoring.prediction.timeouts import TimedCalls

__all__ = [
    "ENTRY_POINT_GROUP", "Audit", "CheckResult", "Checks", "Evidence", "RangeCounts", "audit",
    "comparable_rows", "require_checks",
]  # fmt: skip

ENTRY_POINT_GROUP = "nightshift.checks"
USUAL_RUNS = 4


def audit(checks: Checks, evidence: Evidence) -> Audit:
    """Make every check; what explains most comes first, so that the reason names the cause.

    Raises TransientError if a query could not be asked; any other trouble of a user's own check is
    a result that fails.
    """
    inputs, outputs = evidence.profile.inputs, evidence.profile.outputs
    results = [*_reconcile(evidence), *_volume(checks, evidence)]
    for name in inputs:
        results += check_input(checks, evidence, name)
    for name in outputs:
        results += check_output(checks, evidence, name)
    for side, names in (("predictions", outputs), ("inputs", inputs)):
        for name in names:
            results += check_drift(checks, evidence, side, name)
    results += [_by_sql(check, evidence) for check in checks.sql]
    results += [_by_python(check, evidence) for check in checks.python]
    return Audit.of(results)


def comparable_rows(
    start: datetime | None,
    grid: Granularity,
    zone: ZoneInfo,
    history: Iterable[tuple[datetime | None, int]],
) -> tuple[int, ...]:
    """Rows of the last four runs that this partition is like: of the same weekday, and hour.

    `history` has the start of each published partition of the job and its rows; those of the
    partition itself and of later ones are left out. Runs of the whole table, and months, are like
    each other.
    """

    def like(moment: datetime) -> tuple[int, ...]:
        local = moment.astimezone(zone)
        return {"day": (local.weekday(),), "hour": (local.weekday(), local.hour)}.get(grid, ())

    known = list(history)
    if start is None:
        return tuple(rows for begun, rows in known if begun is None)[-USUAL_RUNS:]
    found = [
        (begun, rows)
        for begun, rows in known
        if begun is not None and begun < start and like(begun) == like(start)
    ]
    return tuple(rows for _, rows in sorted(found)[-USUAL_RUNS:])


def require_checks(place: str, checks: Checks) -> None:
    """Raises ConfigurationError for a Python check that is not installed."""
    for check in checks.python:
        _function(place, check)


# --- the run's rows -----------------------------------------------------------------------------


def _reconcile(evidence: Evidence) -> Iterator[CheckResult]:
    """Every row of the snapshot was written or rejected, in each key range, and was counted."""
    snapshot, written, rejected = (
        sum(getattr(counts, field) for counts in evidence.ranges)
        for field in ("snapshot", "written", "rejected")
    )
    text = f"{snapshot:,} rows in the snapshot = {written:,} written + {rejected:,} rejected"
    wrong = [r for r in evidence.ranges if r.snapshot != r.written + r.rejected]
    missing = sum(abs(r.snapshot - r.written - r.rejected) for r in wrong)
    if wrong:
        first = wrong[0]
        text = (
            f"{snapshot:,} rows in the snapshot, but {written:,} written and {rejected:,} "
            f"rejected; first in {first.label}: {first.snapshot:,}, but {first.written:,} and "
            f"{first.rejected:,}"
        )
    elif evidence.profile.rows != written:
        missing = abs(evidence.profile.rows - written)
        text = f"{written:,} rows were written, but {evidence.profile.rows:,} were profiled"
    level = "fail" if missing else "ok"
    yield CheckResult.model_validate(
        {
            "name": "reconciliation", "value": missing, "fail": 0, "level": level,
            "reached": level, "text": text,
        }
    )  # fmt: skip


def _volume(checks: Checks, evidence: Evidence) -> Iterator[CheckResult]:
    levels = checks.volume
    if levels.off:
        return
    rows = sum(counts.snapshot for counts in evidence.ranges)
    runs = len(evidence.usual_rows)
    if runs < levels.minimum_runs:
        text = f"{rows:,} rows; {runs} comparable runs are too few to tell what is usual"
        yield CheckResult(name="volume", warn=levels.warn, fail=levels.fail, text=text)
        return
    usual = statistics.median(evidence.usual_rows)
    if max(rows, usual) < levels.minimum_rows:
        text = f"{rows:,} rows; {usual:,.0f} are usual, too few to compare"
        yield CheckResult(name="volume", warn=levels.warn, fail=levels.fail, text=text)
        return
    change = 1 - min(rows, usual) / max(rows, usual)
    words = "fewer" if rows < usual else "more"
    by = percent(abs(rows - usual) / usual) if usual else "infinitely many"
    told = "as many as usual" if rows == usual else f"{by} {words} than usual"
    text = f"{rows:,} rows, {told} ({usual:,.0f}, of the last {runs} comparable runs)"
    yield graded("volume", None, change, levels, text)


# --- the user's own -----------------------------------------------------------------------------


def _by_sql(check: SqlCheck, evidence: Evidence) -> CheckResult:
    def ask() -> object:
        if evidence.run_sql is None:
            raise ValueError("there is nothing to execute it")
        return evidence.run_sql(check.query)

    return _own(f"SQL check {check.name}", check, ask)


def _by_python(check: PythonCheck, evidence: Evidence) -> CheckResult:
    def ask() -> object:
        return _function("checks.python", check)(evidence, **check.settings)

    return _own(f"check {check.name}", check, ask)


def _function(place: str, check: PythonCheck) -> Callable[..., object]:
    """Raises ConfigurationError."""
    known = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if check.name not in known:
        problem = f"no installed package has a check called {check.name!r}"
        remedy = f"Known in the group {ENTRY_POINT_GROUP!r} are: {', '.join(known) or 'none'}."
        raise ConfigurationError(place, "checks.python", problem, remedy)
    try:
        found = known[check.name].load()
    except Exception as error:  # whatever the module does at import
        problem = f"{known[check.name].value} cannot be loaded ({type(error).__name__}: {error})"
        raise ConfigurationError(place, "checks.python", problem, "Correct it.") from error
    if not callable(found):
        problem = f"{known[check.name].value} is no function"
        raise ConfigurationError(place, "checks.python", problem, "Correct the entry point.")
    function: Callable[..., object] = found
    return function


def _own(name: str, check: SqlCheck | PythonCheck, ask: Callable[[], object]) -> CheckResult:
    """A value, graded; no value fails, and none in time."""
    calls = TimedCalls(check.timeout.total_seconds())
    try:
        answer = calls(ask)
        given, words = answer if isinstance(answer, tuple) else (answer, "")
        value = _number(given)
    except TransientError:
        raise
    except Exception as error:  # a query or a function of the user's may raise anything
        return CheckResult(
            name=name, warn=check.warn, fail=check.fail, level="fail", reached="fail",
            text=f"{name} could not be made: {type(error).__name__}: {error}",
        )  # fmt: skip
    finally:
        calls.close()
    if isinstance(given, bool):
        levels = Levels(warn=check.warn and 0, fail=check.fail and 0)  # false is above any level
        return graded(name, None, value, levels, f"{name}: {words or str(given).lower()}")
    result = graded(name, None, value, check, f"{name}: {words or f'{value:g}'}")
    limit = check.fail if result.level == "fail" else check.warn
    if result.level == "ok" or limit is None:
        return result
    return result.model_copy(
        update={"text": f"{result.text} (found {value:g}, at most {limit:g} may be)"}
    )


def _number(given: object) -> float:
    """Raises ValueError for what is neither number nor boolean."""
    if isinstance(given, bool):
        return 0.0 if given else 1.0
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"it gave {given!r} in place of a number") from error
    if not math.isfinite(value):
        raise ValueError(f"it gave {given!r} in place of a number")
    return value
