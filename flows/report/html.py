"""A run's report as one HTML file: no scripts, nothing to fetch, its size bounded. Pure.

Whatever comes from databases and models (names of columns, categories, keys, errors) is escaped by
the template, shortened, and freed of characters that do not print.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from nightshift.adapters.history.run_details import RunDetails
from nightshift.adapters.ledger.publications import PUBLISH
from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.flows.checks.results import CheckResult, Level
from nightshift.flows.report.column_drift import ColumnDrift
from nightshift.flows.report.distributions import LAST, NOW, TRAINING, compare_distributions
from nightshift.flows.report.facts import ReportFacts
from nightshift.flows.report.plots import Bar, draw_distributions, draw_ranking
from nightshift.flows.report.verdict import model_of
from nightshift.flows.text import format_duration, format_percent, format_time, shorten

_MOST_INPUTS = 30
_MOST_PICTURES = 6
_MOST_OUTPUTS = 4
_MOST_CHECKS = 60
_MOST_PASSED = 100


def render_html(facts: ReportFacts, flow_run_url: str | None = None) -> str:
    """The whole page."""
    details, audit = facts.details, facts.audit
    results = () if audit is None else audit.results
    findings = () if audit is None else audit.findings
    passed = () if audit is None else audit.at(Level.OK)
    not_judged = () if audit is None else audit.not_judged
    rejects = sum(kind.rows for kind in details.rejects)
    deleted = ["Its rows have been deleted since."] * details.cleaned
    return (
        _templates()
        .get_template("report.html")
        .render(
            run=details.run,
            model=model_of(details.run),
            started=format_time(details.run.started_at),
            verdict=facts.verdict,
            tiles=make_tiles(facts),
            audited=bool(results),
            no_audit="No checks were made." if audit else "The run did not come to its checks.",
            findings=_list_checks(findings, _MOST_CHECKS),
            more_findings=max(len(findings) - _MOST_CHECKS, 0),
            passed=_list_checks(passed, _MOST_PASSED),
            passed_count=0 if audit is None else audit.passed,
            not_judged=_list_checks(not_judged, _MOST_PASSED),
            not_judged_count=len(not_judged),
            rejects=details.rejects,
            other_rejects=details.run.rejected - rejects,
            outputs=[_draw_column(output) for output in facts.outputs[:_MOST_OUTPUTS]],
            more_outputs=max(len(facts.outputs) - _MOST_OUTPUTS, 0),
            figures=_compare_outputs(facts),
            ranking=_rank_inputs(facts.inputs),
            challenger=facts.challenger,
            stages=_draw_stages(facts),
            sql=details.sql,
            links=_list_links(details, with_flow_run=flow_run_url is None),
            flow_run_url=flow_run_url,
            notes=[*facts.notes, *deleted],
        )
    )


def make_tiles(facts: ReportFacts) -> list[dict[str, str]]:
    """The counts: name, value, more about it, and the level."""
    run, audit = facts.details.run, facts.audit
    read = run.rows + run.rejected
    rejects = None if audit is None else audit.result("rejects")
    level = "" if not run.rejected else Level.FAIL if rejects is None else rejects.level
    lines = [
        _tile("rows read", f"{read:,}"),
        _tile("predictions written", f"{run.rows:,}"),
        _tile("rows rejected", f"{run.rejected:,}", level=level),
        _count_before(facts.details),
    ]
    if run.scored_at is not None:
        seconds = (run.scored_at - run.started_at).total_seconds()
        rate = f"{read / seconds:,.0f} rows/s" if seconds > 0 else ""
        lines.append(_tile("to score them", format_duration(seconds), rate))
    if audit is not None:
        unjudged = f"{len(audit.not_judged):,} not judged" if audit.not_judged else ""
        lines.append(_tile("checks passed", f"{audit.passed:,}", unjudged))
    return lines


def describe_drift(column: ColumnDrift) -> str:
    """How far a column is from what it is compared with, in words."""
    values = {"to training": column.drift, "to the last run": column.jump}
    parts = [f"{value:.2f} {words}" for words, value in values.items() if value is not None]
    return f"PSI {', '.join(parts)}" if parts else ""


# --- sections -----------------------------------------------------------------------------------


def _count_before(details: RunDetails) -> dict[str, str]:
    """What readers had of the partition before."""
    run, before = details.run, details.before
    if before is None:
        return _tile("rows before", "0", "nothing was published here")
    which = f"run {before.run_id}, {model_of(before)}"
    if before.partition != run.partition:
        return _tile("rows before", "in part", f"{which}, of {before.partition}")
    change = run.rows - before.rows
    return _tile("rows before", f"{before.rows:,}", f"{which}; {change:+,}" if change else which)


def _tile(name: str, value: str, more: str = "", level: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "more": more, "level": level}


def _list_checks(results: Sequence[CheckResult], most: int) -> list[dict[str, Any]]:
    return [
        {
            **result.model_dump(),
            "name": result.name if result.column is None else f"{result.name}, {result.column}",
        }
        for result in results[:most]
    ]


def _draw_column(
    column: ColumnDrift, size: tuple[int, int] = (460, 190), legend: bool = True
) -> dict[str, str]:
    found = compare_distributions(column.now, column.last, column.training, 30 if legend else 20)
    picture = ""
    if found is not None:
        picture = draw_distributions(found, f"{column.title}: distribution", size, legend)
    return {"name": column.name, "caption": describe_drift(column), "picture": picture}


def _compare_outputs(facts: ReportFacts) -> dict[str, Any]:
    """The predictions in numbers, next to those of the last run and of the training sample."""
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
        for name, measure in _FIGURES.items():
            entries = [measure(column) if column.rows else "" for column in columns]
            if any(entries):
                lines.append({"name": prefix + name, "entries": entries})
    return {"samples": list(there), "lines": lines}


def _quantile(share: float) -> Callable[[ColumnProfile], str]:
    def measure(column: ColumnProfile) -> str:
        return _format_number(column.sketch.quantile(share)) if column.kind == "number" else ""

    return measure


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


_FIGURES: dict[str, Callable[[ColumnProfile], str]] = {
    "rows": lambda column: f"{column.rows:,}",
    "missing": lambda column: f"{column.missing:,}",
    "5%": _quantile(0.05),
    "median": _quantile(0.5),
    "95%": _quantile(0.95),
    "lowest": lambda column: _format_number(column.low),
    "highest": lambda column: _format_number(column.high),
}


def _rank_inputs(inputs: Sequence[ColumnDrift]) -> dict[str, Any] | None:
    """The inputs that moved most; None if there are none."""
    measured = [column for column in inputs if column.moved >= 0]
    if not inputs:
        return None
    shown = measured[:_MOST_INPUTS]
    limits = {column.limits for column in shown if column.limits != (None, None)}
    lines = {}
    if len(limits) == 1:
        ((warn, fail),) = limits
        lines = {n: v for n, v in (("warn", warn), ("fail", fail)) if v is not None}
    most = 1.15 * max(lines.values()) if lines else None
    bars = [Bar(column.name, column.moved, f"{column.moved:.2f}", column.level) for column in shown]
    few = len(inputs) - len(measured)
    caption = (
        "How far each input is from the training sample: its population stability index, drawn by "
        "its square root. "
    )
    if few:
        caption += f"{few:,} could not be compared: times, too few values, or no sample."
    return {
        "caption": caption,
        "picture": draw_ranking(bars, "Drift by input", lines, most, root=True) if bars else "",
        "pictures": [
            _draw_column(column, (200, 95), legend=False) for column in shown[:_MOST_PICTURES]
        ],
        "more": max(len(measured) - _MOST_INPUTS, 0),
        "lines": [_list_figures(column) for column in inputs[:_MOST_INPUTS]],
    }


def _list_figures(column: ColumnDrift) -> dict[str, Any]:
    now, training = column.now, column.training
    rows = max(now.rows, 1)
    return {
        "name": column.name,
        "entries": [
            "" if column.drift is None else f"{column.drift:.3f}",
            "" if column.jump is None else f"{column.jump:.3f}",
            format_percent(now.missing / rows),
            format_percent(training.missing / training.rows) if training and training.rows else "",
            format_percent(now.outside / rows) if now.kind == "number" else "",
            format_percent(now.unseen / rows) if now.kind == "category" else "",
        ],
        "range": _describe_range(now),
    }


def _describe_range(column: ColumnProfile) -> str:
    if column.kind != "number" or column.low is None or column.high is None:
        return ""
    return f"{_format_number(column.low)} to {_format_number(column.high)}"


def _draw_stages(facts: ReportFacts) -> dict[str, str] | None:
    """The slowest first."""
    seconds = dict(facts.stages.seconds)
    caption = "Seconds by stage; read, predict and write overlap."
    if not seconds:
        caption = "Seconds by phase."
        seconds = _measure_phases(facts.details)
    ranked = sorted(seconds.items(), key=lambda item: -item[1])
    if not ranked:
        return None
    bars = [Bar(name, value, format_duration(value)) for name, value in ranked]
    return {"caption": caption, "picture": draw_ranking(bars, "Time by stage")}


def _measure_phases(details: RunDetails) -> dict[str, float]:
    """What the ledger's times say about any run."""
    run = details.run
    published = run.published_at if {m.action for m in details.changes} == {PUBLISH} else None
    instants = {
        "until the first chunk": (run.started_at, details.first_commit),
        "chunks": (details.first_commit, details.last_commit),
        "after the last chunk": (details.last_commit, run.scored_at),
        "audit and publish": (run.scored_at, published),
    }
    return {
        name: (end - start).total_seconds()
        for name, (start, end) in instants.items()
        if start is not None and end is not None and end > start
    }


def _list_links(details: RunDetails, with_flow_run: bool) -> list[tuple[str, str]]:
    run = details.run
    lines = {
        "chunks": f"{details.chunks:,}",
        "published": format_time(run.published_at),
        "compared with": "" if details.earlier is None else _describe_earlier(details),
        "flow run": run.flow_run_id if with_flow_run and run.flow_run_id else "",
        "history": f"nightshift history {run.job} --partition {run.partition}",
    }
    return [(name, value) for name, value in lines.items() if value]


def _describe_earlier(details: RunDetails) -> str:
    run = details.earlier
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
        "text": shorten,
        "count": lambda value: f"{value:,}",
        "amount": _format_number,
        "percent": format_percent,
        "seconds": format_duration,
    }
    made.filters |= filters
    return made
