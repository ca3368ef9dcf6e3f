"""Rows that could not be scored, as they are kept: key, error, and inputs for people to read."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

from nightshift.adapters.source.columns import Key

_MOST_TEXT = 500
"""Characters kept of an error, or of one value."""
_MOST_INPUTS = 20_000
"""Characters kept of a row's inputs, about; a model may have 100,000 of them."""


@dataclass(frozen=True)
class Reject:
    """A row that could not be scored."""

    key: Key
    kind: str
    """What to count it under: an error's class, or NaN, inf or NULL for its prediction."""
    error: str
    inputs: dict[str, Any]
    """The model's inputs by name, as the source has them, so far as JSON can say it."""


def rejected(
    chunk: pa.Table,
    key: Sequence[str],
    inputs: Sequence[str],
    faults: Iterable[tuple[int, str, str]],
) -> list[Reject]:
    """Positions in a chunk, each with a kind and an error -> the rejects there."""
    found = list(faults)
    positions = pa.array([position for position, _, _ in found], pa.int64())
    keys = chunk.select(key).take(positions).to_pylist()
    rows = chunk.select(inputs).take(positions).to_pylist() if inputs else [{}] * len(found)
    return [
        Reject(tuple(named[part] for part in key), kind, bounded(error), _kept(row))
        for named, row, (_, kind, error) in zip(keys, rows, found, strict=True)
    ]


def describe_error(error: Exception) -> str:
    """A model's error, as text of bounded length that any database can keep."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # a class of the model's own may fail at this, too
        text = ""
    name = type(error).__name__
    return bounded(f"{name}: {text}" if text else name)


def bounded(text: str) -> str:
    """At most 500 characters, without what UTF-8 or PostgreSQL cannot hold."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def jsonable(value: Any) -> Any:
    """A value as JSON can say it: no NaN, times as ISO 8601, what else there is as text.

    What `Signature.row` understands, except for texts longer than 500 characters.
    """
    match value:
        case None | bool() | int():
            return value
        case float():
            if math.isfinite(value):
                return value
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case datetime() | date() | time():
            return value.isoformat()
        case list() | tuple():
            return [jsonable(item) for item in value]
        case bytes():
            return bounded(value[:_MOST_TEXT].hex())
    return bounded(str(value))


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    left = _MOST_INPUTS
    for name, value in row.items():
        kept[name] = jsonable(value)
        left -= len(name) + len(str(kept[name]))
        if left < 0 and len(kept) < len(row):
            kept["…"] = f"{len(row) - len(kept)} more"
            break
    return kept
