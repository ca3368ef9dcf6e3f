"""A network that does not fit into memory is halved like any other model, and remembered."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nightshift.adapters.models.signature import Signature
from nightshift.flows.scoring.prediction.predictor import Predictor
from watched import Twice, Watched, manifest

torch = pytest.importorskip("torch")

from nightshift.adapters.libraries.pytorch import StateDictModel  # noqa: E402

ROOM = 30  # rows


class Greedy(torch.nn.Module):  # type: ignore[misc]
    """Sums its rows; for more than it has room for, it asks for more memory than addresses."""

    def forward(self, rows: Any) -> Any:
        torch.empty(max(len(rows) - ROOM, 0) * 2**46)
        return rows.sum(dim=1)


class OutOfGpu(torch.nn.Module):  # type: ignore[misc]
    """Fails as CUDA's allocator does."""

    def forward(self, rows: Any) -> Any:
        if len(rows) > ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return rows.sum(dim=1)


class Broken(torch.nn.Module):  # type: ignore[misc]
    def forward(self, rows: Any) -> Any:
        return rows @ torch.ones(7)


def of(architecture: Any) -> StateDictModel:
    kind = type("OfIt", (StateDictModel,), {"architecture": architecture})
    return kind(architecture())


@pytest.mark.parametrize("architecture", [Greedy, OutOfGpu])
def test_memory_that_runs_out_is_a_memory_error(architecture: Any) -> None:
    model = of(architecture)
    with pytest.raises(MemoryError, match=r"allocate") as raised:
        model.predict_batch(np.ones((ROOM + 1, 2)))
    assert isinstance(raised.value.__cause__, RuntimeError)
    np.testing.assert_array_equal(model.predict_batch(np.ones((ROOM, 2))), np.full(ROOM, 2.0))


def test_any_other_trouble_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="size mismatch") as raised:
        of(Broken).predict_batch(np.ones((3, 2)))
    assert not isinstance(raised.value, MemoryError)


@pytest.mark.parametrize("architecture", [Greedy, OutOfGpu])
def test_the_size_that_fits_is_kept_to(architecture: Any) -> None:
    model = Watched(of(architecture))
    numbers = pd.DataFrame({"a": np.arange(100.0), "b": 1.0})
    signature = Signature.from_sample(numbers.head(20), np.ones(20, np.float32), None)
    about = manifest(Twice()).model_copy(update={"signature": signature})
    predictor = Predictor(about, model, ["id"], ["id"])
    chunk = pa.table({"id": pa.array(range(100)), **{n: pa.array(numbers[n]) for n in numbers}})
    for _ in range(2):
        scored = predictor.score(chunk)
        found = scored.rows.column("prediction").to_numpy()
        np.testing.assert_array_equal(found, numbers["a"] + 1)
        assert scored.rejects == []
    refused = [size for size in model.calls if size > ROOM]
    assert refused == [100, 50]
    assert predictor.most_rows == 25
