"""Ed25519 key pairs: the private key signs manifests, the public key is named in trust.keys."""

import base64
import hashlib
import os
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.store.manifest import Manifest, SignatureBlock

_PREFIX = "ed25519:"


class SigningKey:
    """The private half of an Ed25519 key pair: its holder can register what is trusted."""

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

    def sign(self, manifest: Manifest) -> Manifest:
        """The manifest with a signature over everything else in it."""
        signature = base64.b64encode(self._private.sign(manifest.canonical())).decode()
        block = SignatureBlock(key=key_id(self.public), signature=signature)
        return manifest.model_copy(update={"signature_block": block})


def key_id(public: str) -> str:
    """A public key's short name, 16 hexadecimal digits."""
    return hashlib.sha256(public_bytes(public)).hexdigest()[:16]


def public_bytes(public: str) -> bytes:
    """`ed25519:<base64>` -> 32 bytes. Raises ConfigurationError."""
    try:
        raw = base64.b64decode(public.removeprefix(_PREFIX), validate=True)
    except ValueError:  # of which binascii.Error is one
        raw = b""
    if not public.startswith(_PREFIX) or len(raw) != 32:
        remedy = f"Write it as `nightshift keys create` printed it: {_PREFIX}..."
        raise ConfigurationError("trust", "keys", f"{public!r} is not a public key", remedy)
    return raw
