"""The reference: how the sample was distributed with which a model was registered."""

import hashlib
import json
from typing import Any

import pandas as pd
import pytest

from nightshift.adapters.errors import BlobCorrupt, ModelUntrusted, RecordInvalid
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.keys import SigningKey
from nightshift.adapters.store.model_store import ModelStore
from nightshift.adapters.store.trust_policy import TrustPolicy

KEY = SigningKey.create()
MANIFEST = "models/delay/versions/1/manifest.json"


def test_register_keeps_the_profile_of_the_whole_sample(
    store: ModelStore, model: Model, sample: pd.DataFrame
) -> None:
    manifest = store.register("delay", model, sample)
    reference = store.reference(manifest)
    assert reference.rows == len(sample)
    assert set(reference.inputs) == {"distance", "hour"}
    distance = reference.inputs["distance"]
    assert (distance.rows, distance.nulls, distance.kind) == (100, 0, "number")
    assert (distance.low, distance.high) == (sample.distance.min(), sample.distance.max())
    predicted = model.predict_batch(sample)
    prediction = reference.outputs["prediction"]
    assert (prediction.low, prediction.high) == (predicted.min(), predicted.max())
    assert prediction.sketch.total == 100
    assert store.reference(store.resolve("delay@1")) == reference


def test_a_sample_larger_than_a_slice_is_counted_whole(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    many = pd.concat([sample] * 1001, ignore_index=True)
    many.loc[len(many) - 1, "distance"] = 1e6
    store = folder.open()
    distance = store.reference(store.register("delay", model, many)).inputs["distance"]
    assert (distance.rows, distance.high) == (100_100, 1e6)


def test_the_same_sample_and_model_have_one_blob(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    store = folder.open()
    first, second = (store.register("delay", model, sample) for _ in range(2))
    assert first.profile == second.profile


def test_a_manifest_without_a_profile_is_refused(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    store = folder.open(TrustPolicy(keys=(KEY.public,)))
    fields = json.loads(store.register("delay", model, sample, sign_with=KEY).to_json())
    del fields["profile"]
    folder.write(MANIFEST, json.dumps(fields).encode())
    with pytest.raises(RecordInvalid, match="profile: Field required"):
        store.resolve("delay@1")


@pytest.mark.parametrize("damaged", [b"", b"{}", b"a" * 40])
def test_a_damaged_profile_is_not_read(
    place: Any, store: ModelStore, model: Model, sample: pd.DataFrame, damaged: bytes
) -> None:
    manifest = store.register("delay", model, sample)
    place.write(manifest.profile.key, damaged)
    with pytest.raises(BlobCorrupt, match=manifest.profile.digest):
        store.reference(manifest)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format":2}', b'{"format":1}', b"\xff"])
def test_a_profile_that_is_none_is_one_clear_error(
    folder: Any, model: Model, sample: pd.DataFrame, content: bytes
) -> None:
    store = folder.open()
    digest = hashlib.sha256(content).hexdigest()
    fields = json.loads(store.register("delay", model, sample).to_json())
    fields["profile"] = {"digest": digest, "size": len(content)}
    folder.write(f"blobs/sha256/{digest}", content)
    folder.write(MANIFEST, json.dumps(fields).encode())
    with pytest.raises(RecordInvalid, match="not a profile"):
        store.reference(store.resolve("delay@1"))


def test_without_access_to_the_model_its_profile_is_not_read(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    manifest = folder.open().register("delay", model, sample)
    with pytest.raises(ModelUntrusted):
        folder.open(TrustPolicy(pickle="never")).reference(manifest)
