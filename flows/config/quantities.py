"""Quantities of a job file: a count or a share, `10` or `0.1%`; a length of time, `30m`."""

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from nightshift.flows.config.validation import refused

_DURATION = re.compile(r"(\d{1,6})\s*([smhd])")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%")


@dataclass(frozen=True)
class Budget:
    """Rows of a run that may be rejected: `count` of them, or a `share`, in [0, 1], of all."""

    count: int = 0
    share: Decimal | None = None

    def allowed(self, rows: int) -> int:
        """Of `rows` rows, how many may be rejected."""
        return self.count if self.share is None else int(self.share * rows)

    def __str__(self) -> str:
        return str(self.count) if self.share is None else _percent(self.share)


@dataclass(frozen=True)
class Tolerance:
    """How far apart two predictions may be and still agree: an `amount` in the prediction's own
    unit, or else a `share` of the champion's. With a share, whole numbers and labels agree only
    where they are equal.
    """

    amount: float | None = None
    share: Decimal = Decimal("0.01")

    def near(
        self, one: npt.NDArray[np.float64], moved: npt.NDArray[np.float64], whole: bool
    ) -> npt.NDArray[np.bool_]:
        """(m,) predictions and (m,) distances of others from them -> (m,) whether they agree."""
        room: npt.NDArray[np.float64] | float | None = self.amount
        if room is None:
            room = 0.0 if whole else float(self.share) * np.abs(one)
        return np.asarray(np.abs(moved) <= room)

    def __str__(self) -> str:
        return _percent(self.share) if self.amount is None else f"{self.amount:g}"


def _budget(value: object) -> object:
    if isinstance(value, Budget):
        return value
    share = _share(value)
    if share is not None:
        return Budget(share=share)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        remedy = "Write it like 10, or like 0.1% for a share of the rows."
        raise refused("it is neither a number of rows nor a share of them", remedy)
    return Budget(count=value)


def _tolerance(value: object) -> object:
    if isinstance(value, Tolerance):
        return value
    share = _share(value)
    if share is not None:
        return Tolerance(share=share)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):  # type: ignore[operator]
        remedy = "Write it like 0.05, or like 1% for a share of the prediction."
        raise refused("it is neither an amount nor a share", remedy)
    return Tolerance(amount=float(value))  # type: ignore[arg-type]


def _share(value: object) -> Decimal | None:
    """`0.1%` -> 0.001; None for what is not a share."""
    parts = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if parts is None:
        return None
    share = Decimal(parts[1]) / 100  # exact: 0.7% of 1,000 is 7
    if share > 1:
        raise refused("it is more than 100%", "Write at most 100%.")
    return share


def _percent(share: Decimal) -> str:
    return f"{(share * 100).normalize():f}%"


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    parts = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if parts is None or int(parts[1]) == 0:
        raise refused("it is not a length of time", "Write it like 90s, 30m, 2h or 1d.")
    return timedelta(**{_UNITS[parts[2]]: int(parts[1])})


def format_duration(value: timedelta) -> str:
    """As a job file writes it, in the largest unit that gives a whole number: `90s`, `1h`."""
    sizes = {unit: timedelta(**{name: 1}) for unit, name in _UNITS.items()}
    unit = next(unit for unit in "dhms" if not value % sizes[unit])
    return f"{value // sizes[unit]}{unit}"


_SHARE_SCHEMA = {"type": "string", "pattern": r"^\s*[0-9]{1,3}(\.[0-9]{1,9})?\s*%\s*$"}
_COUNT_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 0}, _SHARE_SCHEMA]}
_AMOUNT_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, _SHARE_SCHEMA]}
_DURATION_SCHEMA = {"type": "string", "pattern": r"^(?!0+\s*[smhd])[0-9]{1,6}\s*[smhd]$"}

MaxRejects = Annotated[
    Budget, BeforeValidator(_budget), PlainSerializer(str), WithJsonSchema(_COUNT_SCHEMA)
]
"""`10` rows, or `0.1%` of them."""

MaxDistance = Annotated[
    Tolerance, BeforeValidator(_tolerance), PlainSerializer(str), WithJsonSchema(_AMOUNT_SCHEMA)
]
"""`0.05`, or `1%` of the champion's prediction."""

Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema(_DURATION_SCHEMA),
]
"""`90s`, `30m`, `2h` or `1d`."""
