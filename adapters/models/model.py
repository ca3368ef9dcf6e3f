"""The contract that every model adapter keeps, and nothing else."""

import io
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import joblib
import pandas as pd

from nightshift.adapters.errors import SerializationFailed
from nightshift.adapters.models.arrays import Features, Form, PredictionArray


class Trust(Protocol):
    """What of the operator's trust policy an adapter may need to read its bytes."""

    @property
    def trusted_types(self) -> Collection[str]:
        """Types beyond the plain ones that a safe format may build, as `package.module.Class`."""


class Model(ABC):
    """A trained model of some library, behind four methods.

    Write `predict_batch`; override the others where the library does better. Neither method
    checks its arguments or results: the caller does, once, against the signature.
    """

    tolerance: ClassVar[float] = 0.0
    """How far, relatively, a prediction may move when its batch is cut elsewhere; 0 for trees."""

    pickled: ClassVar[bool] = True
    """Whether reading the bytes can run code that they hold; False for a safe native format."""

    thread_safe: ClassVar[bool] = False
    """Whether threads may call one model's `predict_batch` at the same time. Where they may not,
    and a call never ends, later calls get another copy, read from the same bytes.
    """

    @abstractmethod
    def predict_batch(self, features: Features) -> PredictionArray:
        """(m, n) features -> m predictions, (m,) or (m, k).

        `features` is a DataFrame with the signature's columns in the signature's order and
        dtypes, or an array; m >= 1. May raise anything: the caller names model and rows.
        """

    def predict(self, features: Features) -> Any:
        """(1, n) features -> the one prediction, a scalar or (k,)."""
        return self.predict_batch(features)[0]

    def predict_original(self, features: Features) -> PredictionArray:
        """What was handed over to the adapter predicts, called as its library's users call it.

        Registration requires the same of `predict_batch` after a round trip through bytes, so
        override it where the adapter takes something out of an object and leaves the rest.
        """
        return self.predict_batch(features)

    def settled(self, sample: pd.DataFrame) -> Self:
        """The model to register: itself, or one that has learned from (m, n) features of a sample
        what its object does not say, such as the form in which it takes them.

        Raises ConfigurationError where that cannot be found out.
        """
        return self

    @property
    def form(self) -> Form | None:
        """In which form the object takes its features; None where the adapter always knows."""
        return None

    @property
    def input_names(self) -> list[str] | None:
        """Names of the n inputs in their order; None where the model does not know them."""
        return None

    def categories(self, features: pd.DataFrame) -> Mapping[str, Collection[Any] | None]:
        """The values that the model itself has for its categorical inputs, by name; None for an
        input of category dtype of which it keeps only the codes. Inputs without are left out.

        `features` are a sample's. Registration compares the two.
        """
        return {}

    @property
    def output_names(self) -> Sequence[str] | None:
        """Names of the k columns of predictions; None for `prediction`, or `prediction_0`, ..."""
        return None

    def serialize(self) -> bytes:
        """The model as bytes, here a joblib pickle. Raises SerializationFailed."""
        buffer = io.BytesIO()
        try:
            joblib.dump(self, buffer, compress=3)
        except Exception as error:  # a pickle may fail in any way, down to user code
            problem = f"it does not become bytes ({type(error).__name__}: {error})"
            remedy = "Lambdas, open files and connections cannot be kept; use a named function."
            raise SerializationFailed(type(self).__name__, problem, remedy) from error
        return buffer.getvalue()

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        """What `serialize` returned -> an equal model. Raises SerializationFailed.

        Reading a pickle runs what it says: give this only bytes that trust has let through.
        """
        try:
            model = joblib.load(io.BytesIO(data))
        except Exception as error:  # as above
            problem = f"its bytes cannot be read ({type(error).__name__}: {error})"
            remedy = "Is the code that it was trained with importable here, in the same version?"
            raise SerializationFailed(cls.__name__, problem, remedy) from error
        if not isinstance(model, cls):
            problem = f"its bytes hold a {type(model).__name__}"
            raise SerializationFailed(cls.__name__, problem, "Register it with its own adapter.")
        return model

    @classmethod
    def deserialize_trusted(cls, data: bytes, policy: Trust) -> Self:
        """`deserialize`, for a format that asks the operator's policy what it may build."""
        return cls.deserialize(data)

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        """A file or folder that the library itself saved, and the adapter's settings -> a model.

        Give it only files that you trust; a registered model is read by `deserialize`. Raises
        SerializationFailed, or ConfigurationError for a setting that the adapter does not have.
        """
        problem = f"it does not read files such as {path.name}"
        remedy = "Register the model from Python instead, or add `from_file` to its adapter."
        raise SerializationFailed(cls.__name__, problem, remedy)
