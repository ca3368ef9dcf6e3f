"""Checks of single columns: what is missing, out of range, constant, or of another class. Pure.

A share that few rows show may be chance, so levels are compared with what is sure of it: the lower
end of Wilson's interval at three standard deviations, less what the reference has of it. From many
rows that is the share itself; of 1 odd row in 12 nothing is sure.
"""

import math
from collections.abc import Iterator

from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.drift import classes, commonest, shares
from nightshift.adapters.profiles.sketch import MOST_BUCKETS
from nightshift.flows.checks.results import CheckResult, Evidence, graded, percent
from nightshift.flows.config.checks import Checks, Levels

_ENOUGH = 100  # values of a reference from which its range and its shares can be told
_DEVIATIONS = 3.0
_EXACT = Levels(fail=0)
_NOBODY = ColumnProfile()


def check_input(checks: Checks, evidence: Evidence, name: str) -> Iterator[CheckResult]:
    """NULLs, unseen categories, and numbers outside the reference's range."""
    column = evidence.profile.inputs[name]
    known = _NOBODY if evidence.reference is None else evidence.reference.inputs.get(name, _NOBODY)
    last = _NOBODY if evidence.last is None else evidence.last.inputs.get(name, _NOBODY)
    title = f"input {name}"

    def levels(check: str) -> Levels:
        return checks.levels("inputs", name, check)

    if column.rows and not levels("nulls").off:
        yield _nulls(title, column, known if known.rows >= _ENOUGH else last, levels("nulls"))
    if known.valid < _ENOUGH or not column.valid:
        return
    if known.counts and not known.other and not levels("unseen").off:
        yield _unseen(title, column, known, levels("unseen"))
    if column.kind == "number" and known.low is not None and known.high is not None:
        between = f"the training range {known.low:,.6g} to {known.high:,.6g}"
        found = f"(found {column.low or 0:,.6g} to {column.high or 0:,.6g})"
        for check, rows, words in (
            ("far_outside", column.far_outside, "far outside"),
            ("outside", column.outside, "outside"),
        ):
            if not levels(check).off:
                share = rows / column.rows
                text = f"{title}: {_rows(rows, column.rows)} are {words} {between} {found}"
                sure = _least(rows, column.rows) - 2 / known.valid
                yield _limited(check, title, share, levels(check), text, sure)


def check_output(checks: Checks, evidence: Evidence, name: str) -> Iterator[CheckResult]:
    """Missing predictions, ones that are not allowed, a constant, and the shares of classes."""
    column = evidence.profile.outputs[name]
    known = _NOBODY if evidence.reference is None else evidence.reference.outputs.get(name, _NOBODY)
    title = f"prediction {name}"

    def levels(check: str) -> Levels:
        return checks.levels("predictions", name, check)

    if not column.rows:
        return
    if not levels("missing").off:
        yield _missing(title, column, known, levels("missing"))
    yield from _allowed(checks, title, column, name)
    compared = min(column.valid, known.valid) >= checks.minimum_rows
    if column.valid >= checks.minimum_rows and not levels("constant").off:
        excuse = known if compared and not _newly_constant(evidence, name) else _NOBODY
        yield _constant(title, column, excuse, levels("constant"))
    if compared and not levels("classes").off:
        yield from _classes(title, column, known, levels("classes"))


# --- inputs -------------------------------------------------------------------------------------


def _nulls(title: str, column: ColumnProfile, known: ColumnProfile, levels: Levels) -> CheckResult:
    """Of the values that there should be, how many are not: 40 % NULL that become 70 % are half."""
    absent = column.nulls + column.nans
    usual = (known.nulls + known.nans) / known.rows if known.rows else 0.0
    share, sure = ((s - usual) / (1 - usual) if usual < 1 else 0.0 for s in
                   (absent / column.rows, _least(absent, column.rows)))  # fmt: skip
    text = f"{title}: {_rows(absent, column.rows)} are NULL or NaN; {percent(usual)} are usual"
    return _limited("nulls", title, max(share, 0.0), levels, text, sure)


def _unseen(title: str, column: ColumnProfile, known: ColumnProfile, levels: Levels) -> CheckResult:
    """A new category is as likely as the ones that the reference has only once (Good, Turing)."""
    expected = sum(count == 1 for count in known.counts.values()) / known.valid
    share, sure = column.unseen / column.valid, _least(column.unseen, column.valid) - expected
    new = [name for name in column.counts if name not in known.counts][:3]
    such_as = f", such as {', '.join(map(repr, new))}" if new else ""
    text = (
        f"{title}: {_rows(column.unseen, column.valid)} have a category that was not in the "
        f"training sample{such_as}"
    )
    return _limited("unseen", title, share, levels, text, sure)


# --- predictions --------------------------------------------------------------------------------


def _missing(
    title: str, column: ColumnProfile, known: ColumnProfile, levels: Levels
) -> CheckResult:
    usual = known.missing / known.rows if known.rows else 0.0
    parts = {"NULL": column.nulls, "NaN": column.nans, "infinite": column.infinities}
    told = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count) or "none"
    share = column.missing / column.rows
    sure = _least(column.missing, column.rows) - usual
    text = f"{title}: {_rows(column.missing, column.rows)} have no prediction ({told})"
    if usual:
        text += f"; {percent(usual)} are usual"
    return _limited("missing", title, share, levels, text, sure)


def _allowed(checks: Checks, title: str, column: ColumnProfile, name: str) -> Iterator[CheckResult]:
    """What the job file says of the values; one beyond it fails."""
    between, labels = (checks.allowed(name, field) for field in ("between", "labels"))
    if between is not None and column.low is not None and column.high is not None:
        low, high = (-math.inf if between[0] is None else between[0],
                     math.inf if between[1] is None else between[1])  # fmt: skip
        beyond = column.low < low or column.high > high
        share = 1 - column.sketch.share_within(low, high)
        share = max(share, 1 / column.rows) if beyond else 0.0  # the two ends are exact
        text = (
            f"{title}: about {percent(share)} of {column.rows:,} rows are not between {low:,.6g} "
            f"and {high:,.6g} (found {column.low:,.6g} to {column.high:,.6g})"
        )
        yield graded("between", title, share, _EXACT, text)
    found = shares(column)
    if column.other:
        found["(others)"] = column.other / max(column.valid, 1)
    if labels is not None:
        allowed = {_label(label) for label in labels}
        others = {label: share for label, share in found.items() if label not in allowed}
        share = sum(others.values())
        if not column.sketch.exact and len(allowed) <= MOST_BUCKETS:  # it has more values than that
            share = max(share, 1 / column.rows)
        named = ", ".join(f"{label!r} ({percent(others[label])})" for label in list(others)[:3])
        text = f"{title}: {percent(share)} of {column.rows:,} rows have a label that is not allowed"
        yield graded("labels", title, share, _EXACT, f"{text}: {named}" if named else text)
    for label, (least, most) in checks.allowed(name, "shares").items():
        share, low, high = found.get(label, 0.0), least or 0.0, 1.0 if most is None else most
        distance = max(low - share, share - high, 0.0)
        text = (
            f"{title}: {percent(share)} of {column.rows:,} rows are {label!r}, which should be "
            f"{percent(low)} to {percent(high)}"
        )
        yield graded(f"share of {label}", title, distance, _EXACT, text)


def _newly_constant(evidence: Evidence, name: str) -> bool:
    """Whether a new model version gives one value for all where the former one gave several: that
    it did so from the start, and its reference too, is then no excuse.
    """
    last = None if evidence.last is None else evidence.last.outputs.get(name)
    if last is None or evidence.last_has_same_model or not last.valid:
        return False
    return is_single(evidence.profile.outputs[name]) and not is_single(last)


def _constant(
    title: str, column: ColumnProfile, known: ColumnProfile, levels: Levels
) -> CheckResult:
    """Nearly all rows alike, unless they nearly were in the reference, or may be by chance."""
    value, share, usual = commonest(column, known) or ("", 0.0, 0.0)
    if is_single(column):
        share = 1.0  # which the sketch, where it is of a sample, could not tell
    odd = share > usual + _margin(usual, column.valid)
    text = f"{title}: {percent(share)} of {column.valid:,} rows are {value}"
    if usual:
        text += f"; {percent(usual)} are usual"
    return _limited("constant", title, share, levels, text, share if odd else 0.0)


def _classes(
    title: str, column: ColumnProfile, known: ColumnProfile, levels: Levels
) -> Iterator[CheckResult]:
    """The class whose share has moved farthest."""
    now, before = classes(column), classes(known)
    if now is None or before is None:
        return
    label = max({**before, **now}, key=lambda name: abs(now.get(name, 0) - before.get(name, 0)))
    share, usual = now.get(label, 0.0), before.get(label, 0.0)
    moved = abs(share - usual)
    chance = _margin(usual, column.valid) + _margin(usual, known.valid)
    text = (
        f"{title}: {percent(share)} of {column.valid:,} rows are {label!r}, and {percent(usual)} "
        "in the training sample"
    )
    yield _limited("classes", title, moved, levels, text, moved - chance)


def _label(label: str | bool | float) -> str:
    """As a profile names it."""
    if isinstance(label, bool):
        return str(label).lower()
    return label if isinstance(label, str) else f"{label:.12g}"


def is_single(column: ColumnProfile | None) -> bool:
    """Whether all its values are one, but for rounding."""
    if column is None or not column.valid:
        return False
    if column.kind == "category":
        return len(column.counts) == 1 and not column.other
    if column.low is None or column.high is None:
        return False
    return math.isclose(column.low, column.high, rel_tol=1e-12)


# --- shares -------------------------------------------------------------------------------------


def _least(count: int, rows: int) -> float:
    """The lower end of Wilson's interval for count / rows."""
    if count <= 0 or rows <= 0:
        return 0.0
    share, z = min(count / rows, 1.0), _DEVIATIONS
    middle = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, (middle - spread) / (1 + z * z / rows))


def _margin(share: float, rows: int) -> float:
    """How far a share of so many rows strays by chance."""
    return _DEVIATIONS * math.sqrt(share * (1 - share) / max(rows, 1))


def _rows(count: int, rows: int) -> str:
    return f"{count:,} of {rows:,} rows ({percent(count / max(rows, 1))})"


def _limited(
    name: str, title: str, value: float, levels: Levels, text: str, sure: float
) -> CheckResult:
    """Graded, with what is allowed in the text if it was more."""
    result = graded(name, title, value, levels, text, sure)
    limit = {"ok": None, "warn": levels.warn, "fail": levels.fail}[result.level]
    if limit is None:
        return result
    allowed = f"at most {percent(limit)} may" if limit else "none may"
    return result.model_copy(update={"text": f"{text}; {allowed}"})
