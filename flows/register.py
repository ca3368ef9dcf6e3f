"""Registering model versions, and what a version must show before an alias may name it."""

from contextlib import suppress
from math import floor
from pathlib import Path
from typing import Any

import pandas as pd

from nightshift.adapters.errors import (
    AgreementTooLow,
    ConfigurationError,
    JobsBroken,
    NightshiftError,
)
from nightshift.adapters.history.run_history import ComparedRun, read_newest_comparison
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.keys import SigningKey
from nightshift.adapters.store.manifest import Alias, Manifest
from nightshift.adapters.store.model_store import CHAMPION
from nightshift.flows.config.job import Job, job_names, load_job
from nightshift.flows.config.resources import NOTHING_YET, open_ledger, open_resources, open_store
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.scoring.challenger.comparison import Comparison
from nightshift.flows.text import format_percent


def register(
    name: str, model: Model, sample: pd.DataFrame, sign_key: Path | None = None, **details: Any
) -> Manifest:
    """Register a model as the next version of `name` in this project's store, signed with its key.

    `sign_key` is a private key file, used in place of trust.sign_key. `details` are those of
    `ModelStore.register`: metrics, description, trained_through.
    """
    settings = load_settings()
    key = sign_key or settings.trust.sign_key
    signing = None if key is None else SigningKey.load(key)
    return open_store(settings).register(name, model, sample, sign_with=signing, **details)


def create_key(settings: Settings) -> Path:
    """Create this machine's key pair at trust.sign_key; returns the path of the public key."""
    path = settings.trust.sign_key
    if path is None:
        problem, remedy = "it is not set", "`nightshift init` sets it and creates the key."
        raise ConfigurationError("nightshift.yaml", "trust.sign_key", problem, remedy)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = SigningKey.create()
    key.save(path)
    public = path.with_suffix(".pub")
    public.write_text(key.public + "\n", encoding="utf-8")
    return public


def promote(
    settings: Settings, manifest: Manifest, alias: str = CHAMPION, *, force: bool = False
) -> Alias:
    """Let the alias name the version; returns the alias as it is now.

    Raises JobsBroken, AgreementTooLow, or what loading the model raises; with `force` only what
    the store itself does.
    """
    store = open_store(settings)
    if not force:
        store.load(manifest)  # an alias must not name what no run could load
        broken = broken_jobs(settings, manifest, alias)
        if broken:
            raise JobsBroken(manifest.reference, alias, tuple(broken.items()))
        require_agreement(settings, manifest, alias)
    return store.promote(manifest.name, manifest.version, alias)


def broken_jobs(settings: Settings, manifest: Manifest, alias: str) -> dict[str, str]:
    """The jobs that use the alias and could not run with this version: name -> why not."""
    broken = {}
    for name in job_names():
        try:
            job = load_job(name)
        except ConfigurationError:
            continue  # it could not run with any version, and says so itself
        if not uses_alias(job, manifest.name, alias):
            continue
        try:
            with open_resources(settings, job) as resources:
                resources.source.check(manifest.signature)
                resources.predictions(manifest.signature).check()
        except NightshiftError as error:
            broken[name] = str(error)
    return broken


def uses_alias(job: Job, name: str, alias: str) -> bool:
    """Whether the job scores with the version that this alias of the model names."""
    by_default = job.model == name and alias == CHAMPION
    return by_default or job.model == f"{name}@{alias}"


def find_job(name: str, alias: str) -> str | None:
    """The first job that scores with what this alias of the model names, if any does."""
    for job in job_names():
        with suppress(ConfigurationError):
            if uses_alias(load_job(job), name, alias):
                return job
    return None


def require_agreement(settings: Settings, manifest: Manifest, alias: str) -> None:
    """Raises AgreementTooLow for the first job that uses the alias and asks for more agreement
    than the version had in its last run as that job's challenger; also if there was no such run.
    """
    for name in job_names():
        try:
            job = load_job(name)
        except ConfigurationError:
            continue  # it could not run with any version, and says so itself
        if not uses_alias(job, manifest.name, alias) or job.challenger is None:
            continue
        level = job.challenger.agreement
        if level is None:
            continue
        agreement, run_id, problem = _shown(_compared(settings, job, manifest))
        if problem is None and agreement is not None and agreement < level:
            share = format_percent(floor(agreement * 10_000) / 10_000)  # never rounded up
            problem = f"in run {run_id} it did in {share}"
        if problem is not None:
            raise AgreementTooLow(
                manifest.reference, alias, name, level, agreement, run_id, problem
            )


def _compared(settings: Settings, job: Job, manifest: Manifest) -> ComparedRun | None:
    try:
        with open_ledger(settings) as ledger:
            return read_newest_comparison(ledger, job.name, manifest.name, manifest.version)
    except ConfigurationError as error:
        if error.place == NOTHING_YET:
            return None
        raise


def _shown(run: ComparedRun | None) -> tuple[float | None, int | None, str | None]:
    """Agreement and run; and why that is not good enough, whatever the level."""
    if run is None:
        return None, None, "no run has compared the two yet"
    found = Comparison.from_json(run.comparison)
    failure = found.failure or run.error
    if failure is not None:
        problem = f"in run {run.run_id} it was switched off ({' '.join(failure.split())})"
        return found.agreement, run.run_id, problem
    if found.agreement is None:
        return None, run.run_id, f"run {run.run_id} had no row to compare"
    return found.agreement, run.run_id, None
