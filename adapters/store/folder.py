"""A model store in a folder, on a file system with hard links and locks."""

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from nightshift.adapters.errors import (
    StoreAccessDenied,
    StoreNotFound,
    StoreRefused,
    StoreUnavailable,
    StoreUnsafe,
)
from nightshift.adapters.store.storage import FULL, ObjectInfo, Storage, StoreOptions, alone


class _Missing(Exception):
    """There is no such key."""


_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class FolderStorage(Storage):
    """A folder on a local or shared file system that has hard links and locks."""

    def __init__(self, root: Path, options: StoreOptions) -> None:
        super().__init__(root.as_uri(), options)
        self._root = root

    def read(self, key: str) -> bytes | None:
        with contextlib.suppress(_Missing), self._translated(f"read {key}"):
            return self._path(key).read_bytes()
        return None

    def info(self, key: str) -> ObjectInfo | None:
        with contextlib.suppress(_Missing), self._translated(f"read {key}"):
            path = self._path(key)
            with path.open("rb") as file:
                tag = hashlib.file_digest(file, "sha256").hexdigest()
                return ObjectInfo(os.fstat(file.fileno()).st_size, tag)
        return None

    def names(self, key: str) -> list[str]:
        with contextlib.suppress(_Missing), self._translated(f"list {key}"):
            found = self._path(key).iterdir()
            return sorted(path.name for path in found if path.is_file() or any(path.iterdir()))
        return []

    def download(self, key: str, path: Path, size: int) -> bool:
        with contextlib.suppress(_Missing), self._translated(f"read {key}"):
            with self._path(key).open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1024**2)
            return True
        return False

    def write(self, key: str, data: bytes) -> None:
        with self._translated(f"write {key}"), self._temporary(key, data) as temporary:
            temporary.replace(self._path(key))

    def create(self, key: str, data: bytes) -> bool:
        with self._translated(f"write {key}"), self._temporary(key, data) as temporary:
            try:
                self._path(key).hardlink_to(temporary)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _NO_HARD_LINKS:
                    problem = f"its file system has no hard links ({error.strerror})"
                    raise StoreUnsafe(self.url, problem) from error
                raise
        return True

    def swap(self, key: str, data: bytes, tag: str) -> bool:
        with (
            self._translated(f"write {key}"),
            self._temporary(key, data) as temporary,
            alone(self._root / ".lock", self.options.patience()),
        ):
            found = self.info(key)
            if found is None or found.tag != tag:
                return False
            temporary.replace(self._path(key))
        return True

    def _path(self, key: str) -> Path:
        return self._root / self._contained(key)

    @contextlib.contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[Path]:
        """A written and synced file, ready to be linked or moved to its key."""
        if not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root))
        self._path(key).parent.mkdir(parents=True, exist_ok=True)
        folder = self._root / ".writing"
        folder.mkdir(exist_ok=True)
        temporary = folder / uuid.uuid4().hex
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
            _sync_folder(self._path(key).parent)
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Foreign errors to ours, and _Missing for a missing key."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if not self._root.is_dir():
                raise StoreNotFound(self.url) from error
            if doing.startswith("write"):
                raise StoreRefused(f"The model store {self.url}", doing, str(error)) from error
            raise _Missing from error
        except TimeoutError as error:
            raise StoreUnavailable(self.url, str(error)) from error
        except PermissionError as error:
            raise StoreAccessDenied(self.url, str(error)) from error
        except OSError as error:
            if doing.startswith("read") and error.errno in FULL:
                raise  # this machine's disk is full
            raise StoreRefused(f"The model store {self.url}", doing, str(error)) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
