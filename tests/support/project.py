"""A project in a folder, as a data scientist and an operator would set it up."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import yaml

from nightshift.adapters.models.model import Model
from nightshift.adapters.store.model_store import Manifest, ModelStore
from nightshift.flows.config.resources import open_store
from nightshift.flows.config.settings import load_settings
from nightshift.flows.register import register

JOB = {
    "model": "doubler@champion",
    "source": {"table": "orders", "key": "id", "time_column": "placed_at"},
    "target": {"table": "order_scores"},
    "partition_by": "day",
    "chunk_rows": 100,
}

# A model of the project's own, importable here and in child processes.
MODEL_CODE = '''
import os
import signal
import time
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Doubler(RegressorMixin, BaseEstimator):
    """2 x; `behaviour` says how it misbehaves, and after how many calls since its loading."""

    def __init__(self, behaviour="", after=0, seconds=0.0, victim=""):
        self.behaviour, self.after, self.seconds = behaviour, after, seconds
        self.victim = victim

    def fit(self, X, y=None):
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        return self

    def predict(self, X):
        predictions = 2.0 * X["x"].to_numpy(dtype=float, na_value=np.nan)
        if os.environ.get("DOUBLER_BEHAVES"):
            return predictions
        if self.behaviour == "negative" and np.nanmin(predictions, initial=0.0) < 0:
            raise ValueError("cannot take negative numbers")
        if len(X) <= 32 and not getattr(self, "angry", False):  # golden rows
            return predictions
        self.after -= 1
        time.sleep(self.seconds)
        if self.after >= 0:
            return predictions
        match self.behaviour:
            case "raise":
                self.angry = True
                raise ValueError("cannot take it any more")
            case "die once" if not Path(self.victim).exists():
                Path(self.victim).write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            case "short":
                return predictions[:-1]
            case "wide":
                return np.column_stack([predictions, predictions])
            case "nan":
                return np.where(np.arange(len(X)) == 7, np.nan, predictions)
            case "lower":  # for a tenth of the rows
                return np.where(np.arange(len(X)) % 10 == 9, predictions / 2 - 1, predictions)
            case "text":
                return np.array(["much"] * len(X), dtype=object)
        return predictions
'''


@dataclass
class Project:
    """Settings, a job, a database and a model store."""

    folder: Path
    engine: sa.Engine

    def write_job(self, name: str = "orders", **changes: Any) -> None:
        job = {**JOB, **changes}
        path = self.folder / "config" / "jobs" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in job.items() if v is not None}))

    def sql(self, statement: str) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []

    def count(self, table: str) -> int:
        """Its number of rows; 0 if there is no such table."""
        if self.sql(f"SELECT to_regclass('{table}')") == [(None,)]:
            return 0
        return int(self.sql(f"SELECT count(*) FROM {table}")[0][0])

    def fill(self, rows: int = 1000, days: int = 2) -> None:
        """`rows` orders, spread evenly over `days` days from 2024-03-01; a third without x."""
        self.sql(
            "CREATE TABLE orders (id bigint PRIMARY KEY, placed_at timestamptz NOT NULL,"
            " x double precision, note text)"
        )
        self.sql(
            f"INSERT INTO orders SELECT i, '2024-03-01Z'::timestamptz + interval '{days} days'"
            f" * (i - 1) / {rows}, CASE WHEN mod(i, 3) > 0 THEN i / 7.0 END,"
            f" 'note ' || i FROM generate_series(1, {rows}) i"
        )

    @property
    def store(self) -> ModelStore:
        return open_store(load_settings())

    def register(self, trained_through: date | None = None, **settings: Any) -> Manifest:
        """Publish a doubler and make it the champion."""
        from doubler import Doubler  # type: ignore[import-not-found]

        from nightshift.adapters.libraries.sklearn import SklearnModel

        sample = pd.DataFrame({"x": [1.0, np.nan, 3.0]})
        model: Model = SklearnModel(Doubler(**settings).fit(sample))
        nullable = sample.dropna() if settings.get("behaviour") == "nan" else sample
        manifest = register("doubler", model, nullable, trained_through=trained_through)
        self.store.promote("doubler", manifest.version)
        return manifest

    def scores(self) -> dict[int, float | None]:
        """What a reader of the predictions sees. Fails if a row appears twice."""
        rows = self.sql("SELECT id, prediction FROM order_scores")
        scores = {row.id: None if np.isnan(row.prediction) else row.prediction for row in rows}
        assert len(scores) == len(rows)
        return scores

    def expected(self, where: str = "true") -> dict[int, float | None]:
        return {
            row.id: row.twice
            for row in self.sql(f"SELECT id, 2 * x AS twice FROM orders WHERE {where}")
        }

    def states(self) -> list[tuple[str, str]]:
        rows = self.sql("SELECT partition, state FROM nightshift_runs ORDER BY run_id")
        return [(row.partition, row.state) for row in rows]
