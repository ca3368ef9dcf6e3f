"""Peak memory of scoring, by the size of the table: it must not grow with the rows.

    python benchmarks/memory.py [--rows 500000 2000000] [--columns 20]

Each size is scored by a process of its own, with everything on (Prefect, ledger, transactions),
from an embedded PostgreSQL. The peak is the resident set of the whole scoring process as the
kernel counts it; the database and the Prefect server are other processes.
Exits with 1 if the largest table takes over 10 % more than the smallest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 1.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 2_000_000])
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--score", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.score:
        print(json.dumps(measure(options.score)))
        return
    with tempfile.TemporaryDirectory(prefix="nightshift-", ignore_cleanup_errors=True) as folder:
        sizes = sorted(options.rows)
        peaks = compare(Path(folder), sizes, options.columns)
    ratio = peaks[-1] / peaks[0]
    print(f"\n{sizes[-1]:,} rows take {ratio:.2f} times the memory of {sizes[0]:,}")
    sys.exit(ratio > LIMIT)


def compare(folder: Path, sizes: list[int], columns: int) -> list[float]:
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api

    prepare(folder, sizes, columns)
    os.chdir(folder)
    with prefect_api(load_settings().state_dir) as ready:
        ready()
        print(f"{'rows':>12} {'peak MB':>9} {'rows/s':>10}")
        peaks = []
        for size in sizes:
            command = [sys.executable, str(Path(__file__).resolve()), "--score", f"rows_{size}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout)
            peaks.append(found["peak_mb"])
            print(f"{size:>12,} {found['peak_mb']:>9.0f} {found['rows_per_second']:>10,.0f}")
    return peaks


def prepare(folder: Path, sizes: list[int], columns: int) -> None:
    """A project with a linear model, and one table and one job per size."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    from nightshift.adapters.database.engine import open_engine
    from nightshift.adapters.libraries.sklearn import SklearnModel
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.register import create_key, register

    jobs = folder / "config" / "jobs"
    jobs.mkdir(parents=True)
    (folder / "config" / "nightshift.yaml").write_text(
        "trust: {keys: [key.pub], sign_key: key.pem}\n"
    )
    os.environ["NIGHTSHIFT_CONFIG"] = str(folder / "config" / "nightshift.yaml")
    names = [f"x{i}" for i in range(columns)]
    sample = pd.DataFrame(np.random.default_rng(0).random((1000, columns)), columns=names)
    model = SklearnModel(LinearRegression().fit(sample, sample.sum(axis="columns")))
    create_key(load_settings())
    open_store(load_settings()).promote("sum", register("sum", model, sample).version)
    engine = open_engine(load_settings().target_url())
    for size in sizes:
        table = f"rows_{size}"
        types = ", ".join(f"{name} double precision" for name in names)
        values = ", ".join(["random()"] * columns)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, {types})")
            connection.exec_driver_sql(
                f"INSERT INTO {table} SELECT i, {values} FROM generate_series(1, {size}) i"
            )
            connection.exec_driver_sql(f"ANALYZE {table}")
        job = f"model: sum\nsource: {{table: {table}, key: id}}\ntarget: {{table: scores_{size}}}\n"
        (jobs / f"{table}.yaml").write_text(job)
    engine.dispose()


def measure(job: str) -> dict[str, float]:
    """Score the job's whole table here; the peak memory of this process, and its speed."""
    from nightshift.flows.score import score

    result = score(job, "all")
    sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
    from contest import peak_mb

    return {"peak_mb": peak_mb(), "rows_per_second": result.rows_per_second}


if __name__ == "__main__":
    main()
