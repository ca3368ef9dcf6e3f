"""Which adapter is which: names to classes, as data. No ML library is imported before its use."""

import contextlib
import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType

from nightshift.adapters.errors import AdapterNotFound, ConfigurationError, LibraryNotInstalled
from nightshift.adapters.models.model import Model

ENTRY_POINT_GROUP = "nightshift.adapters"

NO_SETTINGS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Entry:
    """Where an adapter's class is, what it imports, the extra that installs that, and which files
    it reads: ".ubj" is a suffix, "/MLmodel" a file inside a folder, "models:/" how a URI starts.
    """

    path: str  # "package.module:Class"
    libraries: tuple[str, ...] = ()
    extra: str = ""
    files: tuple[str, ...] = ()


def _ours(file_and_class: str, libraries: str, extra: str, files: str) -> Entry:
    path = f"nightshift.adapters.libraries.{file_and_class}"
    return Entry(path, tuple(libraries.split()), extra, tuple(files.split()))


BUILT_IN: dict[str, Entry] = {
    "sklearn": _ours("sklearn:SklearnModel", "", "", ".joblib .pkl"),
    "skops": _ours("skops:SkopsModel", "skops", "skops", ".skops"),
    "xgboost": _ours("xgboost:XGBoostModel", "xgboost", "xgboost", ".ubj .json"),
    "lightgbm": _ours("lightgbm:LightGBMModel", "lightgbm", "lightgbm", ".txt"),
    "catboost": _ours("catboost:CatBoostModel", "catboost", "catboost", ".cbm"),
    "pytorch": _ours("pytorch:PyTorchModel", "torch", "pytorch", ".pt2"),
    "keras": _ours("keras:KerasModel", "keras tensorflow", "tensorflow", ".keras"),
    "tensorflow": _ours(
        "tensorflow:TensorFlowModel", "tensorflow", "tensorflow", "/saved_model.pb"
    ),
    "onnx": _ours("onnx:OnnxModel", "onnxruntime", "onnx", ".onnx"),
    "mlflow": _ours("mlflow:MLflowModel", "mlflow", "mlflow", "/MLmodel models:/"),
}


def entries() -> dict[str, Entry]:
    """Every adapter by name: ours, then the users' entry points, which cannot replace ours."""
    theirs = {point.name: Entry(point.value) for point in entry_points(group=ENTRY_POINT_GROUP)}
    return theirs | BUILT_IN


def adapter_class(name: str, allowed_classes: Collection[str] = ()) -> type[Model]:
    """The adapter's class, by its name or by one of the allowed paths `package.module:Class`.

    Raises AdapterNotFound, LibraryNotInstalled with its cure, or ConfigurationError for a path
    that leads to no adapter.
    """
    known = _known(allowed_classes)
    if name not in known:
        raise AdapterNotFound(name, tuple(sorted(known)))
    entry = known[name]
    module, _, attribute = entry.path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing in entry.libraries:
            raise LibraryNotInstalled(name, missing, entry.extra) from error
        if name in BUILT_IN or not f"{module}.".startswith(f"{missing}."):
            raise  # a bug in the adapter, not a missing library
        problem, remedy = f"there is no module {missing}", "Install the package that has it."
        raise ConfigurationError(f"The adapter {name}", entry.path, problem, remedy) from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        problem, remedy = "it is not a subclass of adapters.Model", "Correct the path."
        raise ConfigurationError(f"The adapter {name}", entry.path, problem, remedy)
    return found


def adapter_name(model: Model, allowed_classes: Collection[str] = ()) -> str:
    """The name under which the model's class is known. Raises AdapterNotFound."""
    path = f"{type(model).__module__}:{type(model).__qualname__}"
    known = _known(allowed_classes)
    for name, entry in known.items():
        if entry.path == path:
            return name
    for name in sorted(known.keys() - BUILT_IN.keys()):  # a package may re-export its class
        with contextlib.suppress(Exception):  # another package's adapter that cannot be imported
            if adapter_class(name, allowed_classes) is type(model):
                return name
    raise AdapterNotFound(path, tuple(sorted(known)))


def _known(allowed_classes: Collection[str]) -> dict[str, Entry]:
    return {path: Entry(path) for path in allowed_classes if ":" in path} | entries()


def adapter_for_file(
    place: str | Path,
    adapter: str | None = None,
    settings: Mapping[str, object] = NO_SETTINGS,
    allowed_classes: Collection[str] = (),
) -> Model:
    """What an ML library saved at `place` -> a model of the adapter, with these settings.

    The place is a file, a folder, or an MLflow URI `models:/name@alias`. It tells the adapter,
    unless that is named. Raises ConfigurationError if it does not tell or does not exist, or for
    a setting that the adapter does not have; SerializationFailed if it cannot be read.
    """
    path = Path(place)
    if not str(path).startswith("models:/") and not path.exists():
        raise ConfigurationError(str(path), "", "there is no such file", "Correct the path.")
    chosen = adapter_class(adapter or _recognized(path), allowed_classes)
    return chosen.from_file(path, settings)


def _recognized(path: Path) -> str:
    for name, entry in BUILT_IN.items():
        if any(_fits(path, mark) for mark in entry.files):
            return name
    problem = "it does not tell which library saved it"
    known = ", ".join(f"{' '.join(entry.files)} ({name})" for name, entry in BUILT_IN.items())
    raise ConfigurationError(str(path), "", problem, f"Name the adapter; known files are {known}.")


def _fits(path: Path, mark: str) -> bool:
    if mark.endswith(":/"):
        return str(path).startswith(mark)
    return (path / mark[1:]).is_file() if mark.startswith("/") else path.suffix == mark
