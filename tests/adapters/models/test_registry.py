"""Adapters by name, by path and by file; a missing one and a broken one are different errors."""

import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from textwrap import dedent

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from nightshift.adapters.errors import (
    AdapterNotFound,
    ConfigurationError,
    LibraryNotInstalled,
    SerializationFailed,
)
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.registry import (
    BUILT_IN,
    Entry,
    adapter_class,
    adapter_for_file,
    adapter_name,
)

ROOT = Path(__file__).parents[3]

# --- by name ------------------------------------------------------------------------------------


def test_no_library_is_imported_before_its_use() -> None:
    """Looking adapters up, registering and loading with scikit-learn leaves the others alone."""
    program = """
        import json, pkgutil, sys
        import nightshift.adapters.models.registry
        for room in ("models", "store", "profiles"):
            package = __import__(f"nightshift.adapters.{room}", fromlist=["*"])
            for module in pkgutil.iter_modules(package.__path__):
                __import__(f"{package.__name__}.{module.name}")
        nightshift.adapters.models.registry.entries()
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
    """
    command = [sys.executable, "-c", dedent(program)]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    libraries = {library for entry in BUILT_IN.values() for library in entry.libraries}
    assert not set(json.loads(ran.stdout)) & (libraries | {"sklearn", "onnx", "skl2onnx"})


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_adapter_is_found_or_names_its_cure(name: str) -> None:
    try:
        found = adapter_class(name)
    except LibraryNotInstalled as missing:
        message = str(missing)
        assert f"pip install 'nightshift-batch[{BUILT_IN[name].extra}]'" in message
    else:
        assert issubclass(found, Model)
        assert found.__doc__


class Absent(MetaPathFinder):
    """Python without that library."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("name", "library"),
    [(name, entry.libraries[0]) for name, entry in BUILT_IN.items() if entry.libraries],
)
def test_a_missing_library_names_the_extra_that_has_it(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = BUILT_IN[name]
    monkeypatch.delitem(sys.modules, entry.path.partition(":")[0], raising=False)
    monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(library), *sys.meta_path])
    with pytest.raises(LibraryNotInstalled) as caught:
        adapter_class(name)
    assert caught.value.library == library
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = extras["optional-dependencies"][entry.extra]
    assert any(line.startswith(_package(library)) for line in needed)
    assert entry.extra in extras["optional-dependencies"]["all"][0]


def _package(library: str) -> str:
    return {"mlflow": "mlflow-skinny"}.get(library, library)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write a module that can be imported, as a user's package would be installed."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, path.stem, raising=False)

    return write


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("import no_such_dependency", "no_such_dependency"),
        ("import json.no_such_part", "json.no_such_part"),
        ("import nightshift.adapters.no_such_room", "nightshift.adapters.no_such_room"),
    ],
)
def test_a_bug_in_an_adapter_is_not_taken_for_a_missing_library(
    module: str,
    missing: str,
    package: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package("broken_adapter.py", module)
    entry = Entry("broken_adapter:Broken", ("json",), "xgboost")
    monkeypatch.setitem(BUILT_IN, "broken", entry)
    with pytest.raises(ModuleNotFoundError) as caught:
        adapter_class("broken")
    assert caught.value.name == missing


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(AdapterNotFound) as caught:
        adapter_class("xgbost")
    assert set(BUILT_IN) <= set(caught.value.known)
    assert "xgboost" in str(caught.value)


# --- a user's own -------------------------------------------------------------------------------

TREND = """
    import json

    import numpy as np

    from nightshift.adapters.models.model import Model


    class Trend(Model):
        '''A straight line through (x, y), kept as JSON.'''

        pickled = False
        thread_safe = True
        tolerance = 1e-12

        def __init__(self, slope, intercept):
            self.slope, self.intercept = slope, intercept

        def predict_batch(self, features):
            return np.asarray(features, "float64")[:, 0] * self.slope + self.intercept

        def serialize(self):
            return json.dumps([self.slope, self.intercept]).encode()

        @classmethod
        def deserialize(cls, data):
            return cls(*json.loads(data))
"""


def test_a_users_adapter_is_found_by_its_entry_point(package: Callable[[str, str], None]) -> None:
    assert len(dedent(TREND).strip().splitlines()) < 30
    package("trend.py", TREND)
    package("trend-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: trend\nVersion: 1.0\n")
    points = "[nightshift.adapters]\ntrend = trend:Trend\nsklearn = trend:Trend\n"
    package("trend-1.0.dist-info/entry_points.txt", points)

    found = adapter_class("trend")
    model = found(2.0, 1.0)  # type: ignore[call-arg]
    assert adapter_name(model) == "trend"
    again = adapter_class("trend").deserialize(model.serialize())
    assert again.predict(pd.DataFrame({"x": [3.0]})) == 7.0
    assert adapter_class("sklearn") is SklearnModel  # ours are not replaced


def test_a_users_adapter_is_found_by_its_path_only_where_allowed(
    package: Callable[[str, str], None],
) -> None:
    package("trend.py", TREND)
    path = "trend:Trend"
    model = adapter_class(path, {path})(2.0, 1.0)  # type: ignore[call-arg]
    assert adapter_name(model, {path}) == path
    for allowed in ((), {"trend:Other"}, {"trend"}):
        with pytest.raises(AdapterNotFound):
            adapter_class(path, allowed)
        with pytest.raises(AdapterNotFound) as caught:
            adapter_name(model, allowed)
        assert caught.value.adapter == path


def test_a_users_adapter_may_be_re_exported_by_its_package(
    package: Callable[[str, str], None],
) -> None:
    package("mypkg/_impl.py", TREND)
    package("mypkg/__init__.py", "from mypkg._impl import Trend")
    package("broken.py", "raise RuntimeError('out of order')")
    package("mypkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mypkg\nVersion: 1.0\n")
    points = "[nightshift.adapters]\nbroken = broken:Trend\ntrend = mypkg:Trend\n"
    package("mypkg-1.0.dist-info/entry_points.txt", points)

    model = adapter_class("trend")(2.0, 1.0)  # type: ignore[call-arg]
    assert type(model).__module__ == "mypkg._impl"
    assert adapter_name(model) == "trend"
    package("mypkg-1.0.dist-info/entry_points.txt", "")
    assert adapter_name(model, {"mypkg:Trend"}) == "mypkg:Trend"
    with pytest.raises(AdapterNotFound):
        adapter_name(model)


def test_a_path_that_is_not_allowed_is_not_imported(
    package: Callable[[str, str], None], tmp_path: Path
) -> None:
    package("attack.py", f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(AdapterNotFound):
        adapter_class("attack:Model")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no_such_package:Thing", "there is no module no_such_package"),
        ("no_such_package.part:Thing", "there is no module no_such_package"),
        ("json:Thing", "not a subclass"),
        ("json:JSONDecoder", "not a subclass"),
        ("nightshift.adapters.models.model:Thing", "not a subclass"),
    ],
)
def test_a_path_that_leads_nowhere_is_a_wrong_setting(path: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        adapter_class(path, {path})
    assert path in str(caught.value)


# --- by file ------------------------------------------------------------------------------------

ROWS = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "z": [1.0, 0.0, 1.0, 0.0]})
LABELS = ["no", "no", "yes", "yes"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.joblib"
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), path)
    return path


def test_a_file_tells_its_adapter(saved: Path) -> None:
    model = adapter_for_file(saved)
    assert isinstance(model, SklearnModel)
    assert model.predict_batch(ROWS).tolist() == LABELS
    assert adapter_for_file(str(saved.rename(saved.with_suffix(".pkl")))).output_names is None


def test_settings_go_with_a_file(saved: Path) -> None:
    settings = {"output": "predict_proba", "classes": ["yes"]}
    model = adapter_for_file(saved, settings=settings)
    assert model.output_names == ["probability_yes"]
    assert model.predict_batch(ROWS).shape == (4, 1)


@pytest.mark.parametrize(
    ("settings", "field", "problem"),
    [
        ({"outputs": "predict"}, "outputs", "It has output, classes, names"),
        ({"output": "predict_prob"}, "output", "'predict_proba'"),
        ({"output": "transform"}, "output", "no method 'transform'"),
        ({"output": "predict_proba", "classes": ["maybe"]}, "classes", "'no', 'yes'"),
        ({"classes": 1}, "classes", "tuple"),
    ],
)
def test_a_wrong_setting_is_named(
    saved: Path, settings: dict[str, object], field: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        adapter_for_file(saved, settings=settings)
    assert caught.value.field == field
    assert problem in str(caught.value)


def test_an_unknown_file_lists_the_known(tmp_path: Path, saved: Path) -> None:
    for path in (saved.rename(tmp_path / "model.h5"), tmp_path):
        with pytest.raises(ConfigurationError) as caught:
            adapter_for_file(path)
        for entry in BUILT_IN.values():
            assert all(mark in str(caught.value) for mark in entry.files)
    assert isinstance(adapter_for_file(tmp_path / "model.h5", "sklearn"), SklearnModel)


def test_a_file_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        adapter_for_file(tmp_path / "model.joblib")


def test_a_file_that_is_no_model_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(b"what is this")
    with pytest.raises(SerializationFailed, match=r"model\.joblib"):
        adapter_for_file(path)


def test_an_adapter_may_read_no_files(saved: Path, package: Callable[[str, str], None]) -> None:
    package("trend.py", TREND)
    with pytest.raises(SerializationFailed, match=r"Trend: it does not read files"):
        adapter_for_file(saved, "trend:Trend", allowed_classes={"trend:Trend"})


def test_a_regressor_has_no_probabilities() -> None:
    fitted = LinearRegression().fit(ROWS, np.arange(4.0))
    with pytest.raises(ConfigurationError, match="no method 'predict_proba'"):
        SklearnModel(fitted, "predict_proba")
