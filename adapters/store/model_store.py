"""The model store: versions and aliases of serialized models, in an S3 bucket or a folder.

<store>/blobs/sha256/<digest>                    the bytes, content-addressed
<store>/models/<name>/versions/<n>/manifest.json  what they are; written last, once: the commit
<store>/models/<name>/aliases/<alias>.json        a movable name of a version, with its history
"""

import contextlib
import getpass
import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ValidationError

from nightshift.adapters.errors import (
    AliasMoved,
    BlobCorrupt,
    ModelNotFound,
    RecordInvalid,
)
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.reference import ModelRef
from nightshift.adapters.models.sampling import select_inputs
from nightshift.adapters.profiles.profile import Profile
from nightshift.adapters.store import golden_rows
from nightshift.adapters.store.cache import BlobCache
from nightshift.adapters.store.folder import FolderStorage
from nightshift.adapters.store.keys import SigningKey
from nightshift.adapters.store.library_versions import libraries_of
from nightshift.adapters.store.manifest import (
    Alias,
    AliasChange,
    Blob,
    GoldenBlob,
    Manifest,
    alias_key,
    checked_name,
    draft_manifest,
    is_name,
    manifest_key,
)
from nightshift.adapters.store.storage import Storage, StoreOptions
from nightshift.adapters.store.trust_policy import TrustPolicy
from nightshift.adapters.store.urls import parse_store_url
from nightshift.adapters.store.verification import (
    check_golden_rows,
    predict_table,
    verify,
    warn_of_small_sample,
)
from nightshift.adapters.store.version_diff import VersionDiff, diff_versions

__all__ = ["CHAMPION", "Alias", "Manifest", "ModelStore", "StoreOptions", "VersionDiff"]

CHAMPION = "champion"

_Record = TypeVar("_Record", bound=BaseModel)


class ModelStore:
    """Registers, finds and loads models.

    Every method may raise StoreUnavailable (worth another try), StoreNotFound, StoreAccessDenied,
    and ConfigurationError for a name that cannot be one.
    """

    def __init__(self, url: str, options: StoreOptions, trust: TrustPolicy | None = None) -> None:
        """`s3://bucket/prefix`, `file:///folder` or a path. Nothing is opened yet.

        Raises ConfigurationError for any other URL.
        """
        self._arguments = (url, options, trust)
        self._options = options
        self._trust = trust or TrustPolicy()
        self._storage = _open(url, options)
        self._cache = BlobCache(options.cache_dir, options.cache_bytes)
        self._conditions_hold = False

    def __reduce__(self) -> tuple[type["ModelStore"], tuple[str, StoreOptions, TrustPolicy | None]]:
        return ModelStore, self._arguments  # connections stay in the process that made them

    @property
    def url(self) -> str:
        return self._storage.url

    # --- looking ---

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        return [name for name in self._storage.names("models") if is_name(name)]

    def versions(self, name: str) -> list[int]:
        """The model's versions, ascending; empty if there is no such model."""
        found = self._storage.names(f"models/{checked_name(name)}/versions")
        return sorted(int(n) for n in found if n.isascii() and n.isdigit() and n[0] != "0")

    def aliases(self, name: str) -> dict[str, Alias]:
        """The model's aliases by name; empty if there is no such model. Raises RecordInvalid."""
        found = self._storage.names(f"models/{checked_name(name)}/aliases")
        names = [n.removesuffix(".json") for n in found if n.endswith(".json")]
        names = [alias for alias in names if is_name(alias) and not alias.isdigit()]
        aliases = {alias: self._alias(name, alias) for alias in names}
        return {alias: record for alias, record in aliases.items() if record is not None}

    def manifest(self, name: str, version: int) -> Manifest:
        """Raises ModelNotFound, or RecordInvalid if it is damaged or belongs elsewhere."""
        key = manifest_key(name, version)
        data = self._storage.read(key)
        if data is None:
            raise self._not_found(ModelRef(name, version), name)
        manifest = self._parsed(Manifest, key, data)
        if (manifest.name, manifest.version) != (name, version):
            problem = f"it is the manifest of {manifest.reference}"
            raise RecordInvalid(self._storage.place(key), problem)
        return manifest

    def resolve(self, reference: str) -> Manifest:
        """`name` (its champion), `name@alias` or `name@7`. Raises ModelNotFound."""
        name, _, pointer = reference.partition("@")
        checked_name(name)
        if pointer.isascii() and pointer.isdigit():
            return self.manifest(name, int(pointer))
        alias = self._alias(name, checked_name(pointer or CHAMPION, "alias"))
        if alias is None:
            raise self._not_found(f"{name}@{pointer or CHAMPION}", name)
        return self.manifest(name, alias.version)

    # --- registering ---

    def register(
        self,
        name: str,
        model: Model,
        sample: pd.DataFrame,
        *,
        metrics: Mapping[str, float] | None = None,
        description: str = "",
        trained_through: date | None = None,
        target: str | None = None,
        sign_with: SigningKey | None = None,
        by: str | None = None,
    ) -> Manifest:
        """Keep the model as the next version of `name`; returns that version's manifest.

        `sample` is (m, n), best the whole training frame: the signature is taken from it, golden
        rows, and the profile that runs are compared with. Where the model knows the names of its
        inputs, these are taken, in their order; otherwise all columns but `target`, the labels.
        The manifest lists the columns left out, and warns of a sample too small for the checks.

        Nothing is written if the model cannot predict the sample, if its predictions change with
        a database's types or after serialization, or if it cannot be serialized. Raises
        PredictionFailed, InvalidPredictions, SignatureUndefined, SerializationFailed or
        AdapterNotFound; StoreUnsafe where two processes could get the same number.
        """
        checked_name(name)
        adapter = self._trust.name_of(model)
        inputs, left_out = select_inputs(sample, model.input_names, target)
        model = model.settled(inputs)
        ready = verify(model, inputs, self._trust)
        data = ready.data
        rows = golden_rows.write_rows(ready.inputs, ready.predictions)
        text = ready.profile.to_json().encode()
        profile = Blob(digest=_digest(text), size=len(text))
        draft = {
            "name": name,
            "adapter": adapter,
            "blob": Blob(digest=_digest(data), size=len(data)),
            "signature": ready.signature,
            "golden": GoldenBlob(digest=_digest(rows), size=len(rows), rows=ready.inputs.num_rows),
            "tolerance": ready.tolerance,
            "form": model.form,
            "libraries": libraries_of(model),
            "created_at": datetime.now(UTC),
            "created_by": by or user_name(),
            "metrics": {metric: float(value) for metric, value in (metrics or {}).items()},
            "description": description,
            "trained_through": trained_through,
            "token": uuid.uuid4().hex,
            "profile": profile,
            "left_out": left_out,
            "warnings": warn_of_small_sample(ready.profile.rows),
        }
        manifest = draft_manifest(draft, 1)
        self.require_conditions()
        if (same := self._find_version(name, manifest.blob.digest)) is not None:
            draft["warnings"] = (*manifest.warnings, f"it has the same bytes as version {same}")
        self._storage.write(manifest.blob.key, data)
        self._storage.write(manifest.golden.key, rows)
        self._storage.write(profile.key, text)
        while True:
            manifest = draft_manifest(draft, max(self.versions(name), default=0) + 1)
            if sign_with is not None:
                manifest = sign_with.sign(manifest)
            key = manifest_key(name, manifest.version)
            if self._storage.create(key, manifest.to_json()):
                return manifest

    def promote(
        self, name: str, version: int, alias: str = CHAMPION, *, by: str | None = None
    ) -> Alias:
        """Let the alias point at the version; no move if it already does.

        Raises ModelNotFound, or AliasMoved if another process moved the alias first.
        """
        checked_name(alias, "alias")
        self.manifest(name, version)
        return self._move(name, alias, version, by)

    def rollback(self, name: str, alias: str = CHAMPION, *, by: str | None = None) -> Alias:
        """Let the alias point at what was promoted before; again, and it goes back further.

        Raises ModelNotFound if nothing was promoted before, or AliasMoved.
        """
        return self._move(name, checked_name(alias, "alias"), None, by)

    # --- loading ---

    def fetch(self, manifest: Manifest) -> bytes:
        """The model's bytes, through the local cache, digest checked. Raises BlobCorrupt."""
        return self._bytes(manifest, manifest.blob)

    def load(self, manifest: Manifest) -> Model:
        """The model, once the trust policy has let it through and its golden rows agree.

        Raises ModelUntrusted, BlobCorrupt, VersionMismatch, SerializationFailed, GoldenRowsDiffer,
        AdapterNotFound or LibraryNotInstalled.
        """
        adapter = self._trust.admit(manifest)
        data = self.fetch(manifest)
        rows = self._bytes(manifest, manifest.golden)
        model = self._trust.open(manifest, adapter, data)
        check_golden_rows(model, manifest, *self._golden(manifest, rows))
        return model

    def reference(self, manifest: Manifest) -> Profile:
        """The profile of the sample that the model was registered with.

        Raises ModelUntrusted, BlobCorrupt, RecordInvalid, or what the registry raises.
        """
        self._trust.admit(manifest)
        data = self._bytes(manifest, manifest.profile)
        try:
            return Profile.from_json(data)
        except ValueError as error:
            raise RecordInvalid(self._storage.place(manifest.profile.key), str(error)) from error

    def diff(self, name: str, older: int, newer: int) -> VersionDiff:
        """What changed between two versions, also in the predictions for the newer's golden rows.

        These need both models' inputs to be the same, and the older model is loaded for them.
        Raises what `manifest` and `load` raise.
        """
        one, other = self.manifest(name, older), self.manifest(name, newer)
        if one.signature.inputs != other.signature.inputs:
            return diff_versions(one, other)
        self._trust.admit(other)
        inputs, after = self._golden(other, self._bytes(other, other.golden))
        before = predict_table(
            self.load(one), one.signature, inputs, f"{other.reference}'s golden rows"
        )
        return diff_versions(one, other, before, after)

    def _golden(self, manifest: Manifest, data: bytes) -> tuple[pa.Table, pa.Table]:
        """Inputs and predictions. Raises RecordInvalid."""
        try:
            return golden_rows.read_rows(data, manifest.signature, manifest.golden.rows)
        except ValueError as error:
            place = self._storage.place(manifest.golden.key)
            raise RecordInvalid(place, f"no golden rows: {error}") from error

    def _bytes(self, manifest: Manifest, blob: Blob) -> bytes:
        self._trust.check_size(manifest, blob.size)

        def download(path: Path) -> bool:
            found = self._storage.info(blob.key)
            if found is not None and found.size > blob.size:  # do not even begin
                found_text = f"another: {found.size} bytes, not {blob.size}"
                raise BlobCorrupt(self._storage.place(blob.key), blob.digest, found_text)
            return self._storage.download(blob.key, path, blob.size)

        place = self._storage.place(blob.key)
        return self._cache.get(blob, place, download, self._options.patience(blob.size))

    # --- records ---

    def _move(self, name: str, alias: str, version: int | None, by: str | None) -> Alias:
        """Compare and swap; `version` None is the one before."""
        self.require_conditions()
        key = alias_key(name, alias)
        old, tag = self._alias_and_tag(name, alias)
        rollback = version is None
        if version is None:
            version = old.before() if old else None
            if version is None:
                raise self._not_found(f"{name}@{alias}, one promotion earlier", name)
        if old is not None and old.version == version:
            return old
        change = AliasChange(
            version=version, at=datetime.now(UTC), by=by or user_name(), rollback=rollback
        )
        new = Alias(
            model=name,
            name=alias,
            version=version,
            sequence=old.sequence + 1 if old else 1,
            token=uuid.uuid4().hex,
            history=(*old.history, change) if old else (change,),
        )
        if tag is None:
            won = self._storage.create(key, new.to_json())
        else:
            won = self._storage.swap(key, new.to_json(), tag)
        if not won:
            now = self._alias(name, alias)
            expected, found = (record.version if record else None for record in (old, now))
            raise AliasMoved(name, alias, expected, found)
        return new

    def _alias_and_tag(self, name: str, alias: str) -> tuple[Alias | None, str | None]:
        """An alias and the tag of that very state, or neither."""
        key = alias_key(name, alias)
        before = self._storage.info(key)
        while before is not None:
            record = self._alias(name, alias)
            after = self._storage.info(key)
            if after == before:
                return record, before.tag
            before = after  # it moved between the two
        return None, None

    def _alias(self, name: str, alias: str) -> Alias | None:
        key = alias_key(name, alias)
        data = self._storage.read(key)
        if data is None:
            return None
        record = self._parsed(Alias, key, data)
        if (record.model, record.name) != (name, alias):
            problem = f"it is the alias {record.model}@{record.name}"
            raise RecordInvalid(self._storage.place(key), problem)
        return record

    def _parsed(self, kind: type[_Record], key: str, data: bytes) -> _Record:
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            problem = f"{where}: {first['msg']}" if where else first["msg"]
            raise RecordInvalid(self._storage.place(key), problem) from error

    def _find_version(self, name: str, digest: str) -> int | None:
        """The newest version with this blob, of the last 100."""
        for version in self.versions(name)[:-101:-1]:
            with contextlib.suppress(ModelNotFound, RecordInvalid):
                if self.manifest(name, version).blob.digest == digest:
                    return version
        return None

    def _not_found(self, reference: str, name: str) -> ModelNotFound:
        """With what there is instead: the model's versions and aliases, or else other models."""
        known: list[str] = [ModelRef(name, version) for version in self.versions(name)]
        known += [f"{name}@{alias}" for alias in self.aliases(name)]
        return ModelNotFound(self.url, reference, tuple(known or self.models()))

    def require_conditions(self) -> None:
        """Raise StoreUnsafe where two processes could get the same number. Asked once."""
        if not self._conditions_hold:
            self._storage.require_conditions()
            self._conditions_hold = True


def _open(url: str, options: StoreOptions) -> Storage:
    """Raises ConfigurationError."""
    place = parse_store_url(url)
    if isinstance(place, Path):
        return FolderStorage(place, options)
    from nightshift.adapters.store.s3 import S3Storage  # imports take a second

    return S3Storage(*place, options)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def user_name() -> str:
    """The user's name, if they have one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
