"""Which lane serves which database: one of its own where there is one, else the generic one."""

import sqlalchemy as sa

from adapters.database.postgres import PostgresPredictions, PostgresSource
from adapters.database.predictions import Predictions
from adapters.database.source import Source
from adapters.database.sqlite import SqliteSource

SOURCES: dict[str, type[Source]] = {"postgresql": PostgresSource, "sqlite": SqliteSource}
PREDICTIONS: dict[str, type[Predictions]] = {"postgresql": PostgresPredictions}


def source_lane(engine: sa.Engine) -> type[Source]:
    return SOURCES.get(engine.dialect.name, Source)


def predictions_lane(engine: sa.Engine) -> type[Predictions]:
    return PREDICTIONS.get(engine.dialect.name, Predictions)
