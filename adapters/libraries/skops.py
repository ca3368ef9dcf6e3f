"""scikit-learn in skops' format: no pickle, and only types that the operator trusts are built."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import skops.io
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from skops.io.exceptions import UntrustedTypesFoundException

from nightshift.adapters.errors import SerializationFailed
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.archive import ArchivedModel, configured, translated, unpack
from nightshift.adapters.models.model import Trust

_REMEDY = "Add a type to trusted_types in the trust policy if you know it and trust the file."


@dataclass(eq=False, repr=False, config=ConfigDict(extra="forbid"))
class SkopsModel(SklearnModel, ArchivedModel):
    """A fitted estimator, with the same settings and predictions as SklearnModel."""

    def files(self) -> Mapping[str, bytes]:
        return {"model.skops": skops.io.dumps(self.estimator)}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Any:
        return _read(files["model.skops"], ())

    @classmethod
    def deserialize_trusted(cls, data: bytes, policy: Trust) -> Self:
        return cls._restored(data, lambda files: _read(files["model.skops"], policy.trusted_types))

    @classmethod
    def from_file(cls, path: Path, settings: Mapping[str, object]) -> Self:
        """The setting `trusted_types` lists the types beyond skops' own that the file may hold."""
        own = dict(settings)
        trusted = own.pop("trusted_types", ())
        with translated(path.name, "read", _REMEDY):
            return configured(cls, skops.io.load(path, trusted=trusted), own)


def _read(data: bytes, trusted: Collection[str]) -> Any:
    unpack(data)  # skops' own format is a zip as well: see that nothing in it inflates
    try:
        return skops.io.loads(data, trusted=list(trusted))
    except UntrustedTypesFoundException as error:
        problem = f"it would build types that are not trusted ({error})"
        raise SerializationFailed("SkopsModel", problem, _REMEDY) from error
