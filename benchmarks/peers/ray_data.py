"""Ray Data: read_sql -> map_batches -> write_sql, on both cores of this machine."""

import os
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import psycopg
import ray
from contest import CHUNK, Stopwatch, predictor, task

given = task()


class Scorer:
    def __init__(self) -> None:
        self.predict = predictor(given)

    def __call__(self, batch):
        scored = batch[["id"]].copy()
        scored["prediction"] = self.predict(batch[given.columns])
        return scored


def connect() -> psycopg.Connection:
    return psycopg.connect(given.url)


# Its workers unpickle this module's classes by value, and find `contest` where it is.
place = str(Path(__file__).resolve().parent)
ray.init(
    num_cpus=os.cpu_count(),
    include_dashboard=False,
    log_to_driver=False,
    runtime_env={"env_vars": {"PYTHONPATH": place}},
)
with Stopwatch():
    rows = ray.data.read_sql(
        given.select, connect, shard_keys=["id"], shard_hash_fn="hashint8", override_num_blocks=4
    )
    scored = rows.map_batches(Scorer, concurrency=1, batch_size=CHUNK, batch_format="pandas")
    scored.write_sql(f"INSERT INTO {given.target} (id, prediction) VALUES (%s, %s)", connect)
ray.shutdown()
