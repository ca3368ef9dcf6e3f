"""COPY TO STDOUT, read in large blocks from the socket of a connection that libpq has opened.

libpq connects and authenticates, then hands out a COPY row by row: one call and one allocation
for each, which in Python is most of the time that reading takes. The messages themselves are
simple (https://www.postgresql.org/docs/current/protocol-message-formats.html): a letter, a length
(int32, which counts itself) and that many bytes less four; a row is a `d`.
"""

import os
import socket
import struct
from collections.abc import Generator, Iterator

import numpy as np
import psycopg

from nightshift.adapters.backends.postgres_copy import (
    HEADER,
    PADDING,
    SIGNATURE,
    Bytes,
    CopyMalformed,
    Integers,
    Rows,
)

_WAIT = 10_000
"""Microseconds to wait for a block to fill up; then what is there is used, as at the end."""

_PREFIX, _LENGTH = 5, 4  # bytes of a message's letter and length, and of the length alone
_ROW, _ERROR, _READY = ord("d"), ord("E"), ord("Z")
_OTHERS = frozenset(
    map(ord, "HcCNSA")
)  # start and end of the COPY, and messages that may come at any time

_HEAD = np.dtype([("kind", "u1"), ("size", ">i4")])

_ENCRYPTED = "SELECT encrypted FROM pg_stat_gssapi WHERE pid = pg_backend_pid()"


def can_stream(connection: psycopg.Connection) -> bool:
    """Whether the connection's socket carries the plain protocol, unencrypted."""
    if connection.pgconn.ssl_in_use or not hasattr(socket, "MSG_WAITALL") or os.name != "posix":
        return False
    return not any(connection.execute(_ENCRYPTED).fetchone() or (False,))


def copied_out(
    connection: psycopg.Connection, statement: str, block: int = 1 << 20
) -> Generator[Rows, None, None]:
    """Run a `COPY ... TO STDOUT (FORMAT binary)` and yield its rows in blocks of `block` bytes,
    since waking for every 8 kB that the server sends is expensive. Each block overwrites the one
    before. The connection must be closed afterwards, also if this is not read to its end.

    Raises psycopg.Error, as if psycopg had read it, and CopyMalformed.
    """
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as stream:
        stream.setblocking(True)
        patience = struct.pack("ll", 0, _WAIT)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        query = statement.encode() + b"\0"
        try:
            stream.sendall(b"Q" + struct.pack("!i", _LENGTH + len(query)) + query)
        except OSError as error:
            raise _lost(error) from error
        yield from _Messages(stream, block).rows()


class _Messages:
    """The server's messages, in blocks."""

    def __init__(self, stream: socket.socket, block: int) -> None:
        self._stream = stream
        self._data: Bytes = np.empty(block + PADDING, np.uint8)
        self._filled = 0
        self._step = 0
        """Bytes from row to row, if it was the same for the last ones."""
        self._head = np.zeros(1, np.uint64)
        """The first bytes of those rows' messages."""
        self._started = self._done = False
        self._error: psycopg.Error | None = None

    def rows(self) -> Iterator[Rows]:
        while not self._done:
            self._receive()
            used = -1
            while used:  # what follows many rows may be the end
                used, rows = self._split()
                if len(rows):
                    yield rows
                self._filled -= used
                self._data[: self._filled] = self._data[used : used + self._filled].copy()
            if self._filled == len(self._data) - PADDING:  # one very long row
                larger = np.empty(2 * len(self._data), np.uint8)
                larger[: self._filled] = self._data[: self._filled]
                self._data = larger
        if self._error is not None:
            raise self._error

    def _receive(self) -> None:
        """Wait until the block is full, or until nothing more arrives for a while."""
        space = self._data.data[self._filled : len(self._data) - PADDING]
        while True:
            try:
                # The first time without waiting: a few rows arrive together.
                flags = socket.MSG_WAITALL if self._started else 0
                received = self._stream.recv_into(space, 0, flags)
                break
            except BlockingIOError:  # not a byte in that time
                continue
            except OSError as error:
                raise _lost(error) from error
        if received == 0:
            raise psycopg.OperationalError("the server closed the connection unexpectedly")
        self._filled += received

    def _split(self) -> tuple[int, Rows]:
        """How many bytes are whole messages, and the rows among them."""
        step = self._step
        count = self._filled // step if step else 0
        if count:
            # Eight bytes at once: what the message is, its length, and how many fields it has.
            heads = np.ndarray(count, np.uint64, self._data, 0, step)
            if (heads == self._head).all():
                starts = np.arange(_PREFIX, count * step, step)
                return count * step, Rows(self._data, starts, np.full(count, step - _PREFIX))
        starts, used = self._frames()
        heads = np.ndarray(len(self._data) - _PREFIX + 1, _HEAD, self._data, 0, 1)[starts]
        sizes = heads["size"].astype(np.int64) - _LENGTH
        are_rows = heads["kind"] == _ROW
        for index in np.flatnonzero(~are_rows):
            begin = int(starts[index]) + _PREFIX
            self._handle(int(heads["kind"][index]), bytes(self._data[begin : begin + sizes[index]]))
        starts, sizes = starts[are_rows] + _PREFIX, sizes[are_rows]
        if len(sizes) > 1:
            same = (sizes[1:] == sizes[-1]).all()
            self._step = int(sizes[-1]) + _PREFIX if same else 0
            self._head = self._data[starts[-1] - _PREFIX :][:8].copy().view(np.uint64)
        return used, self._plain(starts, sizes)

    def _frames(self) -> tuple[Integers, int]:
        """Where each whole message begins, and where the last one ends."""
        at, filled, data = 0, self._filled, self._data.data
        starts: list[int] = []
        enter = starts.append
        length_at = struct.Struct("!i").unpack_from
        while at + _PREFIX <= filled:
            end = at + 1 + length_at(data, at + 1)[0]
            if end > filled:
                break
            if end <= at:
                raise CopyMalformed("a message of no length")
            enter(at)
            at = end
        return np.array(starts, np.int64), at

    def _plain(self, starts: Integers, sizes: Integers) -> Rows:
        """The rows alone: the first message has the format's header before it, the last one is
        its trailer.
        """
        if len(starts) and not self._started:
            self._started = True
            head = bytes(self._data[starts[0] : starts[0] + len(HEADER)])
            if not head.startswith(SIGNATURE):
                raise CopyMalformed("it does not start like a binary COPY")
            skipped = len(HEADER) + struct.unpack_from("!i", head, len(HEADER) - 4)[0]
            starts[0] += skipped
            sizes[0] -= skipped
        fields = sizes > 2  # the trailer is -1 in place of a number of fields; so may be a header
        return Rows(self._data, starts[fields], sizes[fields])

    def _handle(self, kind: int, message: bytes) -> None:
        if kind == _ERROR:
            parts = {part[:1]: part[1:].decode(errors="replace") for part in message.split(b"\0")}
            self._error = _error(parts.get(b"C", ""), parts.get(b"M", "it gave no reason"))
            self._done = parts.get(b"V", parts.get(b"S")) in {"FATAL", "PANIC"}
        elif kind == _READY:
            self._done = True
        elif kind not in _OTHERS:
            raise CopyMalformed(f"a message {chr(kind)!r} within the rows")


def _lost(error: OSError) -> psycopg.Error:
    return psycopg.OperationalError(f"the connection was lost: {error}")


def _error(state: str, message: str) -> psycopg.Error:
    try:
        return psycopg.errors.lookup(state)(message)
    except KeyError:
        return psycopg.DatabaseError(message)
