"""The files of a new project, and a job file for a table: written once, never overwritten."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nightshift.adapters.store.keys import SigningKey
from nightshift.flows.config.schemas import SCHEMAS, write_schema

_KEY = ".nightshift/keys/local.pem"
_IGNORED = (".nightshift/", ".env", "*.pem")

_SETTINGS = """\
# yaml-language-server: $schema=schemas/nightshift.json
# The settings of this project. Environment variables override them: NIGHTSHIFT_DATABASE__URL,
# NIGHTSHIFT_STORE__URL, and so on. Secrets may stand only there: NIGHTSHIFT_DATABASE__PASSWORD,
# NIGHTSHIFT_STORE__KEY, NIGHTSHIFT_STORE__SECRET. What is commented out need not be set.

# The name of this project on a Prefect server that others use, too; else that of its folder.
{project}

database:
  # embedded (a PostgreSQL in .nightshift), postgresql://user@host:5432/name,
  # mysql+pymysql://user@host/name, sqlite:///file.db or duckdb:///file.duckdb
  url: {database}
  # source_url: postgresql://user@host:5432/other    # where the source tables are, if elsewhere
  # schema: predictions          # for predictions and run records

store:
  url: {store}  # a folder, or s3://bucket/prefix
  # region: eu-central-1
  # endpoint_url: https://minio.example.com    # of an S3-compatible server

trust:                           # which models may be opened
  keys: ["{public}"]
  sign_key: {sign_key}  # signs what is registered here; keep it secret
  # pickle: signed               # may pickles be opened: never, signed (by one of the keys), always

# retention: {{cron: "30 12 * * *"}}    # when old predictions are deleted
# alerts: {{webhook: https://alerts.example.com/nightshift}}    # gets failed and late runs
# retries: 3                     # of a step, after a transient error
# retry_delay: 5                 # seconds before the first one, doubled each time
# state_dir: .nightshift         # embedded database, local Prefect server, cached models
"""

_EXAMPLE = """\
# yaml-language-server: $schema=schemas/job.json
# An example of a job: copy it to jobs/NAME.yaml, or let `nightshift init --job NAME --table TABLE
# --key COLUMN` write one. Only model, source and target are needed.

model: churn@champion               # or churn@7 for one version

source:
  table: customers                  # or query: SELECT ...
  key: customer_id                  # what identifies a row; [order_id, line] for several columns
  time_column: updated_at           # when a row happened, for partition_by

target:
  table: churn_predictions          # a view of this name shows readers the published predictions

partition_by: day                   # score day by day; or hour, month, all
timezone: Europe/Berlin             # whose midnight begins a day

schedule:
  cron: "0 3 * * *"                 # minute, hour, day, month, weekday
  catchup: latest                   # after downtime: score the latest; all of them; or skip

max_rejects: 0.1%                   # rows that may get no prediction before the run is quarantined

checks:                             # before readers see a run; every check has a default
  predictions:
    between: [0, 1]
"""


@dataclass
class Written:
    """What happened to each file, by its path."""

    created: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def write(self, path: Path, text: str) -> None:
        """Write a file that is not there yet."""
        if path.exists():
            self.kept.append(str(path))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self.created.append(str(path))


def write_project(root: Path, config: Path, database: str, store: str, name: str) -> Written:
    """Settings, schemas, an example, a key that is trusted, and .gitignore."""
    done = Written()
    settings = config / "nightshift.yaml"
    if settings.exists():
        done.kept.append(str(settings))
    else:
        public = _create_key(root / _KEY, done)
        text = _SETTINGS.format(
            project=f"project: {_quote(name)}"
            if name
            else "# project: my-shop    # else the folder",
            database=_quote(database),
            store=_quote(store),
            public=public,
            sign_key=_KEY,
        )
        done.write(settings, text)
    (config / "jobs").mkdir(parents=True, exist_ok=True)
    done.write(config / "example_job.yaml", _EXAMPLE)
    for file in SCHEMAS:
        path = config / "schemas" / file
        if path.exists() and path.read_text(encoding="utf-8") != write_schema(file):
            path.unlink()  # of another version of Nightshift; only we write it
        done.write(path, write_schema(file))
    _ignore(root / ".gitignore", done)
    return done


def write_job(config: Path, name: str, job: dict[str, Any], done: Written) -> None:
    """A job file with these keys, and what one would add next, commented out."""
    lines = ["# yaml-language-server: $schema=../schemas/job.json"]
    lines += yaml.safe_dump(job, sort_keys=False, allow_unicode=True).splitlines()
    if "schedule" not in job:
        lines.append('# schedule: {cron: "0 3 * * *", timezone: Europe/Berlin}')
    lines.append("# ../example_job.yaml shows what else a job can say.")
    done.write(config / "jobs" / f"{name}.yaml", "\n".join(lines) + "\n")


def _create_key(path: Path, done: Written) -> str:
    """The public key of the private one in that file, which is made if it is missing."""
    if path.exists():
        done.kept.append(str(path))
        return SigningKey.load(path).public
    path.parent.mkdir(parents=True, exist_ok=True)
    key = SigningKey.create()
    key.save(path)
    done.created.append(str(path))
    return key.public


def _ignore(path: Path, done: Written) -> None:
    """State, secrets and private keys are not committed."""
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    missing = [line for line in _IGNORED if line not in lines]
    if missing:
        path.write_text("\n".join([*lines, *missing]) + "\n", encoding="utf-8")
    (done.created if missing else done.kept).append(str(path))


def _quote(value: str) -> str:
    """As YAML writes a string."""
    text: str = yaml.safe_dump(value, width=float("inf"), allow_unicode=True)
    return text.splitlines()[0]
