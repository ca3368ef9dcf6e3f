"""Golden rows: a few real inputs with their predictions, and the libraries that made them.

They are kept when a model is registered and replayed whenever it is loaded, in one batch of the
same shape: an environment that predicts differently is found, and one that is only newer passes.
"""

import json
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightshift.adapters.errors import SignatureUndefined
from nightshift.adapters.models.column import Column
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.models.tolerance import Tolerance

MOST_ROWS = 32
_MOST_CHOSEN, _MOST_VALUES = 200, 100_000
_UNSEEN = "(a value that the sample does not have)"
_MOST_BYTES = 64 * 1024**2  # 32 rows of 100,000 numbers each are just below
_MOST_NAMED = 9  # rows that differ
_PLAIN = {"date": pa.int32(), "timestamp": pa.int64(), "timestamptz": pa.int64()}


def spread_rows(rows: int, most: int = MOST_ROWS) -> list[int]:
    """Up to `most` row numbers, evenly from the first to the last of `rows`."""
    return sorted(set(np.linspace(0, rows - 1, min(rows, most)).round().astype(int).tolist()))


def choose_rows(inputs: pa.Table, signature: Signature, most: int) -> list[int]:
    """Row numbers of a sample: with a NULL of each nullable column, the extremes of each number,
    and others evenly spread, `most` in all; more, up to a bound, if the first are many.
    """
    wanted: dict[int, None] = {}
    for column in signature.inputs:
        values = inputs.column(column.name)
        if values.null_count:
            wanted[pc.index(pc.is_null(values), True).as_py()] = None
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            for extreme in pc.min_max(values).as_py().values():
                if extreme is not None:
                    wanted[pc.index(values, pa.scalar(extreme, values.type)).as_py()] = None
    picked = [row for row in wanted if row >= 0][: _bound(signature)]  # no row equals NaN
    others = np.setdiff1d(np.arange(inputs.num_rows), picked)
    count = max(most - len(picked), 0 if picked else 1)
    spread = others[spread_rows(len(others), count)].tolist() if len(others) and count else []
    return sorted({*picked, *spread})


def make_rows(inputs: pa.Table, signature: Signature) -> list[pa.Table]:
    """Rows that a sample need not have, one table each: the first row with an unseen category or
    text, or with an empty text, in one column. A model need not take them.
    """
    made = []
    for column in signature.inputs:
        odd: list[object] = []
        if column.type == "string":
            odd = [_UNSEEN, ""]
        elif column.type == "category":
            known = column.categories or ()
            whole = [category for category in known if isinstance(category, int)]
            odd = [max(whole) + 1 if whole else _UNSEEN]
        position = inputs.schema.get_field_index(column.name)
        for value in odd:
            row = inputs.slice(0, 1)
            made.append(row.set_column(position, column.name, pa.array([value], column.arrow_type)))
    return made[: _bound(signature)]


def _bound(signature: Signature) -> int:
    return max(MOST_ROWS, min(_MOST_CHOSEN, _MOST_VALUES // len(signature.inputs)))


def write_rows(inputs: pa.Table, predictions: pa.Table) -> bytes:
    """Inputs and predictions, m rows each -> JSON, column by column.

    JSON, because these bytes are read before the model has predicted anything, perhaps unsigned:
    nothing in it is compressed or repeated, and no native parser sees it. Raises
    SignatureUndefined if it would be more than `read_rows` takes.
    """
    sides = {"inputs": inputs, "outputs": predictions}
    values = {
        side: {name: _plain(table.column(name)).to_pylist() for name in table.column_names}
        for side, table in sides.items()
    }
    data = json.dumps(values, separators=(",", ":")).encode()
    if len(data) > _MOST_BYTES:
        problem = f"{inputs.num_rows} of its rows have {len(data):,} bytes, {_MOST_BYTES:,} may be"
        raise SignatureUndefined("the sample", problem, "Give one of shorter texts.")
    return data


def read_rows(data: bytes, signature: Signature, rows: int) -> tuple[pa.Table, pa.Table]:
    """What `write_rows` returned -> inputs and predictions.

    Raises ValueError if it is not so many rows of the signature's columns, or too large.
    """
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{len(data):,} bytes, {_MOST_BYTES:,} may be")
    try:
        found = json.loads(data)
        return (
            _table(found["inputs"], signature.inputs, rows),
            _table(found["outputs"], signature.outputs, rows),
        )
    except (pa.ArrowException, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _table(found: dict[str, list[Any]], columns: Sequence[Column], rows: int) -> pa.Table:
    arrays = []
    for column in columns:
        values = found[column.name]
        if len(values) != rows:
            raise ValueError(f"{len(values)} rows of {column.name!r}, not {rows} rows")
        if column.length is not None and {len(value) for value in values} != {column.length}:
            raise ValueError(f"{column.name!r} is not {column.length} numbers in every row")
        plain = _PLAIN.get(column.type, column.arrow_type)
        arrays.append(pa.array(values, plain).cast(column.arrow_type))
    return pa.table(arrays, names=[column.name for column in columns])


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """As JSON can hold them: days and microseconds since 1970 in place of dates and times."""
    if pa.types.is_temporal(values.type):
        return values.cast(pa.int32() if pa.types.is_date32(values.type) else pa.int64())
    return values


def difference(
    then: pa.Table,
    now: pa.Table,
    tolerance: Tolerance,
    words: tuple[str, str] = ("then", "now"),
) -> str | None:
    """Which predictions of the first column that differs are not the same, as text; None if all
    are. `words` say whose the two are.
    """
    for name in then.column_names:
        before, after = then.column(name), now.column(name)
        if pa.types.is_floating(before.type):
            same = tolerance.near(_floats(before), _floats(after))
        elif pa.types.is_list(before.type):  # of floats, all of one length
            one, other = (_floats(pc.list_flatten(values)) for values in (before, after))
            same = np.all(tolerance.near(one, other).reshape(len(before), -1), axis=1)
        else:
            pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
            same = np.array([one == other for one, other in pairs], dtype=bool)
        if not same.all():
            rows = np.flatnonzero(~same).tolist()
            first, *others = rows
            text = (
                f"{name!r} differs in {len(rows):,} of {len(same):,} rows, first in row {first}: "
                f"{reprlib.repr(before[first].as_py())} {words[0]}, "
                f"{reprlib.repr(after[first].as_py())} {words[1]}"
            )
            if others:
                named = ", ".join(str(row) for row in others[:_MOST_NAMED])
                text += f"; also in {named}" + (", ..." if len(others) > _MOST_NAMED else "")
            return text
    return None


def _floats(values: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(values.to_numpy(), dtype=np.float64)
