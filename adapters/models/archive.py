"""Models kept as their library's own files: several files and the settings, in one archive.

The archive is a zip whose members are stored uncompressed, sorted and undated, so that equal
members make equal bytes, and an archive never holds more than its own size: no zip bomb inflates.
"""

import io
import json
import zipfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import ConfigDict, ValidationError

from nightshift.adapters.errors import ConfigurationError, NightshiftError, SerializationFailed
from nightshift.adapters.models.model import Model

SETTINGS = "settings.json"

_FOREIGN = "Only what Nightshift packed is unpacked; register the model again."

AnyModel = TypeVar("AnyModel", bound=Model)


# --- files and bytes ----------------------------------------------------------------------------


def pack(members: Mapping[str, bytes]) -> bytes:
    """Files by relative name, `a/b.txt` -> one archive; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            if problem := _name_problem(name):
                raise SerializationFailed("The archive", problem, "Rename the file.")
            archive.writestr(zipfile.ZipInfo(name), members[name])  # dated 1980
    return buffer.getvalue()


def unpack(data: bytes, max_bytes: int | None = None) -> dict[str, bytes]:
    """What `pack` returned -> the files by name.

    Raises SerializationFailed for what `pack` does not make: a name that leads elsewhere or comes
    twice, a damaged or encrypted member, or more than `max_bytes` in all, whether declared or
    found while reading; by default the archive's own size, since nothing in it is compressed.
    """
    limit = len(data) if max_bytes is None else max_bytes
    members: dict[str, bytes] = {}
    with translated("The archive", "read", _FOREIGN), zipfile.ZipFile(io.BytesIO(data)) as archive:
        left = limit
        for info in archive.infolist():
            problem = _name_problem(info.filename)
            if info.filename in members:
                problem = f"the file {info.filename!r} comes twice"
            if problem:
                raise SerializationFailed("The archive", problem, _FOREIGN)
            content = b""
            if info.file_size <= left:
                with archive.open(info) as member:
                    content = member.read(left + 1)  # the declared size may lie
            left -= max(len(content), info.file_size)
            if left < 0:
                problem = f"its files hold more than {limit:,} bytes"
                raise SerializationFailed("The archive", problem, _FOREIGN)
            members[info.filename] = content
    return members


def _name_problem(name: str) -> str:
    """Why a file must not be called so; empty if it may."""
    parts = name.split("/")
    if not all(parts) or "\\" in name or ":" in name or {".", ".."} & set(parts):
        return f"the file name {name!r} does not stay inside the archive's folder"
    return ""


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file below the folder -> its bytes by relative name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write_folder(members: Mapping[str, bytes], folder: Path) -> None:
    """`read_folder` the other way; `unpack` has checked the names."""
    for name, content in members.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


@contextmanager
def translated(model: str, doing: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises over a model's bytes, as SerializationFailed from it."""
    try:
        yield
    except NightshiftError:
        raise
    except Exception as error:  # a parser may fail in any way
        problem = f"its bytes cannot be {doing} ({type(error).__name__}: {error})"
        raise SerializationFailed(model, problem, remedy) from error


# --- models -------------------------------------------------------------------------------------


def configured(
    adapter: type[AnyModel], trained: object, settings: Mapping[str, object]
) -> AnyModel:
    """An adapter that is a dataclass, its first field being the trained thing -> a model.

    Raises ConfigurationError, naming the setting that the adapter does not have or cannot take.
    """
    known = [field.name for field in fields(adapter)][1:]  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            remedy = f"It has {', '.join(known)}." if known else "It has none."
            raise ConfigurationError(adapter.__name__, name, "there is no such setting", remedy)
    try:
        return adapter(trained, **settings)  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        remedy = f"{first['input']!r} was given."
        raise ConfigurationError(adapter.__name__, name, first["msg"], remedy) from error


class ArchivedModel(Model):
    """A model kept as its library's own files and its settings, in one archive.

    A subclass is a pydantic dataclass: the first field is the trained thing, every other field a
    setting, and these travel in the bytes as JSON. It writes `files` and `from_files`, and sets
    `pickled` if its library runs what such a file says.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    pickled: ClassVar[bool] = False

    @abstractmethod
    def files(self) -> Mapping[str, bytes]:
        """The trained thing as the library's own files, by relative name. May raise anything."""

    @classmethod
    @abstractmethod
    def from_files(cls, files: Mapping[str, bytes]) -> object:
        """What `files` returned -> the trained thing. May raise anything."""

    def serialize(self) -> bytes:
        remedy = "The library has to be able to save the model before it can be registered."
        with translated(type(self).__name__, "made", remedy):
            names = [field.name for field in fields(self)][1:]  # type: ignore[arg-type]
            settings = {name: getattr(self, name) for name in names}
            text = json.dumps(settings, sort_keys=True, allow_nan=False)
            return pack({**self.files(), SETTINGS: text.encode()})

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        return cls._restored(data, cls.from_files)

    @classmethod
    def _restored(cls, data: bytes, read: Callable[[Mapping[str, bytes]], object]) -> Self:
        remedy = "Were they written by this adapter, and is its library here of the same version?"
        with translated(cls.__name__, "read", remedy):
            files = unpack(data)
            settings = json.loads(files.pop(SETTINGS))
            return configured(cls, read(files), settings)
