"""A run's report in short, as Markdown for Prefect's UI. Pure."""

import re

from nightshift.adapters.history.run_details import RunDetails
from nightshift.adapters.history.run_history import RunRecord
from nightshift.flows.checks.results import Audit, CheckResult
from nightshift.flows.report.challenger import ChallengerResult
from nightshift.flows.report.column_drift import ColumnDrift
from nightshift.flows.report.distributions import compare_distributions
from nightshift.flows.report.facts import ReportFacts
from nightshift.flows.report.html import describe_drift
from nightshift.flows.report.partition_calendar import data_uri
from nightshift.flows.report.plots import draw_distributions, on_card
from nightshift.flows.report.verdict import model_of
from nightshift.flows.text import format_duration, format_percent, printable, shorten

_MOST_CHECKS = 15
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")


def render_markdown(facts: ReportFacts, source: str, sql: str) -> tuple[str, str]:
    """(one line, the Markdown). The first output's distribution is drawn."""
    run, verdict = facts.details.run, facts.verdict
    lines = [f"## {verdict.word}: {escape_markup(run.job)} {escape_markup(run.partition)}", ""]
    if verdict.reason:
        lines += [f"**{escape_markup(verdict.reason, 600)}**", ""]
    lines += [escape_markup(verdict.readers, 400), ""]
    if facts.outputs:
        lines += [*_draw_output(facts.outputs[0]), ""]
    lines += [*_compare_counts(facts.details, source), ""]
    if facts.audit is not None:
        lines += _list_checks(facts.audit)
    if facts.challenger is not None:
        lines += [_describe_challenger(facts.challenger), ""]
    lines += ["```sql", printable(sql).replace("```", ""), "```", ""]
    lines += [f"`{printable(command).replace('`', '')}`  " for command in verdict.commands]
    lines += [f"`nightshift report {run.run_id} --open`"]
    reason = f": {shorten(verdict.reason, 160)}" if verdict.reason else ""
    count = "" if verdict.tone == "bad" else f"{run.rows:,} rows "
    head = f"{printable(run.job)} {printable(run.partition)}: {count}{verdict.word.lower()}"
    return head + reason, "\n".join(lines)


def escape_markup(text: str, most: int = 200) -> str:
    """On one line, shortened, with no character that Markdown would take for markup."""
    shown = shorten(text, most).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\1", shown)


def _draw_output(output: ColumnDrift) -> list[str]:
    found = compare_distributions(output.now, output.last, output.training)
    if found is None:
        return []
    svg = on_card(draw_distributions(found, f"Distribution of {output.title}"))
    return [
        f"![Distribution of {escape_markup(output.title)}]({data_uri(svg)})",
        "",
        f"Predictions, {escape_markup(output.name)}: {escape_markup(describe_drift(output))}",
    ]


def _compare_counts(details: RunDetails, source: str) -> list[str]:
    """What the run has, and what readers had of the partition before."""
    run, before = details.run, details.before

    def line(name: str, now: str, then: str) -> str:
        return f"| {name} | {now} | {then} |"

    model_before = "" if before is None else escape_markup(model_of(before))
    return [
        f"| | this run | {'before' if before else 'nothing before'} |",
        "|---|--:|--:|",
        line("run", f"{run.run_id}", "" if before is None else _describe_before(before, run)),
        line("model", escape_markup(model_of(run)), model_before),
        line("rows read", f"{run.rows + run.rejected:,}", _count_before(before, run, "read")),
        line("rows written", f"{run.rows:,}", _count_before(before, run, "rows")),
        line("rows rejected", f"{run.rejected:,}", _count_before(before, run, "rejected")),
        line("time", _describe_time(run), "" if before is None else _describe_time(before)),
        line("source", escape_markup(source), ""),
    ]


def _describe_before(before: RunRecord, run: RunRecord) -> str:
    same = before.partition == run.partition
    return f"{before.run_id}" if same else f"{before.run_id}, of {escape_markup(before.partition)}"


def _count_before(before: RunRecord | None, run: RunRecord, what: str) -> str:
    """Nothing where its rows belong to another range, too."""
    if before is None:
        return "0"
    if before.partition != run.partition:
        return ""
    counts = {"read": before.rows + before.rejected, "rows": before.rows}
    return f"{counts.get(what, before.rejected):,}"


def _describe_time(run: RunRecord) -> str:
    if run.scored_at is None:
        return ""
    seconds = (run.scored_at - run.started_at).total_seconds()
    rate = (run.rows + run.rejected) / seconds if seconds > 0 else 0
    return f"{format_duration(seconds)}, {rate:,.0f} rows/s"


def _describe_challenger(result: ChallengerResult) -> str:
    model = escape_markup(result.model)
    if result.failure:
        return f"The challenger {model} was switched off: {escape_markup(result.failure, 300)}"
    share = format_percent(result.agreement or 0.0)
    return f"The challenger {model} agrees in {share} of {result.rows:,} rows"


def _list_checks(audit: Audit) -> list[str]:
    findings, unjudged = audit.findings, len(audit.not_judged)
    counts = f"{audit.passed:,} checks passed"
    if unjudged:
        counts += f", {unjudged:,} not judged"
    more = len(findings) - _MOST_CHECKS
    if more > 0:
        counts = f"and {more:,} more; {counts}"
    lines = [_describe_check(result) for result in findings[:_MOST_CHECKS]]
    return [*lines, *[""] * bool(lines), counts, ""]


def _describe_check(result: CheckResult) -> str:
    """As a list's item: the UI does not wrap the lines of a table."""
    limits = {"value": result.value, "warns above": result.warn, "fails above": result.fail}
    parts = [f"{name} {number:,.4g}" for name, number in limits.items() if number is not None]
    numbers = f" ({', '.join(parts)})" if parts else ""
    return f"- **{result.level}** {escape_markup(result.text, 300)}{numbers}"
