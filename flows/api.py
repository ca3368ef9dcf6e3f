"""What `import nightshift` offers: the verbs of the command line, as functions."""

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pandas as pd
import sqlalchemy as sa

from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.database.types import Instant, reflect_table
from nightshift.adapters.errors import AdapterNotFound, ConfigurationError
from nightshift.adapters.models.model import Model
from nightshift.adapters.models.registry import BUILT_IN, adapter_class, adapter_for_file
from nightshift.adapters.source.columns import PARTITION_TIME
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows import register as registering
from nightshift.flows.config.job import load_job
from nightshift.flows.config.resources import open_ledger, open_store
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.orchestrator.access import read_variables
from nightshift.flows.orchestrator.server import accepts_events, flush_logs_and_events, prefect_api
from nightshift.flows.planning.scheduled_runs import find_partition
from nightshift.flows.scoring.run import ScoreResult

if TYPE_CHECKING:
    from nightshift.flows.backfill import BackfillResult

T = TypeVar("T")


def register(
    name: str,
    model: object,
    sample: pd.DataFrame,
    *,
    target: str | None = None,
    promote: str | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str = "",
    trained_through: date | None = None,
    sign_key: Path | None = None,
    **settings: Any,
) -> Manifest:
    """Add a trained model to the model store, as the next version of `name`.

    Args:
        name: The model's name in the store.
        model: A fitted estimator, booster or network of a supported library, the path of a saved
            one, an MLflow URI `models:/name@alias`, or a `Model`.
        sample: Inputs, one row per example; best the whole training frame. Columns that the model
            does not use are dropped where the model knows its columns.
        target: The column of `sample` that is the label, not an input.
        promote: Move this alias to the new version, for example "champion".
        metrics: Numbers to keep with the version.
        description: A sentence about this version.
        trained_through: The last day of the training data. Rows until then are not scored.
        sign_key: A private key file in place of trust.sign_key.
        **settings: Of the adapter, for example output="predict_proba".

    Returns:
        The version's manifest: `version`, `signature`, `adapter`, ...

    Raises:
        AdapterNotFound: No adapter is known for the model.
        LibraryNotInstalled: The model's library is missing; the text has the install command.
        SignatureMismatch, PredictionFailed: The model cannot predict the sample.
        ConfigurationError: For settings that are wrong.
    """
    adapted = _adapted(model, settings, load_settings().trust.classes)
    manifest = registering.register(
        name,
        adapted,
        sample,
        sign_key,
        target=target,
        metrics=dict(metrics or {}),
        description=description,
        trained_through=trained_through,
    )
    if promote is not None:
        _promote(name, manifest.version, promote)
    return manifest


def promote(name: str, version: int, alias: str = "champion", *, force: bool = False) -> None:
    """Let `name@alias` be this version, from the next run on.

    Refused if a job that uses the alias could not run with the version, or asks for agreement
    that the version has not shown as a challenger; `force` skips both checks.

    Raises:
        ModelNotFound: There is no such version.
        JobsBroken, AgreementTooLow: A check failed; the text names the jobs.
    """
    settings = load_settings()
    manifest = open_store(settings).manifest(name, version)
    registering.promote(settings, manifest, alias, force=force)
    _in_thread(lambda: _report_promotion(settings, manifest, alias))


_promote = promote  # `register` has a parameter of that name


def load_model(reference: str) -> Model:
    """The model that `name`, `name@alias` or `name@7` refers to, verified as before a run.

    `name` alone is its champion. `model.predict_batch(features)` takes a DataFrame of m rows with
    the signature's columns, and returns m predictions, (m,) or (m, k).

    Raises:
        ModelNotFound: There is no such model, version or alias.
        ModelUntrusted: The operator's trust policy does not allow the version.
        GoldenRowsDiffer: It gives different predictions here than when it was registered.
    """
    store = open_store(load_settings())
    return store.load(store.resolve(reference))


def run(
    job: str,
    partition: str | None = None,
    *,
    model: str | None = None,
    allow_leakage: bool = False,
) -> ScoreResult:
    """Score one partition of a job's table and publish the predictions.

    Called again after a failure, it continues after the last committed chunk. Without a Prefect
    server (`nightshift up`, or PREFECT_API_URL) it starts one for this run, which takes seconds.

    Args:
        job: The name of its file in config/jobs.
        partition: "2024-03-01", "2024-03", "2024-03-01T05" or "all", as the job is partitioned;
            None is the last that has ended.
        model: A model in place of the job's: `name`, `name@alias` or `name@7`.
        allow_leakage: Score rows that the model was trained on, too.

    Returns:
        The run's id, its counts of rows, its seconds, the audit's verdict.

    Raises:
        ConfigurationError: For a job, partition or setting that is wrong.
        Quarantined: The run failed its audit; readers see what was published before.
        TransientError: Of these, whatever may work later, such as DatabaseUnavailable.
    """
    settings = load_settings()
    label = find_partition(load_job(job), partition).label

    def score_partition() -> ScoreResult:
        from nightshift.flows.score import score

        return score(job, label, model, allow_leakage)

    return _as_flow_run(settings, score_partition)


def backfill(
    job: str,
    start: date | str,
    end: date | str,
    *,
    reprocess: Literal["missing", "failed", "stale_model", "all"] = "missing",
    model: str | None = None,
    order: Literal["oldest_first", "newest_first"] = "oldest_first",
    max_parallel: int = 1,
    dry_run: bool = False,
    allow_leakage: bool = False,
) -> "BackfillResult":
    """Score the partitions from `start` to `end`, two days, both included; each is published alone.

    Called again with the same values after a failure, it continues its own plan.

    Args:
        job: The name of its file in config/jobs.
        start: A date, or text such as "2024-03-01".
        end: The same.
        reprocess: "missing": what is not published yet. "failed": what failed when last tried.
            "stale_model": what another model version published. "all": everything.
        model: A model in place of the job's, resolved to one version at the start.
        order: Which partitions come first.
        max_parallel: How many are scored at once, 1 to 16.
        dry_run: Return the plan, score nothing.
        allow_leakage: Score rows that the model was trained on, too.

    Returns:
        `steps`, one for each partition, with its state, run id and error.

    Raises:
        ConfigurationError: For a job, range or setting that is wrong.
        BackfillFailed: Some partitions failed; the others are published.
    """
    first, last = (date.fromisoformat(day) if isinstance(day, str) else day for day in (start, end))
    settings = load_settings()

    def score_range() -> "BackfillResult":
        from nightshift.flows.backfill import backfill

        return backfill(
            job, first, last, reprocess, model, order, max_parallel, dry_run, allow_leakage
        )

    return _as_flow_run(settings, score_range)


def read_predictions(job: str, partition: str | None = None) -> pd.DataFrame:
    """The published predictions of a job, or of one partition, ordered by key.

    Returns:
        One row for each key: the key's columns, `partition_time` (where the job has a time column)
        and the model's outputs; then `model_version`, `run_id` and `scored_at`. Times are in UTC.
        Rejected rows and runs in quarantine are not in it.

    Raises:
        ConfigurationError: There is no such job or partition, or nothing was scored yet.
        DatabaseUnavailable: The database does not answer.
    """
    settings, spec = load_settings(), load_job(job)
    part = None if partition is None else find_partition(spec, partition)
    target, schema = spec.target.table, settings.database.schema_
    with open_ledger(settings) as ledger:
        engine = ledger.engine
        with translate_errors(engine, f"to read {target!r}"), engine.connect() as connection:
            try:
                view = reflect_table(engine, target, schema)
            except sa.exc.NoSuchTableError as error:
                problem, remedy = "nothing was scored yet", f"nightshift.run({job!r}) starts."
                raise ConfigurationError(f"job {job!r}", target, problem, remedy) from error
            columns = [_typed(column) for column in view.c]
            select = sa.select(*columns).order_by(*(view.c[name] for name in spec.source.key))
            if part is not None and part.start is not None and part.end is not None:
                time = sa.type_coerce(view.c[PARTITION_TIME], Instant)
                select = select.where(time >= part.start, time < part.end)
            return pd.read_sql(select, connection)


def _typed(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    instant = column.name in {PARTITION_TIME, "scored_at"}
    return sa.type_coerce(column, Instant).label(column.name) if instant else column


# --- inside -------------------------------------------------------------------------------------


def _adapted(model: object, settings: Mapping[str, Any], classes: Any) -> Model:
    """The model behind an adapter, which is found by the library that the model's class is from."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str | Path):
        return adapter_for_file(model, None, settings, classes)
    for kind in type(model).__mro__[:-1]:
        library = kind.__module__.partition(".")[0]
        for name, entry in BUILT_IN.items():
            if library in (entry.libraries or (name,)):
                adapter: Callable[..., Model] = adapter_class(name)
                return adapter(model, **settings)
    path = f"{type(model).__module__}:{type(model).__qualname__}"
    raise AdapterNotFound(path, tuple(BUILT_IN))


def _report_promotion(settings: Settings, manifest: Manifest, alias: str) -> None:
    """Tell Prefect, if a server runs, so that the jobs that wait for it run."""
    with _own_variables():
        if accepts_events(settings.state_dir):
            from nightshift.flows.orchestrator.events import emit_promoted

            read_variables()
            emit_promoted(manifest, alias)
            flush_logs_and_events()


def _as_flow_run(settings: Settings, call: Callable[[], T]) -> T:
    """Call it with a Prefect API: the one that is known, or one of its own for the time."""

    def with_prefect() -> T:
        with _own_variables(), prefect_api(settings.state_dir) as ready:
            ready()
            read_variables()
            return call()

    return _in_thread(with_prefect)


def _in_thread(call: Callable[[], T]) -> T:
    """Call it in a thread of its own if this one runs an event loop, as a notebook's does.

    There, Prefect's synchronous functions would return coroutines.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1, "nightshift") as pool:
        thread = pool.submit(threading.get_ident).result()
        future = pool.submit(copy_context().run, call)
        try:
            return future.result()
        except KeyboardInterrupt:  # the notebook's Stop also ends the run, which can be continued
            kind = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), kind)
            raise


@contextmanager
def _own_variables() -> Iterator[None]:
    """Prefect's variables may change here; afterwards they are as before."""
    before = {key: value for key, value in os.environ.items() if _is_prefects(key)}
    try:
        yield
    finally:
        for key in filter(_is_prefects, list(os.environ)):
            del os.environ[key]
        os.environ.update(before)
        read_variables()


def _is_prefects(variable: str) -> bool:
    return variable.startswith("PREFECT_") or variable.upper() == "NO_PROXY"
