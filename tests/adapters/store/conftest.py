"""Model stores in a folder and on S3, which keep one contract."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.model_store import ModelStore, StoreOptions
from nightshift.adapters.store.trust_policy import TrustPolicy


class Place(ABC):
    """Where a store is, and how a vandal gets at its bytes past the store's back."""

    url: str
    options: StoreOptions

    def open(self, trust: TrustPolicy | None = None, **changes: Any) -> ModelStore:
        options = replace(self.options, **changes)
        return ModelStore(self.url, options, trust or TrustPolicy(pickle="always"))

    @abstractmethod
    def read(self, key: str) -> bytes: ...

    @abstractmethod
    def write(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def delete(self, key: str) -> None: ...

    @abstractmethod
    def keys(self) -> set[str]: ...

    @property
    @abstractmethod
    def missing_url(self) -> str:
        """The URL of a store that is not there."""


class Folder(Place):
    def __init__(self, folder: Path, options: StoreOptions) -> None:
        self.url = folder.as_uri()
        self.options = options
        self._folder = folder

    def read(self, key: str) -> bytes:
        return (self._folder / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        (self._folder / key).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / key).write_bytes(data)

    def delete(self, key: str) -> None:
        (self._folder / key).unlink()

    def keys(self) -> set[str]:
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix() for path in files}

    @property
    def missing_url(self) -> str:
        return (self._folder.parent / "missing").as_uri()


@dataclass
class Bucket(Place):
    client: Any
    bucket: str
    options: StoreOptions

    def __post_init__(self) -> None:
        self.url = f"s3://{self.bucket}/some/prefix"

    def read(self, key: str) -> bytes:
        body = self.client.get_object(Bucket=self.bucket, Key=f"some/prefix/{key}")["Body"]
        with body:
            data: bytes = body.read()
        return data

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"some/prefix/{key}", Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"some/prefix/{key}")

    def keys(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {item["Key"].removeprefix("some/prefix/") for item in found}

    @property
    def missing_url(self) -> str:
        return f"s3://{self.bucket}-missing/some/prefix"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "store").mkdir()
    return Folder(tmp_path / "store", StoreOptions(cache_dir=tmp_path / "cache"))


@pytest.fixture
def bucket(s3_server: Any, s3_client: Any, s3_bucket: str, tmp_path: Path) -> Bucket:
    options = StoreOptions(
        cache_dir=tmp_path / "cache",
        endpoint_url=s3_server.endpoint_url,
        region=s3_server.region,
        key=s3_server.key,
        secret=s3_server.secret,
    )
    return Bucket(s3_client, s3_bucket, options)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Place)
    return found


@pytest.fixture
def store(place: Place) -> ModelStore:
    return place.open()


@pytest.fixture(scope="session")
def sample() -> pd.DataFrame:
    """100 rows of a float with gaps filled, and an integer."""
    rng = np.random.default_rng(7)
    return pd.DataFrame({"distance": rng.normal(800, 300, 100), "hour": np.arange(100) % 24})


@pytest.fixture(scope="session")
def trained(sample: pd.DataFrame) -> Callable[[float], Model]:
    """A regression whose slope over the hour is as asked for."""

    def train(slope: float = 2.0) -> Model:
        return SklearnModel(
            LinearRegression().fit(sample, sample.distance / 3 + slope * sample.hour)
        )

    return train


@pytest.fixture(scope="session")
def model(trained: Callable[[float], Model]) -> Model:
    return trained(2.0)
