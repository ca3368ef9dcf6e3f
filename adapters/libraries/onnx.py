"""ONNX: a graph from any library, run by ONNX Runtime on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import onnxruntime
from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.models.archive import ArchivedModel, configured, translated
from nightshift.adapters.models.arrays import Features, PredictionArray, column, flat, matrix

_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(bool)": "bool",
    "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(string)": "object",
}  # fmt: skip


@dataclass(eq=False, repr=False)
class OnnxModel(ArchivedModel):
    """A graph as the bytes of an .onnx file.

    A graph with one input gets all the columns in it, (m, n), and `inputs` may name them; one
    with several inputs gets in each the column of its name, (m, 1) or (m,). `result` is the graph
    output to keep, by default the first; `columns` keeps some of that output's k columns, and
    `names` names what is kept (`("embedding[]",)` makes one array column of it). `threads` is for
    one prediction; 0 takes all cores. What a missing value does is up to the graph: NaN goes in
    as it is, a missing whole number or text is refused.
    """

    tolerance: ClassVar[float] = 1e-5
    thread_safe: ClassVar[bool] = True

    graph: bytes
    result: str | None = None
    columns: tuple[NonNegativeInt, ...] | None = None
    names: tuple[str, ...] | None = None
    threads: NonNegativeInt = 0
    inputs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4  # errors come as exceptions, too
        with translated(type(self).__name__, "read", "Is the file whole, and not too new?"):
            self._session = onnxruntime.InferenceSession(
                self.graph, options, providers=["CPUExecutionProvider"]
            )
        self._inputs = self._session.get_inputs()
        types = {output.name: output.type for output in self._session.get_outputs()}
        self._result = self.result or next(iter(types))
        if self._result not in types:
            problem, remedy = f"there is no output {self._result!r}", f"It has {', '.join(types)}."
            raise ConfigurationError(type(self).__name__, "result", problem, remedy)
        if not types[self._result].startswith("tensor("):
            problem = f"{self._result!r} is a {types[self._result]}, not a tensor"
            remedy = "Convert the model again with the option zipmap=False."
            raise ConfigurationError(type(self).__name__, "result", problem, remedy)

    def predict_batch(self, features: Features) -> PredictionArray:
        values = self._session.run([self._result], self._fed(features))[0]
        if self.columns is not None:
            values = values[:, list(self.columns)]
        return flat(np.asarray(values))

    def _fed(self, features: Features) -> dict[str, Any]:
        if len(self._inputs) == 1:
            only = self._inputs[0]
            return {only.name: matrix(features, _DTYPES[only.type])}
        fed = {}
        for position, wanted in enumerate(self._inputs):
            values = matrix(column(features, wanted.name, position), _DTYPES[wanted.type])
            fed[wanted.name] = values[:, 0] if len(wanted.shape) == 1 else values
        return fed

    @property
    def input_names(self) -> list[str] | None:
        if len(self._inputs) > 1:
            return [wanted.name for wanted in self._inputs]
        return None if self.inputs is None else list(self.inputs)

    @property
    def output_names(self) -> Sequence[str] | None:
        return self.names

    def files(self) -> Mapping[str, bytes]:
        return {"model.onnx": self.graph}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> bytes:
        return files["model.onnx"]

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        return configured(cls, path.read_bytes(), settings)
