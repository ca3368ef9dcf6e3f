"""Scoring again only the rows that a run had to reject, and merging them in."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from adapters.database.history import History
from adapters.database.replay import merge
from adapters.errors import PredictionFailed, RunUnknown
from adapters.profile import Profile
from flows.desk import Desk, person
from flows.limits import Budget
from flows.prediction import Limits, Predictor, Scored
from flows.rejects import rejected
from flows.served import Served, opened
from flows.settings import Settings

_AT_ONCE = 200  # rows, named one by one in a statement


@dataclass(frozen=True)
class Replayed:
    """What became of a run's rejects."""

    run_id: int
    merged: int
    gone: int
    """Rows that the source no longer has."""
    failed: tuple[tuple[str, str], ...]
    """Keys and errors of those that still get no prediction."""


def replay(settings: Settings, desk: Desk, run_id: int, most: int = 10_000) -> Replayed:
    """Score a run's rejects with the run's model version, as the source has them now.

    Raises RunUnknown, RunNotReplayable, and what opening the model raises.
    """
    history, source = History(desk.ledger), desk.source
    run = history.run(run_id)
    if run is None or run.job != desk.job.name:
        raise RunUnknown(run_id)
    rejects = {reject.key: reject for reject in history.rejects(run_id, most)}
    if not rejects:
        return Replayed(run_id, 0, 0, ())
    served = opened(settings, f"{run.model_name}@{run.model_version}")
    signature = served.manifest.signature
    predictions = desk.predictions(signature)
    predictions.check()
    cell = desk.job.partition_of(run.partition)
    merged = found = 0
    failed: list[tuple[str, str]] = []
    with source.snapshot(signature, cell.start, cell.end) as snapshot:
        for names in _batches(list(rejects)):
            snapshot.only = [source.decode_key(name) for name in names]
            for chunk in snapshot.chunks(None, _AT_ONCE):
                found += chunk.num_rows
                scored = _scored(desk, served, chunk)
                failed += [(source.encode_key(r.key), r.error) for r in scored.rejects]
                keys = scored.rows.select(desk.job.source.key).to_pylist()
                now = [rejects[source.encode_key(tuple(row.values()))] for row in keys]
                if now:
                    part = Profile.of(
                        scored.part_of(chunk).select(signature.input_names),
                        scored.rows.select(signature.output_names),
                        served.reference,
                    )

                    def profiled(text: str | None, part: Profile = part) -> str:
                        before = Profile() if text is None else Profile.from_json(text)
                        return before.merged(part).to_json()

                    merge(predictions, run_id, scored.rows, now, person(), profiled)
                    merged += len(now)
    return Replayed(run_id, merged, len(rejects) - found, tuple(failed))


def _scored(desk: Desk, served: Served, chunk: pa.Table) -> Scored:
    """The rows that can be predicted now, and those that still cannot."""
    limits = Limits(Budget(chunk.num_rows))
    key, kept = desk.job.source.key, desk.source.kept_columns
    with (
        served.lent() as lent,
        closing(Predictor(served.manifest, lent.model, key, kept, limits)) as predictor,
    ):
        try:
            return predictor.score(chunk)
        except PredictionFailed as error:  # no row of it can be predicted
            faults = [(row, "PredictionFailed", str(error)) for row in range(chunk.num_rows)]
            names = served.manifest.signature.input_names
            nothing = chunk.select(kept).slice(0, 0)
            for column in served.manifest.signature.outputs:
                nothing = nothing.append_column(column.name, pa.array([], column.arrow_type))
            rejects = rejected(chunk, key, names, faults)
            return Scored(nothing, rejects, np.empty(0, np.int64), None, 0.0)


def _batches(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
