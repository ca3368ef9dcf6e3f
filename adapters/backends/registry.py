"""Which lane serves which database: one of its own where there is one, else the generic one."""

from importlib import import_module

import sqlalchemy as sa

from nightshift.adapters.database.dialects.mysql import MYSQL
from nightshift.adapters.source.source import Source
from nightshift.adapters.target.predictions import Predictions

# Module and classes, since some need a driver that is not everywhere installed.
_LANES: dict[str, tuple[str, str, str]] = {
    "postgresql": ("postgres", "PostgresSource", "PostgresPredictions"),
    "sqlite": ("sqlite", "SqliteSource", "SqlitePredictions"),
    "duckdb": ("duckdb", "DuckDBSource", "DuckDBPredictions"),
    **dict.fromkeys(MYSQL, ("mysql", "MySQLSource", "MySQLPredictions")),
}


def source_lane(engine: sa.Engine) -> type[Source]:
    return _found(engine, 1) or Source


def predictions_lane(engine: sa.Engine) -> type[Predictions]:
    return _found(engine, 2) or Predictions


def _found(engine: sa.Engine, which: int) -> type | None:
    lane = _LANES.get(engine.dialect.name)
    if lane is None:
        return None
    found: type = getattr(import_module(f"nightshift.adapters.backends.{lane[0]}"), lane[which])
    return found
