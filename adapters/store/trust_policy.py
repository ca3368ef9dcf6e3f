"""Whose models may be opened here: signing keys, and the operator's trust policy.

Nothing that decides trust is read from a model: which keys are trusted, which adapters may be
used and whether pickles may be read are the operator's settings, and whether a format is a pickle
is said by the adapter's class. A manifest's signature covers its name, version and digests, so that
neither a blob nor a number can be exchanged under it.
"""

import base64
import logging
import re
import threading
import warnings
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from nightshift.adapters.errors import ModelUntrusted, VersionMismatch
from nightshift.adapters.models import registry
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.keys import key_id, public_bytes
from nightshift.adapters.store.library_versions import major_mismatches, version_mismatches
from nightshift.adapters.store.manifest import Manifest

log = logging.getLogger(__name__)

_PREFIX = "ed25519:"
_OTHER_VERSION = re.compile(r"\b(older|newer|another|different) version", re.IGNORECASE)
_warnings_caught = threading.Lock()  # catching warnings changes the whole process


@dataclass(frozen=True)
class TrustPolicy:
    """What the operator lets be opened. Raises ConfigurationError for an invalid key."""

    adapters: frozenset[str] | None = None  # None: every registered one
    classes: frozenset[str] = frozenset()
    """Users' adapters without an entry point, as `package.module:Class`."""
    pickle: Literal["never", "signed", "always"] = "signed"
    """When a format that can run code may be read: "signed" by one of `keys`."""
    unsigned: bool = True
    """Whether a format that cannot run code may be read without a signature."""
    keys: tuple[str, ...] = ()
    """Trusted public keys, as `ed25519:<base64>`."""
    version_mismatch: Literal["error", "warn", "allow"] = "warn"
    max_blob_bytes: int = 4 * 1024**3
    trusted_types: frozenset[str] = frozenset()
    """Types that a skops file may build beyond its own, as `package.module.Class`."""

    def __post_init__(self) -> None:
        for public in self.keys:
            public_bytes(public)

    def name_of(self, model: Model) -> str:
        """The adapter's name for a manifest: as registered, or the path of an allowed class.

        Raises AdapterNotFound.
        """
        return registry.adapter_name(model, self.classes)

    def admit(self, manifest: Manifest) -> type[Model]:
        """Decide, before a byte of the model is fetched, whether it may be opened, and by what.

        Raises ModelUntrusted, or what the registry raises for an adapter that is not there.
        """
        signed = self._is_signed(manifest)
        adapter = self._adapter(manifest)
        if adapter.pickled and (self.pickle == "never" or (self.pickle == "signed" and not signed)):
            problem = f"its format ({manifest.adapter}) is a pickle, which can run any code"
            problem += "" if self.pickle == "never" else ", and it is not signed"
            remedy = "Register it in a safe format" + (
                " (trust.pickle is 'never')."
                if self.pickle == "never"
                else ", or with --sign-key and a key of trust.keys in nightshift.yaml."
            )
            raise ModelUntrusted(manifest.reference, problem, remedy)
        if not signed and not adapter.pickled and not self.unsigned:
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

        Raises VersionMismatch if a library's major version is another than then, unless the policy
        says "allow", and if any version is and it says "error";
        what a library itself warns of while reading counts as well.
        """
        mismatches = version_mismatches(manifest.libraries)
        if self.version_mismatch != "allow" and major_mismatches(manifest.libraries):
            raise VersionMismatch(manifest.reference, mismatches)
        self._judge_versions(manifest, mismatches)
        with _warnings_caught, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = adapter.deserialize_trusted(data, self)
        found = []
        for warning in caught:
            if _names_version(warning.category, str(warning.message)):
                found.append(f"{warning.category.__name__}: {warning.message}")
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        self._judge_versions(manifest, tuple(dict.fromkeys(found)))
        return model

    def _is_signed(self, manifest: Manifest) -> bool:
        """Whether a trusted key signed it. Raises ModelUntrusted for a bad signature."""
        block = manifest.signature_block
        if block is None:
            return False
        trusted = {key_id(public): public for public in self.keys}
        if block.key not in trusted:
            known = f"those are {', '.join(trusted)}" if trusted else "there are none"
            problem = f"it is signed by the key {block.key!r}, which is not in trust.keys ({known})"
            remedy = "Add the signer's public key to trust.keys in nightshift.yaml if you trust it."
            raise ModelUntrusted(manifest.reference, problem, remedy)
        try:
            signature = base64.b64decode(block.signature, validate=True)
            public = Ed25519PublicKey.from_public_bytes(public_bytes(trusted[block.key]))
            public.verify(signature, manifest.canonical())
        except (InvalidSignature, ValueError) as error:
            problem = f"its manifest is not what the key {block.key} signed"
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

    def _judge_versions(self, manifest: Manifest, mismatches: tuple[str, ...]) -> None:
        if mismatches and self.version_mismatch == "error":
            raise VersionMismatch(manifest.reference, mismatches)
        if mismatches and self.version_mismatch == "warn":
            log.warning("%s: other library versions: %s", manifest.reference, ", ".join(mismatches))


def _names_version(kind: type[Warning], text: str) -> bool:
    """Whether a warning is of a model that another version wrote, as scikit-learn's
    InconsistentVersionWarning is; not of what a future version will do.
    """
    coming = issubclass(kind, FutureWarning | DeprecationWarning | PendingDeprecationWarning)
    named = "Version" in kind.__name__ or _OTHER_VERSION.search(text) is not None
    return named and not coming
