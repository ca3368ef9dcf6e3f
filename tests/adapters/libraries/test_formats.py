"""What is each library's own: its predictions, its files, its refusals, its traps.

What every adapter owes is in test_contract.py. A test is skipped where its library is missing.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nightshift.adapters.errors import ConfigurationError, SerializationFailed, SignatureMismatch
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.archive import SETTINGS, pack, unpack
from nightshift.adapters.models.registry import adapter_for_file
from nightshift.adapters.store.trust_policy import TrustPolicy

TUMOURS, BENIGN = load_breast_cancer(return_X_y=True, as_frame=True)
IRISES, KIND = load_iris(return_X_y=True, as_frame=True)
SPECIES = np.array(["setosa", "versicolor", "virginica"])[KIND]


class Mark:
    """Unpickled, it writes a file: what an attacker would rather do with a shell."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


# --- scikit-learn -------------------------------------------------------------------------------


def test_sklearn_gives_the_probabilities_of_several_outputs_but_not_by_class() -> None:
    forest = RandomForestClassifier(2).fit(IRISES, np.column_stack([KIND, KIND]))
    expected = np.hstack(forest.predict_proba(IRISES))
    found = SklearnModel(forest, "predict_proba").predict_batch(IRISES)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ConfigurationError, match="several outputs"):
        SklearnModel(forest, "predict_proba", (0,))


def test_sklearn_names_probabilities_by_class() -> None:
    fitted = LogisticRegression(max_iter=500).fit(IRISES, KIND)
    model = SklearnModel(fitted, "predict_proba", np.unique(KIND)[[2, 0]].tolist())
    assert model.output_names == ["probability_2", "probability_0"]
    expected = fitted.predict_proba(IRISES)[:, [2, 0]]
    np.testing.assert_array_equal(model.predict_batch(IRISES), expected)


# --- skops --------------------------------------------------------------------------------------


class Doubled(RegressorMixin, BaseEstimator):
    """A type that skops does not know."""

    def fit(self, features: Any, target: Any) -> "Doubled":
        self.fitted_ = True
        return self

    def predict(self, features: Any) -> Any:
        return np.asarray(features)[:, 0] * 2


def test_skops_builds_only_what_the_operator_trusts(tmp_path: Path) -> None:
    skops_io = pytest.importorskip("skops.io")
    from nightshift.adapters.libraries.skops import SkopsModel

    estimator = make_pipeline(StandardScaler(), Doubled()).fit(IRISES, KIND)
    name = f"{Doubled.__module__}.{Doubled.__qualname__}"
    data = SkopsModel(estimator).serialize()
    for read in (
        lambda: SkopsModel.deserialize(data),
        lambda: SkopsModel.deserialize_trusted(data, TrustPolicy()),
    ):
        with pytest.raises(SerializationFailed, match="not trusted") as caught:
            read()
        assert name in str(caught.value)
    again = SkopsModel.deserialize_trusted(data, TrustPolicy(trusted_types=frozenset({name})))
    np.testing.assert_array_equal(again.predict_batch(IRISES), estimator.predict(IRISES))

    path = tmp_path / "model.skops"
    skops_io.dump(estimator, path)
    with pytest.raises(SerializationFailed):
        adapter_for_file(path)
    model = adapter_for_file(path, settings={"trusted_types": [name], "names": ["double"]})
    assert list(model.output_names or ()) == ["double"]


def test_skops_builds_no_process_that_a_file_names() -> None:
    """The estimator's class in the file is exchanged for one that starts a program."""
    pytest.importorskip("skops.io")
    from nightshift.adapters.libraries.skops import SkopsModel

    files = unpack(SkopsModel(LinearRegression().fit(IRISES, KIND)).serialize())
    inner = unpack(files["model.skops"])
    schema = json.loads(inner["schema.json"])
    schema |= {"__class__": "Popen", "__module__": "subprocess"}
    bad = pack({**inner, "schema.json": json.dumps(schema).encode()})
    with pytest.raises(SerializationFailed, match=r"subprocess\.Popen"):
        SkopsModel.deserialize(pack({**files, "model.skops": bad}))


def test_skops_inflates_nothing() -> None:
    pytest.importorskip("skops.io")
    from nightshift.adapters.libraries.skops import SkopsModel

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("schema.json", bytes(10_000_000))
    data = pack({"model.skops": buffer.getvalue(), SETTINGS: b"{}"})
    with pytest.raises(SerializationFailed, match="more than"):
        SkopsModel.deserialize(data)


# --- XGBoost ------------------------------------------------------------------------------------


def xgboost_classifier(target: Any) -> Any:
    xgboost = pytest.importorskip("xgboost")
    return xgboost.XGBClassifier(n_estimators=5, n_jobs=2).fit(IRISES, target)


@pytest.mark.parametrize("target", [KIND, KIND > 0], ids=["three classes", "two classes"])
def test_xgboost_predicts_as_its_estimator(target: Any) -> None:
    trees = xgboost_classifier(target)
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    predicted = XGBoostModel(trees, "predict_proba").predict_batch(IRISES)
    np.testing.assert_array_equal(predicted, trees.predict_proba(IRISES))
    labels = XGBoostModel(trees).predict_batch(IRISES)
    np.testing.assert_array_equal(labels, trees.predict(IRISES))


@pytest.mark.parametrize("suffix", [".ubj", ".json"])
def test_xgboost_files_are_read(suffix: str, tmp_path: Path) -> None:
    trees = xgboost_classifier(KIND)
    trees.save_model(tmp_path / f"model{suffix}")
    model = adapter_for_file(tmp_path / f"model{suffix}", settings={"labels": ["a", "b", "c"]})
    expected = np.array(["a", "b", "c"])[trees.predict(IRISES)]
    np.testing.assert_array_equal(model.predict_batch(IRISES), expected)


def test_xgboost_labels_alone_have_no_probabilities() -> None:
    xgboost = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    data = xgboost.DMatrix(IRISES, KIND)
    parameters = {"objective": "multi:softmax", "num_class": 3, "nthread": 2}
    booster = xgboost.train(parameters, data, 3)
    labels = XGBoostModel(booster).predict_batch(IRISES)
    np.testing.assert_array_equal(labels, booster.predict(data).astype(int))
    with pytest.raises(ConfigurationError, match="no probabilities"):
        XGBoostModel(booster, "predict_proba")


def test_xgboost_settings_fit_the_trees() -> None:
    trees = xgboost_classifier(KIND)
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    with pytest.raises(ConfigurationError, match="2 labels, but the model has 3 classes"):
        XGBoostModel(trees, labels=("a", "b"))
    with pytest.raises(ConfigurationError, match="Its classes are 0, 1, 2"):
        XGBoostModel(trees, "predict_proba", classes=(3,))


def test_xgboost_linear_models_predict_too() -> None:
    xgboost = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    data = xgboost.DMatrix(IRISES, KIND)
    booster = xgboost.train({"booster": "gblinear", "nthread": 1}, data, 3)
    again = XGBoostModel.deserialize(XGBoostModel(booster).serialize())
    np.testing.assert_array_equal(again.predict_batch(IRISES), booster.predict(data))


def test_xgboost_refuses_columns_in_another_order() -> None:
    trees = xgboost_classifier(KIND)
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    with pytest.raises(ValueError, match="feature_names mismatch"):
        XGBoostModel(trees).predict_batch(IRISES.iloc[:, ::-1])


# --- LightGBM -----------------------------------------------------------------------------------


def lightgbm_classifier(rows: Any = IRISES, target: Any = SPECIES) -> Any:
    lightgbm = pytest.importorskip("lightgbm")
    return lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=2).fit(rows, target)


@pytest.mark.parametrize("target", [SPECIES, SPECIES == "setosa"], ids=["three", "two"])
def test_lightgbm_predicts_as_its_estimator(target: Any) -> None:
    trees = lightgbm_classifier(target=target)
    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    predicted = LightGBMModel(trees, "predict_proba").predict_batch(IRISES)
    np.testing.assert_array_equal(predicted, trees.predict_proba(IRISES))
    labels = LightGBMModel(trees)
    assert labels.labels == tuple(trees.classes_.tolist())
    np.testing.assert_array_equal(labels.predict_batch(IRISES), trees.predict(IRISES))


def test_lightgbm_refuses_columns_in_another_order() -> None:
    """LightGBM itself goes by position, and would predict nonsense without a word."""
    trees = lightgbm_classifier()
    from nightshift.adapters.libraries.lightgbm import LightGBMModel

    model = LightGBMModel(trees)
    for wrong in (IRISES.iloc[:, ::-1], IRISES.iloc[:, :-1], IRISES.assign(more=1)):
        with pytest.raises(SignatureMismatch):
            model.predict_batch(wrong)


def test_lightgbm_files_are_read(tmp_path: Path) -> None:
    trees = lightgbm_classifier()
    trees.booster_.save_model(tmp_path / "model.txt")
    settings = {"labels": trees.classes_.tolist(), "output": "predict_proba", "classes": ["setosa"]}
    model = adapter_for_file(tmp_path / "model.txt", settings=settings)
    assert model.output_names == ["probability_setosa"]
    np.testing.assert_array_equal(model.predict_batch(IRISES), trees.predict_proba(IRISES)[:, :1])


# --- CatBoost -----------------------------------------------------------------------------------


def catboost_classifier(rows: Any = IRISES, target: Any = SPECIES, **settings: Any) -> Any:
    catboost = pytest.importorskip("catboost")
    quiet = {"verbose": False, "allow_writing_files": False, "thread_count": 2}
    return catboost.CatBoostClassifier(iterations=5, **quiet, **settings).fit(rows, target)


@pytest.mark.parametrize("target", [SPECIES, KIND > 0], ids=["texts", "booleans"])
def test_catboost_predicts_as_its_estimator(target: Any, tmp_path: Path) -> None:
    trees = catboost_classifier(target=target)
    trees.save_model(tmp_path / "model.cbm")
    for output, expected in (
        ("predict", trees.predict(IRISES)),
        ("predict_proba", trees.predict_proba(IRISES)),
    ):
        model = adapter_for_file(tmp_path / "model.cbm", settings={"output": output})
        predicted = model.predict_batch(IRISES)
        np.testing.assert_array_equal(predicted.ravel(), expected.ravel())
    assert list(model.output_names or ()) == [f"probability_{one}" for one in trees.classes_]


def test_catboost_refuses_a_missing_category() -> None:
    rows = IRISES.assign(colour=pd.Categorical(np.where(KIND > 1, "blue", "red")))
    trees = catboost_classifier(rows, cat_features=["colour"])
    from nightshift.adapters.libraries.catboost import CatBoostModel

    rows.loc[0, "colour"] = None
    with pytest.raises(Exception, match="NaN values should be converted to string"):
        CatBoostModel(trees).predict_batch(rows)


# --- PyTorch ------------------------------------------------------------------------------------


def test_pytorch_weights_run_no_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from nightshift.adapters.libraries.pytorch import StateDictModel

    class Linear(StateDictModel):
        architecture = torch.nn.Linear

    model = Linear(torch.nn.Linear(4, 2), arguments={"in_features": 4, "out_features": 2})
    assert not Linear.pickled
    buffer = io.BytesIO()
    torch.save({"weight": Mark(tmp_path / "ran")}, buffer)
    files = unpack(model.serialize())
    data = pack({**files, "state.pt": buffer.getvalue()})
    with pytest.raises(SerializationFailed, match="Weights only load failed"):
        Linear.deserialize(data)
    (tmp_path / "state.pt").write_bytes(buffer.getvalue())
    with pytest.raises(SerializationFailed, match="Weights only load failed"):
        Linear.from_file(tmp_path / "state.pt", {})
    assert not (tmp_path / "ran").exists()

    other = {"in_features": 5, "out_features": 2}
    with pytest.raises(RuntimeError, match="size mismatch"):
        Linear(model.trained, arguments=other)
    torch.save(model.trained, tmp_path / "state.pt")
    again = Linear.from_file(tmp_path / "state.pt", {"arguments": model.arguments})
    np.testing.assert_array_equal(again.predict_batch(IRISES), model.predict_batch(IRISES))


def test_pytorch_files_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    rows = torch.zeros((3, 4))
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    net = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Dropout(0.5)).eval()
    torch.export.save(torch.export.export(net, (rows,), dynamic_shapes=dynamic), tmp_path / "a.pt2")
    model = adapter_for_file(tmp_path / "a.pt2", settings={"names": ["a", "b"]})
    with torch.inference_mode():
        expected = net(torch.tensor(IRISES.to_numpy("float32"))).numpy()
    np.testing.assert_array_equal(model.predict_batch(IRISES), expected)
    assert model.pickled

    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="no GPU"):
            adapter_for_file(tmp_path / "a.pt2", settings={"device": "cuda"})


# --- Keras and TensorFlow -----------------------------------------------------------------------

keras_quiet = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


@keras_quiet
def test_keras_runs_no_lambda(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    from nightshift.adapters.libraries.keras import KerasModel

    path = tmp_path / "ran"
    place = str(path)
    attack = keras.layers.Lambda(lambda x: (open(place, "w").close(), x)[1])  # noqa: PTH123
    net = keras.Sequential([keras.layers.Input((4,)), attack])
    path.unlink()  # building it has run it
    net.save(tmp_path / "model.keras")
    data = KerasModel(net).serialize()
    for read in (
        lambda: KerasModel.deserialize(data),
        lambda: adapter_for_file(tmp_path / "model.keras"),
    ):
        with pytest.raises(SerializationFailed, match="unsafe"):
            read()
    assert not path.exists()


@keras_quiet
def test_keras_and_saved_model_files_are_read(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")

    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    net.save(tmp_path / "model.keras")
    net.export(tmp_path / "saved", verbose=False)
    expected = net.predict_on_batch(IRISES.to_numpy("float32"))
    for place in ("model.keras", "saved"):
        model = adapter_for_file(tmp_path / place, settings={"names": ["a", "b"]})
        np.testing.assert_allclose(model.predict_batch(IRISES), expected, rtol=1e-6)
        assert model.pickled == (place == "saved")
    with pytest.raises(ConfigurationError, match="It has serve, serving_default"):
        adapter_for_file(tmp_path / "saved", settings={"signature": "predict"})
    with pytest.raises(ConfigurationError, match="It has output_0"):
        adapter_for_file(tmp_path / "saved", settings={"result": "scores"})


# --- ONNX ---------------------------------------------------------------------------------------


def converted(model: Any, rows: pd.DataFrame, **settings: Any) -> Any:
    for library in ("onnxruntime", "skl2onnx", "onnxmltools"):
        pytest.importorskip(library)
    from nightshift.adapters.libraries.onnx_conversion import to_onnx

    return to_onnx(model, rows, **settings)


def test_onnx_takes_another_models_place() -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(TUMOURS, BENIGN)
    source = SklearnModel(fitted, "predict_proba", (1,))
    model = converted(source, TUMOURS, tolerance=1e-12)
    assert list(model.output_names) == ["probability_1"]
    predicted = model.predict_batch(TUMOURS)
    np.testing.assert_allclose(
        predicted, source.predict_batch(TUMOURS)[:, 0], rtol=1e-9, atol=1e-12
    )
    assert not model.pickled


def test_onnx_that_predicts_otherwise_is_refused() -> None:
    forest = RandomForestClassifier(20, random_state=0).fit(TUMOURS, BENIGN)
    source = SklearnModel(forest, "predict_proba")
    assert converted(source, TUMOURS).predict_batch(TUMOURS).shape == (569, 2)
    with pytest.raises(SerializationFailed, match="differs in") as caught:
        converted(source, TUMOURS, tolerance=1e-12)  # float32 cannot do that
    assert "Register it in its own format" in str(caught.value)


def test_onnx_of_what_nothing_converts_is_refused() -> None:
    class Own(SklearnModel):
        pass

    fitted = LinearRegression().fit(IRISES, KIND)
    with pytest.raises(SerializationFailed, match="nothing converts"):
        converted(Own(fitted), IRISES)
    with pytest.raises(SerializationFailed, match="cannot be kept as ONNX"):
        converted(SklearnModel(Doubled().fit(IRISES, KIND)), IRISES)


@pytest.mark.parametrize("output", ["predict", "predict_proba"])
def test_onnx_of_xgboost_stopped_early(output: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    from nightshift.adapters.libraries.xgboost import XGBoostModel

    trees = xgboost.XGBClassifier(n_estimators=50, early_stopping_rounds=2, n_jobs=2)
    trees.fit(TUMOURS[:300], BENIGN[:300], eval_set=[(TUMOURS, 1 - BENIGN)], verbose=False)
    source = XGBoostModel(trees, output)
    assert source.iterations < source.booster.num_boosted_rounds()
    assert list(converted(source, TUMOURS).output_names or ()) == list(source.output_names or ())
    assert list(source.booster.feature_names) == list(TUMOURS)  # the original is as it was


def test_onnx_settings_fit_the_graph(tmp_path: Path) -> None:
    fitted = LogisticRegression(max_iter=500).fit(IRISES, SPECIES)
    graph = converted(SklearnModel(fitted), IRISES).graph
    (tmp_path / "model.onnx").write_bytes(graph)
    settings = {"result": "probabilities", "columns": [2], "names": ["virginica"], "threads": 1}
    model = adapter_for_file(tmp_path / "model.onnx", settings=settings)
    np.testing.assert_allclose(model.predict_batch(IRISES), fitted.predict_proba(IRISES)[:, 2])
    with pytest.raises(ConfigurationError, match="It has label, probabilities"):
        adapter_for_file(tmp_path / "model.onnx", settings={"result": "scores"})
    with pytest.raises(ConfigurationError, match="threads"):
        adapter_for_file(tmp_path / "model.onnx", settings={"threads": -1})


def test_onnx_dictionaries_are_refused_with_their_cure() -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from nightshift.adapters.libraries.onnx import OnnxModel

    fitted = LogisticRegression(max_iter=500).fit(IRISES, SPECIES)
    graph = skl2onnx.to_onnx(fitted, IRISES.to_numpy("float32")[:1]).SerializeToString()
    assert OnnxModel(graph).predict_batch(IRISES)[0] == "setosa"
    with pytest.raises(ConfigurationError, match="zipmap=False"):
        OnnxModel(graph, "output_probability")


# --- MLflow -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
def test_mlflow_is_registered_from_a_folder_or_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "registry"))
    mlflow = pytest.importorskip("mlflow")

    fitted = LinearRegression().fit(IRISES, KIND)
    needs: dict[str, Any] = {"pip_requirements": []}
    mlflow.sklearn.save_model(fitted, tmp_path / "folder", **needs)
    with mlflow.start_run():
        mlflow.sklearn.log_model(fitted, name="m", registered_model_name="irises", **needs)
    mlflow.MlflowClient().set_registered_model_alias("irises", "champion", 1)

    for place in (tmp_path / "folder", "models:/irises@champion", "models:/irises/1"):
        model = adapter_for_file(place, settings={"names": ["kind"]})
        np.testing.assert_array_equal(model.predict_batch(IRISES), fitted.predict(IRISES))
        again = type(model).deserialize(model.serialize())
        np.testing.assert_array_equal(again.predict_batch(IRISES), fitted.predict(IRISES))
    with pytest.raises(SerializationFailed, match="MLFLOW_TRACKING_URI"):
        adapter_for_file("models:/nothing@champion")
