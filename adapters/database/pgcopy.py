"""PostgreSQL's binary COPY format, to and from Arrow, decoded and encoded a block at a time.

The format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format". A row is the
number of its fields (int16), and of each field its length in bytes (int32, -1 for NULL) and its
value in network byte order, as the type's `send` function in the server writes it.

Nothing here runs once per row. The columns of fixed width come first (`wire_order`), so that in a
row without NULLs each of them has a constant place; NumPy moves all rows of a block to where they
belong at once. Only rows with a NULL are walked through, column by column, all of them at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
"""Bytes that must follow the last row of a block: what a NULL leaves out is looked at, unused."""

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
    def length(self) -> np.int32:
        """The width as it is sent before a value, read as if it were a number of this machine."""
        return np.int32(np.array(self.width, ">i4").view(np.int32))

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
    """The bytes are no binary COPY of these columns."""


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
    wire: Wire | None
    values: npt.NDArray[Any] | None = None
    """(rows,) in the machine's byte order, of a type of fixed width."""
    missing: npt.NDArray[np.bool_] | None = None
    """(rows,), once there was a NULL."""
    texts: list[pa.Array] = field(default_factory=list)


def wire_order(fields: Sequence[tuple[str, pa.DataType]]) -> list[str]:
    """The columns' names, those of fixed width first: the order in which to ask for them."""
    return [name for name, _ in sorted(fields, key=lambda item: item[1] not in FIXED)]


class Decoder:
    """Rows in, Arrow tables of exactly `rows` rows out, the last one shorter.

    `fields` are the columns in the order of the wire, those of fixed width first, all others
    sent as text in UTF-8. Floats of one width lie side by side in memory, in the order of the
    fields, so that together they are a matrix without another copy.
    """

    def __init__(self, fields: Sequence[tuple[str, pa.DataType]], rows: int) -> None:
        self._fields, self._rows = list(fields), rows
        wires = [FIXED[kind] for _, kind in fields if kind in FIXED]
        self._fixed = _COUNT + sum(_LENGTH + wire.width for wire in wires)
        self._only_fixed = len(wires) == len(self._fields)
        self._filled = 0
        self._columns: list[_Column] = []

    @property
    def block(self) -> int:
        """How many bytes to take in at a time: a core's cache full of rows that are all alike; else
        more, since each column of each block takes some calls.
        """
        return 1 << 20 if self._only_fixed else 1 << 21

    def add(self, block: Rows) -> Iterator[pa.Table]:
        """Take a block's rows in; yield each chunk that is full. Raises CopyMalformed."""
        taken = 0
        while taken < len(block):
            if not self._filled:
                self._columns = self._prepared()
            part = block.cut(taken, taken + self._rows - self._filled)
            self._take(part, self._filled)
            taken += len(part)
            self._filled += len(part)
            if self._filled == self._rows:
                yield self._finished()

    def rest(self) -> Iterator[pa.Table]:
        """The last chunk, if there are rows left for one."""
        if self._filled:
            yield self._finished()

    # --- inside ---------------------------------------------------------------------------------

    def _prepared(self) -> list[_Column]:
        """Empty columns; those of one dtype are the rows of one array."""
        columns = [_Column(name, kind, FIXED.get(kind)) for name, kind in self._fields]
        for dtype in {column.wire.native for column in columns if column.wire}:
            alike = [column for column in columns if column.wire and column.wire.native == dtype]
            block = np.empty((len(alike), self._rows), dtype)
            for column, values in zip(alike, block, strict=True):
                column.values = values
        return columns

    def _finished(self) -> pa.Table:
        rows, self._filled = self._filled, 0
        arrays = [_array(column, rows) for column in self._columns]
        return pa.table(arrays, names=[name for name, _ in self._fields])

    def _take(self, rows: Rows, first: int) -> None:
        """Put the rows into the columns, from row `first` on."""
        data, starts = rows.data, rows.starts
        counts = _at(data, starts[[0, -1]], np.dtype(">i2"))
        if (counts != len(self._fields)).any():
            raise CopyMalformed(f"rows of {counts[-1]} fields, not of {len(self._fields)}")
        whole, pieces = self._without_nulls(rows)
        place = starts + self._fixed
        if whole.all():
            self._take_whole(pieces, len(rows), slice(first, first + len(rows)))
        else:
            some, others = np.flatnonzero(whole), np.flatnonzero(~whole)
            if len(some):
                self._take_whole(pieces, len(some), first + some)
            place[others] = self._take_walking(data, starts[others], first + others)
        for column in self._columns:
            if column.wire is None:
                place = _take_texts(column, data, place)
        if (place != starts + rows.sizes).any():
            raise CopyMalformed("rows of another length than their fields'")

    def _without_nulls(self, rows: Rows) -> "tuple[npt.NDArray[np.bool_], _Pieces]":
        """Which rows have a value in every column of fixed width, and those of these rows."""
        if self._only_fixed:
            whole = np.asarray(rows.sizes == self._fixed)
            return whole, _brought(rows.data, rows.starts[whole], self._fixed)
        whole = np.asarray(rows.sizes >= self._fixed)
        found = _pieces(rows.data, rows.starts[whole], self._fixed)
        complete = np.ones(len(found), np.bool_)
        place = _COUNT
        for column in self._columns:
            if column.wire is not None and len(
                found
            ):  # beyond a NULL, these are other bytes: the row is out
                lengths = np.ndarray(len(found), np.int32, found, place, self._fixed)
                complete &= lengths == column.wire.length
                place += _LENGTH + column.wire.width
        if not complete.all():
            found, whole[whole] = found[complete], complete
        return whole, _Pieces(found, 0, self._fixed)

    def _take_whole(self, pieces: "_Pieces", rows: int, to: slice | Integers) -> None:
        """The columns of fixed width, of rows that have them all at constant places."""
        place = pieces.first + _COUNT
        for column in self._columns:
            if column.wire is not None and column.values is not None:
                place += _LENGTH
                column.values[to] = np.ndarray(
                    rows, column.wire.dtype, pieces.data, place, pieces.step
                )
                place += column.wire.width

    def _take_walking(self, data: Bytes, starts: Integers, to: Integers) -> Integers:
        """The columns of fixed width, of rows with NULLs: where the others of each row begin."""
        place = starts + _COUNT
        for column in self._columns:
            if column.wire is not None and column.values is not None:
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


def _take_texts(column: _Column, data: Bytes, place: Integers) -> Integers:
    """One column of texts: where the next one of each row begins.

    Arrow is told of twice as many texts, each row's and the bytes from there to the next row's,
    and copies every other one.
    """
    lengths = _at(data, place, np.dtype(">i4")).astype(np.int64)
    absent = lengths < 0
    begins = place + _LENGTH
    ends = begins + np.where(absent, 0, lengths)
    if int(ends[-1]) > len(data) - PADDING or (begins[1:] < ends[:-1]).any():
        raise CopyMalformed(f"a text in {column.name!r} is longer than its row")
    edges = np.empty(2 * len(place), np.int32)
    edges[::2], edges[1::2] = begins, ends
    between = pa.StringArray.from_buffers(len(edges) - 1, pa.py_buffer(edges), pa.py_buffer(data))
    wanted = np.arange(0, len(edges), 2)
    column.texts.append(between.take(pa.array(wanted, mask=absent if absent.any() else None)))
    return ends


def _array(column: _Column, rows: int) -> pa.Array | pa.ChunkedArray:
    if column.wire is None or column.values is None:
        return pa.chunked_array(column.texts, pa.string())
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


def _brought(data: Bytes, places: Integers, size: int) -> _Pieces:
    """The `size` bytes from each of these places on, brought together if need be."""
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


# --- the other way ------------------------------------------------------------------------------


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
