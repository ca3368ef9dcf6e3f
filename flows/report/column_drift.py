"""How far each column of a run has moved from the training sample and from the last run. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.drift import psi
from nightshift.flows.checks.drift import DRIFT, JUMP
from nightshift.flows.checks.results import Audit, CheckResult, Level


@dataclass(frozen=True)
class ColumnDrift:
    """One input or output."""

    name: str
    title: str
    """As the audit has it: `input distance`, `prediction score`."""
    now: ColumnProfile
    last: ColumnProfile | None
    training: ColumnProfile | None
    drift: float | None
    """PSI against the training sample; None if it was not measured."""
    jump: float | None
    """PSI against the last published run."""
    level: Level
    """The most severe of the audit's two results for the distribution that could judge."""
    limits: tuple[float | None, float | None] = (None, None)
    """Where drift warns and fails."""

    @property
    def moved(self) -> float:
        """What it is ranked by; -1 if it was not measured."""
        drift = self.drift if self.drift is not None else self.jump
        return -1.0 if drift is None else drift


def measure_drift(
    now: Mapping[str, ColumnProfile],
    last: Mapping[str, ColumnProfile],
    training: Mapping[str, ColumnProfile],
    audit: Audit | None,
    side: str,
) -> list[ColumnDrift]:
    """The most severe and most moved first. `side` is `input` or `prediction`."""
    results = {} if audit is None else {(r.name, r.column): r for r in audit.results}
    found = []
    for name, column in now.items():
        title = f"{side} {name}"
        drift, jump = results.get((DRIFT, title)), results.get((JUMP, title))
        found.append(
            ColumnDrift(
                name,
                title,
                column,
                last.get(name),
                training.get(name),
                _measured(drift, training.get(name), column),
                _measured(jump, last.get(name), column),
                _most_severe(drift, jump),
                (None, None) if drift is None else (drift.warn, drift.fail),
            )
        )
    unnoticed = Level.NOT_JUDGED.rank
    return sorted(found, key=lambda f: (min(f.level.rank, unnoticed), -f.moved, f.name))


def _most_severe(*results: CheckResult | None) -> Level:
    """Of those that could judge."""
    levels = [result.level for result in results if result is not None]
    judged = [level for level in levels if level != Level.NOT_JUDGED]
    return min(judged, key=lambda level: level.rank, default=Level.NOT_JUDGED)


def _measured(
    result: CheckResult | None, known: ColumnProfile | None, column: ColumnProfile
) -> float | None:
    """As in the audit; measured now if it has no such check (a failed run, a check turned off)."""
    if result is not None:
        return result.value
    if known is None or column.kind == "time":
        return None
    return psi(known, column)
