"""Scheduled batch inference: score database tables with machine-learning models, exactly once.

The Python API, for scripts and notebooks, in a project's folder (or with NIGHTSHIFT_CONFIG set):

    import nightshift

    nightshift.register("churn", estimator, train, target="label", promote="champion")
    nightshift.run("churn", "2024-03-01")
    nightshift.read_predictions("churn", "2024-03-01")  # a DataFrame

`register` and `promote` change the model store, `run` and `backfill` score, `read_predictions`
reads what is published, `load_model` opens a version. Each error is a NightshiftError: its text
names the file or field and the remedy. Names are imported at first use, so that `import nightshift`
loads no library.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nightshift.adapters.errors import NightshiftError
    from nightshift.adapters.models.model import Model
    from nightshift.adapters.models.signature import Signature
    from nightshift.flows.api import (
        backfill,
        load_model,
        promote,
        read_predictions,
        register,
        run,
    )

__all__ = [
    "Model",
    "NightshiftError",
    "Signature",
    "backfill",
    "load_model",
    "promote",
    "read_predictions",
    "register",
    "run",
]

_MODULES = {
    "Model": "nightshift.adapters.models.model",
    "NightshiftError": "nightshift.adapters.errors",
    "Signature": "nightshift.adapters.models.signature",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'nightshift' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "nightshift.flows.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
