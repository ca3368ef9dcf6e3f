"""Keras: a whole model as .keras, read in safe mode."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from nightshift.adapters.models.archive import ArchivedModel, configured, translated, unpack
from nightshift.adapters.models.arrays import (
    Features,
    Number,
    PredictionArray,
    column,
    flat,
    matrix,
    slices,
)

_FILE = "model.keras"


@dataclass(eq=False, repr=False)
class KerasModel(ArchivedModel):
    """A built Keras model with one output, (m,) or (m, k).

    A model with one input gets all columns as one matrix of `dtype`, NULL as NaN; one with
    several inputs gets in each the column of its name, (m, 1). `micro_batch` rows go in at a
    time. `names` names the k columns; `("embedding[]",)` makes one array column of them.
    Safe mode refuses Lambda layers; a layer of your own has to be registered with
    `keras.saving.register_keras_serializable` by an import.
    """

    tolerance: ClassVar[float] = 1e-4  # float32, and a matrix product's order depends on its shape

    model: Any
    names: tuple[str, ...] | None = None
    micro_batch: PositiveInt = 8192
    dtype: Number = "float32"

    def predict_batch(self, features: Features) -> PredictionArray:
        fed = self._fed(features)
        parts = [
            self.model.predict_on_batch(_cut(fed, part))
            for part in slices(len(features), self.micro_batch)
        ]
        return flat(np.concatenate(parts))

    def _fed(self, features: Features) -> Any:
        if len(self.model.inputs) == 1:
            return matrix(features, self.dtype)
        return {
            wanted.name: matrix(column(features, wanted.name, position), _dtype(wanted.dtype))
            for position, wanted in enumerate(self.model.inputs)
        }

    @property
    def input_names(self) -> list[str] | None:
        names = [wanted.name for wanted in self.model.inputs]
        return names if len(names) > 1 else None

    @property
    def output_names(self) -> Sequence[str] | None:
        return self.names

    def files(self) -> Mapping[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, _FILE)
            self.model.save(path)
            return {_FILE: path.read_bytes()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        unpack(files[_FILE])  # Keras' own format is a zip as well: see that nothing in it inflates
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, _FILE)
            path.write_bytes(files[_FILE])
            return keras.saving.load_model(path, compile=False, safe_mode=True)

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        with translated(path.name, "read", "Save it with `model.save('model.keras')`."):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
            return configured(cls, model, settings)


def _dtype(wanted: str) -> str:
    return "object" if wanted == "string" else wanted


def _cut(fed: Any, part: slice) -> Any:
    if isinstance(fed, dict):
        return {name: values[part] for name, values in fed.items()}
    return fed[part]
