"""A worked estimate: a billion rows on many workers, and what saturates first.

    python benchmarks/billion.py [--rows 1000000000] [--workers 20] [--cores 32] [--wal 400]

The costs of a chunk are measured here, on an embedded PostgreSQL and one connection: to read it,
to predict it (a linear model), to write it, and what the ledger takes of that. From them follows,
for a server with so many cores and so many MB/s of write-ahead log, how long each of the parts
would be busy if it were alone; the slowest one is what everything waits for. Workers are taken to
be machines with one busy core each; nothing here knows of networks.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from memory import prepare

CHUNK, COLUMNS, TRIALS = 50_000, 20, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--cores", type=int, default=32, help="of the database's server")
    parser.add_argument("--wal", type=float, default=400, help="MB/s that its disk takes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightshift-", ignore_cleanup_errors=True) as folder:
        cost = measure(Path(folder))
    chunks = options.rows / CHUNK
    print(f"One chunk of {CHUNK:,} rows x {COLUMNS} floats, milliseconds:")
    for part in ("read", "predict", "write", "ledger"):
        print(f"  {part:<8} {1000 * cost[part]:>8.1f}")
    print(f"  {cost['wal'] / 1e6:.1f} MB of write-ahead log\n")
    busy = {
        f"{options.workers} workers: read, predict, write": chunks
        * (cost["read"] + cost["predict"] + cost["write"])
        / options.workers,
        f"{options.cores} cores of the database": chunks
        * (cost["read"] + cost["write"])
        / min(options.cores, 2 * options.workers),
        "write-ahead log": chunks * cost["wal"] / (options.wal * 1e6),
        "ledger, of the database's": chunks * cost["ledger"] / options.workers,
    }
    print(f"{options.rows:,} rows are {chunks:,.0f} chunks; each part alone would take")
    for part, seconds in sorted(busy.items(), key=lambda item: -item[1]):
        print(f"  {part:<38} {seconds:>8,.0f} s  {options.rows / seconds:>12,.0f} rows/s")
    first = max(busy, key=lambda part: busy[part])
    print(f"\nWhat saturates first: {first}. The ledger has {chunks:,.0f} lines for it.")


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each part of a chunk, and bytes of write-ahead log; medians."""
    import pyarrow as pa

    from nightshift.adapters.ledger.leases import new_owner
    from nightshift.adapters.ledger.runs import RunRequest
    from nightshift.adapters.profiles.profile import Profile
    from nightshift.adapters.source.columns import ALL_KEYS
    from nightshift.flows.config.job import load_job
    from nightshift.flows.config.resources import open_resources
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.scoring.loaded_model import load

    rows = TRIALS * CHUNK
    prepare(folder, [rows], COLUMNS)
    settings, job = load_settings(), load_job(f"rows_{rows}")
    loaded = load(settings, "sum")
    signature = loaded.manifest.signature
    taken: dict[str, list[float]] = {
        "read": [],
        "predict": [],
        "write": [],
        "ledger": [],
        "wal": [],
    }
    with loaded.borrow() as borrowed, open_resources(settings, job) as resources:
        model, predictions = borrowed.model, resources.predictions(signature)
        predictions.create()
        digest = loaded.manifest.digest
        request = RunRequest(job.name, job.target.table, "all", None, None, "sum", 1, digest, "x")
        run = resources.ledger.begin(request, new_owner())
        with resources.source.snapshot(signature, None, None) as snapshot:
            began = time.perf_counter()
            for number, chunk in enumerate(snapshot.chunks(ALL_KEYS, CHUNK)):
                taken["read"].append(time.perf_counter() - began)
                began = time.perf_counter()
                values = model.predict_batch(signature.features(chunk))
                predicted = signature.predictions(values, chunk.num_rows)
                taken["predict"].append(time.perf_counter() - began)
                text = Profile.of(chunk.select(signature.input_names), predicted).to_json()
                keyed = chunk.select(["id"]).append_column("y", predicted.column(0))
                full = keyed.rename_columns(["id", predicted.column_names[0]])
                before = _wal(resources.ledger.engine)
                began = time.perf_counter()
                predictions.write(run, 2 * number, full, (), text)
                taken["write"].append(time.perf_counter() - began)
                taken["wal"].append(_wal(resources.ledger.engine) - before)
                empty: pa.Table = full.slice(0, 0)
                last = int(chunk.column("id")[-1].as_py())
                began = time.perf_counter()
                predictions.write(run, 2 * number + 1, empty, (), text, ((last,), (last,)))
                taken["ledger"].append(time.perf_counter() - began)
                began = time.perf_counter()
    return {part: median(values) for part, values in taken.items()}


def _wal(engine: object) -> float:
    """Bytes of write-ahead log that the server has written so far."""
    from sqlalchemy import Engine

    assert isinstance(engine, Engine)
    with engine.connect() as connection:
        position = connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return float(position.scalar_one())


if __name__ == "__main__":
    main()
