"""Store URLs, of which every part is used, or else refused by name: what a parser drops would make
one store of two, in which two teams move each other's aliases.
"""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from nightshift.adapters.database.urls import require_visible
from nightshift.adapters.errors import ConfigurationError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|arn:[^/]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Prefix(NamedTuple):
    """A place in S3."""

    bucket: str
    prefix: str
    """Without slashes at its ends; may be empty. Taken literally: a %20 is three characters."""


def parse_store_url(url: str) -> Prefix | Path:
    """`s3://bucket/prefix`, `file:///folder` or a path. Raises ConfigurationError."""
    require_visible("store", "url", url)
    if url and not _SCHEME.match(url):
        return Path(url).absolute()
    scheme, _, rest = url.partition("://")
    if rest and scheme.lower() == "file":
        return _parse_folder(url)
    if scheme.lower() != "s3" or not rest.strip("/") or rest.startswith("/"):
        raise _unsupported(url)
    _refuse_query(url, "Leave it out, or choose a prefix without it.")
    bucket, _, prefix = rest.partition("/")
    user, at, host = bucket.rpartition("@")
    if at:
        remedy = "Set NIGHTSHIFT_STORE__KEY and NIGHTSHIFT_STORE__SECRET in the environment."
        raise _refused(f"the user {user.partition(':')[0]!r} in it would be ignored", remedy)
    name, colon, port = host.partition(":")
    if colon and not host.startswith("arn:"):
        problem = f"the port {port!r} would be ignored: {name!r} is a bucket, not a server"
        raise _refused(problem, "Name the server in store.endpoint_url.")
    if not _BUCKET.fullmatch(host):
        raise _refused(f"{host!r} is not the name of a bucket", "Write it like s3://bucket/prefix.")
    prefix = prefix.removesuffix("/")
    if prefix and {"", ".", ".."} & set(prefix.split("/")):
        problem = f"{prefix!r} has an empty part, . or .., which not every server keeps"
        raise _refused(problem, "Write it like s3://bucket/prefix.")
    return Prefix(host, prefix)


def parse_endpoint(url: str) -> str:
    """The address of an S3 server, `http://host:port` or `https://host`. Raises
    ConfigurationError for anything else.
    """
    require_visible("store", "endpoint_url", url)
    _refuse_query(url, "Leave it out.", "endpoint_url")
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number
        good = False
    if not good:
        remedy = "Write it like https://minio.example.com:9000."
        raise _refused(f"{url!r} is not the address of a server", remedy, "endpoint_url")
    if "@" in parts.netloc:
        remedy = "Set NIGHTSHIFT_STORE__KEY and NIGHTSHIFT_STORE__SECRET in the environment."
        raise _refused("the user in it would be ignored", remedy, "endpoint_url")
    return url


def _parse_folder(url: str) -> Path:
    _refuse_query(url, "Leave it out; in a folder's name, write # as %23 and ? as %3F.")
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.strip("/") or "\0" in path:
        raise _unsupported(url)
    return Path(path)


def _refuse_query(url: str, remedy: str, field: str = "url") -> None:
    """What follows the first ? or #, even if it is empty."""
    found = re.search(r"[?#]", url)
    if found:
        part = "query" if found.group() == "?" else "fragment"
        raise _refused(f"the {part} {url[found.start() :]!r} would be ignored", remedy, field)


def _unsupported(url: str) -> ConfigurationError:
    remedy = (
        "Use s3://bucket/prefix, file:///absolute/folder, or a path; other storage would need "
        "conditional writes, which keep versions apart."
    )
    return _refused(f"{url!r} is not a supported model store URL", remedy)


def _refused(problem: str, remedy: str, field: str = "url") -> ConfigurationError:
    return ConfigurationError("store", field, problem, remedy)
