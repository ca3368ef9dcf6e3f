"""Checks of the number of rows: all are accounted for, and about as many as usual. Pure."""

import statistics
from collections.abc import Iterator

from nightshift.flows.checks.evidence import Evidence
from nightshift.flows.checks.results import CheckResult, Level, grade, leave_unjudged
from nightshift.flows.config.checks import VolumeChecks
from nightshift.flows.text import format_percent


def reconcile(evidence: Evidence) -> CheckResult:
    """Every row of the snapshot was written or rejected, in each key range, and was profiled."""
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
    level = Level.FAIL if missing else Level.OK
    return CheckResult(
        name="reconciliation", value=missing, fail=0, level=level, reached=level, text=text
    )


def check_volume(levels: VolumeChecks, evidence: Evidence) -> Iterator[CheckResult]:
    """How far the number of rows is from the median of the last comparable runs."""
    if levels.off:
        return
    rows = sum(counts.snapshot for counts in evidence.ranges)
    runs = len(evidence.usual_rows)
    if runs < levels.minimum_runs:
        reason = f"{rows:,} rows; {runs} comparable runs so far, {levels.minimum_runs} are needed"
        yield leave_unjudged("volume", None, reason, levels)
        return
    usual = statistics.median(evidence.usual_rows)
    if max(rows, usual) < levels.minimum_rows:
        reason = f"{rows:,} rows, usually {usual:,.0f}; {levels.minimum_rows:,} are needed"
        yield leave_unjudged("volume", None, reason, levels)
        return
    change = 1 - min(rows, usual) / max(rows, usual)
    direction = "fewer" if rows < usual else "more"
    by = format_percent(abs(rows - usual) / usual) if usual else "infinitely many"
    compared = "as many as usual" if rows == usual else f"{by} {direction} than usual"
    text = f"{rows:,} rows, {compared} ({usual:,.0f}, of the last {runs} comparable runs)"
    yield grade("volume", None, change, levels, text)
