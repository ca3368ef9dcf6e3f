"""scikit-learn: any fitted estimator or pipeline, kept as a joblib pickle."""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import joblib
import numpy as np
import pandas as pd
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.models.archive import configured, translated
from nightshift.adapters.models.arrays import Features, Form, PredictionArray, unmasked
from nightshift.adapters.models.class_labels import Label, positions, probability_names
from nightshift.adapters.models.model import Model

_NAMES = {"frame": "a frame", "array": "an array", "column": "one column"}
_TRIED = 1000  # rows of the sample


@dataclass(eq=False, repr=False, config=ConfigDict(extra="forbid"))
class SklearnModel(Model):
    """A fitted estimator.

    `output` is the estimator's method to call: "predict" gives values or labels, (m,), or (m, k)
    for multi-output estimators; "predict_proba" gives probabilities in [0, 1], one column per
    class, (m, k), or only those of `classes`; "decision_function" and "transform" give what the
    estimator gives, (m,) or (m, k). `names` names the k columns, `("embedding[]",)` makes one
    array column of them. `takes` is what the estimator gets: a "frame", an "array", or the one
    "column", (m,), as text vectorizers want it; by default what it was fitted on, or what works.
    """

    tolerance: ClassVar[float] = 1e-9  # a dot product's last bits change with the batch's shape
    thread_safe: ClassVar[bool] = True

    estimator: Any
    output: Literal["predict", "predict_proba", "decision_function", "transform"] = "predict"
    classes: tuple[Label, ...] | None = None
    names: tuple[str, ...] | None = None
    takes: Form | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.estimator, self.output):
            problem = f"{type(self.estimator).__name__} has no method {self.output!r}"
            remedy = "Choose another output, or an estimator that has it."
            raise ConfigurationError(type(self).__name__, "output", problem, remedy)
        found = (getattr(part, "feature_names_in_", None) for part in _first_parts(self.estimator))
        names = next((names for names in found if names is not None), None)
        self._names = None if names is None else [str(name) for name in names]
        self.chosen = self._chosen() if self.output == "predict_proba" else None

    def predict_batch(self, features: Features) -> PredictionArray:
        return self._predict(features, self.takes or ("array" if self._names is None else "frame"))

    def _predict(self, features: Features, form: Form) -> PredictionArray:
        given: Any = features
        if form == "column":
            given = features.iloc[:, 0] if isinstance(features, pd.DataFrame) else features[:, 0]
        elif form == "array":
            given = np.asarray(features)  # fitted without names: names would only warn
        elif self._names is not None and not isinstance(features, pd.DataFrame):
            given = pd.DataFrame(features, columns=self._names)
        found = getattr(self.estimator, self.output)(given)
        if isinstance(found, list) and self.output == "predict_proba":  # one array per output
            found = np.hstack(found)
        predictions = unmasked(found)
        return predictions if self.chosen is None else predictions[:, self.chosen]

    def settled(self, sample: pd.DataFrame) -> Self:
        """Try what the estimator takes, unless it was fitted on a DataFrame or `takes` says it.

        Raises ConfigurationError if it takes two forms and predicts differently.
        """
        if self.takes is not None:
            return self
        if self._names is not None:
            return replace(self, takes="frame")
        rows = sample.iloc[np.linspace(0, len(sample) - 1, min(len(sample), _TRIED)).astype(int)]
        forms: list[Form] = ["frame", "array"]
        if sample.shape[1] == 1:
            forms.append("column")
        tried = {form: self._try(rows, form) for form in forms}
        works = {form: found for form, found in tried.items() if found is not None}
        if "frame" not in works and _has_names(self.estimator):
            return replace(self, takes="frame")  # its own refusal: an array would hide the order
        if not works:
            return self
        (first, (values, _)), *others = works.items()
        for form, (found, _) in others:
            if not _equal(values, found):
                problem = f"it takes {_NAMES[first]} and {_NAMES[form]}, and predicts differently"
                remedy = f"Say which is right: takes={first!r} or takes={form!r}."
                raise ConfigurationError(type(self).__name__, "takes", problem, remedy)
        quiet = [form for form, (_, warned) in works.items() if not warned]
        return replace(self, takes=[*quiet, first][0])

    def _try(self, rows: pd.DataFrame, form: Form) -> tuple[PredictionArray, bool] | None:
        """Predictions, and whether the estimator warned of names; None if it does not take that."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = self._predict(rows.copy(), form)
            except Exception:  # an estimator may refuse in any way
                return None
        if found.ndim == 0 or len(found) != len(rows):
            return None
        return found, any("feature names" in str(warning.message) for warning in caught)

    @property
    def form(self) -> Form | None:
        return self.takes

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
        if self.chosen is not None and self.names is None:
            return probability_names(self.estimator.classes_, self.chosen)
        return self.names

    def _chosen(self) -> list[int] | None:
        """None for all that the estimator gives: of several outputs, or of a mixture."""
        classes = getattr(self.estimator, "classes_", None)
        if self.classes is None and (classes is None or isinstance(classes, list)):
            return None
        if isinstance(classes, list):  # of arrays, one per output
            problem = "an estimator of several outputs has classes for each of them"
            remedy = "Leave it out, and choose among the columns in a view."
            raise ConfigurationError(type(self).__name__, "classes", problem, remedy)
        return positions(type(self).__name__, () if classes is None else classes, self.classes)

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        remedy = "Save the fitted estimator with `joblib.dump(estimator, 'model.joblib')`."
        with translated(path.name, "read", remedy):
            return configured(cls, joblib.load(path), settings)


def _equal(one: PredictionArray, other: PredictionArray) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "fc" and other.dtype.kind in "fc":
        return bool(np.allclose(one, other, rtol=1e-5, atol=1e-7, equal_nan=True))
    return bool(one.tolist() == other.tolist())


def _has_names(estimator: Any) -> bool:
    """Whether anything inside was fitted on named columns, wherever it is."""
    if hasattr(estimator, "feature_names_in_"):
        return True
    values = getattr(estimator, "__dict__", {}).values()
    return any(_has_names(part) for value in values for part in _parts(value))


def _first_parts(estimator: Any) -> Iterator[Any]:
    """The estimator, and those inside it that get its inputs as they are, as far as scikit-learn's
    own classes say: of a pipeline only the first step that does anything.
    """
    yield estimator
    if type(estimator).__module__.partition(".")[0] not in {"sklearn", "imblearn"}:
        return  # what a user's own class does with its parts is not known
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
    elif hasattr(value, "fit") and not isinstance(value, type):
        yield value
