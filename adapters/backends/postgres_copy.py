"""PostgreSQL's binary COPY format, to and from Arrow, decoded and encoded a block at a time.

The format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format". A row is the
number of its fields (int16), and of each field its length in bytes (int32, -1 for NULL) and its
value in network byte order, as the type's `send` function in the server writes it.

Only types of fixed width, and nothing runs once per row. In a row without NULLs each column has a
constant offset, so NumPy moves all rows of a block into place at once; rows with a NULL
are shorter; those are decoded column by column, all rows at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + bytes(8)  # no flags, no extension
TRAILER = b"\xff\xff"
PADDING = 16
"""Bytes that must follow the last row of a block: a NULL's absent value is read and discarded."""

_COUNT, _LENGTH = 2, 4  # bytes of the number of fields, and of a field's length


@dataclass(frozen=True)
class Wire:
    """How a type of fixed width is sent: as which number, counted from where."""

    dtype: "np.dtype[Any]"
    epoch: int = 0
    """What to add to get from PostgreSQL's days or microseconds since 2000 to those since 1970."""

    @property
    def width(self) -> int:
        return self.dtype.itemsize

    @property
    def native(self) -> "np.dtype[Any]":
        return self.dtype.newbyteorder("=")


_DAYS = 10_957
_TIMESTAMP = Wire(np.dtype(">i8"), _DAYS * 86_400_000_000)

FIXED: dict[pa.DataType, Wire] = {
    pa.bool_(): Wire(np.dtype("u1")),
    pa.int16(): Wire(np.dtype(">i2")),
    pa.int32(): Wire(np.dtype(">i4")),
    pa.int64(): Wire(np.dtype(">i8")),
    pa.float32(): Wire(np.dtype(">f4")),
    pa.float64(): Wire(np.dtype(">f8")),
    pa.date32(): Wire(np.dtype(">i4"), _DAYS),
    pa.timestamp("us"): _TIMESTAMP,
    pa.timestamp("us", "UTC"): _TIMESTAMP,
}


class CopyMalformed(ValueError):
    """The bytes are not a binary COPY of these columns."""


@dataclass(frozen=True)
class Rows:
    """Some whole rows, as they were received."""

    data: Bytes
    """The bytes that have the rows in them, and at least PADDING more."""
    starts: Integers
    """Where each row begins, ascending: the place of its number of fields."""
    sizes: Integers
    """The bytes of each row."""

    def __len__(self) -> int:
        return len(self.starts)

    def cut(self, first: int, last: int) -> "Rows":
        return Rows(self.data, self.starts[first:last], self.sizes[first:last])


@dataclass
class _Column:
    """One column of the chunk that is being filled."""

    name: str
    type: pa.DataType
    wire: Wire
    values: npt.NDArray[Any]
    """(rows,) in the machine's byte order."""
    missing: npt.NDArray[np.bool_] | None = None
    """(rows,), once there was a NULL."""


class Decoder:
    """Rows in, Arrow tables of exactly `rows` rows out, the last one shorter.

    `fields` are the columns in the order of the wire, their types those of FIXED, as the server
    itself describes them: a row without NULLs is recognized by its length alone. Floats of one
    width lie side by side in memory, in the order of the fields, so that together they are a matrix
    without another copy.
    """

    def __init__(self, fields: Sequence[tuple[str, pa.DataType]], rows: int) -> None:
        self._fields, self._rows = list(fields), rows
        self._whole = _COUNT + sum(_LENGTH + FIXED[kind].width for _, kind in fields)
        self._filled = 0
        self._columns: list[_Column] = []

    def add(self, block: Rows) -> Iterator[pa.Table]:
        """Take a block's rows in; yield each chunk that is full. Raises CopyMalformed."""
        taken = 0
        while taken < len(block):
            if not self._filled:
                self._columns = self._empty_columns()
            part = block.cut(taken, taken + self._rows - self._filled)
            self._take(part, self._filled)
            taken += len(part)
            self._filled += len(part)
            if self._filled == self._rows:
                yield self._table()

    def rest(self) -> Iterator[pa.Table]:
        """The last chunk, if there are rows left for one."""
        if self._filled:
            yield self._table()

    # --- inside ---------------------------------------------------------------------------------

    def _empty_columns(self) -> list[_Column]:
        """Empty columns; those of one dtype are the rows of one array."""
        wires = [FIXED[kind] for _, kind in self._fields]
        columns: dict[str, _Column] = {}
        for dtype in {wire.native for wire in wires}:
            alike = [field for field in self._fields if FIXED[field[1]].native == dtype]
            block = np.empty((len(alike), self._rows), dtype)
            for (name, kind), values in zip(alike, block, strict=True):
                columns[name] = _Column(name, kind, FIXED[kind], values)
        return [columns[name] for name, _ in self._fields]

    def _table(self) -> pa.Table:
        rows, self._filled = self._filled, 0
        arrays = [_array(column, rows) for column in self._columns]
        return pa.table(arrays, names=[name for name, _ in self._fields])

    def _take(self, rows: Rows, first: int) -> None:
        """Put the rows into the columns, from row `first` on."""
        counts = _at(rows.data, rows.starts[[0, -1]], np.dtype(">i2"))
        if (counts != len(self._fields)).any():
            raise CopyMalformed(f"rows of {counts[-1]} fields, not of {len(self._fields)}")
        whole = np.asarray(rows.sizes == self._whole)
        if whole.all():
            self._take_whole(rows.data, rows.starts, slice(first, first + len(rows)))
            return
        some, others = np.flatnonzero(whole), np.flatnonzero(~whole)
        if len(some):
            self._take_whole(rows.data, rows.starts[some], first + some)
        ends = self._take_walking(rows.data, rows.starts[others], first + others)
        if (ends != (rows.starts + rows.sizes)[others]).any():
            raise CopyMalformed("rows of another length than their fields'")

    def _take_whole(self, data: Bytes, starts: Integers, to: slice | Integers) -> None:
        """Rows without NULLs, whose columns have constant places."""
        pieces = _gather(data, starts, self._whole)
        place = pieces.first + _COUNT
        for column in self._columns:
            place += _LENGTH
            column.values[to] = np.ndarray(
                len(starts), column.wire.dtype, pieces.data, place, pieces.step
            )
            place += column.wire.width

    def _take_walking(self, data: Bytes, starts: Integers, to: Integers) -> Integers:
        """Rows with NULLs, whatever their columns' places. Returns where each row ends."""
        place = starts + _COUNT
        for column in self._columns:
            lengths = _at(data, place, np.dtype(">i4"))
            absent = lengths < 0
            if (lengths[~absent] != column.wire.width).any():
                problem = f"a value of {lengths.max()} bytes for {column.type}"
                raise CopyMalformed(f"{problem} in {column.name!r}")
            values = _at(data, place + _LENGTH, column.wire.dtype)
            if absent.any():
                values[absent] = 0
                if column.missing is None:
                    column.missing = np.zeros(self._rows, np.bool_)
                column.missing[to[absent]] = True
            column.values[to] = values
            place += _LENGTH + np.where(absent, 0, column.wire.width)
        return place


def _array(column: _Column, rows: int) -> pa.Array:
    values = column.values[:rows]
    missing = None if column.missing is None else column.missing[:rows]
    if column.type == pa.bool_():
        return pa.array(values.view(np.bool_), mask=missing)
    if column.wire.epoch:  # infinity is the greatest number, and stays near it
        np.minimum(values, np.iinfo(values.dtype).max - column.wire.epoch, out=values)
        values += column.wire.epoch
    numbers = pa.array(values, mask=missing)
    return numbers if numbers.type == column.type else numbers.view(column.type)


def _at(data: Bytes, places: Integers, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    """The numbers at these places, in the machine's byte order."""
    anywhere = np.ndarray(len(data) - dtype.itemsize + 1, dtype, data, 0, 1)
    return anywhere[places].astype(dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class _Pieces:
    """The same piece of several rows: bytes at equal distances."""

    data: Bytes
    first: int
    step: int


def _gather(data: Bytes, places: Integers, size: int) -> _Pieces:
    """The `size` bytes from each of these places on, copied together if need be."""
    steps = np.diff(places)
    if len(steps) and (steps == steps[0]).all():
        return _Pieces(data, int(places[0]), int(steps[0]))
    return _Pieces(_pieces(data, places, size), 0, size)


def _pieces(data: Bytes, places: Integers, size: int) -> Bytes:
    """The `size` bytes from each of these places on, as the rows of one array."""
    if not len(places):
        return np.empty((0, size), np.uint8)
    anywhere = np.ndarray(len(data) - size + 1, f"V{size}", data, 0, 1)
    return anywhere[places].view(np.uint8).reshape(-1, size)


# --- encoding ------------------------------------------------------------------------------


def encoded(table: pa.Table) -> Bytes | None:
    """A table, its columns of the types of the wire -> a whole binary COPY.

    None if a column is of another type than those of fixed width, or has a NULL in it.
    """
    if not all(column.type in FIXED and not column.null_count for column in table.columns):
        return None
    wires = [FIXED[column.type] for column in table.columns]
    parts: list[tuple[str, Any]] = [("fields", ">i2")]
    for index, wire in enumerate(wires):
        parts += [(f"length{index}", ">i4"), (f"value{index}", wire.dtype)]
    layout = np.dtype(parts)
    size = table.num_rows * layout.itemsize
    data = np.empty(len(HEADER) + size + len(TRAILER), np.uint8)
    data[: len(HEADER)] = np.frombuffer(HEADER, np.uint8)
    data[len(HEADER) + size :] = np.frombuffer(TRAILER, np.uint8)
    rows = np.ndarray(table.num_rows, layout, data, len(HEADER))
    rows["fields"] = len(wires)
    for index, (wire, column) in enumerate(zip(wires, table.columns, strict=True)):
        rows[f"length{index}"] = wire.width
        values = _numbers(column, wire)
        rows[f"value{index}"] = values - wire.epoch if wire.epoch else values
    return data


def _numbers(column: pa.ChunkedArray, wire: Wire) -> npt.NDArray[Any]:
    """A column without NULLs as the numbers that are sent, but for the epoch."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    elif wire.epoch:
        column = column.cast(pa.int32() if wire.width == 4 else pa.int64())
    return np.asarray(column.to_numpy())
