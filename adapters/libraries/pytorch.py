"""PyTorch: an exported program (.pt2), or weights for a module that your code declares."""

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import JsonValue, PositiveInt
from pydantic.dataclasses import dataclass
from torch.export.passes import move_to_device_pass

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.models.archive import ArchivedModel, configured, translated, unpack
from nightshift.adapters.models.arrays import (
    Features,
    Number,
    PredictionArray,
    flat,
    matrix,
    slices,
)

_NO_MEMORY = "can't allocate memory"  # as c10/core/impl/alloc_cpu.cpp says it


@contextmanager
def _memory_errors() -> Iterator[None]:
    """PyTorch's allocators raise kinds of RuntimeError; who calls a model halves at MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY in str(error):
            raise MemoryError(str(error)) from error
        raise


@dataclass(eq=False, repr=False)
class PyTorchModel(ArchivedModel):
    """A program of one input, (m, n) -> (m,) or (m, k), with any number of rows:
    `torch.export.export(module.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))`.

    All columns go in as one tensor of `dtype`, NULL as NaN, `micro_batch` rows at a time, on
    `device`: "cpu", "cuda", "cuda:1", or "auto" for a GPU if there is one. `names` names the k
    columns; `("embedding[]",)` makes one array column of them.
    """

    tolerance: ClassVar[float] = 1e-4  # float32, and a matrix product's order depends on its shape
    pickled: ClassVar[bool] = True  # torch.export.load unpickles
    thread_safe: ClassVar[bool] = True

    trained: Any
    names: tuple[str, ...] | None = None
    device: str = "cpu"
    micro_batch: PositiveInt = 8192
    dtype: Number = "float32"

    def __post_init__(self) -> None:
        self._device = self._available()
        self._forward = self._module()

    def _available(self) -> torch.device:
        gpu = torch.cuda.is_available()
        if self.device.startswith("cuda") and not gpu:
            remedy = 'Use a machine that has one, or register with device="auto".'
            raise ConfigurationError(type(self).__name__, "device", "no GPU is there", remedy)
        automatic = "cuda" if gpu else "cpu"
        return torch.device(automatic if self.device == "auto" else self.device)

    def _module(self) -> torch.nn.Module:
        return move_to_device_pass(self.trained, self._device).module()

    def predict_batch(self, features: Features) -> PredictionArray:
        return self._run(self._forward, features)

    def _run(self, forward: torch.nn.Module, features: Features) -> PredictionArray:
        rows = matrix(features, self.dtype)
        with torch.inference_mode(), _memory_errors():
            parts = [
                forward(torch.tensor(rows[part], device=self._device)).cpu().numpy()
                for part in slices(len(rows), self.micro_batch)
            ]
        return flat(np.concatenate(parts))

    @property
    def output_names(self) -> Sequence[str] | None:
        return self.names

    def files(self) -> Mapping[str, bytes]:
        buffer = io.BytesIO()
        torch.export.save(self.trained, buffer)
        return {"model.pt2": buffer.getvalue()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        return torch.export.load(io.BytesIO(files["model.pt2"]))

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        with translated(path.name, "read", "Save it with `torch.export.save(program, path)`."):
            return configured(cls, torch.export.load(path), settings)


@dataclass(eq=False, repr=False)
class StateDictModel(PyTorchModel):
    """The weights of a module whose code stays in your package; no code travels in the bytes:

        class ChurnModel(StateDictModel):
            architecture = ChurnNetwork  # a torch.nn.Module

    `trained` is such a module or its state dict; `arguments` build the module. Register the
    subclass by an entry point, or let the operator allow its path.
    """

    pickled: ClassVar[bool] = False
    architecture: ClassVar[Callable[..., torch.nn.Module]]

    arguments: dict[str, JsonValue] = field(default_factory=dict)

    def _module(self) -> torch.nn.Module:
        self._original: torch.nn.Module | None = None
        if isinstance(self.trained, torch.nn.Module):
            self._original = copy.deepcopy(self.trained).eval().to(self._device)
            self.trained = self.trained.state_dict()
        module = type(self).architecture(**self.arguments)
        module.load_state_dict(self.trained)
        return module.eval().to(self._device)

    def predict_original(self, features: Features) -> PredictionArray:
        """The module itself: it may hold more than its state dict, such as a temperature."""
        return self._run(self._original or self._forward, features)

    def files(self) -> Mapping[str, bytes]:
        buffer = io.BytesIO()
        torch.save(self.trained, buffer)
        return {"state.pt": buffer.getvalue()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        data = files["state.pt"]
        unpack(data)  # PyTorch's own format is a zip as well: see that nothing in it inflates
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        with translated(path.name, "read", "Save it with `torch.save(module.state_dict(), path)`."):
            state = torch.load(path, map_location="cpu", weights_only=True)
            return configured(cls, state, settings)
