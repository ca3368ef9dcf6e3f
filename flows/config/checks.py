"""The `checks:` of a job file: which levels warn, which quarantine a run, and for which columns.

Every check has a default that suits most jobs, so the whole section may be left out:

    checks:
      predictions:
        between: [0, 1]                    # or labels: [late, early]
        missing: {warn: 0, fail: 0.01}
      inputs:
        nulls: {fail: 0.3}                 # `warn` keeps its default
        unseen: off
      columns:                             # one input or output in particular
        year: {outside: off, drift: off}
      volume: {warn: 0.1, fail: 0.5}
      sql:
        - {name: no negative fares, query: "SELECT count(*) FROM fares WHERE fare < 0"}

A value above `warn` warns, one above `fail` quarantines the run; `off` turns a check off. A query
or function of your own may take 10 minutes, or as long as its `timeout: 1h` says.
"""

import difflib
from collections.abc import Collection, Iterable
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

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.config.quantities import Duration
from nightshift.flows.config.validation import accept_also, refused

_Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
_Label = str | bool | int | float
_SWITCHED_OFF = (False, "off")  # to YAML, off is False
_LEVELS = ("warn", "fail", "at_once")


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class Levels(_Part):
    """Above which values a check warns and fails; None is never."""

    model_config = ConfigDict(json_schema_extra=accept_also({"enum": list(_SWITCHED_OFF)}))

    warn: _Number | None = Field(None, ge=0)
    """A value above it warns."""
    fail: _Number | None = Field(None, ge=0)
    """A value above it quarantines the run."""

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

    def override(self, by: "Levels | None") -> Self:
        """These levels, with those that are set for one column in particular."""
        return self if by is None else self.model_copy(update=by.model_dump(exclude_unset=True))


class DriftLevels(Levels):
    """Of a PSI. For normally distributed values that moved by k standard deviations it is about
    k squared (while k < 2): 0.5 is a move by 0.7 of them, 1 by one, 4 by more than two.

    `at_once` is for moves that no season or weather explains.
    """

    fail: _Number | None = Field(None, ge=0)
    """A value above it warns; in a second run in a row it quarantines the run."""
    at_once: _Number | None = Field(None, ge=0)
    """A value above it quarantines the run at once."""


class _Group(_Part):
    """Checks whose levels may be set one by one; the others keep their defaults."""

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
    """Which predictions are allowed."""

    between: _Interval | None = None
    """The lowest and the highest number allowed; `null` stands for no limit."""
    labels: Annotated[tuple[_Label, ...], BeforeValidator(_sequence)] | None = None
    """The only values allowed."""
    shares: dict[str, _Interval] = Field(default_factory=dict)
    """For each label, the lowest and the highest share of rows, 0 to 1."""

    @field_validator("between")
    @classmethod
    def _ascending(cls, value: tuple[float | None, float | None] | None) -> Any:
        if value is not None and None not in value and value[0] > value[1]:  # type: ignore[operator]
            raise refused("its first number is above its second", "Write it like [0, 1].")
        return value


class OutputChecks(_Group, _Allowed):
    """Checks of every output, unless `columns` says otherwise."""

    missing: Levels = Levels(warn=0, fail=0.01)
    """The share of predictions that are NULL, NaN or infinite, beyond the reference's share."""
    constant: Levels = Levels(warn=0.95, fail=0.999)
    """The share of the most common value, unless it is as common in the reference."""
    classes: Levels = Levels(warn=0.3, fail=0.6)
    """How far the share of a class has moved from the reference's, from 0 to 1."""
    drift: DriftLevels = DriftLevels(warn=0.5, fail=1, at_once=4)
    """The PSI against the reference, the rows that the model was registered with."""
    jump: DriftLevels = DriftLevels(warn=1, fail=2, at_once=4)
    """The PSI against the last published run of the same model version."""


class InputChecks(_Group):
    """Checks of every input, unless `columns` says otherwise."""

    nulls: Levels = Levels(warn=0.2, fail=0.7)
    """The share of values that are NULL or NaN, of those that were not in the reference."""
    unseen: Levels = Levels(warn=0.05, fail=0.5)
    """The share of rows with a category that the reference does not have."""
    outside: Levels = Levels(warn=0.05)
    """The share of rows outside the reference's range."""
    far_outside: Levels = Levels(warn=0.01, fail=0.2)
    """The share of rows outside it by more than its width: other units, sentinels, overflows."""
    drift: DriftLevels = DriftLevels(warn=0.5, fail=2, at_once=4)
    """The PSI against the reference."""
    jump: DriftLevels = DriftLevels(warn=1, fail=2, at_once=4)
    """The PSI against the last published run."""


class ColumnChecks(_Allowed):
    """Checks of one input or output; what is not set is as for the others."""

    missing: Levels | None = None
    """As in `predictions`."""
    constant: Levels | None = None
    """As in `predictions`."""
    classes: Levels | None = None
    """As in `predictions`."""
    nulls: Levels | None = None
    """As in `inputs`."""
    unseen: Levels | None = None
    """As in `inputs`."""
    outside: Levels | None = None
    """As in `inputs`."""
    far_outside: Levels | None = None
    """As in `inputs`."""
    drift: DriftLevels | None = None
    """As in `inputs` or `predictions`."""
    jump: DriftLevels | None = None
    """As in `inputs` or `predictions`."""


class VolumeChecks(Levels):
    """How far the number of rows is from the usual one: 0.3 is 30 % fewer rows, or so many more
    that the usual number would be 30 % fewer. Usual is the median of the same weekday's recent
    runs.
    """

    warn: _Number | None = Field(0.2, ge=0, le=1)
    """A distance above it warns."""
    fail: _Number | None = Field(0.3, ge=0, le=1)
    """A distance above it quarantines the run."""
    minimum_runs: int = Field(3, ge=1)
    """With fewer recent runs, the number of rows is not judged."""
    minimum_rows: int = Field(100, ge=0)
    """If fewer rows are usual, and fewer came, the number is not judged."""


class _OwnCheck(Levels):
    """A check of a user's own."""

    model_config = ConfigDict(json_schema_extra=None)

    name: str = Field(min_length=1)
    """The name under which reports show it."""
    fail: _Number | None = Field(0, ge=0)
    """A value above it quarantines the run."""
    timeout: Duration = timedelta(minutes=10)
    """Without an answer by then, the check fails."""


class SqlCheck(_OwnCheck):
    """A query that returns one value: a number that should not be above the levels, or a boolean
    that should be true. By default anything above 0 fails: count what must not exist.
    """

    query: str = Field(min_length=1)
    """A SELECT that returns one value; see docs/checks.md for what it may refer to."""


class PythonCheck(_OwnCheck):
    """A function of your own, found by its entry point in the group `nightshift.checks`."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """The function's keyword arguments."""


class Checks(_Part):
    """What is checked after the last row and before publishing."""

    minimum_rows: int = Field(500, ge=1)
    """Distributions of fewer values are not compared."""
    predictions: OutputChecks = OutputChecks()
    """Checks of every output, unless `columns` says otherwise."""
    inputs: InputChecks = InputChecks()
    """Checks of every input, unless `columns` says otherwise."""
    columns: dict[str, ColumnChecks] = Field(default_factory=dict)
    """Checks of one input or output, by its name; what is not set is as for the others."""
    volume: VolumeChecks = VolumeChecks()
    """How far the number of rows may be from the usual one."""
    sql: Annotated[tuple[SqlCheck, ...], BeforeValidator(_sequence)] = ()
    """Queries of your own."""
    python: Annotated[tuple[PythonCheck, ...], BeforeValidator(_sequence)] = ()
    """Functions of your own."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for field in ("sql", "python"):
            names = [check.name for check in getattr(self, field)]
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                problem = f"it has two checks called {twice[0]!r}"
                raise refused(problem, "Give each a name of its own.", field)
        return self

    def require_known_columns(self, names: Collection[str]) -> None:
        """Raise ConfigurationError if `columns` names one that is not among the model's `names`."""
        for name in self.columns:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                remedy = f"Did you mean {near[0]!r}? " if near else ""
                remedy += f"It has {', '.join(names)}."
                problem = "the model has no input or output of this name"
                raise ConfigurationError("the job", f"checks.columns.{name}", problem, remedy)

    def levels(self, side: str, column: str, check: str) -> Levels:
        """The levels for one column. `side` is "inputs" or "predictions"."""
        general: Levels = getattr(getattr(self, side), check)
        particular = self.columns.get(column)
        return general.override(None if particular is None else getattr(particular, check))

    def find_listed(self, outputs: Iterable[str]) -> frozenset[str]:
        """The outputs with `labels` or `shares`, for which each value must be counted."""
        return frozenset(
            name for name in outputs if self.allowed(name, "labels") or self.allowed(name, "shares")
        )

    def allowed(self, column: str, field: str) -> Any:
        """An output's `between`, `labels` or `shares`: its own, or the general one."""
        particular = self.columns.get(column)
        own = None if particular is None else getattr(particular, field)
        return own or getattr(self.predictions, field)
