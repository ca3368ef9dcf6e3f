"""Settings from environment variables, and the secrets that may stand nowhere else.

`NIGHTSHIFT_STORE__URL=s3://...` sets `store: {url: ...}`, and so on for every setting. An empty
variable counts as absent.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from nightshift.adapters.errors import ConfigurationError
from nightshift.flows.config.validation import find_model, list_keys
from nightshift.flows.config.yaml_file import YamlFile

PREFIX = "NIGHTSHIFT_"
FILE_VARIABLE = f"{PREFIX}CONFIG"

PASSWORD_OF = {"url": "password", "source_url": "source_password"}
SECRETS = {"database": ("password", "source_password"), "store": ("key", "secret")}
"""The settings that only the environment may hold."""

# ...://user:password@host; an @ within the password shows by another one before the host.
_PASSWORD = re.compile(r"(?s)(?P<before>.*?://[^:/@]*):(?P<password>[^@]*(@[^@/?]*(?=@))*)@")
_SECRET_IN_QUERY = re.compile(r"[?&][^=&]*(password|passwd|pwd|secret|token)|pwd(=|%3d)", re.I)
# A password, a query, or a part of the path that looks random.
_SECRET_IN_WEBHOOK = re.compile(r"://[^/]*@|\?|/(?=[\w-]*\d)[\w-]{16,}|/[A-Za-z]{20,}")


def name_variable(*keys: str) -> str:
    """("store", "url") -> NIGHTSHIFT_STORE__URL."""
    return PREFIX + "__".join(keys).upper()


def has_secret(url: str) -> bool:
    """Whether a URL has a password, or a query that looks like one."""
    return bool(_PASSWORD.match(url) or _SECRET_IN_QUERY.search(url))


def read_environment(model: type[BaseModel]) -> dict[str, Any]:
    """NIGHTSHIFT_STORE__URL=x and so on -> {"store": {"url": "x"}}.

    A database URL may have its password here; it is moved to where it is never shown. Raises
    ConfigurationError for a misspelled variable; others (Kubernetes makes some) are left alone.
    """
    found: dict[str, Any] = {}
    for variable, value in sorted(os.environ.items()):
        name = variable.removeprefix(PREFIX)
        if name == variable or variable == FILE_VARIABLE or not value:
            continue
        section, _, field = name.lower().partition("__")
        if section not in model.model_fields:
            _refuse_misspelled(name, model)
        elif not field:
            found[section] = value
        elif isinstance(found.setdefault(section, {}), dict):
            found[section][field] = value
    database = found.get("database")
    if isinstance(database, dict):
        for name, password in PASSWORD_OF.items():
            match = _PASSWORD.match(database.get(name, ""))
            if match is not None:
                database[name] = f"{match['before']}@{database[name][match.end() :]}"
                database.setdefault(password, unquote(match["password"]))
    return found


def list_variables(model: type[BaseModel]) -> Iterator[Sequence[str]]:
    """The path of every setting: ("retries",), ("store", "url"), ..."""
    for section, field in model.model_fields.items():
        if find_model(field.annotation):
            yield from ((section, key) for key in list_keys(model, [section]))
        else:
            yield (section,)


def _refuse_misspelled(name: str, model: type[BaseModel]) -> None:
    variables = [FILE_VARIABLE, *(name_variable(*keys) for keys in list_variables(model))]
    known = [variable.removeprefix(PREFIX) for variable in variables]
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
    if near:
        problem, remedy = "there is no such setting", f"Did you mean {PREFIX}{near[0]}?"
        raise ConfigurationError("the environment", PREFIX + name, problem, remedy)


def find_secrets(file: YamlFile) -> list[ConfigurationError]:
    """Secrets in a file, which is copied, mailed and committed: they belong in the environment."""
    found = [
        (section, name, "a secret must not stand in a file")
        for section, names in SECRETS.items()
        for name in names
        if name in _section(file, section)
    ]
    webhook = _section(file, "alerts").get("webhook")
    if isinstance(webhook, str) and _SECRET_IN_WEBHOOK.search(webhook):
        found.append(("alerts", "webhook", "a URL with a secret must not stand in a file"))
    return [
        ConfigurationError(
            file.locate(keys),
            ".".join(keys),
            problem,
            f"Set {name_variable(*keys)} in the environment.",
        )
        for *keys, problem in found
    ]


def _section(file: YamlFile, name: str) -> dict[str, Any]:
    values = file.content.get(name)
    return values if isinstance(values, dict) else {}
