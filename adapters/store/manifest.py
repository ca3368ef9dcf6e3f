"""What the model store writes about a version and an alias, as JSON."""

import json
import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
)

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.models.arrays import Form
from nightshift.adapters.models.reference import ModelRef
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.models.tolerance import Tolerance

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_NAME_REMEDY = "Use lower-case letters, digits, '_', '-' and '.', beginning with a letter or digit."


def is_name(name: str) -> bool:
    """Whether a model can be called so."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str, what: str = "model") -> str:
    """The name of a model, or of an alias. Raises ConfigurationError."""
    if not is_name(name):
        raise ConfigurationError(what, "name", f"{name!r} cannot be a name", _NAME_REMEDY)
    if what == "alias" and name.isdigit():
        problem = f"{name!r} would be read as a version"
        raise ConfigurationError(what, "name", problem, "Use a word, such as 'champion'.")
    return name


def _model_name(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"{name!r} cannot be a model's name")
    return name


Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Version = Annotated[int, Field(ge=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        """For people too: indented, in the order of the fields."""
        return (self.model_dump_json(indent=1) + "\n").encode()


class Blob(_Record):
    """Content-addressed bytes: `blobs/sha256/<digest>`."""

    digest: Digest
    size: int = Field(ge=0)

    @property
    def key(self) -> str:
        return f"blobs/sha256/{self.digest}"


class GoldenBlob(Blob):
    """Inputs and the predictions for them, as JSON."""

    rows: int = Field(ge=1, le=1000)


class SignatureBlock(_Record):
    """An Ed25519 signature over a manifest's canonical form, and the id of the key that made it."""

    key: str
    signature: str  # base64


class Manifest(_Record):
    """One version of a model: everything about it but the bytes."""

    format: Literal[1] = 1
    name: Annotated[str, AfterValidator(_model_name)]
    version: Version
    adapter: str
    blob: Blob
    signature: Signature
    golden: GoldenBlob
    tolerance: Tolerance
    """How far the golden rows' predictions may be from those kept."""
    form: Form | None = None
    """What the estimator takes, as settled when it was registered."""
    libraries: dict[str, str]
    created_at: AwareDatetime
    created_by: str
    metrics: dict[str, FiniteFloat]
    description: str
    trained_through: date | None
    token: str
    """Unique, so that a process that lost the answer to its write recognizes its own manifest."""
    profile: Blob
    """The distributions of the sample's columns and of the predictions for them, as JSON: what a
    run is compared with."""
    left_out: tuple[str, ...] = ()
    """The sample's columns that are not inputs of the model."""
    warnings: tuple[str, ...] = ()
    """What a run's checks will not judge, because the sample is too small."""
    signature_block: SignatureBlock | None = None

    def __repr__(self) -> str:
        return f"<Manifest {self.reference} {self.adapter}>"

    __str__ = __repr__

    @property
    def digest(self) -> str:
        return self.blob.digest

    @property
    def size(self) -> int:
        return self.blob.size

    @property
    def reference(self) -> ModelRef:
        return ModelRef(self.name, self.version)

    def canonical(self) -> bytes:
        """What is signed: every field that was set but the signature block, in one fixed form.

        Only what was written, so that a field with a default that a later release adds does not
        break the signatures of today.
        """
        fields = self.model_dump(exclude={"signature_block"}, exclude_unset=True)
        return json.dumps(
            fields, default=_iso, sort_keys=True, separators=(",", ":"), allow_nan=False
        ).encode()


class AliasChange(_Record):
    """An alias came to point at a version."""

    version: Version
    at: AwareDatetime
    by: str
    rollback: bool = False


class Alias(_Record):
    """A movable name of a version, and where it has been."""

    format: Literal[1] = 1
    model: Annotated[str, AfterValidator(_model_name)]
    name: str
    version: Version
    sequence: int = Field(ge=1)
    token: str
    """Unique, so that no two states of an alias have the same bytes."""
    history: tuple[AliasChange, ...] = Field(min_length=1)

    def before(self) -> int | None:
        """The version that a rollback leads to: what was promoted before the present one."""
        promoted: list[int] = []
        for move in self.history:
            if not move.rollback:
                promoted.append(move.version)
            elif promoted:
                promoted.pop()
        return promoted[-2] if len(promoted) > 1 else None


def _iso(value: Any) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def draft_manifest(fields: dict[str, object], version: int) -> Manifest:
    """A manifest in which every field is set, as if it had been read: only such can be signed."""
    try:
        draft = Manifest.model_validate({"format": 1, **fields, "version": version})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError("register", field, first["msg"], "Correct the value.") from error
    return Manifest.model_validate_json(draft.to_json())


def manifest_key(name: str, version: int) -> str:
    return f"models/{checked_name(name)}/versions/{version}/manifest.json"


def alias_key(name: str, alias: str) -> str:
    return f"models/{checked_name(name)}/aliases/{checked_name(alias, 'alias')}.json"
