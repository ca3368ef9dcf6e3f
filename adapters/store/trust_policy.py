"""Whose models may be opened here: signing keys, and the operator's trust policy.

Nothing that decides trust is read from a model: which keys are trusted, which adapters may be
used and whether pickles may be read are the operator's settings, and whether a format is a pickle
is said by the adapter's class. A manifest's seal covers its name, version and digests, so that
neither a blob nor a number can be exchanged under it.
"""

import base64
import hashlib
import logging
import os
import re
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from nightshift.adapters.errors import ConfigurationError, ModelUntrusted, VersionSkew
from nightshift.adapters.models import registry
from nightshift.adapters.models.model import Model
from nightshift.adapters.store import golden_rows
from nightshift.adapters.store.manifest import Manifest, Seal

log = logging.getLogger(__name__)

_PREFIX = "ed25519:"
_OTHER_VERSION = re.compile(r"\b(older|newer|another|different) version", re.IGNORECASE)
_warnings_caught = threading.Lock()  # catching warnings changes the whole process

# --- keys ---------------------------------------------------------------------------------------


class SigningKey:
    """The private half of an Ed25519 key pair: whoever holds it can register what is trusted."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def create(cls) -> Self:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, or any unencrypted PEM file. Raises ConfigurationError."""
        remedy = "Give the private key file that `nightshift keys create` wrote."
        try:
            private = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(str(path), "", f"no key: {error}", remedy) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigurationError(str(path), "", "it is not an Ed25519 key", remedy)
        return cls(private)

    def save(self, path: Path) -> None:
        """Write a PEM file that only its owner can read. Raises ConfigurationError if it exists."""
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
        except FileExistsError as error:
            problem, remedy = "there is a key already", "A key is never overwritten; use it."
            raise ConfigurationError(str(path), "", problem, remedy) from error
        except OSError as error:
            remedy = "Choose another path."
            raise ConfigurationError(str(path), "", str(error), remedy) from error

    @property
    def public(self) -> str:
        """The public half, as the operator's settings hold it: `ed25519:<base64>`."""
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _PREFIX + base64.b64encode(raw).decode()

    def seal(self, manifest: Manifest) -> Manifest:
        """The manifest with a signature over everything else in it."""
        signature = base64.b64encode(self._private.sign(manifest.canonical())).decode()
        seal = Seal(key=key_id(self.public), signature=signature)
        return manifest.model_copy(update={"seal": seal})


def key_id(public: str) -> str:
    """A public key's short name, 16 hexadecimal digits."""
    return hashlib.sha256(_public_bytes(public)).hexdigest()[:16]


def _public_bytes(public: str) -> bytes:
    """`ed25519:<base64>` -> 32 bytes. Raises ConfigurationError."""
    try:
        raw = base64.b64decode(public.removeprefix(_PREFIX), validate=True)
    except ValueError:  # of which binascii.Error is one
        raw = b""
    if not public.startswith(_PREFIX) or len(raw) != 32:
        remedy = f"Write it as `nightshift keys create` printed it: {_PREFIX}..."
        raise ConfigurationError("trust", "keys", f"{public!r} is no public key", remedy)
    return raw


# --- the policy ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrustPolicy:
    """What the operator lets be opened. Raises ConfigurationError for a key that is none."""

    adapters: frozenset[str] | None = None  # None: every registered one
    classes: frozenset[str] = frozenset()
    """Users' adapters that are no entry points, as `package.module:Class`."""
    pickle: Literal["never", "signed", "always"] = "signed"
    """When a format that can run code may be read: "signed" by one of `keys`."""
    unsigned: bool = True
    """Whether a format that cannot run code may be read without a signature."""
    keys: tuple[str, ...] = ()
    """Trusted public keys, as `ed25519:<base64>`."""
    version_skew: Literal["error", "warn", "allow"] = "warn"
    max_blob_bytes: int = 4 * 1024**3
    trusted_types: frozenset[str] = frozenset()
    """Types that a skops file may build beyond its own, as `package.module.Class`."""

    def __post_init__(self) -> None:
        for public in self.keys:
            _public_bytes(public)

    def name_of(self, model: Model) -> str:
        """The adapter's name for a manifest: as registered, or the path of an allowed class.

        Raises AdapterNotFound.
        """
        return registry.adapter_name(model, self.classes)

    def admit(self, manifest: Manifest) -> type[Model]:
        """Decide, before a byte of the model is fetched, whether it may be opened, and by what.

        Raises ModelUntrusted, or what the registry raises for an adapter that is not there.
        """
        sealed = self._check_seal(manifest)
        adapter = self._adapter(manifest)
        if adapter.pickled and (self.pickle == "never" or (self.pickle == "signed" and not sealed)):
            problem = f"its format ({manifest.adapter}) is a pickle, which can run any code"
            problem += "" if self.pickle == "never" else ", and it is not signed"
            remedy = "Register it in a safe format" + (
                " (trust.pickle is 'never')."
                if self.pickle == "never"
                else ", or with --sign-key and a key of trust.keys in nightshift.yaml."
            )
            raise ModelUntrusted(manifest.reference, problem, remedy)
        if not sealed and not adapter.pickled and not self.unsigned:
            remedy = "Register it with --sign-key and a key of trust.keys in nightshift.yaml."
            raise ModelUntrusted(manifest.reference, "it is not signed", remedy)
        return adapter

    def check_size(self, manifest: Manifest, size: int) -> None:
        """Raises ModelUntrusted for a blob of too many bytes."""
        if size > self.max_blob_bytes:
            problem = f"it has {size:,} bytes, and {self.max_blob_bytes:,} are allowed"
            remedy = "Raise trust.max_blob_bytes in nightshift.yaml if that is right."
            raise ModelUntrusted(manifest.reference, problem, remedy)

    def open(self, manifest: Manifest, adapter: type[Model], data: bytes) -> Model:
        """Bytes with the right digest, of an admitted manifest -> the model.

        Raises VersionSkew if the libraries are others than then and the policy says "error";
        what a library itself warns of while reading counts as well.
        """
        skew = golden_rows.skew(manifest.libraries)
        self._judge_skew(manifest, skew)
        with _warnings_caught, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = adapter.deserialize_trusted(data, self)
        told = []
        for warning in caught:
            if _tells_skew(warning.category, str(warning.message)):
                told.append(f"{warning.category.__name__}: {warning.message}")
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        self._judge_skew(manifest, tuple(dict.fromkeys(told)))
        return model

    def _check_seal(self, manifest: Manifest) -> bool:
        """Whether a trusted key signed it. Raises ModelUntrusted for a seal that is not good."""
        seal = manifest.seal
        if seal is None:
            return False
        trusted = {key_id(public): public for public in self.keys}
        if seal.key not in trusted:
            known = f"those are {', '.join(trusted)}" if trusted else "there are none"
            problem = f"it is signed by the key {seal.key!r}, which is not in trust.keys ({known})"
            remedy = "Add the signer's public key to trust.keys in nightshift.yaml if you trust it."
            raise ModelUntrusted(manifest.reference, problem, remedy)
        try:
            signature = base64.b64decode(seal.signature, validate=True)
            public = Ed25519PublicKey.from_public_bytes(_public_bytes(trusted[seal.key]))
            public.verify(signature, manifest.canonical())
        except (InvalidSignature, ValueError) as error:
            problem = f"its manifest is not what the key {seal.key} signed"
            remedy = "It was changed after it was registered; find out by whom, and register again."
            raise ModelUntrusted(manifest.reference, problem, remedy) from error
        return True

    def _adapter(self, manifest: Manifest) -> type[Model]:
        name = manifest.adapter
        if ":" in name and name not in self.classes:
            problem = f"its adapter is the class {name!r}, which is not allowed here"
            remedy = "Add it to trust.classes in nightshift.yaml if you trust it."
            raise ModelUntrusted(manifest.reference, problem, remedy)
        if ":" not in name and self.adapters is not None and name not in self.adapters:
            allowed = ", ".join(sorted(self.adapters)) or "nothing"
            problem = f"its adapter is {name!r}, and allowed here is {allowed}"
            remedy = "Add it to trust.adapters in nightshift.yaml if you trust it."
            raise ModelUntrusted(manifest.reference, problem, remedy)
        return registry.adapter_class(name, self.classes)

    def _judge_skew(self, manifest: Manifest, skew: tuple[str, ...]) -> None:
        if skew and self.version_skew == "error":
            raise VersionSkew(manifest.reference, skew)
        if skew and self.version_skew == "warn":
            log.warning("%s: other library versions: %s", manifest.reference, ", ".join(skew))


def _tells_skew(kind: type[Warning], text: str) -> bool:
    """Whether a warning is of a model that another version wrote, as scikit-learn's
    InconsistentVersionWarning is; not of what a future version will do.
    """
    coming = issubclass(kind, FutureWarning | DeprecationWarning | PendingDeprecationWarning)
    told = "Version" in kind.__name__ or _OTHER_VERSION.search(text) is not None
    return told and not coming
