"""A run's report in short, as Markdown: what Prefect's UI shows of it. Pure."""

import re
from collections.abc import Sequence

from nightshift.adapters.history.run_details import RunDetails
from nightshift.adapters.history.run_history import RunRecord
from nightshift.flows.checks.results import Audit, CheckResult
from nightshift.flows.report.column_drift import Feature
from nightshift.flows.report.distributions import distributions
from nightshift.flows.report.html import duration, moved, percent
from nightshift.flows.report.partition_calendar import data_uri
from nightshift.flows.report.plots import draw_distributions, on_card, shortened, visible
from nightshift.flows.report.verdict import model_of, verdict
from nightshift.flows.scoring.challenger.comparison import Comparison

_MOST_CHECKS = 15
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")


def summary(
    found: RunDetails,
    audit: Audit | None,
    source: str,
    sql: str,
    outputs: Sequence[Feature] = (),
) -> tuple[str, str]:
    """(a line, the Markdown). Of `outputs`, the first one is drawn."""
    run, told = found.run, verdict(found, audit)
    lines = [f"## {told.word}: {literal(run.job)} {literal(run.partition)}", ""]
    if told.reason:
        lines += [f"**{literal(told.reason, 600)}**", ""]
    lines += [literal(told.readers, 400), ""]
    if outputs:
        lines += [*_picture(outputs[0]), ""]
    lines += [*_counts(found, source), ""]
    if audit is not None:
        lines += _checks(audit)
    lines += _challenger(found)
    lines += ["```sql", visible(sql).replace("```", ""), "```", ""]
    lines += [f"`{visible(command).replace('`', '')}`  " for command in told.commands]
    lines += [f"`nightshift report {run.run_id} --open`"]
    reason = f": {shortened(told.reason, 160)}" if told.reason else ""
    count = "" if told.tone == "bad" else f"{run.rows:,} rows "
    head = f"{visible(run.job)} {visible(run.partition)}: {count}{told.word.lower()}"
    return head + reason, "\n".join(lines)


def literal(text: str, most: int = 200) -> str:
    """Within a line, nothing of which is markup."""
    shown = shortened(text, most).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\1", shown)


def _picture(output: Feature) -> list[str]:
    found = distributions(output.now, output.last, output.training)
    if found is None:
        return []
    svg = on_card(draw_distributions(found, f"Distribution of {output.title}"))
    return [
        f"![Distribution of {literal(output.title)}]({data_uri(svg)})",
        "",
        f"Predictions, {literal(output.name)}: {literal(moved(output))}",
    ]


def _counts(found: RunDetails, source: str) -> list[str]:
    """Before and after: what readers had of the partition, and what the run has."""
    run, before = found.run, found.before

    def line(name: str, now: str, then: str) -> str:
        return f"| {name} | {now} | {then} |"

    return [
        f"| | this run | {'before' if before else 'nothing before'} |",
        "|---|--:|--:|",
        line("run", f"{run.run_id}", "" if before is None else _named(before, run)),
        line("model", literal(model_of(run)), "" if before is None else literal(model_of(before))),
        line("rows read", f"{run.rows + run.rejected:,}", _before(before, run, "read")),
        line("rows written", f"{run.rows:,}", _before(before, run, "rows")),
        line("rows rejected", f"{run.rejected:,}", _before(before, run, "rejected")),
        line("time", _time(run), "" if before is None else _time(before)),
        line("source", literal(source), ""),
    ]


def _named(before: RunRecord, run: RunRecord) -> str:
    same = before.partition == run.partition
    return f"{before.run_id}" if same else f"{before.run_id}, of {literal(before.partition)}"


def _before(before: RunRecord | None, run: RunRecord, what: str) -> str:
    """Nothing where its rows are those of another range, too."""
    if before is None:
        return "0"
    if before.partition != run.partition:
        return ""
    counts = {"read": before.rows + before.rejected, "rows": before.rows}
    return f"{counts.get(what, before.rejected):,}"


def _time(run: RunRecord) -> str:
    if run.scored_at is None:
        return ""
    seconds = (run.scored_at - run.started_at).total_seconds()
    rate = (run.rows + run.rejected) / seconds if seconds > 0 else 0
    return f"{duration(seconds)}, {rate:,.0f} rows/s"


def _challenger(found: RunDetails) -> list[str]:
    if found.challenger is None or found.comparison is None:
        return []
    compared, model = Comparison.from_json(found.comparison), literal(model_of(found.challenger))
    if compared.failure is not None:
        return [f"The challenger {model} was switched off: {literal(compared.failure, 300)}", ""]
    share = percent(compared.agreement or 0.0)
    return [f"The challenger {model} agrees in {share} of {compared.rows:,} rows", ""]


def _check(result: CheckResult) -> str:
    """As a list's item: the UI does not break the lines of a table."""
    limits = {"value": result.value, "warns above": result.warn, "fails above": result.fail}
    numbers = [f"{name} {number:,.4g}" for name, number in limits.items() if number is not None]
    told = f" ({', '.join(numbers)})" if numbers else ""
    return f"- **{result.level}** {literal(result.text, 300)}{told}"


def _checks(audit: Audit) -> list[str]:
    grave = [result for result in audit.results if result.level != "ok"]
    passed = len(audit.results) - len(grave) + audit.omitted
    if not grave:
        return [f"{passed:,} checks passed", ""]
    lines = [_check(result) for result in grave[:_MOST_CHECKS]]
    more = len(grave) - _MOST_CHECKS
    told = f"and {more:,} more; " if more > 0 else ""
    return [*lines, "", f"{told}{passed:,} checks passed", ""]
