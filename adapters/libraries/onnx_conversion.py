"""scikit-learn and XGBoost models as ONNX, if they predict the same there."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import onnxmltools
import pandas as pd
import skl2onnx
from onnx import TensorProto
from onnxmltools.convert.common import data_types
from skl2onnx.common import data_types as sklearn_types

from nightshift.adapters.errors import AdapterNotFound, SerializationFailed
from nightshift.adapters.libraries.onnx import OnnxModel
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.registry import adapter_name
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.models.tolerance import Tolerance
from nightshift.adapters.store import golden_rows

Converted = Callable[[], OnnxModel]

_LONGEST = 200  # characters of a converter's error


def to_onnx(model: Model, sample: pd.DataFrame, tolerance: float = 1e-5) -> OnnxModel:
    """The model as an ONNX graph that predicts the same for the sample, (m, n).

    Numbers may differ by `tolerance` times the prediction, or the column's mean where that is
    more; labels not at all. Give many rows: ONNX often computes in float32, and only a row near a
    tree's threshold shows it. Raises SerializationFailed if no conversion comes that close.
    """
    try:
        name = adapter_name(model)
    except AdapterNotFound:
        name = type(model).__name__  # a user's own, which nothing converts
    values = model.settled(sample).predict_original(sample)
    signature = Signature.from_sample(sample, values, model.output_names)
    then = signature.predictions(values, len(sample))
    features = signature.features(signature.table(sample))
    allowed = Tolerance(relative=tolerance)
    problems = []
    for convert in _WAYS.get(name, _no_way)(model, sample):
        try:
            converted = convert()
            now = signature.predictions(converted.predict_batch(features), len(sample))
            problem = golden_rows.difference(then, now, allowed)
        except Exception as error:  # converters raise anything at what they do not know
            text = f"{type(error).__name__}: {error}"  # some print the whole model
            problem = text.splitlines()[0][:_LONGEST]
        if problem is None:
            converted.inputs = tuple(signature.input_names)
            return converted
        problems.append(problem)
    problem = " | ".join(dict.fromkeys(problems)) or f"nothing converts the adapter {name!r}"
    remedy = "Register it in its own format."
    raise SerializationFailed(name, f"it cannot be kept as ONNX ({problem})", remedy)


def _no_way(model: Model, sample: pd.DataFrame) -> Iterator[Converted]:
    return iter(())


def _sklearn_ways(model: Any, sample: pd.DataFrame) -> Iterator[Converted]:
    """All columns as one matrix, which is fast; or each by itself, for mixed types."""
    width = sample.shape[1]
    for number in (sklearn_types.DoubleTensorType, sklearn_types.FloatTensorType):
        yield partial(_sklearn, model, types=[("features", number([None, width]))])
    yield partial(_sklearn, model, rows=sample)
    narrow = sample.astype(dict.fromkeys(sample.select_dtypes("float64"), "float32"))
    yield partial(_sklearn, model, rows=narrow)


def _sklearn(model: SklearnModel, types: Any = None, rows: Any = None) -> OnnxModel:
    classifier = hasattr(model.estimator, "classes_")
    options = {"zipmap": False} if classifier else None
    converted = skl2onnx.to_onnx(model.estimator, rows, initial_types=types, options=options)
    _check_trees(converted.graph)
    return _kept(converted, model)


def _check_trees(graph: Any) -> None:
    """ONNX keeps the thresholds of trees in float32. A float64 input next to one may take the
    other branch, in rows that the sample happens not to have.
    """
    trees = any(node.op_type.startswith("TreeEnsemble") for node in graph.node)
    doubles = any(one.type.tensor_type.elem_type == TensorProto.DOUBLE for one in graph.input)
    if trees and doubles:
        raise ValueError("float64 inputs do not fit the float32 thresholds of its trees")


def _xgboost_ways(model: Any, sample: pd.DataFrame) -> Iterator[Converted]:
    yield partial(_xgboost, model, sample.shape[1])


def _xgboost(model: Any, width: int) -> OnnxModel:
    if model.missing is not None:
        raise ValueError(f"the trees of ONNX know NaN as missing, not {model.missing:g}")
    booster = model.booster[: model.iterations]  # a copy
    booster.feature_names = booster.feature_types = None  # the converter knows only f0, f1, ...
    types = [("features", data_types.FloatTensorType([None, width]))]
    return _kept(onnxmltools.convert_xgboost(booster, initial_types=types), model)


def _kept(converted: Any, model: Any) -> OnnxModel:
    """The outputs are (value) or (label, probabilities)."""
    outputs = [output.name for output in converted.graph.output]
    names = None if model.output_names is None else tuple(model.output_names)
    graph = converted.SerializeToString()
    if model.output != "predict_proba":
        return OnnxModel(graph, outputs[0], names=names)
    return OnnxModel(graph, outputs[-1], tuple(model.chosen), names)


_WAYS: dict[str, Callable[[Any, pd.DataFrame], Iterator[Converted]]] = {
    "sklearn": _sklearn_ways,
    "skops": _sklearn_ways,
    "xgboost": _xgboost_ways,
}
