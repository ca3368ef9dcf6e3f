"""scikit-learn: any fitted estimator or pipeline, kept as a joblib pickle."""

from collections.abc import Collection, Iterator, Mapping, Sequence
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
        found = (getattr(part, "feature_names_in_", None) for part in _first_parts(self.estimator))
        names = next((names for names in found if names is not None), None)
        self._names = None if names is None else [str(name) for name in names]
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

    def categories(self, features: pd.DataFrame) -> Mapping[str, Collection[Any] | None]:
        """Those of the encoders that get the inputs as they are."""
        return {
            name: values
            for part in _first_parts(self.estimator)
            if hasattr(part, "categories_")
            for name, values in zip(
                getattr(part, "feature_names_in_", ()), part.categories_, strict=False
            )
            if name in features.columns
        }

    @property
    def input_names(self) -> list[str] | None:
        return self._names

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


def _first_parts(estimator: Any) -> Iterator[Any]:
    """The estimator, and those inside it that get its inputs as they are, as far as scikit-learn's
    own classes say: of a pipeline only the first step that does anything.
    """
    yield estimator
    if type(estimator).__module__.partition(".")[0] not in {"sklearn", "imblearn"}:
        return  # what a class of somebody's own does with its parts is not known
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list):  # a Pipeline
        inside = [step for _, step in steps if step not in (None, "passthrough")][:1]
    else:
        inside = [part for value in vars(estimator).values() for part in _parts(value)]
    for part in inside:
        yield from _first_parts(part)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _parts(one)
    elif isinstance(value, dict):
        yield from _parts(list(value.values()))
    elif hasattr(value, "get_params") and not isinstance(value, type):
        yield value
