"""config/nightshift.yaml, overridden by the environment; read once and frozen.

`NIGHTSHIFT_CONFIG` names another file. Relative paths start at the project's folder, wherever a
process runs.
"""

import os
import re
from pathlib import Path
from typing import Any, Literal

import pydantic
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from nightshift.adapters.database.capabilities import capabilities_of, with_driver
from nightshift.adapters.database.embedded import start_embedded
from nightshift.adapters.database.urls import parse_database_url
from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.store.trust_policy import TrustPolicy
from nightshift.adapters.store.urls import Prefix, parse_endpoint, parse_store_url
from nightshift.flows.config.cron import Cron, TimeZone
from nightshift.flows.config.environment import (
    FILE_VARIABLE,
    PASSWORD_OF,
    find_secrets,
    has_secret,
    name_variable,
    read_environment,
)
from nightshift.flows.config.validation import describe_problems, refused
from nightshift.flows.config.yaml_file import YamlFile, read_yaml

EMBEDDED = "embedded"

_PUBLIC_KEY = "ed25519:"
_PROJECT, _NO_PROJECT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"), re.compile(r"[^a-z0-9]+")


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # tracebacks are logged, and it may be a secret
        use_attribute_docstrings=True,
    )


class DatabaseSettings(_Part):
    """Where source tables are read and predictions are kept."""

    url: str = EMBEDDED
    """A SQLAlchemy URL without its password, or `embedded`: a PostgreSQL in the state folder."""
    password: SecretStr | None = None
    """The password of `url`."""
    source_url: str | None = None
    """The database of the source tables, if it is another one."""
    source_password: SecretStr | None = None
    """The password of `source_url`."""
    schema_: str | None = Field(None, alias="schema")
    """The schema of the ledger and the predictions; by default the database's own."""
    lease: float = Field(60, gt=0)
    """Seconds without a heartbeat after which a run's owner counts as dead."""

    @field_validator("url", "source_url")
    @classmethod
    def _is_a_database(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or value == EMBEDDED:
            return value
        if has_secret(value):
            variable = name_variable("database", PASSWORD_OF[info.field_name or "url"])
            remedy = f"Set {variable} in the environment."
            raise refused("a password must not stand in it", remedy)
        remedy = "Write it as postgresql://user@host:5432/database, or as `embedded`."
        wrong = refused("it is not a database URL", remedy)
        try:
            url = parse_database_url(value)
            with_driver(url).get_dialect()
        except (sa.exc.ArgumentError, ValueError) as error:
            raise wrong from error
        except ConfigurationError as error:
            raise refused(error.problem, error.remedy) from None
        if url.password is not None:  # a later @ was taken for the one before the host
            raise wrong
        here = capabilities_of(url.get_backend_name())
        try:
            here.check_parts(with_driver(url))
        except ConfigurationError as error:
            raise refused(error.problem, error.remedy) from None
        name = url.database or ":memory:"
        if here.is_server or name.startswith((":memory:", "file:")):
            return value
        return url.set(database=str(_root(info) / name)).render_as_string()


class StoreSettings(_Part):
    """Where models are kept."""

    url: str = Field(".nightshift/store", min_length=1)
    """`s3://bucket/prefix`, or a folder."""
    endpoint_url: str | None = None
    """The address of an S3-compatible server that is not Amazon's."""
    region: str | None = None
    """The region of the bucket."""
    ca_bundle: Path | None = None
    """A file with the certificates to trust for an https endpoint; by default the system's."""
    key: SecretStr | None = None
    """The access key; without it, the usual places of AWS credentials are searched."""
    secret: SecretStr | None = None
    """The secret of the access key."""
    connect_timeout: float = Field(3, gt=0)
    """Seconds to wait for a connection."""
    read_timeout: float = Field(10, gt=0)
    """Seconds to wait for an answer."""
    retries: int = Field(1, ge=0)
    """How often a request is repeated. With the default timeouts, an unreachable store is an error
    after 27 seconds."""
    slowest_transfer: float = Field(256 * 1024, gt=0)
    """Bytes per second; a transfer that is slower is given up."""

    @field_validator("url", "endpoint_url")
    @classmethod
    def _has_no_secret(cls, value: str | None) -> str | None:
        if value is not None and has_secret(value):
            remedy = "Set NIGHTSHIFT_STORE__KEY and NIGHTSHIFT_STORE__SECRET in the environment."
            raise refused("a secret must not stand in it", remedy)
        return value

    @field_validator("url")
    @classmethod
    def _from_root(cls, value: str, info: ValidationInfo) -> str:
        try:
            place = parse_store_url(value)
        except ConfigurationError as error:
            raise refused(error.problem, error.remedy) from None
        return value if "://" in value or isinstance(place, Prefix) else str(_root(info) / value)

    @field_validator("endpoint_url")
    @classmethod
    def _is_a_server(cls, value: str | None) -> str | None:
        try:
            return value and parse_endpoint(value)
        except ConfigurationError as error:
            raise refused(error.problem, error.remedy) from None

    @field_validator("ca_bundle")
    @classmethod
    def _bundle_from_root(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else _root(info) / value


class TrustSettings(_Part):
    """Which models may be opened. In a variable, separate several values by commas."""

    adapters: frozenset[str] | None = None
    """The only adapters that may be used, like `sklearn` or `onnx`; by default all."""
    classes: frozenset[str] = frozenset()
    """Model classes of your own that may be opened, as `package.module:Class`."""
    pickle: Literal["never", "signed", "always"] = "signed"
    """Whether formats that can run code, like pickles, may be read: `signed` asks for the
    signature of a trusted key."""
    unsigned: bool = True
    """Whether models of other formats may be opened without a signature."""
    keys_: tuple[str, ...] = Field((), alias="keys")  # dict(...) would call a `keys`
    """Trusted public keys: each `ed25519:...`, or a file that holds one."""
    sign_key: Path | None = None
    """The file with the private key that signs the models registered here."""
    version_mismatch: Literal["error", "warn", "allow"] = "warn"
    """What to do if a library's version is not the one that saved the model. Another major version
    is an error unless `allow`."""
    max_blob_bytes: int = Field(4 * 1024**3, gt=0)
    """The largest model, in bytes, that may be opened."""
    trusted_types: frozenset[str] = frozenset()
    """Types that a skops file may contain, in addition to those that skops trusts."""

    @field_validator("adapters", "classes", "keys_", "trusted_types", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [item.strip() for item in value.split(",")] if isinstance(value, str) else value

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

    cron: Cron = "30 12 * * *"
    """Five fields: minute, hour, day, month, weekday."""
    timezone: TimeZone = "UTC"
    """The zone of the cron line."""
    enabled: bool = True
    """`false`: only `nightshift clean` deletes."""


class AlertSettings(_Part):
    """Who is notified when a run fails, is quarantined or does not start."""

    webhook: SecretStr | None = None
    """A URL that takes JSON by POST. A URL with a secret belongs in the environment."""
    late_after: float = Field(600, ge=10)
    """Seconds after its scheduled time at which a run that has not started is reported."""

    @field_validator("webhook")
    @classmethod
    def _is_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():  # a variable left empty
            return None
        if not re.match(r"https?://[^/\s]+\S*$", value.get_secret_value()):
            remedy = "Write it like https://alerts.example.com/nightshift."
            raise refused("it is not the URL of a webhook", remedy)
        return value


class Settings(_Part):
    """The settings of a project."""

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    """Where source tables are read and predictions are kept."""
    store: StoreSettings = Field(default_factory=StoreSettings)
    """Where models are kept."""
    trust: TrustSettings = Field(default_factory=TrustSettings)
    """Which models may be opened."""
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    """When old predictions are deleted."""
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    """Who is notified when a run fails, is quarantined or does not start."""
    project: str = ""
    """The name under which a Prefect server shared with other projects knows this one: lowercase
    letters, digits and dashes. By default the name of the folder."""
    state_dir: Path = Path(".nightshift")
    """The folder of the embedded database, the local Prefect server and the cached models."""
    retries: int = Field(3, ge=0)
    """How often a step is tried again after a transient error."""
    retry_delay: float = Field(5, ge=0)
    """Seconds before the first retry; doubled each time."""

    @field_validator("project")
    @classmethod
    def _after_its_folder(cls, value: str, info: ValidationInfo) -> str:
        if value and not _PROJECT.fullmatch(value):
            raise refused(
                f"{value!r} is not a valid name", "Use lowercase letters, digits and dashes."
            )
        folder = _NO_PROJECT.sub("-", _root(info).name.casefold()).strip("-")
        return value or folder or "nightshift"

    @field_validator("state_dir")
    @classmethod
    def _from_root(cls, value: Path, info: ValidationInfo) -> Path:
        return _root(info) / value

    def store_url(self) -> str:
        """Where models are kept, as a URL. A missing folder is created."""
        if "://" in self.store.url:
            return self.store.url
        folder = Path(self.store.url)
        folder.mkdir(parents=True, exist_ok=True)
        return folder.as_uri()

    def trust_policy(self) -> TrustPolicy:
        """What may be opened. Raises ConfigurationError for a key that cannot be read."""
        chosen = self.trust.model_dump(exclude={"keys_", "sign_key"})
        return TrustPolicy(**chosen, keys=tuple(_public_key(key) for key in self.trust.keys_))

    def target_url(self) -> sa.URL:
        """Where predictions are kept. Starts the embedded database if it is that one."""
        return self._url(self.database.url, self.database.password)

    def source_url(self) -> sa.URL:
        if self.database.source_url is None:
            return self.target_url()
        return self._url(self.database.source_url, self.database.source_password)

    def _url(self, text: str, password: SecretStr | None) -> sa.URL:
        if text == EMBEDDED:
            return start_embedded(self.state_dir / "postgres")
        url = parse_database_url(text)
        return url if password is None else url.set(password=password.get_secret_value())


def load_settings() -> Settings:
    """Read the settings. Raises ConfigurationError, naming file or variable, and remedy.

    The errors are raised without their cause, which holds what was given, perhaps a secret: Dask
    pickles an error's cause with it.
    """
    settings = read_settings()
    if isinstance(settings, Settings):
        return settings
    raise settings[0]


def read_settings() -> Settings | list[ConfigurationError]:
    """The settings, or everything that is wrong with the file, or else with the environment."""
    path = settings_file()
    if not path.is_file():
        problem = "there is no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}")
        remedy = "Run `nightshift init` here, or go to the folder of your project."
        if path.is_absolute() or os.environ.get(FILE_VARIABLE):
            remedy = f"Correct {FILE_VARIABLE}, which names it."
        return [ConfigurationError(str(path), "", problem, remedy)]
    try:
        file = read_yaml(path)
    except ConfigurationError as error:
        return [error]
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - resolve() would follow links
    context = {"root": folder.parent if folder.name == "config" else folder}
    settings = _validate(file, file.content, context)
    secrets = find_secrets(file)
    if secrets:  # of which no other error may show the value
        named = {secret.field for secret in secrets}
        others = settings if isinstance(settings, list) else []
        return [*secrets, *(error for error in others if error.field not in named)]
    if isinstance(settings, list):
        return settings
    try:
        environment = read_environment(Settings)
    except ConfigurationError as error:
        return [error]
    if not environment:
        return settings
    merged = dict(file.content)
    for name, value in environment.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both else value
    return _validate(None, merged, context)


def _validate(
    file: YamlFile | None, content: dict[str, Any], context: dict[str, Any]
) -> Settings | list[ConfigurationError]:
    """The problems are of the file, or, without one, of the environment."""
    # Their relative paths start at the root even where the file names none of them.
    sections: dict[str, Any] = {"database": {}, "store": {}, "trust": {}}
    try:
        return Settings.model_validate({**sections, **content}, context=context)
    except pydantic.ValidationError as error:
        if file is not None:
            return describe_problems(error, Settings, file.locate)
        found = describe_problems(error, Settings, lambda _: "the environment")
        return [
            ConfigurationError(e.place, name_variable(*e.field.split(".")), e.problem, e.remedy)
            for e in found
        ]


def jobs_folder() -> Path:
    """The folder `jobs` next to nightshift.yaml."""
    return settings_file().parent / "jobs"


def settings_file() -> Path:
    """nightshift.yaml, or the file that NIGHTSHIFT_CONFIG names."""
    return Path(os.environ.get(FILE_VARIABLE) or "config/nightshift.yaml")


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
