"""Drift: how far inputs and predictions have moved, and for how many nights. Pure.

`drift` is the PSI against the reference, the sample that the model was registered with; `jump` is
the PSI against the last published run that was steady, unless the values are like the reference's:
to come back is no jump. Both are effect sizes with a minimum of rows. The customary limits, 0.1
and 0.25, are made for a whole portfolio; a single night strays more. Of the 365 days of flights in
the demo, 61 are above 0.25 by weather alone, 5 above 0.5 and 1 above 1.

One night above `fail` warns, the second in a row fails: weather passes, a broken feed stays. Once
it has failed so, it fails until it is below `warn` again, so that a value near the level does not
let every other night through. Above `at_once` the first night fails.
"""

from collections.abc import Iterator

from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.drift import psi
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.columns import is_single
from nightshift.flows.checks.results import Audit, CheckResult, Evidence, Level, graded
from nightshift.flows.config.checks import Checks, DriftLevels


def check_drift(checks: Checks, evidence: Evidence, side: str, name: str) -> Iterator[CheckResult]:
    """`side` is "inputs" or "predictions"."""
    column = _column(evidence.profile, side, name)
    reference, last = (_column(known, side, name) for known in (evidence.reference, evidence.last))
    title = f"input {name}" if side == "inputs" else f"prediction {name}"
    if column is None or column.kind == "time":  # time goes on
        return
    single = side == "inputs" and is_single(column)
    if single and is_single(last):
        # As the weekday is in a partition of one day: it says which partition it is.
        return
    pairs = [("drift", reference, "the training sample")]
    if side == "inputs" or evidence.last_has_same_model:
        pairs.append(("jump", last, "the last published run"))
    like_reference = False
    for check, known, words in pairs:
        levels = checks.levels(side, name, check)
        if not isinstance(levels, DriftLevels) or levels.off or known is None:
            continue
        if single and last is None:  # it may be such a one
            levels = levels.model_copy(update={"at_once": None})
        value = psi(known, column, checks.minimum_rows)
        if value is None:
            least = f"{checks.minimum_rows:,} values"
            text = f"{title}: too little to compare with {words}, fewer than {least}"
            yield CheckResult(
                name=check, column=title, warn=levels.warn, fail=levels.fail, text=text
            )
        else:
            text = f"{title}: its distribution differs from {words} by a PSI of {value:.2f}"
            height = 0.0 if like_reference else value
            found = judged(
                graded(check, title, value, levels, text, height), height, levels, evidence.previous
            )
            yield found
            like_reference = check == "drift" and found.reached == "ok"


def judged(
    found: CheckResult, height: float, levels: DriftLevels, previous: Audit | None
) -> CheckResult:
    """The result with its level, as the night before was. `height` is what the levels are for."""
    if levels.at_once is not None and height > levels.at_once:
        text = f"{found.text}; over {levels.at_once:g} fails at once"
        return found.model_copy(update={"level": "fail", "reached": "fail", "text": text})
    if found.reached == "ok":
        return found
    before = None if previous is None else previous.result(found.name, found.column)
    failing = before is not None and before.level == "fail" and _gradual(before, levels)
    level: Level = found.reached
    text = found.text
    if found.reached == "fail":
        if failing or (before is not None and before.reached == "fail"):
            text = f"{text}, over {levels.fail:g} again"
        else:
            level, text = "warn", f"{text}; over {levels.fail:g} twice in a row fails"
    elif failing:
        level, text = "fail", f"{text}; having failed, it should come below {levels.warn:g}"
    else:
        text = f"{text}; over {levels.warn:g} warns"
    return found.model_copy(update={"level": level, "text": text})


def _gradual(before: CheckResult, levels: DriftLevels) -> bool:
    """Whether it failed for going on, and not for one night that was beyond all."""
    return levels.at_once is None or (before.value or 0.0) <= levels.at_once


def _column(profile: Profile | None, side: str, name: str) -> ColumnProfile | None:
    if profile is None:
        return None
    return (profile.inputs if side == "inputs" else profile.outputs).get(name)
