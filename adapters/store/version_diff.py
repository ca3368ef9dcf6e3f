"""What differs between two versions of a model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nightshift.adapters.models.column import Column
from nightshift.adapters.store.manifest import Manifest

Change = tuple[str | None, str | None]  # older, newer; None where there is none


@dataclass(frozen=True)
class PredictionShift:
    """How predictions for the same rows moved from the older version to the newer."""

    rows: int
    changed: int
    mean: float | None  # of the absolute differences; None where predictions are not numbers
    largest: float | None


@dataclass(frozen=True)
class VersionDiff:
    """What changed, by name; what stayed is left out."""

    older: str
    newer: str
    about: Mapping[str, Change]
    inputs: Mapping[str, Change]
    outputs: Mapping[str, Change]
    libraries: Mapping[str, Change]
    metrics: Mapping[str, Change]
    predictions: Mapping[str, PredictionShift]

    def lines(self) -> list[str]:
        """For people; empty if nothing changed."""
        lines = []
        for group in ("about", "inputs", "outputs", "libraries", "metrics"):
            for name, (before, after) in getattr(self, group).items():
                label = name if group == "about" else f"{group.removesuffix('s')} {name}"
                lines.append(f"{label}: {before or 'none'} -> {after or 'none'}")
        for name, shift in self.predictions.items():
            line = f"prediction {name}: {shift.changed} of {shift.rows} golden rows differ"
            if shift.mean is not None:
                line += f", by {shift.mean:.6g} on average and {shift.largest:.6g} at most"
            if shift.changed:
                lines.append(line)
        return lines


def diff_versions(
    older: Manifest,
    newer: Manifest,
    before: pa.Table | None = None,
    after: pa.Table | None = None,
) -> VersionDiff:
    """`before` and `after` are the two versions' predictions for the same rows, if known."""
    shifts = {}
    if before is not None and after is not None:
        for name in before.column_names:
            if name in after.column_names:
                shifts[name] = _shift(before.column(name), after.column(name))
    return VersionDiff(
        older.reference,
        newer.reference,
        about=_changes(_about(older), _about(newer)),
        inputs=_changes(_columns(older.signature.inputs), _columns(newer.signature.inputs)),
        outputs=_changes(_columns(older.signature.outputs), _columns(newer.signature.outputs)),
        libraries=_changes(older.libraries, newer.libraries),
        metrics=_changes(_metrics(older), _metrics(newer)),
        predictions=shifts,
    )


def _changes(older: Mapping[str, str], newer: Mapping[str, str]) -> dict[str, Change]:
    names = [*older, *(name for name in newer if name not in older)]
    pairs = {name: (older.get(name), newer.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _about(manifest: Manifest) -> dict[str, str]:
    return {
        "adapter": manifest.adapter,
        "bytes": f"{manifest.size:,} ({manifest.digest[:12]})",
        "trained through": str(manifest.trained_through or "an unknown day"),
        "signed by": manifest.signature_block.key if manifest.signature_block else "no key",
    }


def _metrics(manifest: Manifest) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in manifest.metrics.items()}


def _columns(columns: tuple[Column, ...]) -> dict[str, str]:
    return {column.name: ", ".join(_traits(column)) for column in columns}


def _traits(column: Column) -> Iterator[str]:
    yield column.type
    if column.dtype != column.type:
        yield column.dtype
    if column.nullable:
        yield "nullable"
    if column.categories is not None:
        yield f"categories {', '.join(map(str, column.categories))}"


def _shift(before: pa.ChunkedArray, after: pa.ChunkedArray) -> PredictionShift:
    rows = len(before)
    if before.type == after.type and pa.types.is_floating(before.type):
        one, other = (np.asarray(values.to_numpy(), dtype=float) for values in (before, after))
        moved: Any = np.abs(other - one)
        changed = int(np.sum((moved > 0) | (np.isnan(one) != np.isnan(other))))
        known = moved[np.isfinite(moved)]
        mean, largest = (known.mean(), known.max()) if len(known) else (0.0, 0.0)
        return PredictionShift(rows, changed, float(mean), float(largest))
    pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
    return PredictionShift(rows, sum(one != other for one, other in pairs), None, None)
