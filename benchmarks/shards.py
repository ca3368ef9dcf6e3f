"""What shards bring: the same table and CPU-bound model in one process, and in several.

    python benchmarks/shards.py [--rows 200000] [--processes 2] [--rounds 3]

A random forest, with one thread in each process, from an embedded PostgreSQL, everything on. The
rate is that of the rows between the first and the last committed chunk in the ledger; the start of
the processes, some seconds per run, is reported separately. The ratio of `processes` shards to one
is the median over the rounds, which take turns.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

from memory import prepare

JOB = """
model: forest
source: {{table: rows_{rows}, key: id}}
target: {{table: scores_{name}}}
chunk_rows: 5000
shards: {{count: {shards}, on: processes}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="nightshift-", ignore_cleanup_errors=True) as folder:
        compare(Path(folder), options.rows, options.processes, options.rounds)


def compare(folder: Path, rows: int, processes: int, rounds: int) -> None:
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    from nightshift.adapters.libraries.sklearn import SklearnModel
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api
    from nightshift.flows.register import register

    prepare(folder, [rows], columns=20)
    sample = pd.DataFrame(
        np.random.default_rng(0).random((5000, 20)), columns=[f"x{i}" for i in range(20)]
    )
    forest = RandomForestRegressor(500, n_jobs=1, random_state=0)
    model = SklearnModel(forest.fit(sample, sample.sum(axis="columns")))
    settings = load_settings()
    open_store(settings).promote("forest", register("forest", model, sample[:1000]).version)
    for shards in (1, processes):
        text = JOB.format(rows=rows, name=f"in_{shards}", shards=shards)
        (folder / "config" / "jobs" / f"in_{shards}.yaml").write_text(text)
    os.chdir(folder)
    with prefect_api(settings.state_dir) as ready:
        ready()
        print(f"{'shards':>6} {'rows/s':>10} {'seconds':>8} {'with start':>10}")
        rates: dict[int, list[float]] = {1: [], processes: []}
        for number in range(rounds):
            for shards in (1, processes) if number % 2 else (processes, 1):
                rate, seconds, total = measure(f"in_{shards}")
                rates[shards].append(rate)
                print(f"{shards:>6} {rate:>10,.0f} {seconds:>8.1f} {total:>10.1f}")
    ratio = median(rates[processes]) / median(rates[1])
    cores = os.cpu_count()
    print(f"\n{processes} processes score {ratio:.2f} times the rows of one, on {cores} cores")


def measure(job: str) -> tuple[float, float, float]:
    """Rows/s and seconds between the first and the last commit; seconds in all."""
    import sqlalchemy as sa

    from nightshift.flows.config.resources import open_ledger
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.score import score

    result = score(job, "all")
    with open_ledger(load_settings()) as ledger, ledger.engine.connect() as connection:
        chunks = ledger.tables.chunks
        of_run = sa.select(chunks.c.committed_at, chunks.c.rows, chunks.c.shard)
        found = connection.execute(of_run.where(chunks.c.run_id == result.run_id)).all()
    first = min(chunk.committed_at for chunk in found)
    seconds = (max(chunk.committed_at for chunk in found) - first).total_seconds()
    rows = sum(chunk.rows for chunk in found if chunk.committed_at > first)
    return rows / seconds, seconds, result.seconds


if __name__ == "__main__":
    main()
