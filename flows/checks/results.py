"""What the checks return: results, graded by their levels, and the verdict over all. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, FiniteFloat

from nightshift.flows.config.checks import Levels

_MOST_RESULTS = 1000

DISTRIBUTIONS = ("drift", "jump")
"""The checks of flows/checks/drift.py."""


class NotJudged(Exception):
    """Raised by a user's own check that cannot judge this run; its text is the reason."""


class Level(StrEnum):
    """How a check ended, the most severe first."""

    FAIL = "fail"
    WARN = "warn"
    NOT_JUDGED = "not judged"
    """There was too little to go by. Neither passed nor failed."""
    OK = "ok"

    @property
    def rank(self) -> int:
        """0 is the most severe."""
        return list(Level).index(self)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckResult(_Record):
    """One check of one column, or of the whole run."""

    name: str
    column: str | None = None
    """`input distance`, `prediction score`; None for the whole run."""
    value: FiniteFloat | None = None
    """What was measured; None where nothing could be."""
    warn: float | None = None
    fail: float | None = None
    level: Level = Level.OK
    reached: Level = Level.OK
    """The level of the value by itself. A first high drift reaches `fail` and only warns."""
    text: str
    """For people, with the numbers and what they should be."""


class Audit(_Record):
    """All results, the most severe first, and the verdict."""

    verdict: Level
    """The most severe level of the checks that could judge: fail, warn or ok."""
    results: tuple[CheckResult, ...]
    omitted: int = 0
    """Results that passed and were left out to keep at most 1,000."""

    @classmethod
    def of(cls, results: Sequence[CheckResult]) -> Self:
        """The most severe first; among equals, the order given."""
        ranked = sorted(results, key=lambda result: result.level.rank)
        notable = sum(result.level != Level.OK for result in ranked)
        kept = ranked[: max(notable, _MOST_RESULTS)]
        verdict = min(
            (result.level for result in ranked if result.level != Level.NOT_JUDGED),
            key=lambda level: level.rank,
            default=Level.OK,
        )
        return cls(verdict=verdict, results=tuple(kept), omitted=len(ranked) - len(kept))

    @property
    def reason(self) -> str | None:
        """Why the run must not be published: the first failed check, and how many others."""
        failed = self.at(Level.FAIL)
        if not failed:
            return None
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{failed[0].text}{more}"

    def at(self, *levels: Level) -> tuple[CheckResult, ...]:
        """The results that ended at one of these levels."""
        return tuple(result for result in self.results if result.level in levels)

    @property
    def findings(self) -> tuple[CheckResult, ...]:
        """What failed and what warned."""
        return self.at(Level.FAIL, Level.WARN)

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        return self.at(Level.WARN)

    @property
    def rejected(self) -> int:
        """Rows without a prediction."""
        result = self.result("rejects")
        return 0 if result is None else int(result.value or 0)

    @property
    def not_judged(self) -> tuple[CheckResult, ...]:
        return self.at(Level.NOT_JUDGED)

    @property
    def passed(self) -> int:
        """How many checks passed, those left out included."""
        return len(self.at(Level.OK)) + self.omitted

    @property
    def is_steady(self) -> bool:
        """Whether no distribution was seen to move: only such a run is a basis for later ones.

        One that could not be judged does not count against it, or no first run could ever be one.
        """
        moved = (Level.WARN, Level.FAIL)
        return not any(r.reached in moved for r in self.results if r.name in DISTRIBUTIONS)

    def result(self, name: str, column: str | None = None) -> CheckResult | None:
        """The result of that check, if there is one."""
        for result in self.results:
            if (result.name, result.column) == (name, column):
                return result
        return None

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` returned. Raises ValueError for anything else."""
        return cls.model_validate_json(text)


def grade(
    name: str,
    column: str | None,
    value: float,
    levels: Levels,
    text: str,
    lower_bound: float | None = None,
) -> CheckResult:
    """Compare the value with the levels; or its lower bound, where few rows make it uncertain."""
    compared = value if lower_bound is None else lower_bound
    level = Level.OK
    if levels.fail is not None and compared > levels.fail:
        level = Level.FAIL
    elif levels.warn is not None and compared > levels.warn:
        level = Level.WARN
    return CheckResult(
        name=name, column=column, value=value, warn=levels.warn, fail=levels.fail,
        level=level, reached=level, text=text,
    )  # fmt: skip


def leave_unjudged(
    name: str, column: str | None, reason: str, levels: Levels | None = None
) -> CheckResult:
    """The result of a check that had too little to go by."""
    about = f"{column}: " if column else ""
    warn, fail = (None, None) if levels is None else (levels.warn, levels.fail)
    return CheckResult(
        name=name, column=column, warn=warn, fail=fail, level=Level.NOT_JUDGED,
        reached=Level.NOT_JUDGED, text=f"{about}{name} not judged: {reason}",
    )  # fmt: skip


def name_column(side: str, name: str) -> str:
    """A column as results name it. `side` is "inputs" or "predictions"."""
    if side == "inputs":
        return f"input {name}"
    return name if name == "prediction" else f"prediction {name}"
