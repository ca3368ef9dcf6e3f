"""The `checks:` of a job file: which levels warn, which quarantine a run, and for which columns.

Every check has a default that suits most jobs, so the whole part may be left out:

    checks:
      predictions:
        between: [0, 1]                    # or labels: [late, early]
        missing: {warn: 0, fail: 0.01}
      inputs:
        nulls: {fail: 0.3}                 # what is not named keeps its default
        unseen: off
      columns:                             # one input or output in particular
        year: {outside: off, drift: off}
      volume: {warn: 0.1, fail: 0.5}
      sql:
        - {name: no negative fares, query: "SELECT count(*) FROM fares WHERE fare < 0"}

A value above `warn` warns, one above `fail` quarantines the run; `off` turns a check off. A query,
or a function of one's own, may take 10 minutes, or as long as its `timeout: 1h` says.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from nightshift.flows.config.quantities import Duration
from nightshift.flows.config.validation import refused

_Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
_Label = str | bool | int | float
_SWITCHED_OFF = (False, "off")  # to YAML, off is False
_LEVELS = ("warn", "fail", "at_once")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Levels(_Part):
    """Above which values a check warns and fails; None is never."""

    warn: _Number | None = Field(None, ge=0)
    fail: _Number | None = Field(None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        if value in _SWITCHED_OFF:
            return {name: None for name in _LEVELS if name in cls.model_fields}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warn is not None and self.fail is not None and self.warn > self.fail:
            problem = f"`warn: {self.warn:g}` is above `fail: {self.fail:g}`"
            raise refused(problem, "Set both, the lower one to warn.")
        return self

    @property
    def off(self) -> bool:
        return all(getattr(self, name, None) is None for name in _LEVELS)

    def overridden(self, by: "Levels | None") -> Self:
        """With what was written for one column in particular."""
        return self if by is None else self.model_copy(update=by.model_dump(exclude_unset=True))


class DriftLevels(Levels):
    """Of a PSI. For bell-shaped values that moved by k standard deviations it is about k squared
    (while k < 2): a level of 0.5 is 0.7 of them, 1 is one, 4 more than two.

    One night above `fail` warns; the second in a row fails. One above `at_once` fails, as no season
    or weather moves a column so far.
    """

    at_once: _Number | None = Field(None, ge=0)


class _Group(_Part):
    """Levels of which only some may be written; the others keep their defaults."""

    @field_validator("*", mode="before")
    @classmethod
    def _completed(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[info.field_name or ""].default
        if isinstance(default, Levels) and isinstance(value, dict):
            return {**default.model_dump(), **value}
        return value


def _sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


_Interval = Annotated[
    tuple[_Number | None, _Number | None], BeforeValidator(_sequence), Field(strict=True)
]


class _Allowed(_Part):
    """What predictions may be."""

    between: _Interval | None = None
    """The lowest and the highest number allowed; null is no bound."""
    labels: Annotated[tuple[_Label, ...], BeforeValidator(_sequence)] | None = None
    """The only values allowed."""
    shares: dict[str, _Interval] = Field(default_factory=dict)
    """The lowest and the highest share, 0 to 1, that each label may have."""

    @field_validator("between")
    @classmethod
    def _ascending(cls, value: tuple[float | None, float | None] | None) -> Any:
        if value is not None and None not in value and value[0] > value[1]:  # type: ignore[operator]
            raise refused("its first number is above its second", "Write it like [0, 1].")
        return value


class OutputChecks(_Group, _Allowed):
    """Of every output, unless `columns` says otherwise."""

    missing: Levels = Levels(warn=0, fail=0.01)
    """The share of predictions that are NULL, NaN or infinite, beyond the reference's share."""
    constant: Levels = Levels(warn=0.95, fail=0.999)
    """The share of the commonest value, if it is not as common in the reference."""
    classes: Levels = Levels(warn=0.3, fail=0.6)
    """How much the share of a class has moved from the reference's, from 0 to 1."""
    drift: DriftLevels = DriftLevels(warn=0.5, fail=1, at_once=4)
    """PSI against the reference."""
    jump: DriftLevels = DriftLevels(warn=1, fail=2, at_once=4)
    """PSI against the last published run of the same model version."""


class InputChecks(_Group):
    """Of every input, unless `columns` says otherwise."""

    nulls: Levels = Levels(warn=0.2, fail=0.7)
    """The share of values that have become NULL or NaN, of those that there would be."""
    unseen: Levels = Levels(warn=0.05, fail=0.5)
    """The share of rows with a category that the reference does not have."""
    outside: Levels = Levels(warn=0.05)
    """The share of rows outside the reference's range."""
    far_outside: Levels = Levels(warn=0.01, fail=0.2)
    """The share of rows outside it by more than its width: other units, sentinels, overflows."""
    drift: DriftLevels = DriftLevels(warn=0.5, fail=2, at_once=4)
    """PSI against the reference."""
    jump: DriftLevels = DriftLevels(warn=1, fail=2, at_once=4)
    """PSI against the last published run."""


class ColumnChecks(_Allowed):
    """Of one input or output; what is not written is as for the others."""

    missing: Levels | None = None
    constant: Levels | None = None
    classes: Levels | None = None
    nulls: Levels | None = None
    unseen: Levels | None = None
    outside: Levels | None = None
    far_outside: Levels | None = None
    drift: DriftLevels | None = None
    jump: DriftLevels | None = None


class VolumeChecks(Levels):
    """How far the number of rows is from the usual one: 0.3 is 30 % fewer, or so many more that
    the usual number would be 30 % fewer. Usual is the median of the same weekday's recent runs.
    """

    warn: _Number | None = Field(0.2, ge=0, le=1)
    fail: _Number | None = Field(0.3, ge=0, le=1)
    minimum_runs: int = Field(3, ge=1)
    """With fewer recent runs there is no usual number."""
    minimum_rows: int = Field(100, ge=0)
    """If fewer rows are usual, and fewer came, the number says little."""


class _OwnCheck(Levels):
    """A check of a user's own."""

    name: str = Field(min_length=1)
    fail: _Number | None = Field(0, ge=0)
    timeout: Duration = timedelta(minutes=10)
    """Without an answer by then, it fails."""


class SqlCheck(_OwnCheck):
    """A query that gives one value: a number that should not be above the levels, or a boolean that
    should be true. By default, anything above 0 fails: count what must not be.
    """

    query: str = Field(min_length=1)


class PythonCheck(_OwnCheck):
    """A function found by its entry point in the group `nightshift.checks`; see flows.checks."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Its keyword arguments."""


class Checks(_Part):
    """What is checked between the last row and publishing."""

    minimum_rows: int = Field(500, ge=1)
    """Distributions of fewer values are not compared."""
    predictions: OutputChecks = OutputChecks()
    inputs: InputChecks = InputChecks()
    columns: dict[str, ColumnChecks] = Field(default_factory=dict)
    volume: VolumeChecks = VolumeChecks()
    sql: Annotated[tuple[SqlCheck, ...], BeforeValidator(_sequence)] = ()
    python: Annotated[tuple[PythonCheck, ...], BeforeValidator(_sequence)] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for field in ("sql", "python"):
            names = [check.name for check in getattr(self, field)]
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                problem = f"it has two checks called {twice[0]!r}"
                raise refused(problem, "Give each a name of its own.", field)
        return self

    def levels(self, side: str, column: str, check: str) -> Levels:
        """`side` is "inputs" or "predictions"; with the overrides for the column, if there are."""
        general: Levels = getattr(getattr(self, side), check)
        particular = self.columns.get(column)
        return general.overridden(None if particular is None else getattr(particular, check))

    def listed(self, outputs: Iterable[str]) -> frozenset[str]:
        """Those whose values are listed, as `labels` or `shares`: so each value must count."""
        return frozenset(
            name for name in outputs if self.allowed(name, "labels") or self.allowed(name, "shares")
        )

    def allowed(self, column: str, field: str) -> Any:
        """An output's `between`, `labels` or `shares`: the column's own, or else the general."""
        particular = self.columns.get(column)
        own = None if particular is None else getattr(particular, field)
        return own or getattr(self.predictions, field)
