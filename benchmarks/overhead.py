"""What orchestration costs: the fixed overhead of a run, and of each partition of a backfill.

    python benchmarks/overhead.py [PARTITIONS]

Everything is made here, in a folder that is removed at the end: PostgreSQL, a model store and a
Prefect server. The partitions have ten rows each, so that hardly anything but overhead is left.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

ROWS = 10
START = date(2023, 1, 1)
JOB = """
model: linear@champion
source: {table: readings, key: id, time_column: at}
target: {table: reading_scores}
partition_by: day
"""


def main(partitions: int) -> None:
    with tempfile.TemporaryDirectory(prefix="nightshift-overhead-") as folder:
        _project(Path(folder))
        from nightshift.flows.config.settings import load_settings
        from nightshift.flows.orchestrator.server import prefect_api

        with prefect_api(load_settings().state_dir) as ready:
            _fill(partitions + 10)
            ready()
            before, after = _fixed(10)
            print("One run on a running server, median of 10:")
            print(f"  flow start to first chunk read  {before:6.2f} s")
            print(f"  last commit to flow end         {after:6.2f} s")
            print(f"  together                        {before + after:6.2f} s   (aim: < 2 s)")
            seconds = _backfill(partitions)
            print(f"A backfill of {partitions} partitions, one after the other:")
            print(f"  in all                         {seconds:7.1f} s")
            print(
                f"  per partition                  {seconds / partitions:7.3f} s   (aim: < 0.5 s)"
            )


def _project(folder: Path) -> None:
    (folder / "config" / "jobs").mkdir(parents=True)
    settings = folder / "config" / "nightshift.yaml"
    settings.write_text("trust: {keys: [key.pub], sign_key: key.pem}\n")
    (folder / "config" / "jobs" / "readings.yaml").write_text(JOB)
    os.environ["NIGHTSHIFT_CONFIG"] = str(settings)
    os.environ.pop("PREFECT_API_URL", None)


def _fill(days: int) -> None:
    import pandas as pd
    import sqlalchemy as sa
    from sklearn.linear_model import LinearRegression

    from nightshift.adapters.database.engine import open_engine
    from nightshift.adapters.libraries.sklearn import SklearnModel
    from nightshift.flows.config.resources import open_store
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.register import create_key, register

    settings = load_settings()
    engine = open_engine(settings.target_url())
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE readings AS SELECT i AS id, timestamptz '2023-01-01Z'"
            f" + interval '1 day' * ((i - 1) / {ROWS}) AS at, random() AS x"
            f" FROM generate_series(1, {days * ROWS}) i"
        )
        connection.execute(sa.text("ALTER TABLE readings ADD PRIMARY KEY (id)"))
        connection.execute(sa.text("ALTER TABLE readings ALTER at SET NOT NULL"))
        connection.execute(sa.text("CREATE INDEX ON readings (at)"))
        connection.execute(sa.text("ANALYZE readings"))
    engine.dispose()
    create_key(settings)
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0]})
    register("linear", SklearnModel(LinearRegression().fit(frame, frame["x"])), frame)
    open_store(settings).promote("linear", 1)


def _fixed(runs: int) -> tuple[float, float]:
    """Median seconds from flow start to the first chunk read, and from last commit to flow end."""
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.score import score
    from nightshift.flows.scoring.prediction.predictor import Predictor

    read: list[float] = []
    predict: Callable[..., Any] = Predictor.score

    def observed(predictor: Predictor, chunk: Any) -> Any:
        read.append(time.time())
        return predict(predictor, chunk)

    Predictor.score = observed  # type: ignore[method-assign]
    before, after = [], []
    for day in range(runs + 1):
        read.clear()
        began = time.time()
        result = score("readings", str(START + timedelta(days=day)))
        ended = time.time()
        if day:  # the first one imports and connects
            before.append(read[0] - began)
            after.append(ended - _committed(load_settings(), result.run_id))
    Predictor.score = predict  # type: ignore[method-assign]
    return median(before), median(after)


def _committed(settings: Any, run_id: int) -> float:
    import sqlalchemy as sa

    from nightshift.adapters.database.engine import open_engine

    engine = open_engine(settings.target_url())
    with engine.connect() as connection:
        query = sa.text("SELECT max(committed_at) FROM nightshift_chunks WHERE run_id = :run")
        moment: datetime = connection.execute(query, {"run": run_id}).scalar_one()
    engine.dispose()
    return moment.astimezone(UTC).timestamp()


def _backfill(partitions: int) -> float:
    from nightshift.flows.backfill import backfill

    began = time.monotonic()
    end = START + timedelta(days=partitions - 1)
    result = backfill("readings", START, end, reprocess="all")
    assert result.count("published") == partitions
    return time.monotonic() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 365)
