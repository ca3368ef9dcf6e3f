"""A few rows with their predictions, outside a run: nothing is written, no ledger is needed."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nightshift.adapters.errors import ConfigurationError
from nightshift.adapters.source.columns import ALL_KEYS, Key, KeySet, encode_key, parse_key
from nightshift.adapters.source.source import Source
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows.config.job import Job
from nightshift.flows.config.quantities import Budget
from nightshift.flows.config.resources import open_resources
from nightshift.flows.config.settings import Settings
from nightshift.flows.planning.partitions import Partition
from nightshift.flows.scoring.loaded_model import LoadedModel, load
from nightshift.flows.scoring.prediction.predictor import Limits, Predictor


@dataclass(frozen=True)
class PreviewRow:
    """A row of the source, and what the model predicts for it."""

    key: dict[str, Any]
    inputs: dict[str, Any]
    prediction: dict[str, Any] | None
    """None if a run would reject the row."""
    error: str | None
    """Why it would."""


@dataclass(frozen=True)
class Preview:
    """Rows in key order, at most as many as were asked for."""

    manifest: Manifest
    rows: list[PreviewRow]


def preview(
    settings: Settings,
    job: Job,
    partition: Partition,
    reference: str,
    rows: int = 5,
    key: Sequence[str] | None = None,
) -> Preview:
    """The partition's first rows in key order, or the one with this key, as a person types it.

    Raises ConfigurationError if the key does not fit its columns; PredictionFailed if no row can
    be predicted; and what opening the model, checking and reading the source raise.
    """
    loaded = load(settings, reference)
    signature = loaded.manifest.signature
    with open_resources(settings, job) as resources:
        source = resources.source
        source.check(signature)
        keys = _first_keys(source, partition, rows) if key is None else _one_key(source, key)
        if not keys.keys:
            return Preview(loaded.manifest, [])
        with (
            source.snapshot(signature, partition.start, partition.end) as snapshot,
            closing(snapshot.chunks(keys, len(keys.keys))) as chunks,
        ):
            chunk = next(chunks, None)
    found = [] if chunk is None else _predict(loaded, job, chunk)
    return Preview(loaded.manifest, found)


def _one_key(source: Source, key: Sequence[str]) -> KeySet:
    try:
        return KeySet((parse_key(key, source.key_columns),))
    except ValueError as error:
        remedy = f"The key of {source.spec} is {', '.join(source.spec.key)}."
        raise ConfigurationError("the key", "", str(error), remedy) from error


def _first_keys(source: Source, partition: Partition, rows: int) -> KeySet:
    """By a statement with a limit, for which the database need not sort the whole partition."""
    statement = source.statements(partition.start, partition.end).keys(ALL_KEYS).limit(rows)
    with source.reading(), source.engine.connect() as connection:
        found: list[Key] = [tuple(row) for row in connection.execute(statement)]
    return KeySet(tuple(source.decode_key(encode_key(key)) for key in found))


def _predict(loaded: LoadedModel, job: Job, chunk: pa.Table) -> list[PreviewRow]:
    key, signature = job.source.key, loaded.manifest.signature
    seconds = None if job.predict_timeout is None else job.predict_timeout.total_seconds()
    limits = Limits(Budget(chunk.num_rows), seconds)
    with (
        loaded.borrow() as borrowed,
        closing(Predictor(loaded.manifest, borrowed.model, key, key, limits)) as predictor,
    ):
        scored = predictor.score(chunk)
    predicted = scored.rows.select(signature.output_names).to_pylist()
    positions = range(len(predicted)) if scored.positions is None else scored.positions.tolist()
    predictions = dict(zip(positions, predicted, strict=True))
    errors = {reject.key: reject.error for reject in scored.rejects}
    keys = chunk.select(key).to_pylist()
    inputs = chunk.select(signature.input_names).to_pylist()
    return [
        PreviewRow(
            keys[row], inputs[row], predictions.get(row), errors.get(tuple(keys[row].values()))
        )
        for row in range(chunk.num_rows)
    ]
