"""Blobs on this machine, by digest: bounded, shared by processes, checked at every read."""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from nightshift.adapters.errors import BlobCorrupt, StoreRefused, StoreUnavailable
from nightshift.adapters.store.manifest import Blob
from nightshift.adapters.store.storage import alone

_ABANDONED = 3600.0  # s; a download that has not grown for so long was abandoned


class BlobCache:
    """A folder of blobs, the least recently used ones making room.

    Every read checks the digest again, so a damaged or replaced file here is noticed.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def get(
        self, blob: Blob, place: str, download: Callable[[Path], bool], patience: float
    ) -> bytes:
        """The blob's bytes, from here or else by `download`, which waits for no more than patience.

        Processes that want the same blob at once share one download. Raises BlobCorrupt if the
        bytes are not the blob's, StoreUnavailable if another process downloads for too long,
        StoreRefused if the folder cannot be used.
        """
        path = self._folder / blob.digest
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            data = self._read(path, blob)
            if data is None:
                with alone(path.with_suffix(".lock"), patience):
                    data = self._read(path, blob)  # another process may have been first
                    if data is None:
                        data = self._download(path, blob, place, download)
                self._evict()
        except TimeoutError as error:
            raise StoreUnavailable(place, str(error)) from error
        except OSError as error:
            raise StoreRefused(f"The cache {self._folder}", "keep a blob", str(error)) from error
        return data

    def _read(self, path: Path, blob: Blob) -> bytes | None:
        """The bytes if they are there and sound; what is not sound is removed."""
        try:
            if path.stat().st_size == blob.size:
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == blob.digest:
                    os.utime(path)
                    return data
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return None

    def _download(
        self, path: Path, blob: Blob, place: str, download: Callable[[Path], bool]
    ) -> bytes:
        for left in path.parent.glob(f"{path.name}.*.part"):  # of a download that was killed
            left.unlink(missing_ok=True)
        temporary = path.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            if not download(temporary):
                raise BlobCorrupt(place, blob.digest, "nothing: it is missing")
            size = temporary.stat().st_size
            if size != blob.size:
                raise BlobCorrupt(place, blob.digest, f"another: {size} bytes, not {blob.size}")
            data = temporary.read_bytes()
            found = hashlib.sha256(data).hexdigest()
            if found != blob.digest:
                raise BlobCorrupt(place, blob.digest, found)
            temporary.replace(path)
            return data
        finally:
            temporary.unlink(missing_ok=True)

    def _evict(self) -> None:
        """Remove the least recently used blobs beyond the bound, and what a crash left behind."""
        found = []
        for entry in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process evicts as well
                status = entry.stat()
                if not entry.suffix:
                    found.append((status.st_mtime, status.st_size, entry))
                elif time.time() - status.st_mtime > _ABANDONED:
                    entry.unlink()
        total = sum(size for _, size, _ in found)
        for _, size, entry in sorted(found):
            if total <= self._most_bytes:
                break
            entry.unlink(missing_ok=True)
            total -= size
