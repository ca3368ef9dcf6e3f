"""Rows that change while they are read, clocks that jump, days that are no 24 hours long."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.processes import SLOW
from tests.chaos.scoring_process import PUBLISHED
from tests.chaos.trial import Fault, Trial
from tests.chaos.world import Stage, View, World, another

VERSION = 2  # of the model that the trials score with

# --- rows that change ---------------------------------------------------------------------------

STATES = 60
CHANGE = (
    "DELETE FROM orders WHERE id = {v}",
    "UPDATE orders SET x = x + 1 WHERE placed_at < '2024-03-02Z'",
    "INSERT INTO orders VALUES (10000 + {v}, '2024-03-01 12:00Z', {v}, 'new')",
)


def changing_rows(trial: Trial) -> None:
    """A writer deletes, updates and inserts rows, in transactions, all the time.

    Each of the source's states has other rows and other values in every row: what is published
    must be one of them. In half of the trials the run is killed, and the next one goes on.
    """
    stage = trial.stage
    stage.wanted = states(stage)
    with changing(stage):
        process, struck = stage.struck(trial.chance.choice(trial.world.under_way), lambda _: None)
        trial.strikes(process, struck)
        if trial.chance.random() < 0.5:
            process.kill()
            trial.dies(process)
            trial.resumes()
        else:
            trial.rides_out(process, time.monotonic())


def replaced_rows(trial: Trial) -> None:
    """Behind the last chunk of a killed run, one row goes and another comes: as many as before.

    The next run must not go on where the first one stopped; but all of the first one's rows are
    of one moment, if only their publication was missing.
    """
    stage, (gone, come) = trial.stage, trial.chance.sample(range(1, 100), 2)
    everything = stage.sql(f"SELECT * FROM orders WHERE id = {come}")
    stage.sql(f"DELETE FROM orders WHERE id = {come}")
    stage.wanted = [without(stage, come)]
    under_way = trial.world.under_way
    later = trial.chance.choice(under_way[len(under_way) // 2 :])
    process, _ = stage.struck(later, lambda process: process.kill() or "before")
    trial.missed = not trial.dies(process)
    with stage.engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM orders WHERE id = {gone}")
        insert = "INSERT INTO orders VALUES (%s, %s, %s, %s)"
        connection.exec_driver_sql(insert, tuple(everything[0]))
    stage.wanted.append(without(stage, gone))
    trial.resumes()


def without(stage: Stage, key: int) -> View:
    """The oracle, but for one row."""
    return Counter({row: n for row, n in stage.world.wanted.items() if row[0] != key})


def states(stage: Stage) -> list[View]:
    """What readers see if the source was read after so many of the changes."""
    x = dict(stage.sql("SELECT id, x FROM orders WHERE placed_at < '2024-03-02Z'"))
    others = Counter({row: n for row, n in stage.previous.items() if row[0] not in x})
    found = []
    for v in range(STATES + 1):
        old = [(i, None if x[i] is None else 2 * (x[i] + v), VERSION) for i in x if i > v]
        new = [(10000 + k, 2.0 * v, VERSION) for k in range(1, v + 1)]
        found.append(others + Counter([*old, *new]))
    return found


@contextmanager
def changing(stage: Stage) -> Iterator[None]:
    over = threading.Event()

    def change() -> None:
        for v in range(1, STATES + 1):
            if over.wait(0.01):
                return
            with stage.engine.begin() as connection:
                for statement in CHANGE:
                    connection.exec_driver_sql(statement.format(v=v))

    writer = threading.Thread(target=change, name="writer")
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


# --- clocks -------------------------------------------------------------------------------------


def machine_clock(trial: Trial) -> None:
    """The clock of the machine that scores jumps by a day, back and forth."""
    process = trial.stage.start(CHAOS_CLOCK="86400", NIGHTSHIFT_DATABASE__LEASE="1", **SLOW)
    if trial.chance.random() < 0.5:
        time.sleep(trial.chance.uniform(0.2, 1))
        process.kill()
        trial.dies(process)
        trial.resumes(CHAOS_CLOCK="86400")
    else:
        trial.rides_out(process, time.monotonic())


def database_clock(trial: Trial) -> None:
    """The database's clock, by which leases are reckoned, jumps by an hour while two want a run.

    Ahead, the owner seems to have been silent for long, and may lose its run to the other.
    """
    stage, hours = trial.stage, trial.chance.choice([-1, 1])
    stage.sql("CREATE TABLE chaos_shift AS SELECT interval '0' AS shift")
    stage.sql(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
        " AS 'SELECT pg_catalog.clock_timestamp() + shift FROM public.chaos_shift'"
    )
    stage.sql(f"ALTER DATABASE {stage.url.database} SET search_path = public, pg_catalog")
    turn = trial.chance.choice(trial.world.under_way)
    first, struck = stage.struck(turn, lambda _: None, **SLOW)
    trial.strikes(first, struck)
    stage.sql(f"UPDATE chaos_shift SET shift = interval '{hours} hours'")
    since = time.monotonic()
    second = stage.start()
    found = {process.outcome().name for process in (first, second)}
    assert PUBLISHED in found, (first.outcome(), second.outcome())
    assert found <= {PUBLISHED, "OwnershipLost", "PartitionBusy"}, found
    trial.recovered = time.monotonic() - since
    stage.reset("search_path")
    stage.sql("DROP FUNCTION public.clock_timestamp()")
    stage.sql("DROP TABLE chaos_shift")


# --- days ---------------------------------------------------------------------------------------

ZONE = "America/New_York"
DAYS = {
    "leap day": ("2024-02-28", "2024-02-29", "2024-03-01"),
    "spring": ("2024-03-09", "2024-03-10", "2024-03-11"),  # the 10th has 23 hours
    "autumn": ("2024-11-02", "2024-11-03", "2024-11-04"),  # the 3rd has 25
}
CALENDAR = "chaos_days"


def odd_days(trial: Trial) -> None:
    """Three days in a row are scored, one of them a leap day, or of 23 or 25 hours."""
    stage, season = trial.stage, list(DAYS)[trial.number % len(DAYS)]
    stage.previous, stage.wanted = Counter(), []
    rows = stage.sql(f"SELECT id, x, (placed_at AT TIME ZONE '{ZONE}')::date::text FROM orders")
    seen: View = Counter()
    for day in DAYS[season]:
        seen += Counter((i, 2 * x, VERSION) for i, x, of in rows if of == day)
        stage.wanted.append(seen.copy())
    for day in DAYS[season]:
        process = stage.start(partition=day, job="days", **SLOW)
        if trial.chance.random() < 0.5:
            time.sleep(trial.chance.uniform(0, 1))
            process.kill()
            trial.dies(process)
            process = stage.start(partition=day, job="days")
        trial.rides_out(process, time.monotonic())
    hours = {"leap day": 72, "spring": 71, "autumn": 73}[season]
    assert seen.total() == hours * 12, seen.total()
    assert stage.view() == seen


def calendar(world: World) -> None:
    """Its database: an order each five minutes of these days and of those before and after."""
    orders = (
        f"INSERT INTO orders SELECT {number} * 10000 + row_number() OVER (), moment,"
        f" random(), '' FROM generate_series('{days[0]}Z'::timestamptz - interval '1 day',"
        f" '{days[2]}Z'::timestamptz + interval '2 days', interval '5 minutes') moment"
        for number, days in enumerate(DAYS.values())
    )
    another(world, CALENDAR, "days", "DELETE FROM orders", *orders, timezone=ZONE)


FAULTS = (
    Fault("rows come, change and go", changing_rows, 20, 2),
    Fault("a row replaced behind a killed run", replaced_rows, 10),
    Fault("the machine's clock jumps", machine_clock, 10),
    Fault("the database's clock jumps", database_clock, 10),
    Fault("leap day, 23 and 25 hours", odd_days, 6, 3, template=CALENDAR, prepare=calendar),
)
