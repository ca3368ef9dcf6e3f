"""What the audit goes by and what it finds: evidence, results, verdict. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, FiniteFloat

from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.config.checks import Levels

Level = Literal["ok", "warn", "fail"]

_GRAVITY: dict[Level, int] = {"fail": 0, "warn": 1, "ok": 2}
_MOST_RESULTS = 1000

DISTRIBUTIONS = ("drift", "jump")
"""The checks of flows/checks/drift.py."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckResult(_Record):
    """One check of one column, or of the run."""

    name: str
    column: str | None = None
    """`input distance`, `prediction score`, or None: of the run."""
    value: FiniteFloat | None = None
    """What was measured; None where there was too little to measure."""
    warn: float | None = None
    fail: float | None = None
    level: Level = "ok"
    reached: Level = "ok"
    """The level that the value alone would have; what is odd for the first night only warns."""
    text: str
    """For people, with the numbers and what they should be."""


class Audit(_Record):
    """All results, the gravest first, and what follows from them."""

    verdict: Level
    results: tuple[CheckResult, ...]
    omitted: int = 0
    """Results that were ok and are left out, as there were more than 1,000."""

    @classmethod
    def of(cls, results: Sequence[CheckResult]) -> Self:
        """In the order of gravity; among equals, the order given."""
        ranked = sorted(results, key=lambda result: _GRAVITY[result.level])
        grave = sum(result.level != "ok" for result in ranked)
        kept = ranked[: max(grave, _MOST_RESULTS)]
        verdict = ranked[0].level if ranked else "ok"
        return cls(verdict=verdict, results=tuple(kept), omitted=len(ranked) - len(kept))

    @property
    def reason(self) -> str | None:
        """Why the run must not be published: the first check that failed, and how many others."""
        failed = [result for result in self.results if result.level == "fail"]
        if not failed:
            return None
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{failed[0].text}{more}"

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.level == "warn")

    @property
    def steady(self) -> bool:
        """Whether nothing had moved: only such a run is what later ones should be like."""
        return all(r.reached == "ok" for r in self.results if r.name in DISTRIBUTIONS)

    def result(self, name: str, column: str | None = None) -> CheckResult | None:
        """The result of that check, if it was made."""
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


@dataclass(frozen=True)
class RangeCounts:
    """Rows of one key range: a shard's, or the whole partition's."""

    label: str
    snapshot: int
    """Rows of the source's snapshot."""
    written: int
    rejected: int = 0


@dataclass(frozen=True)
class Evidence:
    """What is known of a run when its last row is scored. Users' own checks get it, too."""

    job: str
    partition: str
    profile: Profile
    ranges: tuple[RangeCounts, ...]
    reference: Profile | None = None
    """Of the sample that the model was registered with."""
    last: Profile | None = None
    """Of the last published run before this partition (or before now) that was `steady`, or that a
    person released: after one odd night, ordinary ones would all look odd beside it."""
    last_has_same_model: bool = True
    previous: Audit | None = None
    """Of the partition before, published or not; of the job's run before, where there are none.
    Never of an earlier try of the same partition."""
    usual_rows: tuple[int, ...] = ()
    """Of the same weekday's recent runs; see `comparable_rows`."""
    run_sql: Callable[[str], object] | None = None
    """Executes a query that gives one value."""


def graded(
    name: str,
    column: str | None,
    value: float,
    levels: Levels,
    text: str,
    sure: float | None = None,
) -> CheckResult:
    """By where the value lies; or `sure`, where from few rows less is sure than was measured."""
    height = value if sure is None else sure
    level: Level = "ok"
    if levels.fail is not None and height > levels.fail:
        level = "fail"
    elif levels.warn is not None and height > levels.warn:
        level = "warn"
    return CheckResult(
        name=name, column=column, value=value, warn=levels.warn, fail=levels.fail,
        level=level, reached=level, text=text,
    )  # fmt: skip


def percent(share: float) -> str:
    """0.123 -> `12.3 %`; what is little is told from nothing."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    return f"{100 * share:.3g} %"
