"""config/nightshift.yaml and the environment, read once and frozen.

`NIGHTSHIFT_STORE__URL=s3://...` overrides `store: {url: ...}` of the file, and so on for every
setting; an empty variable counts as absent. `NIGHTSHIFT_CONFIG` names another file than
config/nightshift.yaml. Relative paths count from the project's folder, wherever a process runs.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pydantic
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from nightshift.adapters.database.embedded import start_embedded
from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.store.trust_policy import TrustPolicy
from nightshift.flows.config.validation import first_problem, known_keys, part, refused
from nightshift.flows.config.yaml_file import read_yaml
from nightshift.flows.planning.scheduled_runs import cron_problem, time_zones

EMBEDDED = "embedded"

_PUBLIC_KEY = "ed25519:"
_PREFIX = "NIGHTSHIFT_"
_FILE_VARIABLE = f"{_PREFIX}CONFIG"
_IN_FILE_NEVER = {"database": ("password", "source_password"), "store": ("key", "secret")}
_PROJECT, _NO_PROJECT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"), re.compile(r"[^a-z0-9]+")
_PASSWORD_OF = {"url": "password", "source_url": "source_password"}
# ...://user:password@host; an @ within the password is told by another one before the host.
_PASSWORD = re.compile(r"(?s)(?P<before>.*?://[^:/@]*):(?P<password>[^@]*(@[^@/?]*(?=@))*)@")
# A password, a query, or a part of the path that nobody would remember.
_SECRET_IN_WEBHOOK = re.compile(r"://[^/]*@|\?|/(?=[\w-]*\d)[\w-]{16,}|/[A-Za-z]{20,}")
_SECRET_IN_QUERY = re.compile(r"[?&][^=&]*(password|passwd|pwd|secret|token)|pwd(=|%3d)", re.I)


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # tracebacks are logged, and it may be a secret
    )


class DatabaseSettings(_Part):
    """Where tables are read and predictions are kept."""

    url: str = EMBEDDED
    """SQLAlchemy URL without its password, or `embedded`: a PostgreSQL in the state folder."""
    password: SecretStr | None = None
    source_url: str | None = None
    """Where the sources are, if not in the same database."""
    source_password: SecretStr | None = None
    schema_: str | None = Field(None, alias="schema")
    """The schema that holds the ledger and the predictions; the database's default if absent."""
    lease: float = Field(60, gt=0)
    """Seconds of silence after which a run's owner counts as dead."""

    @field_validator("url", "source_url")
    @classmethod
    def _is_a_database(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or value == EMBEDDED:
            return value
        if _PASSWORD.match(value) or _SECRET_IN_QUERY.search(value):
            password = _PASSWORD_OF[info.field_name or "url"].upper()
            remedy = f"Set {_PREFIX}DATABASE__{password} in the environment."
            raise refused("a password must not stand in it", remedy)
        remedy = "Write it as postgresql://user@host:5432/database, or as `embedded`."
        wrong = refused("it is not a database URL", remedy)
        try:
            url = sa.make_url(value)
            if url.get_backend_name() != "postgres":  # as libpq spells it, and SQLAlchemy does not
                url.get_dialect()
        except (sa.exc.ArgumentError, ValueError) as error:
            raise wrong from error
        if url.password is not None:  # SQLAlchemy took an @ further on for the one before a host
            raise wrong
        name = url.database or ":memory:"
        in_file = url.get_backend_name() in {"sqlite", "duckdb"}
        if not in_file or name.startswith((":memory:", "file:")):
            return value
        return url.set(database=str(_root(info) / name)).render_as_string()


class StoreSettings(_Part):
    """Where serialized models are kept: s3://bucket/prefix, or a folder."""

    url: str = Field(".nightshift/store", min_length=1)
    endpoint_url: str | None = None
    region: str | None = None
    ca_bundle: Path | None = None
    """A file with the certificates that an https endpoint may be signed by; else the system's."""
    key: SecretStr | None = None
    secret: SecretStr | None = None
    connect_timeout: float = Field(3, gt=0)
    read_timeout: float = Field(10, gt=0)
    retries: int = Field(1, ge=0)
    """With the timeouts it bounds a request: as they are, a server is missed within 27 seconds."""
    slowest_transfer: float = Field(256 * 1024, gt=0)
    """Bytes per second; a blob that moves slower is given up."""

    @field_validator("url", "endpoint_url")
    @classmethod
    def _has_no_secret(cls, value: str | None) -> str | None:
        if value is not None and (_PASSWORD.match(value) or _SECRET_IN_QUERY.search(value)):
            remedy = "Set NIGHTSHIFT_STORE__KEY and NIGHTSHIFT_STORE__SECRET in the environment."
            raise refused("a secret must not stand in it", remedy)
        return value

    @field_validator("url")
    @classmethod
    def _from_root(cls, value: str, info: ValidationInfo) -> str:
        if "://" in value:
            return value
        if value.partition("/")[0].endswith(":"):
            raise refused("it is neither a URL nor a folder", "Write it like s3://bucket/prefix.")
        return str(_root(info) / value)

    @field_validator("ca_bundle")
    @classmethod
    def _bundle_from_root(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else _root(info) / value


class TrustSettings(_Part):
    """What of the model store may be opened; `adapters.store.trust_policy` says what each does.

    In a variable, several values are parted by commas.
    """

    adapters: frozenset[str] | None = None
    classes: frozenset[str] = frozenset()
    pickle: Literal["never", "signed", "always"] = "signed"
    unsigned: bool = True
    keys_: tuple[str, ...] = Field((), alias="keys")  # dict(...) would call a `keys`
    """Trusted public keys: `ed25519:...`, or a file that holds one."""
    sign_key: Path | None = None
    """The private key that this machine signs with: a file."""
    version_skew: Literal["error", "warn", "allow"] = "warn"
    max_blob_bytes: int = Field(4 * 1024**3, gt=0)
    trusted_types: frozenset[str] = frozenset()

    @field_validator("adapters", "classes", "keys_", "trusted_types", mode="before")
    @classmethod
    def _parted(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("keys_")
    @classmethod
    def _keys_from_root(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(k if k.startswith(_PUBLIC_KEY) else str(_root(info) / k) for k in value)

    @field_validator("sign_key")
    @classmethod
    def _from_root(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else _root(info) / value


class RetentionSettings(_Part):
    """When old predictions are deleted; each job's `keep` says how many runs stay."""

    cron: str = "30 12 * * *"
    """Five fields, as in a job's schedule; by default at noon, away from the nights."""
    timezone: str = "UTC"
    enabled: bool = True

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        problem = cron_problem(value)
        if problem is not None:
            raise refused(
                problem, "Write it like `30 12 * * *`: minute, hour, day, month, weekday."
            )
        return value

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        if value not in time_zones():
            raise refused(f"{value!r} is no time zone", "Write it like America/New_York.")
        return value


class AlertSettings(_Part):
    """Who is told when a night fails, is quarantined or does not begin."""

    webhook: SecretStr | None = None
    """A URL that takes JSON by POST; in the environment, if it holds a secret."""
    late_after: float = Field(600, ge=10)
    """Seconds that a run may be late before that is told."""

    @field_validator("webhook")
    @classmethod
    def _is_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():  # a variable that was left empty
            return None
        if not re.match(r"https?://[^/\s]+\S*$", value.get_secret_value()):
            remedy = "Write it like https://alerts.example.com/nightshift."
            raise refused("it is not the URL of a webhook", remedy)
        return value


class Settings(_Part):
    """All settings."""

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    trust: TrustSettings = Field(default_factory=TrustSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    project: str = ""
    """Tells what this project registers with a Prefect server from what others do: small letters,
    digits and dashes. Left empty: after the folder that it is in."""
    state_dir: Path = Path(".nightshift")
    """For the embedded database, the local Prefect server and the cache of models."""
    retries: int = Field(3, ge=0)
    """How often a step is tried again after a transient error."""
    retry_delay: float = Field(5, ge=0)
    """Seconds before the first retry; doubled each time."""

    @field_validator("project")
    @classmethod
    def _after_its_folder(cls, value: str, info: ValidationInfo) -> str:
        if value and not _PROJECT.fullmatch(value):
            raise refused(f"{value!r} is no project's name", "Use small letters, digits, dashes.")
        folder = _NO_PROJECT.sub("-", _root(info).name.casefold()).strip("-")
        return value or folder or "nightshift"

    @field_validator("state_dir")
    @classmethod
    def _from_root(cls, value: Path, info: ValidationInfo) -> Path:
        return _root(info) / value

    def store_url(self) -> str:
        """Where models are kept. A folder, as against a URL, is created if it is missing."""
        if "://" in self.store.url:
            return self.store.url
        folder = Path(self.store.url)
        folder.mkdir(parents=True, exist_ok=True)
        return folder.as_uri()

    def sign_key(self) -> Path | None:
        """The file with this machine's private key, which need not be there yet."""
        return self.trust.sign_key

    def trust_policy(self) -> TrustPolicy:
        """What may be opened. Raises ConfigurationError for a key that cannot be read."""
        chosen = self.trust.model_dump(exclude={"keys_", "sign_key"})
        return TrustPolicy(**chosen, keys=tuple(_public_key(key) for key in self.trust.keys_))

    def target_url(self) -> sa.URL:
        """Where predictions are kept. Starts the embedded database if that is the place."""
        return self._url(self.database.url, self.database.password)

    def source_url(self) -> sa.URL:
        if self.database.source_url is None:
            return self.target_url()
        return self._url(self.database.source_url, self.database.source_password)

    def _url(self, text: str, password: SecretStr | None) -> sa.URL:
        if text == EMBEDDED:
            return start_embedded(self.state_dir / "postgres")
        url = sa.make_url(text)
        return url if password is None else url.set(password=password.get_secret_value())


def load_settings() -> Settings:
    """Read the settings. Raises ConfigurationError, naming file or variable, and remedy."""
    path = settings_file()
    if not path.is_file():
        problem = "there is no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}")
        remedy = f"Run this in your project's folder, or name the file in {_FILE_VARIABLE}."
        raise ConfigurationError(str(path), "", problem, remedy)
    content = read_yaml(path)
    _refuse_secrets(path, content)
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - resolve() would follow links
    context = {"root": folder.parent if folder.name == "config" else folder}
    merged: dict[str, Any] = {"database": {}, "store": {}, "trust": {}, **content}
    settings = _validated(merged, context, str(path))
    environment = _environment()
    for name, value in environment.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both else value
    return _validated(merged, context, None) if environment else settings


def _validated(merged: dict[str, Any], context: dict[str, Any], path: str | None) -> Settings:
    """Raises ConfigurationError for a field of the file, or, without a path, for a variable.

    It is raised without its cause, which holds what was given, perhaps a secret: with Dask at hand
    an error's cause is pickled with it.
    """
    try:
        return Settings.model_validate(merged, context=context)
    except pydantic.ValidationError as error:
        found = first_problem(path or "the environment", error, Settings)
    if path is None:
        variable = _PREFIX + found.field.replace(".", "__").upper()
        found = ConfigurationError(found.place, variable, found.problem, found.remedy)
    raise found


def jobs_folder() -> Path:
    """The folder `jobs` beside nightshift.yaml."""
    return settings_file().parent / "jobs"


def settings_file() -> Path:
    """Where the settings are, from here: nightshift.yaml, or what NIGHTSHIFT_CONFIG names."""
    return Path(os.environ.get(_FILE_VARIABLE) or "config/nightshift.yaml")


def _public_key(key: str) -> str:
    if key.startswith(_PUBLIC_KEY):
        return key
    try:
        return Path(key).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"the key {key} cannot be read ({error})"
        remedy = "`nightshift keys create` makes one; or name the signer's."
        raise ConfigurationError("nightshift.yaml", "trust.keys", problem, remedy) from error


def _root(info: ValidationInfo) -> Path:
    return info.context["root"] if info.context else Path.cwd()


# --- the environment ----------------------------------------------------------------------------


def _environment() -> dict[str, Any]:
    """NIGHTSHIFT_STORE__URL=x and so on -> {"store": {"url": "x"}}.

    A database URL may have its password here; it is moved to where it is never shown. Raises
    ConfigurationError for a misspelt variable; others (Kubernetes makes some) are left alone.
    """
    found: dict[str, Any] = {}
    for variable, value in sorted(os.environ.items()):
        name = variable.removeprefix(_PREFIX)
        if name == variable or variable == _FILE_VARIABLE or not value:
            continue
        section, _, field = name.lower().partition("__")
        if section not in Settings.model_fields:
            _refuse_misspelt(name)
        elif not field:
            found[section] = value
        elif isinstance(found.setdefault(section, {}), dict):
            found[section][field] = value
    database = found.get("database")
    if isinstance(database, dict):
        for name, password in _PASSWORD_OF.items():
            match = _PASSWORD.match(database.get(name, ""))
            if match is not None:
                database[name] = f"{match['before']}@{database[name][match.end() :]}"
                database.setdefault(password, unquote(match["password"]))
    return found


def _refuse_misspelt(name: str) -> None:
    known = ["CONFIG"]
    for section, field in Settings.model_fields.items():
        inner = known_keys(Settings, [section]) if part(field.annotation) else [""]
        known += ["__".join(filter(None, (section, key))).upper() for key in inner]
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
    if near:
        problem, remedy = "there is no such setting", f"Did you mean {_PREFIX}{near[0]}?"
        raise ConfigurationError("the environment", f"{_PREFIX}{name}", problem, remedy)


# --- what is refused ----------------------------------------------------------------------------


def _refuse_secrets(path: Path, content: dict[str, Any]) -> None:
    """A file is copied, mailed and committed; a secret belongs in the environment."""
    for section, names in _IN_FILE_NEVER.items():
        values = content.get(section)
        for name in names:
            if isinstance(values, dict) and name in values:
                variable = f"{_PREFIX}{section.upper()}__{name.upper()}"
                problem = "a secret must not stand in a file"
                remedy = f"Set {variable} in the environment."
                raise ConfigurationError(str(path), f"{section}.{name}", problem, remedy)
    alerts = content.get("alerts")
    webhook = alerts.get("webhook") if isinstance(alerts, dict) else None
    if isinstance(webhook, str) and _SECRET_IN_WEBHOOK.search(webhook):
        problem = "a webhook's URL with a secret must not stand in a file"
        remedy = f"Set {_PREFIX}ALERTS__WEBHOOK in the environment."
        raise ConfigurationError(str(path), "alerts.webhook", problem, remedy)
