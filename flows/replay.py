"""Scoring again only the rows that a run had to reject, and merging them in."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from nightshift.adapters.errors import PredictionFailed, RunUnknown
from nightshift.adapters.history.run_history import History, RejectRecord, RunRecord
from nightshift.adapters.models.reference import ModelRef
from nightshift.adapters.profiles.profile import Profile
from nightshift.adapters.source.columns import KeySet, encode_key
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.adapters.target.replayed_rows import merge
from nightshift.flows.checks.audit import failing_outputs
from nightshift.flows.checks.evidence import profile_shards
from nightshift.flows.config.quantities import Budget
from nightshift.flows.config.resources import JobResources, current_user
from nightshift.flows.config.settings import Settings
from nightshift.flows.planning.scheduled_runs import find_partition
from nightshift.flows.scoring.loaded_model import LoadedModel, load
from nightshift.flows.scoring.prediction.predictor import Limits, Predictor, Scored
from nightshift.flows.scoring.prediction.rejects import rejected

_AT_ONCE = 200
"""Rows of a transaction, and that a statement names one by one."""
_LISTED = 1000


@dataclass
class Replayed:
    """What became of a run's rejects."""

    run_id: int
    merged: int = 0
    gone: int = 0
    """Rows that the source no longer has."""
    failed: int = 0
    """Rows that still get no prediction, or none that the job's checks allow."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """Keys and errors of the first 1,000 of those."""

    def fail(self, key: str, error: str) -> None:
        self.failed += 1
        if len(self.errors) < _LISTED:
            self.errors.append((key, error))


def replay(settings: Settings, resources: JobResources, run_id: int) -> Replayed:
    """Score all of a run's rejects with the run's model version, as the source has them now.

    Raises RunUnknown, RunNotReplayable, and what opening the model raises. What is merged by then
    stays so.
    """
    history, source = History(resources.ledger), resources.source
    run = history.run(run_id)
    if run is None or run.job != resources.job.name:
        raise RunUnknown(run_id)
    done = Replayed(run_id)
    page = history.rejects(run_id, _AT_ONCE)
    if not page:
        return done
    model = load(settings, ModelRef(run.model_name, run.model_version))
    signature = model.manifest.signature
    predictions = resources.predictions(signature)
    predictions.check()
    merging = _Merging(resources, model, predictions, run, done)
    partition = find_partition(resources.job, run.partition)
    with source.snapshot(signature, partition.start, partition.end) as snapshot:
        while page:
            rejects = {reject.key: reject for reject in page}
            keys = KeySet(tuple(source.decode_key(name) for name in rejects))
            for chunk in snapshot.chunks(keys, _AT_ONCE):
                done.gone -= chunk.num_rows
                scored = _scored(resources, model, chunk)
                for still in scored.rejects:
                    done.fail(encode_key(still.key), still.error)
                keys = scored.rows.select(resources.job.source.key).to_pylist()
                now = [rejects[encode_key(tuple(row.values()))] for row in keys]
                merging.add(scored.rows, now)
            done.gone += len(page)
            page = history.rejects(run_id, _AT_ONCE, page[-1])
    return done


class _Merging:
    """Adds rows to a run, but for those by which a check of its predictions would fail that does
    not fail without them: a published run was audited, and has no second audit.
    """

    def __init__(
        self,
        resources: JobResources,
        model: LoadedModel,
        predictions: PredictionTable,
        run: RunRecord,
        done: Replayed,
    ) -> None:
        self.resources, self.model, self.predictions = resources, model, predictions
        self.run, self.done = run, done
        self.whole = profile_shards(resources.ledger.shards(run.run_id))
        self.failing = self._failing(self.whole)

    def add(self, rows: pa.Table, rejects: Sequence[RejectRecord]) -> None:
        """Rows with their predictions, one for each of the rejects; halved where a check fails."""
        if not rejects:
            return
        signature, checks = self.model.manifest.signature, self.resources.job.checks
        outputs = rows.select(signature.output_names)
        # Their inputs were counted when they were rejected.
        part = Profile.of(
            pa.table({}), outputs, self.model.reference, checks.find_listed(signature.output_names)
        )
        whole = self.whole.merged(part)
        failing = self._failing(whole)
        fresh = [failing[check] for check in failing if check not in self.failing]
        if fresh and len(rejects) > 1:
            half = len(rejects) // 2
            self.add(rows.slice(0, half), rejects[:half])
            self.add(rows.slice(half), rejects[half:])
        elif fresh:
            self.done.fail(rejects[0].key, fresh[0])
        else:

            def profiled(text: str | None) -> str:
                before = Profile() if text is None else Profile.from_json(text)
                return before.merged(part).to_json()

            merge(self.predictions, self.run.run_id, rows, rejects, current_user(), profiled)
            self.done.merged += len(rejects)
            self.whole, self.failing = whole, failing

    def _failing(self, profile: Profile) -> dict[tuple[str, str | None], str]:
        return failing_outputs(self.resources.job, self.run.partition, self.model, profile)


def _scored(resources: JobResources, model: LoadedModel, chunk: pa.Table) -> Scored:
    """The rows that can be predicted now, and those that still cannot."""
    limits = Limits(Budget(chunk.num_rows))
    key, kept = resources.job.source.key, resources.source.kept_columns
    with (
        model.borrow() as borrowed,
        closing(Predictor(model.manifest, borrowed.model, key, kept, limits)) as predictor,
    ):
        try:
            return predictor.score(chunk)
        except PredictionFailed as error:  # no row of it can be predicted
            faults = [(row, "PredictionFailed", str(error)) for row in range(chunk.num_rows)]
            names = model.manifest.signature.input_names
            nothing = chunk.select(kept).slice(0, 0)
            for column in model.manifest.signature.outputs:
                nothing = nothing.append_column(column.name, pa.array([], column.arrow_type))
            rejects = rejected(chunk, key, names, faults)
            return Scored(nothing, rejects, np.empty(0, np.int64), None, 0.0)
