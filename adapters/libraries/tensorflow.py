"""TensorFlow: a SavedModel folder, called through one of its signatures."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.models.archive import (
    ArchivedModel,
    configured,
    read_folder,
    translated,
    write_folder,
)
from nightshift.adapters.models.arrays import (
    Features,
    PredictionArray,
    column,
    flat,
    matrix,
    slices,
)


@dataclass(eq=False, repr=False)
class TensorFlowModel(ArchivedModel):
    """A SavedModel, as its files by relative name; take it with `from_file(folder, settings)`.

    A `signature` with one input gets all columns as one matrix, NULL as NaN; one with several
    inputs gets in each the column of its name, (m, 1) or (m,). `result` is the output to keep, by
    default the first by name; `names` names its k columns, `("embedding[]",)` makes one array
    column of them. `micro_batch` rows go in at a time.
    """

    tolerance: ClassVar[float] = 1e-4  # float32, and a matrix product's order depends on its shape
    pickled: ClassVar[bool] = True  # a graph may read and write files
    thread_safe: ClassVar[bool] = True

    saved: dict[str, bytes]
    signature: str = "serving_default"
    result: str | None = None
    names: tuple[str, ...] | None = None
    micro_batch: PositiveInt = 8192

    def __post_init__(self) -> None:
        with (
            translated(type(self).__name__, "read", "Is it a whole SavedModel folder?"),
            tempfile.TemporaryDirectory() as folder,
        ):
            write_folder(self.saved, Path(folder))
            self._loaded = tf.saved_model.load(folder)  # it owns the variables that the graph uses
        self._call = self._one_of("signature", self.signature, dict(self._loaded.signatures))
        self._inputs = self._call.structured_input_signature[1]
        outputs = self._call.structured_outputs
        self._result = self.result or min(outputs)
        self._one_of("result", self._result, outputs)

    def _one_of(self, setting: str, name: str, known: Mapping[str, Any]) -> Any:
        if name not in known:
            remedy = f"It has {', '.join(known) or 'none'}."
            raise ConfigurationError(type(self).__name__, setting, f"there is no {name!r}", remedy)
        return known[name]

    def predict_batch(self, features: Features) -> PredictionArray:
        fed = self._fed(features)
        parts = []
        for part in slices(len(features), self.micro_batch):
            tensors = {name: tf.constant(values[part]) for name, values in fed.items()}
            parts.append(self._call(**tensors)[self._result].numpy())
        return flat(np.concatenate(parts))

    def _fed(self, features: Features) -> dict[str, Any]:
        if len(self._inputs) == 1:
            ((name, wanted),) = self._inputs.items()
            return {name: matrix(features, wanted.dtype.as_numpy_dtype)}
        fed = {}
        for position, (name, wanted) in enumerate(self._inputs.items()):
            values = matrix(column(features, name, position), wanted.dtype.as_numpy_dtype)
            fed[name] = values[:, 0] if wanted.shape.rank == 1 else values
        return fed

    @property
    def input_names(self) -> list[str] | None:
        names = list(self._inputs)
        return names if len(names) > 1 else None

    @property
    def output_names(self) -> Sequence[str] | None:
        return self.names

    def files(self) -> Mapping[str, bytes]:
        return self.saved

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return files

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        return configured(cls, read_folder(path), settings)
