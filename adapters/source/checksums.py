"""Checksums of chunks, by which a resumed run knows whether its finished rows are unchanged."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash


def digest(named: pa.Table, inputs: pa.Table) -> str:
    """A chunk's keys and times, and the model's inputs -> 32 hex digits, XXH3's 128 bits.

    Equal for equal values of the same types in the same order, whatever their memory layout.
    """
    found = xxhash.xxh3_128()
    for column in (*named.columns, *inputs.columns):
        for part in _bytes(column):
            found.update(part)
    return found.hexdigest()


def _bytes(column: pa.ChunkedArray) -> Iterator[memoryview]:
    if not column.num_chunks:
        return
    values = pa.concat_arrays(column.chunks)
    kind = values.type
    if pa.types.is_timestamp(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_date(kind):
        values = values.cast(pa.int32() if kind == pa.date32() else pa.int64())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    elif not pa.types.is_primitive(kind):
        values = values.cast(pa.large_string())
    if values.null_count:  # the values under NULLs are undefined
        yield _memory(pc.is_valid(values).cast(pa.uint8()))
        values = values.fill_null("" if pa.types.is_large_string(values.type) else 0)
    if not pa.types.is_large_string(values.type):
        yield _memory(values)
        return
    texts = pa.concat_arrays([values])  # which begins at 0
    yield _memory(pc.binary_length(texts))
    data = texts.buffers()[2]
    if data is not None:
        yield memoryview(data)[: pc.sum(pc.binary_length(texts)).as_py() or 0]


def _memory(numbers: pa.Array) -> memoryview:
    return np.ascontiguousarray(numbers.to_numpy(zero_copy_only=False)).data
