"""scikit-learn: any fitted estimator or pipeline, kept as a joblib pickle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import joblib
import numpy as np
import pandas as pd
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.models.archive import configured, translated
from nightshift.adapters.models.arrays import Features, PredictionArray, unmasked
from nightshift.adapters.models.class_labels import Label, positions, probability_names
from nightshift.adapters.models.model import Model


@dataclass(eq=False, repr=False, config=ConfigDict(extra="forbid"))
class SklearnModel(Model):
    """A fitted estimator.

    `output` is the estimator's method to call: "predict" gives values or labels, (m,), or (m, k)
    for multi-output estimators; "predict_proba" gives probabilities in [0, 1], one column per
    class, (m, k), or only those of `classes`; "decision_function" and "transform" give what the
    estimator gives, (m,) or (m, k). `names` names the k columns, `("embedding[]",)` makes one
    array column of them.
    """

    tolerance: ClassVar[float] = 1e-9  # a dot product's last bits change with the batch's shape
    thread_safe: ClassVar[bool] = True

    estimator: Any
    output: Literal["predict", "predict_proba", "decision_function", "transform"] = "predict"
    classes: tuple[Label, ...] | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.estimator, self.output):
            problem = f"{type(self.estimator).__name__} has no method {self.output!r}"
            remedy = "Choose another output, or an estimator that has it."
            raise ConfigurationError(type(self).__name__, "output", problem, remedy)
        if self.output == "predict_proba":
            self.chosen = self._chosen()

    def predict_batch(self, features: Features) -> PredictionArray:
        names = self.input_names
        if names is None:
            features = np.asarray(features)  # fitted without names: names would only warn
        elif not isinstance(features, pd.DataFrame):
            features = pd.DataFrame(features, columns=names)
        predictions = unmasked(getattr(self.estimator, self.output)(features))
        if self.output == "predict_proba" and self.classes is not None:
            return predictions[:, self.chosen]
        return predictions

    @property
    def input_names(self) -> list[str] | None:
        names = getattr(self.estimator, "feature_names_in_", None)  # of pipelines and searches, too
        return None if names is None else [str(name) for name in names]

    @property
    def output_names(self) -> Sequence[str] | None:
        if self.output == "predict_proba" and self.names is None:
            return probability_names(self.estimator.classes_, self.chosen)
        return self.names

    def _chosen(self) -> list[int]:
        classes = getattr(self.estimator, "classes_", ())
        if isinstance(classes, list):  # of arrays, one per output
            problem = "an estimator of several outputs has probabilities for each of them"
            remedy = "Register one estimator per output."
            raise ConfigurationError(type(self).__name__, "output", problem, remedy)
        return positions(type(self).__name__, classes, self.classes)

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        remedy = "Save the fitted estimator with `joblib.dump(estimator, 'model.joblib')`."
        with translated(path.name, "read", remedy):
            return configured(cls, joblib.load(path), settings)
