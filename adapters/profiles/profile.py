"""What a run read and predicted, in numbers: counted while it streams, bounded, mergeable.

    profile = Profile()
    for inputs, outputs in chunks:
        profile = profile.merged(Profile.of(inputs, outputs, reference))
    text = profile.to_json()                     # about 3 kB for each column, whatever the rows
    psi(reference.inputs["distance"], profile.inputs["distance"])      # adapters/profiles/drift.py

Counts of rows, NULLs, NaNs, infinities, values outside the reference's range and unseen categories
are exact over all rows, and so are the lowest and highest number. The distribution of a number is
kept in at most 512 buckets (sketch.py), from all values of a chunk with fewer than
8,192 of them, or of whole numbers that lie close together, or of an output named as `exact`; from
4,096 to 8,191 of a larger one, picked at random, but the same at every try. Of a text column the
200 commonest values are counted one by one, the others together. So a profile's JSON has at most
25 kB per number and 130 kB per text column, and usually 3.

Parts merge to the profile of the whole, in any order, but for what a large chunk's sample left out
and for the rarest texts where there are more than 200.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.profiles.column_profile import ColumnProfile, Kind, from_data, to_data
from nightshift.adapters.profiles.counting import count_columns

_TOP_LEVEL = {"format", "rows", "inputs", "outputs"}

_KINDS: dict[str, Kind] = {
    "bool": "category", "string": "category", "category": "category",
    "date": "time", "timestamp": "time", "timestamptz": "time",
}  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """A run's inputs and outputs by column, or those of the sample that a model came with."""

    rows: int = 0
    """Rows with predictions."""
    inputs: Mapping[str, ColumnProfile] = field(default_factory=dict)
    outputs: Mapping[str, ColumnProfile] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        inputs: pa.Table,
        outputs: pa.Table,
        reference: "Profile | None" = None,
        exact: Collection[str] = (),
    ) -> Self:
        """One chunk: (m, n) inputs as the database gave them, and the predictions for them.

        The reference says which columns are numbers and what range and categories they had. Of
        the outputs in `exact` every value counts, which takes some 5 ms for 100,000 floats.
        """
        known = reference or Profile()
        return cls(
            outputs.num_rows,
            count_columns(inputs, known.inputs),
            count_columns(outputs, known.outputs, exact),
        )

    @classmethod
    def blank(cls, signature: Signature) -> Self:
        """No rows: a reference that knows the columns' kinds, and nothing of their values."""
        inputs = {column.name: ColumnProfile(_kind(column)) for column in signature.inputs}
        outputs = {column.name: ColumnProfile(_kind(column)) for column in signature.outputs}
        return cls(0, inputs, outputs)

    def merged(self, other: "Profile") -> "Profile":
        """Both together; merging an empty `Profile()` changes nothing.

        Raises ValueError if they are not of the same columns.
        """
        try:
            inputs = _merged(self.inputs, other.inputs)
            outputs = _merged(self.outputs, other.outputs)
        except ValueError as error:
            raise ValueError(f"two profiles cannot be merged: {error}") from error
        return Profile(self.rows + other.rows, inputs, outputs)

    def to_json(self) -> str:
        """One line, the same for equal profiles."""
        columns = {
            part: {name: to_data(column) for name, column in sorted(columns.items())}
            for part, columns in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        data = {"format": 1, "rows": self.rows, **columns}
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """What `to_json` returned. Raises ValueError for anything else."""
        try:
            data = _checked(json.loads(text))
            inputs, outputs = (
                {name: from_data(column) for name, column in data[part].items()}
                for part in ("inputs", "outputs")
            )
            return cls(int(data["rows"]), inputs, outputs)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"this is not a profile: {error}") from error


def _merged(
    one: Mapping[str, ColumnProfile], other: Mapping[str, ColumnProfile]
) -> dict[str, ColumnProfile]:
    both = dict(one)
    for name, column in other.items():
        both[name] = both[name].merged(column) if name in both else column
    return both


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    if set(data) != _TOP_LEVEL or data["format"] != 1:
        raise ValueError(f"it has format {data.get('format')!r} and the keys {sorted(data)}")
    return data


def _kind(column: Column) -> Kind:
    return _KINDS.get(column.type, "number")
