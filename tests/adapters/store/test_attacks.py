"""Attacks on the model store: each is refused, says why, and runs nothing."""

import json
import pickle
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightshift.adapters.errors import (
    BlobCorrupt,
    ConfigurationError,
    ModelUntrusted,
    RecordInvalid,
    SerializationFailed,
    SignatureUndefined,
    StoreRefused,
)
from nightshift.adapters.models import archive
from nightshift.adapters.models.model import Model
from nightshift.adapters.store import golden_rows
from nightshift.adapters.store.keys import SigningKey, key_id
from nightshift.adapters.store.manifest import Manifest
from nightshift.adapters.store.trust_policy import TrustPolicy
from planted import CLASSES, KEY, SAFE, SIGNED, Choosy, Scaled, Zipped, plant, refused, rewrite


class Bomb:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.path, "executed")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Exists once something was executed."""
    return tmp_path / "executed"


# --- pickles ------------------------------------------------------------------------------------


def test_the_bomb_would_go_off(marker: Path) -> None:
    """The pickle of these tests does write a file where it is read."""
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


@pytest.mark.parametrize("policy", [TrustPolicy(), SIGNED, TrustPolicy(pickle="never")])
def test_a_planted_pickle_is_not_read(
    place: Any, model: Model, sample: pd.DataFrame, marker: Path, policy: TrustPolicy
) -> None:
    """A planted pickle is not read, unsigned, whatever the policy."""
    store = place.open(policy)
    manifest = store.register("delay", model, sample)
    plant(place, manifest, pickle.dumps(Bomb(marker)))
    error = refused(
        store, "delay@1", "delay@1 was not opened", "is a pickle, which can run any code"
    )
    assert isinstance(error, ModelUntrusted)
    assert not marker.exists()


def test_a_planted_pickle_under_a_stolen_signature_is_not_read(
    folder: Any, model: Model, sample: pd.DataFrame, marker: Path
) -> None:
    """Nor under another manifest's signature."""
    store = folder.open(SIGNED)
    manifest = store.register("delay", model, sample, sign_with=KEY)
    plant(folder, manifest, pickle.dumps(Bomb(marker)))
    refused(store, "delay@1", f"its manifest is not what the key {key_id(KEY.public)} signed")
    assert not marker.exists()


def test_a_pickle_that_says_it_is_a_safe_format_is_not_read(
    folder: Any, sample: pd.DataFrame, marker: Path
) -> None:
    """Nor where the manifest calls it a safe format."""
    store = folder.open(SAFE)
    manifest = store.register("delay", Scaled(1.0), sample)
    plant(folder, manifest, pickle.dumps(Bomb(marker)))
    assert isinstance(refused(store, "delay@1", "not a number"), SerializationFailed)
    assert not marker.exists()


def test_never_means_not_even_signed(folder: Any, model: Model, sample: pd.DataFrame) -> None:
    """Nor signed, where the operator says never."""
    folder.open(SIGNED).register("delay", model, sample, sign_with=KEY)
    store = folder.open(TrustPolicy(keys=(KEY.public,), pickle="never"))
    refused(
        store, "delay@1", "is a pickle", "Register it in a safe format (trust.pickle is 'never')"
    )


def test_a_signature_that_was_taken_off_is_missed(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    """A signature that was taken off is missed."""
    store = folder.open(SIGNED)
    rewrite(folder, store.register("delay", model, sample, sign_with=KEY), signature_block=None)
    refused(store, "delay@1", "it is not signed", "a key of trust.keys in nightshift.yaml")


# --- bytes --------------------------------------------------------------------------------------


def test_a_flipped_byte_or_a_swapped_blob_is_not_read(
    place: Any, trained: Any, sample: pd.DataFrame, marker: Path
) -> None:
    """A flipped byte and a swapped blob are found before a parser sees them."""
    store = place.open(SIGNED)
    manifest = store.register("delay", trained(1.0), sample, sign_with=KEY)
    other = store.register("delay", trained(2.0), sample, sign_with=KEY)
    data = place.read(manifest.blob.key)
    flipped = bytes([data[0] ^ 1]) + data[1:]
    bomb = pickle.dumps(Bomb(marker)).ljust(len(data), b"\0")
    for content in (flipped, place.read(other.blob.key).ljust(len(data))[: len(data)], bomb):
        place.write(manifest.blob.key, content)
        error = refused(store, "delay@1", manifest.digest, "was not opened")
        assert isinstance(error, BlobCorrupt)
        (place.options.cache_dir / manifest.digest).write_bytes(content)  # nor from the cache
        assert isinstance(refused(store, "delay@1", manifest.digest), BlobCorrupt)
    assert not marker.exists()


def test_a_blob_beyond_the_limit_is_not_even_fetched(
    place: Any, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob beyond the size limit is not fetched, whatever size it declares."""
    store = place.open(TrustPolicy(classes=CLASSES, max_blob_bytes=10_000))
    manifest = store.register("delay", Scaled(1.0), sample)
    fetched: list[str] = []
    monkeypatch.setattr(store._storage, "download", lambda key, *_: fetched.append(key))

    huge = b"1" + b" " * 20_000
    plant(place, manifest, huge)
    error = refused(store, "delay@1", "it has 20,001 bytes, and 10,000 are allowed")
    assert isinstance(error, ModelUntrusted)

    rewrite(place, manifest, blob={"digest": manifest.digest, "size": 3})  # the size is a lie
    place.write(manifest.blob.key, huge)
    error = refused(store, "delay@1", "another: 20001 bytes, not 3")
    assert isinstance(error, BlobCorrupt)
    assert fetched == []


def test_a_zip_bomb_does_not_inflate(folder: Any, sample: pd.DataFrame) -> None:
    """A zip bomb does not inflate."""
    store = folder.open(SAFE)
    manifest = store.register("delay", Zipped(1.0), sample, sign_with=KEY)
    store.load(manifest)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("scale", bytes(200 * 1024**2))
    assert len(buffer.getvalue()) < 300_000
    plant(folder, manifest, buffer.getvalue(), signature_block=None)
    tracemalloc.start()
    try:
        assert isinstance(refused(store, "delay@1", "bytes"), SerializationFailed)
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024**2
    finally:
        tracemalloc.stop()


def test_a_state_dict_does_not_inflate(sample: pd.DataFrame) -> None:
    """Nor one that is a PyTorch state dict."""
    torch = pytest.importorskip("torch")
    from nightshift.adapters.libraries.pytorch import StateDictModel

    class Weighted(StateDictModel):
        architecture = staticmethod(lambda: torch.nn.Linear(2, 1))

    good = Weighted(Weighted.architecture())
    again = Weighted.deserialize(good.serialize())
    np.testing.assert_array_equal(again.predict_batch(sample), good.predict_batch(sample))

    weights = {"weight": torch.zeros(1, 4_000_000), "bias": torch.zeros(1)}
    stored, deflated = BytesIO(), BytesIO()
    torch.save(weights, stored)
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in archive.unpack(stored.getvalue()).items():
            bomb.writestr(name, content)
    files = archive.unpack(good.serialize()) | {"state.pt": deflated.getvalue()}
    assert len(deflated.getvalue()) < 30_000
    with pytest.raises(SerializationFailed, match="its files hold more than"):
        Weighted.deserialize(archive.pack(files))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no golden rows at all",
        b"\xff\xfe",
        b"[]",
        b'{"inputs": {}, "outputs": {}}',
        b'{"inputs": {"distance": 32, "hour": []}}',
        b'{"inputs": {"distance": {}, "hour": []}}',
        pytest.param(b"[" * 1_000_000, id="nested"),
        pytest.param(b"1" * 10_000, id="a number without end"),
    ],
)
def test_golden_rows_that_are_none(folder: Any, sample: pd.DataFrame, content: bytes) -> None:
    """Golden rows that are something else are refused."""
    from hashlib import sha256

    store = folder.open(SAFE)
    manifest = store.register("delay", Scaled(1.0), sample)
    digest = sha256(content).hexdigest()
    folder.write(f"blobs/sha256/{digest}", content)
    rewrite(folder, manifest, golden={"digest": digest, "size": len(content), "rows": 32})
    assert isinstance(refused(store, "delay@1", "no golden rows"), RecordInvalid)
    rewrite(folder, manifest, golden=json.loads(manifest.golden.model_dump_json()) | {"rows": 31})
    assert isinstance(refused(store, "delay@1", "32 rows", "not 31 rows"), RecordInvalid)


def test_golden_rows_beyond_the_limit_are_not_parsed(
    folder: Any, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden rows beyond the size limit are not parsed."""
    store = folder.open(SAFE)
    manifest = store.register("delay", Scaled(1.0), sample)
    monkeypatch.setattr(golden_rows, "_MOST_BYTES", manifest.golden.size - 1)
    refused(store, "delay@1", "no golden rows", f"{manifest.golden.size:,} bytes")
    with pytest.raises(SignatureUndefined, match=f"32 of its rows have {manifest.golden.size:,} b"):
        store.register("delay", Scaled(1.0), sample)


# --- manifests ----------------------------------------------------------------------------------


def test_an_older_manifest_under_a_new_number_is_refused(
    place: Any, trained: Any, sample: pd.DataFrame
) -> None:
    """An older manifest replayed under a new number, or another name, is refused."""
    store = place.open(SIGNED)
    old = store.register("delay", trained(1.0), sample, sign_with=KEY)
    store.register("delay", trained(2.0), sample, sign_with=KEY)
    rewrite(place, old, version=3)
    with pytest.raises(RecordInvalid, match="it is the manifest of delay@1"):
        store.resolve("delay@3")
    key = "models/delay/versions/3/manifest.json"
    place.write(key, json.dumps(json.loads(old.to_json()) | {"version": 3}).encode())
    assert isinstance(refused(store, "delay@3", "is not what the key"), ModelUntrusted)
    place.write(key.replace("delay", "other"), json.dumps(
        json.loads(old.to_json()) | {"version": 3, "name": "other"}
    ).encode())  # fmt: skip
    assert isinstance(refused(store, "other@3", "is not what the key"), ModelUntrusted)


def test_an_unknown_key_is_refused_and_named(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    """A signature by an unknown key is refused, and both keys are named."""
    mallory = SigningKey.create()
    store = folder.open(SIGNED)
    manifest = store.register("delay", model, sample, sign_with=mallory)
    refused(store, "delay@1", key_id(mallory.public), "is not in trust.keys", key_id(KEY.public))
    assert manifest.signature_block is not None
    pretended = {"key": key_id(KEY.public), "signature": manifest.signature_block.signature}
    rewrite(folder, manifest, signature_block=pretended)
    refused(store, "delay@1", "is not what the key")
    for signature in ("no base64!", "\x80", "", "AAAA"):
        rewrite(folder, manifest, signature_block=pretended | {"signature": signature})
        refused(store, "delay@1", "is not what the key")
    none = folder.open(TrustPolicy())
    rewrite(folder, manifest)
    refused(none, "delay@1", "there are none")


CHANGES: dict[str, Any] = {
    "adapter": "skops",
    "blob": {"digest": "0" * 64, "size": 7},
    "golden": {"digest": "0" * 64, "size": 7, "rows": 3},
    "tolerance": {"relative": 1.0, "absolute": 1.0},
    "form": "array",
    "libraries": {"numpy": "1.0"},
    "created_at": "2020-01-01T00:00:00Z",
    "created_by": "another user",
    "metrics": {"mae": 0.0},
    "description": "the best",
    "trained_through": "2012-01-01",
    "token": "another",
    "profile": {"digest": "0" * 64, "size": 7},
    "left_out": ["distance"],
    "warnings": ["none"],
}


@pytest.mark.parametrize(
    "field", sorted(set(Manifest.model_fields) - {"signature_block", "format"})
)
def test_no_field_can_be_changed_under_a_signature(
    folder: Any, model: Model, sample: pd.DataFrame, field: str
) -> None:
    """No field of a signed manifest can be changed."""
    store = folder.open(SIGNED)
    manifest = store.register("delay", model, sample, sign_with=KEY)
    fields = json.loads(manifest.to_json())
    if field in {"name", "version"}:
        changed = manifest.model_copy(update={field: "other" if field == "name" else 9})
        with pytest.raises(ModelUntrusted, match="is not what the key"):
            store.load(changed)
        return
    if field == "signature":
        value = fields["signature"]
        value["inputs"][0]["nullable"] = not value["inputs"][0]["nullable"]
    else:
        value = CHANGES[field]
    rewrite(folder, manifest, **{field: value})
    assert isinstance(refused(store, "delay@1", "is not what the key"), ModelUntrusted)


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_to_a_signed_manifest_is_found(
    folder: Any, model: Model, sample: pd.DataFrame, data: st.DataObject
) -> None:
    """Any damage to a signed manifest is found."""
    store = folder.open(SIGNED)
    key = "models/delay/versions/1/manifest.json"
    if not store.versions("delay"):
        folder.write("original", store.register("delay", model, sample, sign_with=KEY).to_json())
    text = folder.read("original")
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.binary(max_size=3))
    until = data.draw(st.integers(at, min(at + 3, len(text))))
    folder.write(key, text[:at] + put + text[until:])
    try:
        manifest = store.resolve("delay@1")
        store.load(manifest)
    except (RecordInvalid, ModelUntrusted):
        pass
    else:  # the damage says the same in other words, such as a space more
        assert manifest.canonical() == Manifest.model_validate_json(text).canonical()


@pytest.mark.parametrize(
    "name", ["../../etc", "delay/../../x", "/etc/passwd", "..", "a\\b", "a\0b"]
)
def test_paths_do_not_leave_the_store(
    folder: Any, sample: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    """`../` and its kin, in names, references and digests, do not leave the store."""
    store = folder.open(SAFE)
    manifest = store.register("delay", Scaled(1.0), sample)
    (tmp_path / "secret").write_bytes(b"1.0")
    rewrite(folder, manifest, name=name)
    with pytest.raises(RecordInvalid):
        store.resolve("delay@1")
    for reference in (name, f"delay@{name}", f"{name}@1"):
        with pytest.raises(ConfigurationError):
            store.resolve(reference)
    rewrite(folder, manifest, blob={"digest": "../../../secret", "size": 3})
    with pytest.raises(RecordInvalid, match="digest"):
        store.resolve("delay@1")
    blob = manifest.blob.model_copy(update={"digest": "../../../secret", "size": 3})
    with pytest.raises((StoreRefused, BlobCorrupt)):
        store.load(manifest.model_copy(update={"blob": blob}))
    assert (tmp_path / "secret").read_bytes() == b"1.0"


# --- adapters -----------------------------------------------------------------------------------


def test_an_adapter_outside_the_list_is_refused(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    """An adapter outside the operator's list is refused."""
    folder.open(SIGNED).register("delay", model, sample, sign_with=KEY)
    store = folder.open(TrustPolicy(keys=(KEY.public,), adapters=frozenset({"xgboost", "onnx"})))
    refused(store, "delay@1", "its adapter is 'sklearn', and allowed here is onnx, xgboost")


@pytest.mark.parametrize("adapter", ["{module}:Evil", "os:system", "builtins:eval", ":", "x:"])
def test_a_class_outside_the_list_is_not_even_imported(
    folder: Any, sample: pd.DataFrame, tmp_path: Path, marker: Path,
    monkeypatch: pytest.MonkeyPatch, adapter: str,
) -> None:  # fmt: skip
    """A class outside the operator's list is not even imported."""
    module = "evil_module"
    (tmp_path / f"{module}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    store = folder.open(SAFE)
    manifest = store.register("delay", Scaled(1.0), sample)
    rewrite(folder, manifest, adapter=adapter.format(module=module))
    error = refused(store, "delay@1", "which is not allowed here", "trust.classes")
    assert isinstance(error, ModelUntrusted)
    assert module not in sys.modules
    assert not marker.exists()


def test_what_a_format_may_build_is_the_operators_setting(
    folder: Any, sample: pd.DataFrame
) -> None:
    """What a format may build is the operator's setting, not the file's."""
    trusting = TrustPolicy(classes=CLASSES, trusted_types=frozenset({"tests.Choosy"}))
    manifest = folder.open(trusting).register("delay", Choosy(1.0), sample)
    folder.open(trusting).load(manifest)
    assert isinstance(refused(folder.open(SAFE), "delay@1", "is not trusted"), SerializationFailed)


def test_a_skops_file_that_asks_for_an_untrusted_type(
    folder: Any, sample: pd.DataFrame, marker: Path
) -> None:
    """A skops file that asks for an untrusted type is refused."""
    skops_io = pytest.importorskip("skops.io")
    from sklearn.linear_model import LinearRegression

    from nightshift.adapters.libraries.skops import SkopsModel

    store = folder.open(TrustPolicy())
    good = SkopsModel(LinearRegression().fit(sample, sample.hour))
    manifest = store.register("delay", good, sample)
    store.load(manifest)
    files = archive.unpack(folder.read(manifest.blob.key))
    files["model.skops"] = skops_io.dumps(Bomb(marker))
    plant(folder, manifest, archive.pack(files))
    assert isinstance(refused(store, "delay@1", "not trusted"), SerializationFailed)
    assert not marker.exists()
