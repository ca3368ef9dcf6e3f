"""Golden rows: a few real inputs with their predictions, and the libraries that made them.

They are kept when a model is published and replayed whenever it is loaded, in one batch of the
same shape: an environment that predicts otherwise is told apart from one that merely is newer.
"""

import contextlib
import functools
import importlib.metadata
import pickle
import platform
import reprlib
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adapters.model import Model
from adapters.signature import Signature

MOST_ROWS = 32
_MOST_BYTES = 256 * 1024**2  # once unpacked; 32 rows of 100,000 columns are far below

# --- rows ---------------------------------------------------------------------------------------


def spread(rows: int, most: int = MOST_ROWS) -> list[int]:
    """Up to `most` row numbers, evenly from the first to the last of `rows`."""
    return sorted(set(np.linspace(0, rows - 1, min(rows, most)).round().astype(int).tolist()))


def write_rows(inputs: pa.Table, predictions: pa.Table) -> bytes:
    """Inputs and predictions, m rows each -> one Parquet file. Their names may be the same."""
    names = [f"input {name}" for name in inputs.column_names]
    names += [f"output {name}" for name in predictions.column_names]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([*inputs.columns, *predictions.columns], names=names), sink)
    return bytes(sink.getvalue())


def read_rows(data: bytes, signature: Signature, rows: int) -> tuple[pa.Table, pa.Table]:
    """What `write_rows` returned -> inputs and predictions.

    Raises ValueError if it is no Parquet file of so many rows and of the signature's columns, or
    too large a one.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        found = file.metadata
        size = sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
        if found.num_rows != rows or size > _MOST_BYTES:
            raise ValueError(f"{found.num_rows} rows in {size} bytes, not {rows} rows")
        table = file.read()
        inputs = table.select([f"input {name}" for name in signature.input_names])
        outputs = table.select([f"output {name}" for name in signature.output_names])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error)) from error
    return (
        inputs.rename_columns(signature.input_names),
        outputs.rename_columns(signature.output_names),
    )


def difference(then: pa.Table, now: pa.Table, tolerance: float) -> str | None:
    """The first prediction that is not the same, as text; None if all are.

    Floats may differ by `tolerance` times the prediction, or times the column's mean where that
    is more, since the noise of a sum does not shrink with its result. NaN equals NaN.
    """
    for name in then.column_names:
        before, after = then.column(name), now.column(name)
        if pa.types.is_floating(before.type):
            same = _close(_floats(before), _floats(after), tolerance)
        elif pa.types.is_list(before.type):  # of floats, all of one length
            one, other = (_floats(pc.list_flatten(values)) for values in (before, after))
            same = np.all(_close(one, other, tolerance).reshape(len(before), -1), axis=1)
        else:
            pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
            same = np.array([one == other for one, other in pairs], dtype=bool)
        if not same.all():
            row = int(np.argmin(same))
            count = int(len(same) - same.sum())
            told, found = (reprlib.repr(values[row].as_py()) for values in (before, after))
            return (
                f"{name!r} differs in {count} of {len(same)} rows, "
                f"first in row {row}: {told} then, {found} now"
            )
    return None


def _floats(values: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(values.to_numpy(), dtype=np.float64)


def _close(
    then: npt.NDArray[np.float64], now: npt.NDArray[np.float64], tolerance: float
) -> npt.NDArray[np.bool_]:
    finite = np.abs(then[np.isfinite(then)])
    mean = np.sum(finite / max(len(finite), 1))  # in this order it cannot overflow
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf
        near = np.abs(now - then) <= tolerance * np.maximum(np.abs(then), mean)
    near &= np.isfinite(then) & np.isfinite(now)
    return np.asarray(near | (then == now) | (np.isnan(then) & np.isnan(now)))


# --- libraries ----------------------------------------------------------------------------------

_ALWAYS = ("numpy", "pandas")  # they carry every model's inputs
_NETWORKS = {"torch", "tensorflow", "keras"}  # gigabytes that consist of nothing else
_NEVER = {"nightshift", "pydantic"}  # ours: how an adapter is written, not how a model predicts


class _Roots(pickle.Pickler):
    """Keeps of a model only the modules that its parts come from; its bytes go nowhere."""

    def __init__(self) -> None:
        super().__init__(self, protocol=5, buffer_callback=lambda _: None)
        self.parts: set[tuple[str, str]] = set()

    def write(self, data: object) -> int:
        return 0

    def persistent_id(self, part: Any) -> str | None:
        named = isinstance(part, type | FunctionType | BuiltinFunctionType)
        owner = part if named else type(part)
        module = owner.__module__ or "builtins"
        self.parts.add((module, owner.__qualname__))
        return "a network" if module.partition(".")[0] in _NETWORKS else None  # look no deeper


def parts_of(model: Model) -> set[tuple[str, str]]:
    """Module and name of every class and function in the model, as far as a pickle would see."""
    roots = _Roots()
    with contextlib.suppress(Exception):  # what is no pickle has its adapter's imports alone
        roots.dump(model)
    return roots.parts


def libraries_of(model: Model) -> dict[str, str]:
    """The installed version of each library that the model or its adapter is made of."""
    modules = {module for module, _ in parts_of(model)}
    for value in vars(sys.modules[type(model).__module__]).values():
        origin = value.__name__ if isinstance(value, ModuleType) else _origin(value)
        modules.add(origin)
    roots = {module.partition(".")[0] for module in modules}
    known = _distributions()
    names = {name for root in roots for name in known.get(root, ())} | set(_ALWAYS)
    versions = {name: importlib.metadata.version(name) for name in sorted(names - _NEVER)}
    return {"python": platform.python_version()} | versions


def skew(libraries: dict[str, str]) -> tuple[str, ...]:
    """What is installed here in another version than then, one text each."""
    found = []
    for name, then in libraries.items():
        now = platform.python_version() if name == "python" else _installed(name)
        if now != then:
            found.append(f"{name} {then} then, {now or 'missing'} now")
    return tuple(found)


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Distributions by top-level module; found by reading every installed one, so only once."""
    return importlib.metadata.packages_distributions()


def _origin(value: object) -> str:
    module = getattr(value, "__module__", None)
    return module if isinstance(module, str) else "builtins"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
