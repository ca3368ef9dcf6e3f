"""Which rows a chunk was made of, in a few letters: so that a run that goes on knows whether the
rows that it is done with are still the source's.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_SIZE = 16  # bytes


def digest(rows: pa.Table) -> str:
    """Rows without NULLs, such as their keys -> BLAKE2b of their values in order, as 32 letters.

    The same for equal values of the same types, however they lie in memory.
    """
    found = hashlib.blake2b(digest_size=_SIZE)
    for column in rows.columns:
        for part in _bytes(pa.concat_arrays(column.chunks) if column.num_chunks else None):
            found.update(part)
    return found.hexdigest()


def _bytes(values: pa.Array | None) -> Iterator[memoryview]:
    if values is None:
        return
    kind = values.type
    if pa.types.is_timestamp(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_date(kind):
        values = values.cast(pa.int32() if kind == pa.date32() else pa.int64())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    if not pa.types.is_primitive(values.type):
        texts = pa.concat_arrays([values.cast(pa.large_string())])  # which begins at 0
        lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
        yield memoryview(lengths.astype(np.int64).tobytes())
        data = texts.buffers()[2]
        if data is not None:
            yield memoryview(data)[: int(lengths.sum())]
        return
    yield memoryview(values.to_numpy(zero_copy_only=False).tobytes())
