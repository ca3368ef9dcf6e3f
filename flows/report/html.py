"""A run's report as one HTML file: no scripts, nothing to fetch, its size bounded. Pure.

Whatever comes from databases and models (names of columns, categories, keys, errors) is escaped by
the template, cut, and stripped of what does not print.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from nightshift.adapters.history.run_details import RunDetails
from nightshift.adapters.ledger.publications import PUBLISH
from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.results import Audit, CheckResult
from nightshift.flows.report.challenger import Challenged, challenged
from nightshift.flows.report.column_drift import Feature, features, whole
from nightshift.flows.report.distributions import LAST, NOW, TRAINING, distributions
from nightshift.flows.report.plots import Bar, draw_distributions, draw_ranking, shortened
from nightshift.flows.report.verdict import model_of, moment, verdict
from nightshift.flows.scoring.challenger.comparison import Comparison
from nightshift.flows.scoring.timings import StageTimings

MOST_FEATURES = 30
_MOST_PICTURES = 6
_MOST_OUTPUTS = 4
_MOST_CHECKS = 60
_MOST_PASSED = 100


@dataclass(frozen=True)
class Facts:
    """What the ledger's documents say, read."""

    found: RunDetails
    audit: Audit | None
    inputs: Sequence[Feature]
    outputs: Sequence[Feature]
    challenger: Challenged | None
    stages: StageTimings
    notes: Sequence[str]
    """What could not be read, and why."""


def facts_of(found: RunDetails, training: Profile | None) -> Facts:
    """Read a run's documents; what another version has written otherwise is left out, and told.

    `training` is the profile of the sample that its model was registered with.
    """
    notes: list[str] = []

    def read(what: str, parse: Any, *given: Any) -> Any:
        try:
            return parse(*given)
        except ValueError as error:
            reason, *_ = str(error).splitlines()
            notes.append(f"The {what} cannot be read: {reason}")
            return None

    audit = read("audit", Audit.from_json, found.audit) if found.audit else None
    now = read("profile", whole, found.profiles) or Profile()
    last = read("last run's profile", whole, found.earlier_profiles) or Profile()
    compared = None
    if found.challenger is not None and found.comparison is not None:
        comparison = read("comparison", Comparison.from_json, found.comparison)
        compared = None if comparison is None else challenged(found.challenger, comparison)
    stages = StageTimings()
    for text in found.timings:
        stages = stages.merged(read("timings", StageTimings.from_json, text) or StageTimings())
    known = training or Profile()
    return Facts(
        found,
        audit,
        features(now.inputs, last.inputs, known.inputs, audit, "input"),
        features(now.outputs, last.outputs, known.outputs, audit, "prediction"),
        compared,
        stages,
        notes,
    )


def render(facts: Facts, flow_run_url: str | None = None, notes: Sequence[str] = ()) -> str:
    """The whole page."""
    found, audit = facts.found, facts.audit
    results = () if audit is None else audit.results
    grave = [result for result in results if result.level != "ok"]
    passed = [result for result in results if result.level == "ok"]
    rejects = sum(kind.rows for kind in found.rejects)
    return (
        _templates()
        .get_template("report.html")
        .render(
            run=found.run,
            model=model_of(found.run),
            began=moment(found.run.started_at),
            verdict=verdict(found, audit),
            tiles=tiles(facts),
            audited=bool(results),
            no_audit="No checks were made." if audit else "The run did not come to its checks.",
            grave=[_line(result) for result in grave[:_MOST_CHECKS]],
            more_grave=max(len(grave) - _MOST_CHECKS, 0),
            passed=[_line(result) for result in passed[:_MOST_PASSED]],
            passed_count=len(passed) + (audit.omitted if audit else 0),
            rejects=found.rejects,
            other_rejects=found.run.rejected - rejects,
            outputs=[_picture(output) for output in facts.outputs[:_MOST_OUTPUTS]],
            more_outputs=max(len(facts.outputs) - _MOST_OUTPUTS, 0),
            facts=_before_and_after(facts),
            ranking=_ranking(facts.inputs),
            challenger=facts.challenger,
            stages=_stages(facts),
            sql=found.sql,
            links=_links(found, with_flow_run=flow_run_url is None),
            flow_run_url=flow_run_url,
            notes=[*facts.notes, *notes, *(["Its rows were deleted since."] * found.cleaned)],
        )
    )


def tiles(facts: Facts) -> list[dict[str, str]]:
    """The counts: name, value, what more there is to say, and the level."""
    run = facts.found.run
    read = run.rows + run.rejected
    rejects = None if facts.audit is None else facts.audit.result("rejects")
    level = "" if not run.rejected else "fail" if rejects is None else rejects.level
    lines = [
        _tile("rows read", f"{read:,}"),
        _tile("predictions written", f"{run.rows:,}"),
        _tile("rows rejected", f"{run.rejected:,}", level=level),
        _before(facts.found),
    ]
    if run.scored_at is not None:
        seconds = (run.scored_at - run.started_at).total_seconds()
        rate = f"{read / seconds:,.0f} rows/s" if seconds > 0 else ""
        lines.append(_tile("to score them", duration(seconds), rate))
    return lines


def duration(seconds: float) -> str:
    """For people: 0.42 s, 12 s, 3.5 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def moved(feature: Feature) -> str:
    """How far a column is from what it is compared with, in words."""
    values = {"to training": feature.drift, "to the last run": feature.jump}
    told = [f"{value:.2f} {words}" for words, value in values.items() if value is not None]
    return f"PSI {', '.join(told)}" if told else ""


# --- sections -----------------------------------------------------------------------------------


def _before(found: RunDetails) -> dict[str, str]:
    """What readers had of the partition before."""
    run, before = found.run, found.before
    if before is None:
        return _tile("rows before", "0", "nothing was published here")
    told = f"run {before.run_id}, {model_of(before)}"
    if before.partition != run.partition:
        return _tile("rows before", "some", f"in {told}, of {before.partition}")
    change = run.rows - before.rows
    return _tile("rows before", f"{before.rows:,}", f"{told}; {change:+,}" if change else told)


def _tile(name: str, value: str, more: str = "", level: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "more": more, "level": level}


def _line(result: CheckResult) -> dict[str, Any]:
    name = result.name if result.column is None else f"{result.name}, {result.column}"
    return {**result.model_dump(), "name": name}


def _picture(feature: Feature, size: tuple[int, int] = (460, 190), legend: bool = True) -> Any:
    found = distributions(feature.now, feature.last, feature.training, 30 if legend else 20)
    drawn = ""
    if found is not None:
        drawn = draw_distributions(found, f"{feature.title}: distribution", size, legend)
    return {"name": feature.name, "caption": moved(feature), "picture": drawn}


def _before_and_after(facts: Facts) -> dict[str, Any]:
    """The predictions in numbers, beside those of the last run and of the training sample."""
    samples = {NOW: "now", LAST: "last", TRAINING: "training"}
    shown = facts.outputs[:_MOST_OUTPUTS]
    there = {
        name: field
        for name, field in samples.items()
        if any(getattr(output, field) is not None for output in shown)
    }
    lines = []
    for output in shown:
        columns = [getattr(output, field) or ColumnProfile() for field in there.values()]
        prefix = f"{output.name}: " if len(shown) > 1 else ""
        for name, told in _FIGURES.items():
            entries = [told(column) if column.rows else "" for column in columns]
            if any(entries):
                lines.append({"name": prefix + name, "entries": entries})
    return {"samples": list(there), "lines": lines}


def _at(share: float) -> Any:
    def told(column: ColumnProfile) -> str:
        return _number(column.sketch.quantile(share)) if column.kind == "number" else ""

    return told


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


_FIGURES = {
    "rows": lambda column: f"{column.rows:,}",
    "missing": lambda column: f"{column.missing:,}",
    "5 %": _at(0.05),
    "median": _at(0.5),
    "95 %": _at(0.95),
    "lowest": lambda column: _number(column.low),
    "highest": lambda column: _number(column.high),
}


def _ranking(inputs: Sequence[Feature]) -> dict[str, Any] | None:
    """The inputs that moved most; None if there are none."""
    measured = [feature for feature in inputs if feature.moved >= 0]
    if not inputs:
        return None
    shown = measured[:MOST_FEATURES]
    limits = {feature.limits for feature in shown if feature.limits != (None, None)}
    lines = {}
    if len(limits) == 1:
        ((warn, fail),) = limits
        lines = {n: v for n, v in (("warn", warn), ("fail", fail)) if v is not None}
    most = 1.15 * max(lines.values()) if lines else None
    bars = [
        Bar(feature.name, feature.moved, f"{feature.moved:.2f}", feature.level) for feature in shown
    ]
    few = len(inputs) - len(measured)
    caption = (
        "How far each input is from the training sample: its population stability index, drawn by "
        "its square root. "
    )
    if few:
        caption += f"{few:,} could not be compared: too few values, times, or no sample."
    return {
        "caption": caption,
        "picture": draw_ranking(bars, "Drift by input", lines, most, root=True) if bars else "",
        "pictures": [
            _picture(feature, (200, 95), legend=False) for feature in shown[:_MOST_PICTURES]
        ],
        "more": max(len(measured) - MOST_FEATURES, 0),
        "lines": [_numbers(feature) for feature in inputs[:MOST_FEATURES]],
    }


def _numbers(feature: Feature) -> dict[str, Any]:
    now, training = feature.now, feature.training
    rows = max(now.rows, 1)
    return {
        "name": feature.name,
        "entries": [
            "" if feature.drift is None else f"{feature.drift:.3f}",
            "" if feature.jump is None else f"{feature.jump:.3f}",
            percent(now.missing / rows),
            ""
            if training is None or not training.rows
            else percent(training.missing / training.rows),
            percent(now.outside / rows) if now.kind == "number" else "",
            percent(now.unseen / rows) if now.kind == "category" else "",
        ],
        "range": _range(now),
    }


def _range(column: ColumnProfile) -> str:
    if column.kind != "number" or column.low is None or column.high is None:
        return ""
    return f"{_number(column.low)} to {_number(column.high)}"


def _stages(facts: Facts) -> dict[str, str] | None:
    """The slowest first."""
    seconds = dict(facts.stages.seconds)
    caption = "Seconds by stage; read, predict and write overlap."
    if not seconds:
        caption = "Seconds by phase."
        seconds = _phases(facts.found)
    ranked = sorted(seconds.items(), key=lambda item: -item[1])
    if not ranked:
        return None
    bars = [Bar(name, value, duration(value)) for name, value in ranked]
    return {"caption": caption, "picture": draw_ranking(bars, "Time by stage")}


def _phases(found: RunDetails) -> dict[str, float]:
    """What the ledger's times tell of any run."""
    run = found.run
    published = run.published_at if {m.action for m in found.changes} == {PUBLISH} else None
    instants = {
        "until the first chunk": (run.started_at, found.first_commit),
        "chunks": (found.first_commit, found.last_commit),
        "after the last chunk": (found.last_commit, run.scored_at),
        "audit and publish": (run.scored_at, published),
    }
    return {
        name: (end - start).total_seconds()
        for name, (start, end) in instants.items()
        if start is not None and end is not None and end > start
    }


def _links(found: RunDetails, with_flow_run: bool) -> list[tuple[str, str]]:
    run = found.run
    lines = {
        "chunks": f"{found.chunks:,}",
        "published": moment(run.published_at),
        "compared with": "" if found.earlier is None else _earlier(found),
        "flow run": run.flow_run_id if with_flow_run and run.flow_run_id else "",
        "history": f"nightshift history {run.job} --partition {run.partition}",
    }
    return [(name, value) for name, value in lines.items() if value]


def _earlier(found: RunDetails) -> str:
    run = found.earlier
    assert run is not None  # noqa: S101 - asked for where there is one
    return f"run {run.run_id} of {run.partition} by {model_of(run)}, {run.rows:,} rows"


# --- the template -------------------------------------------------------------------------------


@cache
def _templates() -> jinja2.Environment:
    folder = Path(__file__).parent / "templates"
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "text": shortened,
        "count": lambda value: f"{value:,}",
        "amount": _number,
        "percent": percent,
        "seconds": duration,
    }
    made.filters |= filters
    return made


def percent(share: float) -> str:
    """What is little is told from nothing, and nearly all from all."""
    if 0 < share < 0.0001:
        return "<0.01 %"
    if 0.9999 < share < 1:
        return ">99.99 %"
    return f"{100 * share:.4g} %"
