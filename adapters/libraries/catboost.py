"""CatBoost: boosted trees, kept as .cbm; native categories, missing numbers."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import catboost
import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from nightshift.adapters.models.archive import ArchivedModel, configured, translated
from nightshift.adapters.models.arrays import Features, PredictionArray, flat
from nightshift.adapters.models.class_labels import Label, Output, positions, probability_names

_VALUES = {  # as CatBoostRegressor.predict does it, which a loaded model no longer knows
    "Poisson": "Exponent",
    "Tweedie": "Exponent",
    "RMSEWithUncertainty": "RMSEWithUncertainty",
}


@dataclass(eq=False, repr=False)
class CatBoostModel(ArchivedModel):
    """A trained CatBoost, CatBoostClassifier, CatBoostRegressor or CatBoostRanker.

    `output="predict"` gives values, (m,) float64, or (m, k) for several targets or quantiles, and
    the labels of a classifier; `output="predict_proba"` gives float64 probabilities in [0, 1],
    one column per class, (m, k), or only those of `classes`. `names` names the k columns of
    values. Numbers may be missing; CatBoost refuses a missing category, so fill it in training
    and in the source.
    """

    thread_safe: ClassVar[bool] = True

    model: Any
    output: Output = "predict"
    classes: tuple[Label, ...] | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self._labels = np.asarray(self.model.classes_).tolist()
        if self.output == "predict_proba":
            self._chosen = positions(type(self).__name__, self._labels, self.classes)
            self._kind = "Probability"
        elif self._labels:
            self._kind = "Class"
        else:
            loss = self.model.get_all_params().get("loss_function", "").partition(":")[0]
            self._kind = _VALUES.get(loss, "RawFormulaVal")
        self._categorical = set(self.model.get_cat_feature_indices())

    def predict_batch(self, features: Features) -> PredictionArray:
        if isinstance(features, pd.DataFrame):
            features = self._plain(features)
        predict = catboost.CatBoost.predict  # a subclass's takes fewer kinds
        predictions = np.asarray(predict(self.model, features, prediction_type=self._kind))
        return predictions[:, self._chosen] if self.output == "predict_proba" else flat(predictions)

    def predict_original(self, features: Features) -> PredictionArray:
        if type(self.model) is catboost.CatBoost:  # what a loaded model is: it knows no labels
            return self.predict_batch(features)
        if isinstance(features, pd.DataFrame):
            features = self._plain(features)
        predictions = np.asarray(getattr(self.model, self.output)(features))
        return predictions[:, self._chosen] if self.output == "predict_proba" else flat(predictions)

    def _plain(self, features: pd.DataFrame) -> pd.DataFrame:
        """CatBoost knows NaN in a float, but no pd.NA in pandas' own nullable types."""
        nullable = {
            name: "float64"
            for position, (name, dtype) in enumerate(features.dtypes.items())
            if dtype.kind in "iub" and pd.api.types.is_extension_array_dtype(dtype)
            and position not in self._categorical
        }  # fmt: skip
        return features.astype(nullable) if nullable else features

    @property
    def input_names(self) -> list[str] | None:
        names = list(self.model.feature_names_)
        return None if names == [str(position) for position in range(len(names))] else names

    @property
    def output_names(self) -> Sequence[str] | None:
        if self.output == "predict":
            return self.names
        return probability_names(self._labels, self._chosen)

    def files(self) -> Mapping[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.cbm")
            self.model.save_model(path)
            return {"model.cbm": path.read_bytes()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        return catboost.CatBoost().load_model(blob=files["model.cbm"])

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        with translated(path.name, "read", "Save it with `model.save_model('model.cbm')`."):
            return configured(cls, catboost.CatBoost().load_model(path), settings)
