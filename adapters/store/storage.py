"""Named bytes in one place: what the model store stands on; here also a folder, in s3.py S3.

Every place promises the same: a write is seen whole or not at all, `create` lets one writer win,
and `swap` replaces only what the writer has seen.
"""

import contextlib
import errno
import fcntl
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nightshift.adapters.errors import (
    StoreRefused,
    StoreUnsafe,
)

FULL = {errno.ENOSPC, errno.EDQUOT}
"""What a disk says when nothing more fits."""


@dataclass(frozen=True)
class StoreOptions:
    """What the operator sets for the model store. Times are in seconds."""

    cache_dir: Path
    endpoint_url: str | None = None
    region: str | None = None
    ca_bundle: Path | None = None
    key: str | None = None  # None: found as every AWS tool finds it
    secret: str | None = field(default=None, repr=False)
    connect_timeout: float = 3
    read_timeout: float = 10
    retries: int = 1
    slowest_transfer: float = 256 * 1024
    """Bytes per second; what moves slower is given up."""
    cache_bytes: int = 10 * 1024**3

    def patience(self, size: int = 0) -> float:
        """How long a request that moves `size` bytes may take in all, with its retries.

        A peer that stops reading, or sends byte by byte, lets no timeout of a single wait pass.
        """
        waits = (self.retries + 1) * (self.connect_timeout + self.read_timeout)
        pauses = sum(min(1 << attempt, 20) for attempt in range(self.retries))  # botocore's longest
        return waits + pauses + size / self.slowest_transfer


@dataclass(frozen=True)
class ObjectInfo:
    size: int
    tag: str
    """Changes with the content; what `swap` compares."""


class Storage(ABC):
    """Named bytes. A key is a relative path of plain names, such as `models/churn/x.json`.

    Every method may raise StoreUnavailable, StoreAccessDenied, StoreNotFound and StoreRefused.
    """

    def __init__(self, url: str, options: StoreOptions) -> None:
        self.url = url
        self.options = options

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """The bytes, or None if there is no such key."""

    @abstractmethod
    def info(self, key: str) -> ObjectInfo | None:
        """Size and tag, or None if there is no such key."""

    @abstractmethod
    def names(self, key: str) -> list[str]:
        """The names one level below, sorted; of files, and of folders that are not empty."""

    @abstractmethod
    def download(self, key: str, path: Path, size: int) -> bool:
        """Write the bytes, `size` of them as far as is known, to a local file.

        False if there is no such key. What it leaves after an error, or even without one, may be
        short or wrong: the caller verifies.
        """

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write, over whatever is there."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write if there is no such key. False if there is one that holds other bytes."""

    @abstractmethod
    def swap(self, key: str, data: bytes, tag: str) -> bool:
        """Write if the key still has this tag. False if it has not and holds other bytes.

        A request that was repeated may fail on its own success, so give each writer's bytes
        something unique.
        """

    def require_conditions(self) -> None:
        """Raise StoreUnsafe if the storage takes conditional writes but ignores the condition."""
        mine = uuid.uuid4().hex.encode()
        if self.create(".conditions", mine) and self.create(".conditions", mine[::-1]):
            raise StoreUnsafe(self.url, "it overwrites what was to be created once")
        if self.swap(".conditions", mine[::-1], "0" * 32):
            raise StoreUnsafe(self.url, "it overwrites what was to be replaced if unchanged")

    def place(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _contained(self, key: str) -> str:
        """The key, once it is sure not to lead out of the store."""
        if any(part in {"", ".", ".."} for part in key.split("/")) or "\\" in key or "\0" in key:
            raise StoreRefused(f"The model store {self.url}", f"open {key!r}", "not a plain path")
        return key


@contextlib.contextmanager
def alone(path: Path, seconds: float) -> Iterator[None]:
    """Keep other threads and processes of this machine out. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} was locked for {seconds:.0f} s") from None
                time.sleep(0.01)
        yield  # closing the file gives the lock back
