"""Drift: how far inputs and predictions have moved, and for how many runs in a row. Pure.

`drift` is the PSI against the reference, the sample that the model was registered with. `jump` is
the PSI against the last steady published run, unless the values are like the reference's: a return
to normal is not a jump. Both are effect sizes and need a minimum of rows. The customary limits, 0.1
and 0.25, are made for a whole portfolio; a single day varies more. Of the 365 days of flights in
the demo, 61 are above 0.25 by weather alone, 5 above 0.5 and 1 above 1.

The first run above `fail` warns, the second in a row fails: weather passes, a broken feed stays.
Once it has failed so, it fails until it is below `warn` again, so that a value near the level does
not let every other run through. Above `at_once` the first run fails.
"""

from collections.abc import Iterator

from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.drift import psi
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.columns import is_single
from nightshift.flows.checks.evidence import Evidence
from nightshift.flows.checks.results import (
    DISTRIBUTIONS,
    Audit,
    CheckResult,
    Level,
    grade,
    leave_unjudged,
    name_column,
)
from nightshift.flows.config.checks import Checks, DriftLevels

DRIFT, JUMP = DISTRIBUTIONS
_NO_LAST = "no steady run has been published before"


def check_drift(checks: Checks, evidence: Evidence, side: str, name: str) -> Iterator[CheckResult]:
    """Both checks of one column. `side` is "inputs" or "predictions". Times are not compared."""
    column = _find(evidence.profile, side, name)
    reference, last = (
        _find(profile, side, name) for profile in (evidence.reference, evidence.last)
    )
    title = name_column(side, name)
    if column is None or column.kind == "time":  # time goes on
        return
    # An input with one value per partition, as the weekday of a day, names the partition.
    single = side == "inputs" and is_single(column)
    names_partition = single and is_single(last)
    like_reference = False
    for check, known, what in (
        (DRIFT, reference, "the training sample"),
        (JUMP, last, "the last published run"),
    ):
        levels = checks.levels(side, name, check)
        if not isinstance(levels, DriftLevels) or levels.off:
            continue
        if single and last is None:  # it may name the partition
            levels = levels.model_copy(update={"at_once": None})
        value = None if known is None else psi(known, column, checks.minimum_rows)
        if names_partition:
            reason = "all its values are one, here as in the last published run"
            yield leave_unjudged(check, title, reason, levels)
        elif check == JUMP and side == "predictions" and not evidence.last_has_same_model:
            reason = "the last published run was scored by another model version"
            yield leave_unjudged(check, title, reason, levels)
        elif known is None:
            missing = "the training sample does not have it" if check == DRIFT else _NO_LAST
            yield leave_unjudged(check, title, missing, levels)
        elif value is None:
            reason = _why_incomparable(column, known, what, checks.minimum_rows)
            yield leave_unjudged(check, title, reason, levels)
        else:
            text = f"{title}: its distribution differs from {what} by a PSI of {value:.2f}"
            compared = 0.0 if like_reference else value
            graded = grade(check, title, value, levels, text, compared)
            found = require_repetition(graded, compared, levels, evidence.previous)
            yield found
            like_reference = check == DRIFT and found.reached == Level.OK


def require_repetition(
    found: CheckResult, compared: float, levels: DriftLevels, previous: Audit | None
) -> CheckResult:
    """The result as it counts after the previous run's: a first `fail` only warns.

    `compared` is the value that the levels were compared with.
    """
    if levels.at_once is not None and compared > levels.at_once:
        text = f"{found.text}; over {levels.at_once:g} fails at once"
        return found.model_copy(update={"level": Level.FAIL, "reached": Level.FAIL, "text": text})
    if found.reached == Level.OK:
        return found
    before = None if previous is None else previous.result(found.name, found.column)
    failing = before is not None and before.level == Level.FAIL and _failed_twice(before, levels)
    level, text = found.reached, found.text
    if found.reached == Level.FAIL:
        if failing or (before is not None and before.reached == Level.FAIL):
            text = f"{text}, over {levels.fail:g} for the second time in a row"
        else:
            level, text = Level.WARN, f"{text}; over {levels.fail:g} twice in a row fails"
    elif failing:
        level = Level.FAIL
        text = f"{text}; after failing, it must come below {levels.warn:g}"
    else:
        text = f"{text}; over {levels.warn:g} warns"
    return found.model_copy(update={"level": level, "text": text})


def _failed_twice(before: CheckResult, levels: DriftLevels) -> bool:
    """Whether it failed as the second in a row, not as a single one above `at_once`."""
    return levels.at_once is None or (before.value or 0.0) <= levels.at_once


def _why_incomparable(column: ColumnProfile, known: ColumnProfile, what: str, needed: int) -> str:
    if column.valid < needed:
        return f"{column.valid:,} values, {needed:,} are needed"
    if known.valid < needed:
        return f"{what} has {known.valid:,} values of it, {needed:,} are needed"
    return f"{what} has values of another type"


def _find(profile: Profile | None, side: str, name: str) -> ColumnProfile | None:
    if profile is None:
        return None
    return (profile.inputs if side == "inputs" else profile.outputs).get(name)
