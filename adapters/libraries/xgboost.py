"""XGBoost: boosted trees, kept as UBJSON; native categories and missing values."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import xgboost
from pydantic.dataclasses import dataclass

from nightshift.adapters.models.archive import ArchivedModel, configured, translated
from nightshift.adapters.models.arrays import Features, PredictionArray
from nightshift.adapters.models.class_labels import (
    Label,
    Output,
    both,
    class_labels,
    positions,
    probability_names,
)

_CLASSIFIERS = {"binary:logistic", "binary:hinge", "multi:softprob", "multi:softmax"}
_PROBABILITIES = {"binary:logistic", "multi:softprob"}  # multi:softmax has only labels


@dataclass(eq=False, repr=False)
class XGBoostModel(ArchivedModel):
    """A Booster, or one of XGBoost's scikit-learn estimators, of which the Booster is kept.

    `output="predict"` gives values, (m,) float32, or (m, k) for several targets or quantiles, and
    the labels of a classifier, (m,), or (m, k) zeros and ones if it is multi-label;
    `output="predict_proba"` gives float32 probabilities in [0, 1], one column per class (or per
    label), (m, k), or only those of `classes`. `labels` are the classes' names in XGBoost's order,
    by default 0, 1, ...; `names` names the k columns of values. `missing` is the number that stands
    for a missing value, by default NaN; an estimator has its own, a file written by `save_model`
    does not keep it, so give it there. `classifier` says whether values become labels, by default
    what the estimator, the file or the objective says. After early stopping the best iteration
    predicts.
    """

    thread_safe: ClassVar[bool] = True

    booster: Any
    output: Output = "predict"
    classes: tuple[Label, ...] | None = None
    labels: tuple[Label, ...] | None = None
    names: tuple[str, ...] | None = None
    missing: float | None = None
    classifier: bool | None = None

    def __post_init__(self) -> None:
        self._estimator = None
        if isinstance(self.booster, xgboost.XGBModel):
            self._estimator = self.booster
            self._adopt(self.booster)
        learner = json.loads(self.booster.save_config())["learner"]
        shape, self._objective = learner["learner_model_param"], learner["objective"]["name"]
        targets = int(shape["num_target"])
        if self.classifier is None:
            saved = self.booster.attr("scikit_learn")  # as `save_model` of an estimator leaves it
            kind = json.loads(saved).get("_estimator_type") if saved else None
            plain = self._objective in _CLASSIFIERS and targets == 1
            self.classifier = kind == "classifier" or (kind is None and plain)
        self._multilabel = self.classifier and targets > 1
        count = (int(shape["num_class"]) or 2) if self.classifier and not self._multilabel else 0
        self.labels = class_labels(type(self).__name__, self.labels, count)
        if self.output == "predict_proba":
            known = tuple(range(targets)) if self._multilabel else self.labels
            known = known if self._objective in _PROBABILITIES else ()
            self.chosen = positions(type(self).__name__, known, self.classes)
            self._probable = known
        self._linear = learner["gradient_booster"]["name"] == "gblinear"
        best = self.booster.attr("best_iteration")
        self.iterations = self.booster.num_boosted_rounds() if best is None else int(best) + 1

    def _adopt(self, estimator: xgboost.XGBModel) -> None:
        """Take over what the estimator knows in addition to its Booster."""
        if self.missing is None and not np.isnan(estimator.missing):
            self.missing = float(estimator.missing)
        if self.classifier is None:
            self.classifier = isinstance(estimator, xgboost.XGBClassifier)
        self.booster = estimator.get_booster()

    def predict_batch(self, features: Features) -> PredictionArray:
        values = self._values(self._plain(features))
        if self.output == "predict_proba":
            return both(values)[:, self.chosen]
        if not self.classifier:
            return values
        if self._multilabel:
            return (values > 0.5).astype(np.float64)  # as XGBClassifier gives them
        if values.ndim == 2:
            codes = values.argmax(axis=1)
        elif self._objective == "multi:softmax":
            codes = values.astype(np.intp)
        else:  # also of margins: XGBClassifier has no other threshold
            codes = (values > 0.5).astype(np.intp)
        labels: PredictionArray = np.asarray(self.labels)[codes]
        return labels

    def predict_original(self, features: Features) -> PredictionArray:
        predict = getattr(self._estimator, self.output, None)
        if predict is None:  # a Booster; or probabilities of a regressor, which has no such method
            return self.predict_batch(features)
        found = np.asarray(predict(self._plain(features)))
        if self.output == "predict_proba":
            return found[:, self.chosen]
        named: PredictionArray = np.asarray(self.labels)[found] if self.labels else found
        return named

    def _plain(self, features: Features) -> Features:
        if self.booster.feature_names is None or not isinstance(features, pd.DataFrame):
            return np.asarray(features)
        return features

    def _values(self, features: Features) -> PredictionArray:
        missing = np.nan if self.missing is None else self.missing
        rounds = (0, self.iterations)
        if self._linear:  # it cannot predict in place
            rows = xgboost.DMatrix(features, missing=missing)
            return np.asarray(self.booster.predict(rows, iteration_range=rounds))
        predict = self.booster.inplace_predict
        try:
            return np.asarray(predict(features, iteration_range=rounds, missing=missing))
        except xgboost.core.XGBoostError as error:
            raise ValueError(str(error).partition("\nStack trace")[0]) from error

    def categories(self, features: pd.DataFrame) -> Mapping[str, Collection[Any] | None]:
        kinds = self.booster.feature_types or []
        names = self.booster.feature_names or list(features.columns)
        known: dict[str, Any] = {}
        if "c" in kinds and hasattr(self.booster, "get_categories"):  # XGBoost 3.1 keeps them
            known = dict(self.booster.get_categories(export_to_arrow=True).to_arrow() or ())
        return {
            name: known[name].to_pylist() if known.get(name) is not None else None
            for name, kind in zip(names, kinds, strict=False)
            if kind == "c" and isinstance(features[name].dtype, pd.CategoricalDtype)
        }

    @property
    def input_names(self) -> list[str] | None:
        names: list[str] | None = self.booster.feature_names
        return names

    @property
    def output_names(self) -> Sequence[str] | None:
        if self.output == "predict":
            return self.names
        return probability_names(self._probable, self.chosen)

    def files(self) -> Mapping[str, bytes]:
        return {"model.ubj": bytes(self.booster.save_raw("ubj"))}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        return xgboost.Booster(model_file=bytearray(files["model.ubj"]))

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        with translated(path.name, "read", "Save it with `save_model('model.ubj')`."):
            return configured(cls, xgboost.Booster(model_file=path), settings)
