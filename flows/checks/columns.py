"""Checks of single columns: missing values, range, new categories, constants, classes. Pure.

A share of few rows may be chance, so the levels are compared with a lower bound of it: the lower
end of Wilson's interval at three standard deviations, less the reference's own share. Of many rows
that is the share itself; of 1 odd row in 12 it is 0.
"""

import math
from collections.abc import Iterator

from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.drift import RANGE_ROWS, classes, commonest, shares
from nightshift.adapters.profiles.sketch import MOST_BUCKETS
from nightshift.flows.checks.evidence import Evidence
from nightshift.flows.checks.results import CheckResult, Level, grade, leave_unjudged, name_column
from nightshift.flows.config.checks import Checks, Levels
from nightshift.flows.text import format_percent

_DEVIATIONS = 3.0
_EXACT = Levels(fail=0)
_UNKNOWN = ColumnProfile()


def check_input(checks: Checks, evidence: Evidence, name: str) -> Iterator[CheckResult]:
    """NULLs, unseen categories, and numbers outside the reference's range."""
    column = evidence.profile.inputs[name]
    reference, last = (
        _UNKNOWN if profile is None else profile.inputs.get(name, _UNKNOWN)
        for profile in (evidence.reference, evidence.last)
    )
    title = name_column("inputs", name)
    levels = {
        check: checks.levels("inputs", name, check)
        for check in ("nulls", "unseen", "far_outside", "outside")
    }
    wanted = {check: found for check, found in levels.items() if not found.off}
    if "nulls" in wanted:
        if column.rows:
            known = reference if reference.rows >= RANGE_ROWS else last
            yield _check_nulls(title, column, known, levels["nulls"])
        else:
            yield leave_unjudged("nulls", title, "the run has no rows", levels["nulls"])
    applies = {
        "category": ("unseen",),
        "number": ("far_outside", "outside"),
    }.get(reference.kind if reference.valid else column.kind, ())
    reason = _why_unjudged(column, reference)
    for check in applies:
        if check not in wanted:
            continue
        if reason is not None:
            yield leave_unjudged(check, title, reason, levels[check])
        elif check != "unseen":
            yield from _check_range(check, title, column, reference, levels[check])
        elif reference.other:
            reason = "the training sample has too many categories to list"
            yield leave_unjudged(check, title, reason, levels[check])
        elif reference.counts:
            yield _check_unseen(title, column, reference, levels[check])


def check_output(checks: Checks, evidence: Evidence, name: str) -> Iterator[CheckResult]:
    """Missing predictions, values that are not allowed, constants, and the shares of classes."""
    column = evidence.profile.outputs[name]
    reference = (
        _UNKNOWN if evidence.reference is None else evidence.reference.outputs.get(name, _UNKNOWN)
    )
    title = name_column("predictions", name)
    missing, constant, moved = (
        checks.levels("predictions", name, check) for check in ("missing", "constant", "classes")
    )
    if not missing.off:
        if column.rows:
            yield _check_missing(title, column, reference, missing)
        else:
            yield leave_unjudged("missing", title, "the run has no rows", missing)
    yield from _check_allowed(checks, title, column, name)
    few = f"{column.valid:,} values, {checks.minimum_rows:,} are needed"
    compared = min(column.valid, reference.valid) >= checks.minimum_rows
    if not constant.off:
        if column.valid >= checks.minimum_rows:
            excuse = reference if compared and not _newly_constant(evidence, name) else _UNKNOWN
            yield _check_constant(title, column, excuse, constant)
        else:
            yield leave_unjudged("constant", title, few, constant)
    if not moved.off and _has_classes(column, reference):
        if column.valid < checks.minimum_rows:
            yield leave_unjudged("classes", title, few, moved)
        elif not compared:
            reason = _describe_sample(reference, checks.minimum_rows)
            yield leave_unjudged("classes", title, reason, moved)
        else:
            yield from _check_classes(title, column, reference, moved)


def _has_classes(column: ColumnProfile, reference: ColumnProfile) -> bool:
    """Whether it is a classifier's output: few different values, also in the training sample."""
    if classes(column) is None:
        return False
    return classes(reference) is not None if reference.valid else column.kind == "category"


def _why_unjudged(column: ColumnProfile, reference: ColumnProfile) -> str | None:
    """Why a column cannot be compared with the training sample; None if it can be."""
    if not column.valid:
        return "the column has no values"
    return None if reference.valid >= RANGE_ROWS else _describe_sample(reference, RANGE_ROWS)


def _describe_sample(reference: ColumnProfile, needed: int) -> str:
    if not reference.rows:
        return "the training sample does not have it"
    return f"the training sample has {reference.valid:,} values of it, {needed:,} are needed"


def _check_range(
    check: str, title: str, column: ColumnProfile, reference: ColumnProfile, levels: Levels
) -> Iterator[CheckResult]:
    if reference.low is None or reference.high is None:
        return
    rows = column.far_outside if check == "far_outside" else column.outside
    where = check.replace("_", " ")
    text = (
        f"{title}: {_rows(rows, column.rows)} are {where} the training range "
        f"{reference.low:,.6g} to {reference.high:,.6g} "
        f"(found {column.low or 0:,.6g} to {column.high or 0:,.6g})"
    )
    lower_bound = _lower_bound(rows, column.rows) - 2 / reference.valid
    yield _grade_share(check, title, rows / column.rows, levels, text, lower_bound)


# --- inputs -------------------------------------------------------------------------------------


def _check_nulls(
    title: str, column: ColumnProfile, reference: ColumnProfile, levels: Levels
) -> CheckResult:
    """The share that is missing of the values there should be: from 40% NULL to 70% is half."""
    absent = column.nulls + column.nans
    usual = (reference.nulls + reference.nans) / reference.rows if reference.rows else 0.0
    share, lower = ((s - usual) / (1 - usual) if usual < 1 else 0.0 for s in
                   (absent / column.rows, _lower_bound(absent, column.rows)))  # fmt: skip
    text = (
        f"{title}: {_rows(absent, column.rows)} are NULL or NaN; {format_percent(usual)} are usual"
    )
    return _grade_share("nulls", title, max(share, 0.0), levels, text, lower)


def _check_unseen(
    title: str, column: ColumnProfile, reference: ColumnProfile, levels: Levels
) -> CheckResult:
    """A new category is as likely as the ones that the reference has only once (Good, Turing)."""
    expected = sum(count == 1 for count in reference.counts.values()) / reference.valid
    share, lower = (
        column.unseen / column.valid,
        _lower_bound(column.unseen, column.valid) - expected,
    )
    new = [name for name in column.counts if name not in reference.counts][:3]
    such_as = f", such as {', '.join(map(repr, new))}" if new else ""
    text = (
        f"{title}: {_rows(column.unseen, column.valid)} have a category that was not in the "
        f"training sample{such_as}"
    )
    return _grade_share("unseen", title, share, levels, text, lower)


# --- predictions --------------------------------------------------------------------------------


def _check_missing(
    title: str, column: ColumnProfile, reference: ColumnProfile, levels: Levels
) -> CheckResult:
    usual = reference.missing / reference.rows if reference.rows else 0.0
    parts = {"NULL": column.nulls, "NaN": column.nans, "infinite": column.infinities}
    counts = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count) or "none"
    share = column.missing / column.rows
    lower = _lower_bound(column.missing, column.rows) - usual
    text = f"{title}: {_rows(column.missing, column.rows)} have no prediction ({counts})"
    if usual:
        text += f"; {format_percent(usual)} are usual"
    return _grade_share("missing", title, share, levels, text, lower)


def _check_allowed(
    checks: Checks, title: str, column: ColumnProfile, name: str
) -> Iterator[CheckResult]:
    """What the job file allows; one value beyond it fails."""
    between, labels = (checks.allowed(name, field) for field in ("between", "labels"))
    if between is not None:
        yield _check_between(title, column, between)
    found = shares(column)
    if column.other:
        found["(others)"] = column.other / max(column.valid, 1)
    if labels is not None:
        yield _check_labels(title, column, found, {_label(label) for label in labels})
    for label, (least, most) in checks.allowed(name, "shares").items():
        check = f"share of {label}"
        if not column.rows:
            yield leave_unjudged(check, title, "the run has no rows", _EXACT)
            continue
        share, low, high = found.get(label, 0.0), least or 0.0, 1.0 if most is None else most
        text = (
            f"{title}: {format_percent(share)} of {column.rows:,} rows are {label!r}, which should "
            f"be {format_percent(low)} to {format_percent(high)}"
        )
        yield grade(check, title, max(low - share, share - high, 0.0), _EXACT, text)


def _check_between(
    title: str, column: ColumnProfile, between: tuple[float | None, float | None]
) -> CheckResult:
    if column.low is None or column.high is None:
        return leave_unjudged("between", title, "the column has no numbers", _EXACT)
    low = -math.inf if between[0] is None else between[0]
    high = math.inf if between[1] is None else between[1]
    beyond = column.low < low or column.high > high
    share = 1 - column.sketch.share_within(low, high)
    share = max(share, 1 / column.rows) if beyond else 0.0  # the two ends are exact
    text = (
        f"{title}: about {format_percent(share)} of {column.rows:,} rows are not between "
        f"{low:,.6g} and {high:,.6g} (found {column.low:,.6g} to {column.high:,.6g})"
    )
    return grade("between", title, share, _EXACT, text)


def _check_labels(
    title: str, column: ColumnProfile, found: dict[str, float], allowed: set[str]
) -> CheckResult:
    if not column.valid:
        return leave_unjudged("labels", title, "the column has no values", _EXACT)
    others = {label: share for label, share in found.items() if label not in allowed}
    share = sum(others.values())
    if not column.sketch.exact and len(allowed) <= MOST_BUCKETS:  # it has more values than that
        share = max(share, 1 / column.rows)
    examples = list(others)[:3]
    named = ", ".join(f"{label!r} ({format_percent(others[label])})" for label in examples)
    text = (
        f"{title}: {format_percent(share)} of {column.rows:,} rows have a label that is not allowed"
    )
    return grade("labels", title, share, _EXACT, f"{text}: {named}" if named else text)


def _newly_constant(evidence: Evidence, name: str) -> bool:
    """Whether a new model version predicts one value for all, and the former one predicted several.

    Its own training sample is then no excuse: it has the same fault.
    """
    last = None if evidence.last is None else evidence.last.outputs.get(name)
    if last is None or evidence.last_has_same_model or not last.valid:
        return False
    return is_single(evidence.profile.outputs[name]) and not is_single(last)


def _check_constant(
    title: str, column: ColumnProfile, reference: ColumnProfile, levels: Levels
) -> CheckResult:
    """Nearly all rows alike, unless they are so in the reference, or may be by chance."""
    value, share, usual = commonest(column, reference) or ("", 0.0, 0.0)
    if is_single(column):
        share = 1.0  # a sketch of a sample cannot know
    odd = share > usual + _margin(usual, column.valid)
    text = f"{title}: {format_percent(share)} of {column.valid:,} rows are {value}"
    if usual:
        text += f"; {format_percent(usual)} are usual"
    return _grade_share("constant", title, share, levels, text, share if odd else 0.0)


def _check_classes(
    title: str, column: ColumnProfile, reference: ColumnProfile, levels: Levels
) -> Iterator[CheckResult]:
    """The class whose share has moved most."""
    now, before = classes(column), classes(reference)
    if now is None or before is None:
        return
    label = max({**before, **now}, key=lambda name: abs(now.get(name, 0) - before.get(name, 0)))
    share, usual = now.get(label, 0.0), before.get(label, 0.0)
    moved = abs(share - usual)
    chance = _margin(usual, column.valid) + _margin(usual, reference.valid)
    text = (
        f"{title}: {format_percent(share)} of {column.valid:,} rows are {label!r}, and "
        f"{format_percent(usual)} in the training sample"
    )
    yield _grade_share("classes", title, moved, levels, text, moved - chance)


def _label(label: str | bool | float) -> str:
    """As a profile names it."""
    if isinstance(label, bool):
        return str(label).lower()
    return label if isinstance(label, str) else f"{label:.12g}"


def is_single(column: ColumnProfile | None) -> bool:
    """Whether all its values are the same, up to rounding."""
    if column is None or not column.valid:
        return False
    if column.kind == "category":
        return len(column.counts) == 1 and not column.other
    if column.low is None or column.high is None:
        return False
    return math.isclose(column.low, column.high, rel_tol=1e-12)


# --- shares -------------------------------------------------------------------------------------


def _lower_bound(count: int, rows: int) -> float:
    """The lower end of Wilson's interval for count / rows."""
    if count <= 0 or rows <= 0:
        return 0.0
    share, z = min(count / rows, 1.0), _DEVIATIONS
    middle = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, (middle - spread) / (1 + z * z / rows))


def _margin(share: float, rows: int) -> float:
    """How far a share of so many rows may be off by chance."""
    return _DEVIATIONS * math.sqrt(share * (1 - share) / max(rows, 1))


def _rows(count: int, rows: int) -> str:
    return f"{count:,} of {rows:,} rows ({format_percent(count / max(rows, 1))})"


def _grade_share(
    name: str, title: str, value: float, levels: Levels, text: str, lower_bound: float
) -> CheckResult:
    """Grade a share; the text says what is allowed if it is more."""
    result = grade(name, title, value, levels, text, lower_bound)
    limit = {Level.WARN: levels.warn, Level.FAIL: levels.fail}.get(result.level)
    if limit is None:
        return result
    allowed = f"at most {format_percent(limit)} may" if limit else "none may"
    return result.model_copy(update={"text": f"{text}; {allowed}"})
