"""Which classes read and write each database. Others get the generic ones."""

from importlib import import_module

import sqlalchemy as sa

from nightshift.adapters.database.dialects.mysql import MYSQL
from nightshift.adapters.source.source import Source
from nightshift.adapters.target.predictions import PredictionTable

# By name, since some need an optional driver: module, source, predictions.
_BACKENDS: dict[str, tuple[str, str, str]] = {
    "postgresql": ("postgres", "PostgresSource", "PostgresPredictionTable"),
    "sqlite": ("sqlite", "SqliteSource", "SqlitePredictionTable"),
    "duckdb": ("duckdb", "DuckDBSource", "DuckDBPredictionTable"),
    **dict.fromkeys(MYSQL, ("mysql", "MySQLSource", "MySQLPredictionTable")),
}


def source_class(engine: sa.Engine) -> type[Source]:
    return _find(engine, 1) or Source


def predictions_class(engine: sa.Engine) -> type[PredictionTable]:
    return _find(engine, 2) or PredictionTable


def _find(engine: sa.Engine, which: int) -> type | None:
    backend = _BACKENDS.get(engine.dialect.name)
    if backend is None:
        return None
    found: type = getattr(
        import_module(f"nightshift.adapters.backends.{backend[0]}"), backend[which]
    )
    return found
