"""A prefix in an S3 bucket, through s3fs, with its surprises handled.

What servers do alike is asked of them, and what they do not is decided by the code of their
answer: s3fs makes one error type of many answers, and different types of the same one.
"""

import functools
import os
import ssl
from pathlib import Path
from typing import Any, Never

import aiohttp
import botocore.exceptions
from fsspec.exceptions import FSTimeoutError
from s3fs import S3FileSystem

from nightshift.adapters.errors import (
    ConfigurationError,
    StoreAccessDenied,
    StoreNotFound,
    StoreRefused,
    StoreUnavailable,
)
from nightshift.adapters.store.storage import FULL, ObjectInfo, Storage, StoreOptions

_LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_MISSING = {"NoSuchKey", "404"}
_NO_BUCKET = {"NoSuchBucket"}
_DENIED = {
    "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "Forbidden",
    "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "NotSignedUp",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "Unauthorized",
}  # fmt: skip
_TRY_LATER = {
    "500", "502", "503", "504", "InternalError", "InternalFailure", "RequestTimeout",
    "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "OperationAborted",
}  # fmt: skip
_WRONG_SETTING = (
    botocore.exceptions.ParamValidationError,
    botocore.exceptions.NoRegionError,
    botocore.exceptions.InvalidRegionError,
    botocore.exceptions.UnknownEndpointError,
    ValueError,  # "Invalid endpoint: ..."
)
_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.ProfileNotFound,
    botocore.exceptions.TokenRetrievalError,
    botocore.exceptions.SSOError,
)


class _Lost(Exception):
    """The condition of a conditional write did not hold."""


class _Missing(Exception):
    """There is no such key."""


class S3Storage(Storage):
    """A prefix in a bucket of AWS S3 or of a server that speaks its language."""

    def __init__(self, bucket: str, prefix: str, options: StoreOptions) -> None:
        self._path = f"{bucket}/{prefix}" if prefix else bucket
        super().__init__(f"s3://{self._path}", options)
        if options.ca_bundle is not None:
            _check_bundle(options.ca_bundle)

    def read(self, key: str) -> bytes | None:
        try:
            data: bytes = self._call("cat_file", f"read {key}", self._at(key))
        except _Missing:
            return None
        return data

    def info(self, key: str) -> ObjectInfo | None:
        try:
            found = self._call("info", f"read {key}", self._at(key))
        except _Missing:
            return None
        if found["type"] != "file":
            return None
        return ObjectInfo(found["size"], found["ETag"].strip('"'))  # with quotes, some refuse it

    def names(self, key: str) -> list[str]:
        try:
            found = self._call("ls", f"list {key}", self._at(key), detail=False)
        except _Missing:
            return []
        return sorted(path.rpartition("/")[2] for path in found)

    def download(self, key: str, path: Path, size: int) -> bool:
        try:
            self._call("get_file", f"read {key}", self._at(key), str(path), size=size)
        except _Missing:
            return False
        return True

    def write(self, key: str, data: bytes) -> None:
        self._call("pipe_file", f"write {key}", self._at(key), data, size=len(data))

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._call("pipe_file", f"write {key}", self._at(key), data, mode="create")
        except _Lost:
            return self.read(key) == data
        return True

    def swap(self, key: str, data: bytes, tag: str) -> bool:
        try:
            self._call("pipe_file", f"write {key}", self._at(key), data, IfMatch=tag)
        except (_Lost, _Missing):
            return self.read(key) == data
        return True

    def _at(self, key: str) -> str:
        return f"{self._path}/{self._contained(key)}"

    def _call(self, method: str, doing: str, *args: Any, size: int = 0, **kwargs: Any) -> Any:
        """One s3fs call in bounded time; raises our errors, _Missing or _Lost."""
        patience = self.options.patience(size)
        try:
            return getattr(self._files(), method)(*args, timeout=patience, **kwargs)
        except (TimeoutError, FSTimeoutError) as error:
            problem = f"no answer within {patience:.0f} s"
            raise StoreUnavailable(self._named(), problem) from error
        except (botocore.exceptions.BotoCoreError, aiohttp.ClientError, ValueError) as error:
            self._translate(error)
        except OSError as error:  # s3fs makes these of what the server answered
            cause = error if error.__cause__ is None else error.__cause__
            if isinstance(cause, botocore.exceptions.ClientError):
                self._translate_answer(cause, doing)
            if isinstance(error, FileNotFoundError):
                raise _Missing from error
            if error.errno in FULL:
                raise  # it is this machine's disk that is full
            self._translate(error)
        except botocore.exceptions.ClientError as error:
            self._translate_answer(error, doing)

    def _files(self) -> S3FileSystem:
        options = self.options
        return _connection(
            os.getpid(),
            options.endpoint_url,
            options.region,
            options.ca_bundle,
            options.key,
            options.secret,
            options.connect_timeout,
            options.read_timeout,
            options.retries,
        )

    def _named(self) -> str:
        at = self.options.endpoint_url
        return f"{self.url} at {at}" if at else self.url

    def _translate(self, error: Exception) -> Never:
        """What never reached the server, or broke on its way."""
        if isinstance(error, _NO_CREDENTIALS):
            raise StoreAccessDenied(self._named(), str(error)) from error
        if isinstance(error, _WRONG_SETTING):
            remedy = "Correct url, endpoint_url or region."
            raise ConfigurationError("store", self._named(), str(error), remedy) from error
        if isinstance(error, botocore.exceptions.SSLError) and "CERTIFICATE" in str(error):
            remedy = "Name the file with its authority's certificate in store.ca_bundle."
            raise ConfigurationError("store", self._named(), str(error), remedy) from error
        problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise StoreUnavailable(self._named(), problem) from error

    def _translate_answer(self, error: botocore.exceptions.ClientError, doing: str) -> Never:
        """What the server answered, by its code: servers differ in everything else."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        text = str(error)
        if code in _LOST:
            raise _Lost from error
        if code in _MISSING:
            raise _Missing from error
        if code in _NO_BUCKET:
            raise StoreNotFound(self._named()) from error
        if code in _DENIED:
            raise StoreAccessDenied(self._named(), text) from error
        if code in _TRY_LATER:
            raise StoreUnavailable(self._named(), text) from error
        raise StoreRefused(f"The model store {self._named()}", doing, text) from error


@functools.lru_cache(maxsize=8)
def _connection(
    process: int,  # one that came through a fork cannot be used
    endpoint_url: str | None,
    region: str | None,
    ca_bundle: Path | None,
    key: str | None,
    secret: str | None,
    connect_timeout: float,
    read_timeout: float,
    retries: int,
) -> S3FileSystem:
    """Connections to one server, shared by all stores on it: making a client takes 0.2 s."""
    client: dict[str, Any] = {"region_name": region} if region else {}
    if ca_bundle is not None:
        client["verify"] = str(ca_bundle)
    files = S3FileSystem(
        endpoint_url=endpoint_url,
        key=key,
        secret=secret,
        client_kwargs=client,
        config_kwargs={
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            "retries": {"mode": "standard", "total_max_attempts": retries + 1},
            # The blobs have digests; not every server knows the newer checksum headers.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        max_concurrency=1,  # the fastest for one object, and the leanest
        use_listings_cache=False,  # it goes stale for existence and size
        skip_instance_cache=True,
    )
    files.retries = 1  # botocore does it; both would multiply
    return files


def _check_bundle(path: Path) -> None:
    """Raise ConfigurationError: a client would take a missing file for a missing object."""
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        problem = f"{path} holds no certificates ({error.strerror or error})"
        remedy = "Name a file of PEM certificates."
        raise ConfigurationError("store", "ca_bundle", problem, remedy) from error
