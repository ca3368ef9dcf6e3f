"""How a challenger compares with its champion, as a report shows it. Pure."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightshift.adapters.history.run_history import RunRecord
from nightshift.adapters.models.reference import ModelRef
from nightshift.flows.report.plots import Bar, draw_ranking
from nightshift.flows.scoring.challenger.comparison import Comparison, Differences
from nightshift.flows.text import format_percent, shorten

_MOST_ROWS = 10
_DECADES = 4
"""Below the largest differences; smaller ones are one bar."""


@dataclass(frozen=True)
class ChallengerOutput:
    """One output of both models."""

    name: str
    agreed: float
    """The share of rows that agree, in [0, 1]."""
    facts: Sequence[tuple[str, str]]
    picture: str
    """How the differences are distributed, as SVG; empty for labels."""
    changes: Sequence[tuple[str, str, int]]
    """Of labels: the champion's, the challenger's, rows."""


@dataclass(frozen=True)
class ChallengerResult:
    """What a report says about a challenger."""

    model: str
    state: str
    failure: str
    agreement: float | None
    rows: int
    missing: int
    skipped: int
    cost: float | None
    """Its seconds for each second of the champion."""
    seconds: float
    outputs: Sequence[ChallengerOutput]
    most: Sequence[tuple[str, str, str, str]]
    """Key, champion's, challenger's and difference of the rows that differ most."""


def summarize_challenger(run: RunRecord, found: Comparison) -> ChallengerResult:
    """From the challenger's run and its comparison with the champion."""
    champion, own = found.champion_seconds, found.challenger_seconds
    outputs = []
    for name, output in found.outputs.items():
        differences = output.differences
        changes = [
            (_format_value(c.champion), _format_value(c.challenger), c.rows) for c in output.changes
        ]
        outputs.append(
            ChallengerOutput(
                name,
                output.agreed / found.rows if found.rows else 0.0,
                _describe(differences),
                _draw(name, differences),
                changes[:_MOST_ROWS],
            )
        )
    return ChallengerResult(
        model=ModelRef(run.model_name, run.model_version),
        state=run.state,
        failure=found.failure or run.error or "",
        agreement=found.agreement,
        rows=found.rows,
        missing=found.missing,
        skipped=found.skipped,
        cost=own / champion if champion > 0 else None,
        seconds=own,
        outputs=outputs,
        most=[
            (
                ", ".join(_format_value(part) for part in row.key),
                _format_values(row.champion),
                _format_values(row.challenger),
                "" if row.difference is None else f"{row.difference:,.4g}",
            )
            for row in found.most[:_MOST_ROWS]
        ],
    )


def _describe(found: Differences | None) -> list[tuple[str, str]]:
    if found is None or not found.rows:
        return []
    ends = [found.quantile(share) or 0.0 for share in (0.05, 0.95)]
    named = {"mean": found.mean, "absolute mean": found.mean_absolute, "largest": found.largest}
    facts = [(name, f"{value:,.4g}") for name, value in named.items() if value is not None]
    return [*facts, ("90% are from", " to ".join(f"{end:,.3g}" for end in ends))]


def _draw(name: str, found: Differences | None) -> str:
    if found is None or not found.rows:
        return ""
    bars = [
        Bar(label, count / found.rows, format_percent(count / found.rows))
        for label, count in count_differences(found)
    ]
    return draw_ranking(bars, f"{name}: challenger minus champion")


def count_differences(found: Differences) -> list[tuple[str, int]]:
    """Rows by how far the challenger is above the champion, in powers of ten, farthest first."""
    decades: dict[tuple[int, int], int] = defaultdict(int)
    for low, high, count in found.histogram():
        size = max(abs(low), abs(high))
        sign = (low + high > 0) - (low + high < 0)
        # a bucket ends at a power of ten, up to rounding
        decades[sign, math.ceil(round(math.log10(size), 6)) if sign else 0] += count
    highest = max((decade for sign, decade in decades if sign), default=0)
    near, bars = highest - _DECADES, []
    for sign, word in ((1, "more"), (-1, "less")):
        for decade in range(highest, near, -1):
            label = f"{_format_power(decade - 1)} to {_format_power(decade)} {word}"
            bars.append((label, decades[sign, decade]))
        if sign > 0:
            close = sum(n for (s, decade), n in decades.items() if s and decade <= near)
            label = f"within {_format_power(near)}"
            bars.append((label, close + decades[0, 0]))
    ahead, behind = bars[: _DECADES + 1], bars[:_DECADES:-1]
    return [bar for bar in [*ahead, *behind] if bar[1]]


def _format_power(decade: int) -> str:
    return f"{10.0**decade:,.12g}" if -5 < decade < 7 else f"1e{decade}"


def _format_values(values: dict[str, Any]) -> str:
    texts = [_format_value(value) for value in values.values()]
    if len(texts) > 1:
        texts = [f"{name} {text}" for name, text in zip(values, texts, strict=True)]
    return shorten(", ".join(texts), 120)


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    return shorten(value if isinstance(value, str) else json.dumps(value), 80)
