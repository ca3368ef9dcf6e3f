"""MLflow: a model folder of any flavour, called as a pyfunc."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import mlflow
import pandas as pd
from pydantic.dataclasses import dataclass

from nightshift.adapters.models.archive import (
    ArchivedModel,
    configured,
    read_folder,
    translated,
    write_folder,
)
from nightshift.adapters.models.arrays import Features, PredictionArray, flat, unmasked


@dataclass(eq=False, repr=False)
class MLflowModel(ArchivedModel):
    """A model folder, as its files by relative name; take it with `from_file(place, settings)`,
    where the place is a folder with an `MLmodel` file, or `models:/name@alias` in the registry
    that MLFLOW_TRACKING_URI points to. What is registered is the folder itself, and what loads it
    needs the flavour's library, but no MLflow server.

    Values, labels or probabilities, (m,) or (m, k), are as the flavour's pyfunc gives them;
    `names` names the k columns, `("embedding[]",)` makes one array column of them.
    """

    tolerance: ClassVar[float] = 1e-4  # that of the least exact library inside
    pickled: ClassVar[bool] = True  # most flavours unpickle, and MLmodel names the code to run

    saved: dict[str, bytes]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        folder = tempfile.mkdtemp()  # as long as the model: some flavours read on from it
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with translated(type(self).__name__, "read", "Is the flavour's library installed here?"):
            write_folder(self.saved, Path(folder))
            self._model = mlflow.pyfunc.load_model(folder)
        schema = self._model.metadata.get_input_schema()
        self._inputs = schema.input_names() if schema and schema.has_input_names() else None

    def predict_batch(self, features: Features) -> PredictionArray:
        if self._inputs and not isinstance(features, pd.DataFrame):
            features = pd.DataFrame(features, columns=self._inputs)
        return flat(unmasked(self._model.predict(features)))

    @property
    def input_names(self) -> list[str] | None:
        return self._inputs

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
        place = str(path)
        with tempfile.TemporaryDirectory() as folder:
            if place.startswith("models:"):
                with translated(place, "fetched", "Check the name and MLFLOW_TRACKING_URI."):
                    place = mlflow.artifacts.download_artifacts(place, dst_path=folder)
            return configured(cls, read_folder(Path(place)), settings)
