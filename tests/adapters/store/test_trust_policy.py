"""Whose models are opened: signatures, keys, versions and the operator's policy."""

import base64
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sklearn.exceptions import InconsistentVersionWarning

from nightshift.adapters.errors import (
    ConfigurationError,
    ModelUntrusted,
    VersionMismatch,
)
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.keys import SigningKey, key_id
from nightshift.adapters.store.trust_policy import TrustPolicy
from planted import (
    CLASSES,
    KEY,
    SAFE,
    SIGNED,
    Outdated,
    Scaled,
    refused,
    rewrite,
)

# --- what is let through ------------------------------------------------------------------------


def test_a_signed_pickle_is_opened(place: Any, model: Model, sample: pd.DataFrame) -> None:
    store = place.open(SIGNED)
    manifest = store.register("delay", model, sample, sign_with=KEY)
    assert manifest.signature_block is not None
    assert manifest.signature_block.key == key_id(KEY.public)
    assert store.manifest("delay", 1) == manifest
    store.load(store.resolve("delay@1"))


def test_a_safe_format_needs_no_signature(folder: Any, sample: pd.DataFrame) -> None:
    store = folder.open(SAFE)
    store.load(store.register("delay", Scaled(2.0), sample))
    strict = folder.open(TrustPolicy(classes=CLASSES, unsigned=False))
    error = refused(strict, "delay@1", "it is not signed", "--sign-key")
    assert isinstance(error, ModelUntrusted)


def test_any_of_several_keys_will_do(folder: Any, model: Model, sample: pd.DataFrame) -> None:
    other = SigningKey.create()
    store = folder.open(TrustPolicy(keys=(other.public, KEY.public)))
    for key in (KEY, other):
        store.load(store.register("delay", model, sample, sign_with=key))


def test_the_operator_may_trust_everything(folder: Any, model: Model, sample: pd.DataFrame) -> None:
    store = folder.open(TrustPolicy(pickle="always"))
    store.load(store.register("delay", model, sample))


# --- versions -----------------------------------------------------------------------------------


def versions_are(policy: str) -> TrustPolicy:
    return TrustPolicy(classes=CLASSES, version_mismatch=policy)  # type: ignore[arg-type]


def test_other_versions_are_reported_as_the_operator_says(
    folder: Any, sample: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = folder.open(SAFE).register("delay", Scaled(1.0), sample)
    numpy = f"{np.__version__.partition('.')[0]}.99.0"
    rewrite(folder, manifest, libraries={"numpy": numpy, "gone": "2.0", "python": "2.7.18"})
    error = refused(folder.open(versions_are("error")), "delay@1", f"numpy {numpy} then, ")
    assert isinstance(error, VersionMismatch)
    assert "gone 2.0 then, missing now" in error.versions
    store = folder.open(versions_are("warn"))
    store.load(store.resolve("delay@1"))
    assert f"delay@1: other library versions: numpy {numpy} then, " in caplog.text
    caplog.clear()
    store = folder.open(versions_are("allow"))
    store.load(store.resolve("delay@1"))
    assert not caplog.text


@pytest.mark.parametrize("library", ["pandas", "numpy"])
def test_another_major_version_is_refused(folder: Any, sample: pd.DataFrame, library: str) -> None:
    manifest = folder.open(SAFE).register("delay", Scaled(1.0), sample)
    rewrite(folder, manifest, libraries={library: "0.25.3"})
    for policy in ("error", "warn"):
        refused(folder.open(versions_are(policy)), "delay@1", f"{library} 0.25.3 then, ", "'allow'")
    store = folder.open(versions_are("allow"))
    store.load(store.resolve("delay@1"))


def test_a_librarys_own_warning_counts(
    folder: Any, sample: pd.DataFrame, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    manifest = folder.open(SAFE).register("delay", Outdated(1.0), sample)
    warning = InconsistentVersionWarning(
        estimator_name="Tree", current_sklearn_version="1.9", original_sklearn_version="1.2"
    )
    monkeypatch.setattr(Outdated, "warning", warning)
    refused(folder.open(versions_are("error")), "delay@1", "InconsistentVersionWarning", "1.2")
    folder.open(versions_are("warn")).load(manifest)
    assert "InconsistentVersionWarning" in caplog.text
    folder.open(versions_are("allow")).load(manifest)
    monkeypatch.setattr(Outdated, "warning", UserWarning("saved by an older version of Tree"))
    refused(folder.open(versions_are("error")), "delay@1", "saved by an older version of Tree")


@pytest.mark.parametrize(
    "warning",
    [
        UserWarning("something else"),
        FutureWarning("the default will change in a future version"),
        DeprecationWarning("deprecated since version 1.2; use another version of it"),
    ],
)
def test_a_librarys_other_warnings_do_not(
    folder: Any, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, warning: Warning
) -> None:
    manifest = folder.open(SAFE).register("delay", Outdated(1.0), sample)
    monkeypatch.setattr(Outdated, "warning", warning)
    with pytest.warns(type(warning), match=str(warning)):
        folder.open(versions_are("error")).load(manifest)


# --- keys ---------------------------------------------------------------------------------------


def test_a_key_goes_through_its_file(folder: Any, model: Model, sample: pd.DataFrame) -> None:
    path = folder.options.cache_dir.parent / "key.pem"
    KEY.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = SigningKey.load(path)
    assert loaded.public == KEY.public
    store = folder.open(SIGNED)
    store.load(store.register("delay", model, sample, sign_with=loaded))
    with pytest.raises(ConfigurationError, match="never overwritten"):
        SigningKey.create().save(path)
    assert SigningKey.load(path).public == KEY.public


def test_a_key_does_not_show_itself(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key.pem")
    secret = (tmp_path / "key.pem").read_text().splitlines()[1]
    assert secret not in f"{KEY!r} {KEY} {vars(KEY)}"


def test_an_invalid_key_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(ConfigurationError, match="nightshift keys create"):
        SigningKey.load(path)
    path.write_bytes(b"no key")
    with pytest.raises(ConfigurationError, match="no key"):
        SigningKey.load(path)
    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigurationError, match="not an Ed25519 key"):
        SigningKey.load(path)


@pytest.mark.parametrize(
    "public",
    [
        "",
        "ed25519:",
        "ed25519:!!!",
        pytest.param(KEY.public[:-8], id="cut"),
        pytest.param(KEY.public.removeprefix("ed25519:"), id="without its kind"),
        "rsa:AAAA",
    ],
)
def test_a_public_key_that_is_none_is_refused_at_once(public: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a public key"):
        TrustPolicy(keys=(public,))


def test_a_signature_is_plain_ed25519_over_the_canonical_form(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    """So that anybody's tool can check it."""
    private = Ed25519PrivateKey.generate()
    key = SigningKey(private)
    manifest = folder.open().register("delay", model, sample, sign_with=key)
    assert manifest.signature_block is not None
    signature = base64.b64decode(manifest.signature_block.signature)
    private.public_key().verify(signature, manifest.canonical())
    fields: Mapping[str, Any] = json.loads(manifest.canonical())
    assert "signature_block" not in fields
    assert {**json.loads(manifest.to_json()), "signature_block": None} | {"created_at": ""} == {
        **fields, "signature_block": None, "created_at": "",
    }  # fmt: skip
