"""The floor: COPY out, predict, COPY in, overlapped by two threads, and nothing else.

No order, no resuming, no checks: one bad row, or one NULL among the floats, and it is all wrong.
Floats are taken off the socket as they are; mixed columns come through ADBC, which decodes in C++.
"""

import queue
import socket
import struct
import threading

import adbc_driver_postgresql.dbapi
import numpy as np
import psycopg
from contest import CHUNK, Stopwatch, predictor, task

given = task()
predict = predictor(given)


def floats():
    """(ids, matrix) for CHUNK rows at a time; a row is a message of constant length."""
    width = len(given.columns)
    row = np.dtype([("head", "V7"), ("id_length", "V4"), ("id", ">i8"),
                    ("x", [("length", "V4"), ("value", ">f8")], width)])  # fmt: skip
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(f"{given.host}/.s.PGSQL.{given.port}")
        hello = b"user\0postgres\0database\0postgres\0\0"
        server.sendall(struct.pack("!ii", len(hello) + 8, 196608) + hello)
        while not server.recv(1 << 16).endswith(b"Z\0\0\0\5I"):
            pass
        copy = f"COPY ({given.select}) TO STDOUT (FORMAT binary)".encode() + b"\0"
        server.sendall(b"Q" + struct.pack("!i", len(copy) + 4) + copy)
        stream = server.makefile("rb", 1 << 20)
        stream.read(1)
        stream.read(struct.unpack("!i", stream.read(4))[0] - 4)  # CopyOutResponse
        first, left = stream.read(row.itemsize + 19), given.rows  # 19: the format's header
        data = bytearray(CHUNK * row.itemsize)
        data[: row.itemsize], begin = first[:5] + first[24:], row.itemsize
        while left:
            rows = min(CHUNK, left)
            stream.readinto(memoryview(data)[begin : rows * row.itemsize])
            found = np.frombuffer(data, row, rows)
            yield found["id"].astype("i8"), found["x"]["value"].astype("f8")
            left, begin = left - rows, 0


def mixed():
    with (
        adbc_driver_postgresql.dbapi.connect(given.url) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(given.select)
        for batch in cursor.fetch_record_batch():
            frame = batch.to_pandas()
            yield frame["id"].to_numpy(), frame[given.columns]


def write(scored):
    row = np.dtype([("fields", ">i2"), ("id_length", ">i4"), ("id", ">i8"),
                    ("length", ">i4"), ("prediction", ">f8")])  # fmt: skip
    command = f"COPY {given.target} (id, prediction) FROM STDIN (FORMAT binary)"
    with psycopg.connect(given.url) as connection, connection.cursor().copy(command) as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        while (chunk := scored.get()) is not None:
            rows = np.empty(len(chunk[0]), row)
            rows["fields"], rows["id_length"], rows["length"] = 2, 8, 8
            rows["id"], rows["prediction"] = chunk
            copy.write(rows.tobytes())
        copy.write(b"\xff\xff")


def read(found):
    for chunk in mixed() if given.mixed else floats():
        found.put(chunk)
    found.put(None)


with Stopwatch():
    found, scored = queue.Queue(2), queue.Queue(2)
    threads = [threading.Thread(target=read, args=[found]),
               threading.Thread(target=write, args=[scored])]  # fmt: skip
    for thread in threads:
        thread.start()
    while (chunk := found.get()) is not None:
        scored.put((chunk[0], predict(chunk[1])))
    scored.put(None)
    for thread in threads:
        thread.join()
