"""Models of safe formats, a store that trusts them, and an attacker's writes to it."""

import json
import warnings
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from nightshift.adapters.errors import (
    NightshiftError,
    SerializationFailed,
)
from nightshift.adapters.models import archive
from nightshift.adapters.models.arrays import Features, PredictionArray
from nightshift.adapters.models.model import Model, Trust
from nightshift.adapters.store.keys import SigningKey
from nightshift.adapters.store.manifest import Manifest
from nightshift.adapters.store.model_store import ModelStore
from nightshift.adapters.store.trust_policy import TrustPolicy

KEY = SigningKey.create()
SIGNED = TrustPolicy(keys=(KEY.public,))


class Scaled(Model):
    """A safe format: its bytes are a number."""

    pickled: ClassVar[bool] = False

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def predict_batch(self, features: Features) -> PredictionArray:
        return np.asarray(features, dtype=float).sum(axis=1) * self.scale

    def serialize(self) -> bytes:
        return json.dumps(self.scale).encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        try:
            return cls(float(json.loads(data)))
        except ValueError as error:
            remedy = "Register it again."
            raise SerializationFailed("Scaled", f"not a number: {error}", remedy) from error


class Zipped(Scaled):
    """A safe format: its bytes are an archive."""

    def serialize(self) -> bytes:
        return archive.pack({"scale": super().serialize()})

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        return super().deserialize(archive.unpack(data)["scale"])


class Choosy(Scaled):
    """Asks the operator's policy what it may build."""

    @classmethod
    def deserialize_trusted(cls, data: bytes, policy: Trust) -> Self:
        if "tests.Choosy" not in policy.trusted_types:
            raise SerializationFailed("Choosy", "tests.Choosy is not trusted", "Trust it.")
        return cls.deserialize(data)


class Outdated(Scaled):
    """Its library warns while it reads."""

    warning: ClassVar[Warning | None] = None

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        if cls.warning is not None:
            warnings.warn(cls.warning, stacklevel=2)
        return super().deserialize(data)


def path_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


CLASSES = frozenset(map(path_of, (Scaled, Zipped, Choosy, Outdated)))
SAFE = TrustPolicy(keys=(KEY.public,), classes=CLASSES)


def rewrite(place: Any, manifest: Manifest, version: int | None = None, **fields: Any) -> None:
    """What an attacker with write access does: put another manifest in the version's place."""
    changed = json.loads(manifest.to_json()) | fields
    key = f"models/{manifest.name}/versions/{version or manifest.version}/manifest.json"
    place.write(key, json.dumps(changed).encode())


def plant(place: Any, manifest: Manifest, data: bytes, **fields: Any) -> None:
    """Put an attacker's bytes into the store, and a manifest that names them."""
    from hashlib import sha256

    digest = sha256(data).hexdigest()
    place.write(f"blobs/sha256/{digest}", data)
    rewrite(place, manifest, blob={"digest": digest, "size": len(data)}, **fields)


def refused(store: ModelStore, reference: str, *says: str) -> NightshiftError:
    with pytest.raises(NightshiftError) as caught:
        store.load(store.resolve(reference))
    for text in says:
        assert text in str(caught.value)
    return caught.value
