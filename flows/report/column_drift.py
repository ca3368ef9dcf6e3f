"""How far each column of a run is from the training sample and from the last run. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nightshift.adapters.profiles.column_profile import ColumnProfile
from nightshift.adapters.profiles.drift import psi
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.checks.results import Audit, CheckResult, Level

DRIFT, JUMP = "drift", "jump"
"""The names of the checks against the training sample and the last published run."""

_GRAVITY: dict[Level, int] = {"fail": 0, "warn": 1, "ok": 2}


@dataclass(frozen=True)
class Feature:
    """One input or output."""

    name: str
    title: str
    """As the audit has it: `input distance`, `prediction score`."""
    now: ColumnProfile
    last: ColumnProfile | None
    training: ColumnProfile | None
    drift: float | None
    """PSI against the training sample."""
    jump: float | None
    """PSI against the last published run."""
    level: Level
    """The gravest of the audit's results for the column's distribution."""
    limits: tuple[float | None, float | None] = (None, None)
    """Where drift warns and fails."""

    @property
    def moved(self) -> float:
        """What it is ranked by; -1 if it was not measured."""
        drift = self.drift if self.drift is not None else self.jump
        return -1.0 if drift is None else drift


def features(
    now: Mapping[str, ColumnProfile],
    last: Mapping[str, ColumnProfile],
    training: Mapping[str, ColumnProfile],
    audit: Audit | None,
    word: str,
) -> list[Feature]:
    """Those that moved most first. `word` is `input` or `prediction`."""
    results = {} if audit is None else {(r.name, r.column): r for r in audit.results}
    found = []
    for name, column in now.items():
        title = f"{word} {name}"
        drift, jump = results.get((DRIFT, title)), results.get((JUMP, title))
        found.append(
            Feature(
                name,
                title,
                column,
                last.get(name),
                training.get(name),
                _measured(drift, training.get(name), column),
                _measured(jump, last.get(name), column),
                min(
                    (result.level for result in (drift, jump) if result is not None),
                    key=_GRAVITY.__getitem__,
                    default="ok",
                ),
                (None, None) if drift is None else (drift.warn, drift.fail),
            )
        )
    return sorted(found, key=lambda f: (_GRAVITY[f.level], -f.moved, f.name))


def whole(texts: Sequence[str]) -> Profile:
    """The profile of all shards, from the JSON of each. Raises ValueError."""
    profile = Profile()
    for text in texts:
        profile = profile.merged(Profile.from_json(text))
    return profile


def _measured(
    result: CheckResult | None, known: ColumnProfile | None, column: ColumnProfile
) -> float | None:
    """As the audit has it; where it has nothing (a run that failed, a check turned off), anew."""
    if result is not None:
        return result.value
    if known is None or column.kind == "time":
        return None
    return psi(known, column)
