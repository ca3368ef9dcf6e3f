"""From one chunk of the source to its predictions and its rejects. Knows no Prefect and no SQL.

A chunk is predicted in one call, unless something is wrong with it:

- A prediction that is NULL, NaN or infinite where the signature promises one, or a NULL in an
  input that the model needs, makes that row a reject: found without another call.
- A call that raises is bisected: k bad rows among n cost about 2 k log2(n) calls. If no row of
  the run was predicted yet and none of a few, evenly spread, can be; or if a row cannot be that
  could before, then it is the model: the run stops at once with PredictionFailed.
- A call that runs out of memory is bisected too, and later calls keep to the size that fitted,
  unless a single row was to blame.
- A call that hangs makes rejects of the rows of its chunk that are not scored yet, or stops the
  run if it is the first chunk's, or the third. A model that is not thread-safe is loaded
  again from its bytes: the call that hangs keeps its own copy.

Which rows a batch has may change a prediction's last bits, within the adapter's `tolerance`:
rows near a reject were predicted in smaller batches, and so were those after memory ran out.
They are the same rows and bits in every run, as long as the same calls fail. Trees are exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightshift.adapters.errors import (
    InvalidPredictions,
    PredictionFailed,
    PredictionTimedOut,
    RejectsExceeded,
    SignatureMismatch,
    TransientError,
)
from nightshift.adapters.models.model import Model
from nightshift.adapters.source.columns import Key
from nightshift.adapters.store.golden_rows import spread_rows
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows.config.quantities import Budget
from nightshift.flows.scoring.prediction.missing import (
    Gaps,
    checked_predictions,
    missing_inputs,
    positions_left,
)
from nightshift.flows.scoring.prediction.rejects import Reject, describe_error, rejected
from nightshift.flows.scoring.prediction.timeouts import CallTimedOut, TimedCalls

_PROBES = 16
"""Rows to try one by one before a chunk is bisected that nothing was predicted before."""
_LISTED = 1000
"""So many rejects are looked for whatever the budget, since people want to see which they are."""
_HANGS = 3
"""Each holds a thread and a chunk, and perhaps a core, until the process ends."""


@dataclass(frozen=True)
class Limits:
    """When a run stops: too many rejects, or a call that takes too long."""

    budget: Budget = field(default_factory=Budget)
    timeout: float | None = None
    """Seconds for one call of `predict_batch`; without it no thread is needed."""
    expected_rows: int = 0
    """Of the whole run, of which a budget may be a share."""
    read_before: int = 0
    """Rows read before the run was resumed, and the rejects among them."""
    rejected_before: int = 0


@dataclass(frozen=True)
class Scored:
    """A chunk's outcome: each of its rows is in `rows` or a reject, both in key order."""

    rows: pa.Table
    """The kept columns and the predictions, in Arrow."""
    rejects: list[Reject]
    positions: npt.NDArray[np.int64] | None
    """Where in the chunk the `rows` are; None if that is all of it."""
    keys: tuple[Key, Key] | None
    """The chunk's first and last key, rejects included; None if it has no rows."""
    seconds: float

    @property
    def read(self) -> int:
        """How many rows the chunk has."""
        return int(self.rows.num_rows) + len(self.rejects)

    def part_of(self, chunk: pa.Table) -> pa.Table:
        """The chunk's rows that were scored, with all its columns."""
        return chunk if self.positions is None else chunk.take(pa.array(self.positions))


@dataclass(frozen=True)
class _Failure:
    """Why rows could not be predicted: without the error, whose traceback would hold them."""

    kind: str
    text: str
    memory: bool


@dataclass
class _Progress:
    """How far into a chunk things are settled."""

    chunk: pa.Table
    settled: int = 0
    predicted: list[tuple[npt.NDArray[np.int64] | None, pa.Table]] = field(default_factory=list)
    """Positions, or None for all of the chunk, and the predictions there."""
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    examined: bool = False
    """Whether a call failed, and the model was found to be sound."""

    @property
    def scored(self) -> bool:
        """Whether any row is."""
        return any(table.num_rows for _, table in self.predicted)


def last_key(chunk: pa.Table, key: Sequence[str]) -> Key:
    """The key of a chunk's last row."""
    return tuple(chunk.column(name)[chunk.num_rows - 1].as_py() for name in key)


class Predictor:
    """Scores the chunks of one run, one after the other, with one model.

    `leaving` is called when a call timed out and goes on in the model; `renew` then loads a copy.
    """

    def __init__(
        self,
        manifest: Manifest,
        model: Model,
        key: Sequence[str],
        kept: Sequence[str],
        limits: Limits | None = None,
        leaving: Callable[[], object] = lambda: None,
        renew: Callable[[], Model] | None = None,
    ) -> None:
        self.reference = manifest.reference
        self.signature = manifest.signature
        self.model = model
        self.key, self.kept = list(key), list(kept)
        self.limits = limits or Limits()
        self.most_rows: float = inf
        """Rows that one call may have, once memory ran out with more."""
        self._renew = renew
        self._call = TimedCalls(self.limits.timeout, leaving)
        self._read, self._rejected = self.limits.read_before, self.limits.rejected_before
        self._hangs = 0
        self._witness: pa.Table | None = None  # one row that could be predicted

    def score(self, chunk: pa.Table) -> Scored:
        """One chunk: the key columns, the model's inputs, and what else is kept.

        Raises PredictionFailed, PredictionTimedOut or RejectsExceeded if the run should stop;
        InvalidPredictions or SignatureMismatch for what no row is to blame for; and
        TransientError as the model raised it.
        """
        started, progress = perf_counter(), _Progress(chunk)
        try:
            if chunk.num_rows:
                self._solve(progress, 0, chunk.num_rows)
                self._keep_witness(progress)
                if progress.examined and progress.faults:  # it may have broken since
                    self._require_sound_model(chunk, progress.faults[-1][2])
        except CallTimedOut as hang:
            self._give_up(progress, hang)
            self._keep_witness(progress)
        self._read += chunk.num_rows
        return self._scored(progress, started)

    def close(self) -> None:
        """End the thread that calls with a time limit are made in."""
        self._call.close()

    # --- solving --------------------------------------------------------------------------------

    def _solve(self, progress: _Progress, start: int, rows: int) -> bool:
        """Settle so many rows, in order. Returns whether each of them fitted into memory."""
        failure = None
        if rows <= self.most_rows:
            failure = self._attempt(progress, start, rows)
            if failure is None:
                return True
            if not progress.examined:  # before many calls are spent on the rows
                self._require_sound_model(progress.chunk, failure.text)
                progress.examined = True
            if rows == 1:
                progress.faults.append((start, failure.kind, failure.text))
                self._settle(progress, 1)
                return not failure.memory
        half = (rows + 1) // 2
        fitted = self._solve(progress, start, half)
        fitted = self._solve(progress, start + half, rows - half) and fitted
        if failure is not None and failure.memory and fitted:
            self.most_rows = min(self.most_rows, half)
        return fitted

    def _attempt(self, progress: _Progress, start: int, rows: int) -> _Failure | None:
        """Predict so many rows in one call, and settle them; or say why not."""
        whole = rows == progress.chunk.num_rows
        part = progress.chunk if whole else progress.chunk.slice(start, rows)
        try:
            predicted, gaps = self._predicted(part)
        except (InvalidPredictions, TransientError, CallTimedOut):
            raise
        except Exception as error:  # a model may raise anything
            return _Failure(
                type(error).__name__, describe_error(error), isinstance(error, MemoryError)
            )
        left = None if whole and not gaps else start + positions_left(rows, gaps)
        progress.predicted.append((left, predicted))
        progress.faults += [(start + row, *gap) for row, gap in gaps.items()]
        self._settle(progress, rows, len(gaps))
        return None

    def _predicted(self, part: pa.Table) -> tuple[pa.Table, Gaps]:
        """The predictions in one call, and the rows that cannot have one."""
        unfilled: Gaps = {}
        try:
            features = self.signature.features(part)
        except SignatureMismatch:
            unfilled = missing_inputs(self.signature, part)
            if not unfilled:
                raise
            filled = positions_left(part.num_rows, unfilled)
            features = self.signature.features(part.take(pa.array(filled)))
        rows = len(features)
        if rows == 0:
            return self.signature.predictions([], 0), unfilled
        values = self._call(lambda: self.model.predict_batch(features))
        predicted, gaps = checked_predictions(self.signature, values, rows)
        if unfilled:
            gaps = unfilled | {int(filled[row]): gap for row, gap in gaps.items()}
            gaps = dict(sorted(gaps.items()))
        return predicted, gaps

    # --- giving up ------------------------------------------------------------------------------

    def _require_sound_model(self, chunk: pa.Table, problem: str) -> None:
        """Raises PredictionFailed if it is not some rows that fail, but the model."""
        place = self._place(chunk)
        if self._witness is not None:
            place += f", nor any more the one with {self._key(self._witness, 0)}"
            probes = [self._witness]
        else:
            self.signature.features(chunk.slice(0, 0))  # refuses columns that cannot fit
            probes = [chunk.slice(row, 1) for row in spread_rows(chunk.num_rows, _PROBES)]
        for probe in probes:
            try:
                self._predicted(probe)
            except (InvalidPredictions, TransientError, CallTimedOut):
                raise
            except Exception as error:  # as above
                last = error
            else:
                return
        raise PredictionFailed(self.reference, place, problem) from last

    def _keep_witness(self, progress: _Progress) -> None:
        """Keep a row that was predicted, to tell later whether the model still can."""
        if self._witness is not None:
            return
        for positions, table in progress.predicted:
            if table.num_rows:
                first = 0 if positions is None else int(positions[0])
                self._witness = progress.chunk.take([first])  # a copy: a slice would hold it all
                return

    def _settle(self, progress: _Progress, rows: int, rejects: int = 1) -> None:
        chunk, budget = progress.chunk, self.limits.budget
        progress.settled += rows
        self._rejected += rejects
        if self._witness is None and len(progress.faults) == chunk.num_rows:
            self.signature.features(chunk)  # the clearest error, if it is about the inputs
            _, _, text = progress.faults[0]
            raise PredictionFailed(self.reference, self._place(chunk), text)
        if rejects and self._rejected > max(budget.allowed(self.limits.expected_rows), _LISTED):
            seen = self._read + progress.settled
            first = rejected(chunk, self.key, [], progress.faults[:3])
            examples = tuple((str(reject.key), reject.error) for reject in first)
            raise RejectsExceeded(self.reference, self._rejected, seen, str(budget), examples)

    def _give_up(self, progress: _Progress, hang: CallTimedOut) -> None:
        """Make rejects of what is not settled, unless the run must stop."""
        self._hangs += 1
        why = None
        renewed = None if self.model.thread_safe else self._renew
        if renewed is None and not self.model.thread_safe:
            why = "that call still goes on, and the model is not thread-safe"
        elif self._witness is None and not progress.scored:
            why = "nothing had been predicted before"
        elif self._hangs >= _HANGS:
            why = f"it was call number {_HANGS} of this run to do so"
        if why is not None:
            place = self._place(progress.chunk)
            raise PredictionTimedOut(self.reference, place, hang.seconds, why) from hang
        left = range(progress.settled, progress.chunk.num_rows)
        progress.faults += [(row, "TimedOut", f"{hang}, with others") for row in left]
        self._settle(progress, len(left), len(left))
        if renewed is not None:
            self.model = renewed()

    # --- results --------------------------------------------------------------------------------

    def _scored(self, progress: _Progress, started: float) -> Scored:
        chunk, parts = progress.chunk, progress.predicted
        rows, positions = chunk.select(self.kept), None
        if len(parts) == 1 and parts[0][0] is None:
            predicted = parts[0][1]
        else:
            tables = [table for _, table in parts] or [self.signature.predictions([], 0)]
            predicted = pa.concat_tables(tables).combine_chunks()
            found = [part for part, _ in parts if part is not None]
            positions = np.concatenate(found) if found else np.empty(0, np.int64)
            if len(positions) == chunk.num_rows:
                positions = None
            else:
                rows = rows.take(pa.array(positions))
        for name in predicted.column_names:
            rows = rows.append_column(name, predicted.column(name))
        faults = sorted(progress.faults)
        rejects = rejected(chunk, self.key, self.signature.input_names, faults) if faults else []
        keys = None
        if chunk.num_rows:
            keys = self._key(chunk, 0), self._key(chunk, chunk.num_rows - 1)
        return Scored(rows, rejects, positions, keys, perf_counter() - started)

    def _key(self, table: pa.Table, row: int) -> Key:
        return tuple(table.column(name)[row].as_py() for name in self.key)

    def _place(self, chunk: pa.Table) -> str:
        first, last = self._key(chunk, 0), self._key(chunk, chunk.num_rows - 1)
        return f"the rows with {tuple(self.key)} from {first} to {last}"
