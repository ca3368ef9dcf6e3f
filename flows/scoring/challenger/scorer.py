"""A challenger: scored in the same pass as the champion, over the same rows, never published.

It does not touch the champion: it comes after it, gets features of its own, and whatever goes wrong
with it (an exception, wrong outputs, no answer in time, inputs of its own that cannot be read) only
switches it off for the rest of the run; so does the job's timeout, where the champion needs what is
left of it. Interrupts pass through. Rows that the champion could not score are not its to try.

It is in the champion's process, though: a challenger that ends it (a segmentation fault, memory
that the operating system does not grant) ends the champion's run, too. That one is resumed like
any that was killed; before, take `challenger` out of the job file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightshift.adapters.models.model import Model
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows.config.quantities import Tolerance
from nightshift.flows.scoring.challenger.comparison import Comparison, common_outputs, compared
from nightshift.flows.scoring.prediction.missing import checked_predictions, positions_left
from nightshift.flows.scoring.prediction.predictor import Scored
from nightshift.flows.scoring.prediction.rejects import describe_error
from nightshift.flows.scoring.prediction.timeouts import CallTimedOut, TimedCalls


@dataclass(frozen=True)
class Challenged:
    """What came of a chunk."""

    comparison: Comparison
    """Of this chunk alone, to be merged with those before it."""
    rows: pa.Table | None = None
    """The kept columns and the challenger's predictions, without rows that it predicted nothing
    for; None if it is switched off."""


class Challenger:
    """Compares one challenger with the champion, chunk by chunk."""

    def __init__(
        self,
        manifest: Manifest,
        model: Model,
        champion: Manifest,
        key: Sequence[str],
        kept: Sequence[str],
        tolerance: Tolerance | None = None,
        timeout: float | None = None,
        leaving: Callable[[], object] = lambda: None,
    ) -> None:
        self.signature = manifest.signature
        self.model = model
        self.key, self.kept = list(key), list(kept)
        self.tolerance = tolerance or Tolerance()
        self.failure: str | None = None
        """Why it is switched off."""
        self._champion = champion.signature
        self.timeout = inf if timeout is None else timeout
        self._call = TimedCalls(timeout, leaving)
        self._outputs = common_outputs(champion.signature, manifest.signature)
        if not self._outputs:
            one, other = (
                ", ".join(f"{column.name} ({column.type})" for column in signature.outputs)
                for signature in (champion.signature, manifest.signature)
            )
            self.failure = f"nothing to compare: it predicts {other}, the champion {one}"

    def compare(self, chunk: pa.Table, scored: Scored, seconds: float = inf) -> Challenged:
        """A chunk with the columns that both models read, and what the champion made of it.

        It has so many seconds, or as many as any call, if these are fewer.
        """
        if self.failure is None and chunk.num_rows and not scored.rows.num_rows:
            return Challenged(Comparison(), self._nothing(chunk))
        if self.failure is None and scored.rows.num_rows:
            started = perf_counter()
            limit = min(self.timeout, seconds)
            self._call.seconds = None if limit == inf else limit
            try:
                return self._compared(chunk, scored, started)
            except Exception as error:  # a model may raise anything, and this one never matters
                self.failure = (
                    str(error) if isinstance(error, CallTimedOut) else describe_error(error)
                )
                self.close()
            skipped = Comparison(
                skipped=scored.rows.num_rows,
                challenger_seconds=perf_counter() - started,
                champion_seconds=scored.seconds,
                failure=self.failure,
            )
            return Challenged(skipped)
        return Challenged(Comparison(skipped=scored.rows.num_rows, failure=self.failure))

    def close(self) -> None:
        """End the thread that calls with a time limit are made in."""
        self._call.close()

    def _nothing(self, chunk: pa.Table) -> pa.Table:
        """Of a chunk in which no row is for it to predict."""
        rows = chunk.select(self.kept).slice(0, 0)
        for column in self.signature.outputs:
            rows = rows.append_column(column.name, pa.array([], column.arrow_type))
        return rows

    def _compared(self, chunk: pa.Table, scored: Scored, started: float) -> Challenged:
        part = scored.part_of(chunk)
        features = self.signature.features(part)
        values = self._call(lambda: self.model.predict_batch(features))
        predicted, gaps = checked_predictions(self.signature, values, part.num_rows)
        there = positions_left(part.num_rows, gaps)
        seconds = perf_counter() - started
        comparison = compared(
            part.select(self.key),
            scored.rows.select(self._outputs),
            _spread_out(predicted.select(self._outputs), there, part.num_rows),
            self.tolerance,
        )
        measured = {
            "missing": len(gaps),
            "champion_seconds": scored.seconds,
            "challenger_seconds": seconds,
        }
        rows = part.select(self.kept)
        if gaps:
            rows = rows.take(pa.array(there))
        for name in predicted.column_names:
            rows = rows.append_column(name, predicted.column(name))
        return Challenged(comparison.model_copy(update=measured), rows)


def _spread_out(predicted: pa.Table, there: npt.NDArray[np.int64], rows: int) -> pa.Table:
    """The predictions of the rows that have one -> of all rows, with NULL where there is none."""
    if len(there) == rows:
        return predicted
    places = np.full(rows, -1)
    places[there] = np.arange(len(there))
    return predicted.take(pa.array(places, mask=places < 0))
