"""The challenger's run alongside the champion's: the same chunks, compared, never published.

Whatever goes wrong with it ends only the challenger's run: it is logged and entered in the ledger,
and the champion scores on without it.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from math import inf
from time import perf_counter
from typing import Any

import pyarrow as pa

from nightshift.adapters.errors import NightshiftError, TransientError
from nightshift.adapters.ledger.leases import new_owner
from nightshift.adapters.ledger.runs import Run, RunRequest
from nightshift.adapters.models.signature import Signature
from nightshift.adapters.source.columns import KeyRange
from nightshift.adapters.source.snapshot import Snapshot
from nightshift.adapters.store.manifest import Manifest
from nightshift.adapters.target.predictions import PredictionTable
from nightshift.flows.config.resources import JobResources
from nightshift.flows.scoring.challenger.comparison import Comparison
from nightshift.flows.scoring.challenger.scorer import Challenged, Challenger
from nightshift.flows.scoring.loaded_model import BorrowedModel, LoadedModel
from nightshift.flows.scoring.prediction.predictor import Scored, last_key

Warn = Callable[..., Any]

_PATIENCE = 600.0
"""Seconds for one call of the challenger where the job has no predict_timeout: the champion must
not wait for the challenger for ever."""
_RESERVE = 0.1
"""Share of a job's timeout that the challenger never uses, even if the champion seems not to need
it."""


class ChallengerRun:
    """One run of a challenger."""

    def __init__(
        self, predictions: PredictionTable, challenger: Challenger, run: Run, warn: Warn
    ) -> None:
        self.ledger, self.predictions = predictions.ledger, predictions
        self.challenger, self.run, self.warn = challenger, run, warn
        self.comparison = Comparison() if run.profile is None else Comparison.from_json(run.profile)
        self._warned = False
        self._unreadable: NightshiftError | None = None
        self._timeout: float | None = None
        self._since = self._spent = 0.0
        self._done = self._rows = 0

    @classmethod
    @contextmanager
    def alongside(
        cls,
        resources: JobResources,
        champion: LoadedModel,
        model: LoadedModel,
        request: RunRequest,
        run: Run,
        warn: Warn,
    ) -> "Iterator[ChallengerRun | None]":
        """A run that is exactly as far as the champion's; None if that is not possible."""
        challenger = None
        with ExitStack() as stack:
            try:
                borrowed = stack.enter_context(model.borrow())
                challenger = cls._begin(
                    resources, champion, model.manifest, borrowed, request, run, warn
                )
            except Exception as error:  # of whatever kind: the champion scores without it
                warn("Without the challenger: %s", error)
            if challenger is None:
                yield None
                return
            with challenger.ledger.keep_alive(challenger.run):
                try:
                    yield challenger
                except BaseException:
                    challenger.stop("the champion's run stopped")
                    raise
            challenger.finish()

    @classmethod
    def _begin(
        cls,
        resources: JobResources,
        champion: LoadedModel,
        manifest: Manifest,
        borrowed: BorrowedModel,
        request: RunRequest,
        run: Run,
        warn: Warn,
    ) -> "ChallengerRun | None":
        job, ledger = resources.job, resources.ledger
        own = ledger.begin(request, new_owner(), resume=run.resumed)
        if own.chunks != run.chunks:
            reason = f"it has scored {own.chunks} chunks, and the champion {run.chunks}"
            ledger.fail(own, reason)
            warn("Without the challenger: %s", reason)
            return None
        seconds = _PATIENCE
        if job.predict_timeout is not None:
            seconds = job.predict_timeout.total_seconds()
        challenger = Challenger(
            manifest,
            borrowed.model,
            champion.manifest,
            job.source.key,
            resources.source.kept_columns,
            None if job.challenger is None else job.challenger.tolerance,
            seconds,
            borrowed.abandoned.set,
        )
        return cls(resources.predictions(manifest.signature), challenger, own, warn)

    def limit(self, timeout: timedelta | None, rows: int, started: float) -> None:
        """Limit the challenger so that the champion can still score `rows` rows within the job's
        timeout. `started` is when the run began, by `perf_counter`.
        """
        self._timeout = None if timeout is None else timeout.total_seconds()
        self._rows, self._since = rows, started

    def chunks(
        self, snapshot: Snapshot, signature: Signature, keys: KeyRange, rows: int
    ) -> Generator[pa.Table, None, None]:
        """The snapshot's chunks with the inputs of both, or with the champion's alone from the
        chunk on that cannot be read with the challenger's. `signature` is the champion's.
        """
        others = self.challenger.signature.inputs
        more = [column for column in others if column.name not in signature.input_names]
        both = signature.model_copy(update={"inputs": (*signature.inputs, *more)})
        if more:
            try:
                with closing(snapshot.with_signature(both).chunks(keys, rows)) as chunks:
                    for chunk in chunks:
                        keys = replace(keys, after=last_key(chunk, self.challenger.key))
                        yield chunk
            except TransientError:
                raise
            except NightshiftError as error:
                self._unreadable = error
            else:
                return
        with closing(snapshot.chunks(keys, rows)) as chunks:
            yield from chunks

    def compare(self, chunk: pa.Table, scored: Scored) -> Challenged:
        """What the challenger makes of a chunk that the champion has scored. Never raises."""
        self._done += scored.read
        challenger, left = self.challenger, self._left()
        if challenger.failure is None:
            missing = set(challenger.signature.input_names) - set(chunk.column_names)
            if self._unreadable is not None and missing:
                challenger.failure = str(self._unreadable)
            elif left <= 0:
                challenger.failure = (
                    f"with it, the champion might not be done within {self._timeout:g} s, the job's"
                    f" timeout; it has taken {self._spent:.0f} s so far"
                )
        started = perf_counter()
        found = challenger.compare(chunk, scored, left)
        self._spent += perf_counter() - started
        return found

    def _left(self) -> float:
        """Seconds for the challenger, if the champion goes on as fast as so far."""
        if self._timeout is None or not self._done:
            return inf
        elapsed = perf_counter() - self._since
        alone = (elapsed - self._spent) / self._done * (self._rows - self._done)
        return (1 - _RESERVE) * self._timeout - elapsed - alone

    def write(self, number: int, scored: Scored, challenged: Challenged) -> None:
        """Keep its predictions, after the champion's are committed. Never raises an Exception."""
        try:
            self.comparison = self.comparison.merged(challenged.comparison)
            if self.challenger.failure is None and challenged.rows is not None:
                rows, text = challenged.rows, self.comparison.to_json()
                self.predictions.write(self.run, number, rows, (), text, scored.keys)
        except Exception as error:  # as above
            self.challenger.failure = str(error)
        if self.challenger.failure is not None and not self._warned:
            self._warned = True
            self.warn("The challenger was switched off: %s", self.challenger.failure)

    def finish(self) -> None:
        """Enter how it compares, and that it is scored, or why not."""
        self.challenger.close()
        if self.challenger.failure is not None:
            self.stop(self.challenger.failure)
            return
        try:
            self.ledger.note(self.run, comparison=self.comparison.to_json())
            self.ledger.score(self.run)
        except Exception as error:  # as above
            self.warn("The challenger's run could not be entered: %s", error)

    def stop(self, reason: str) -> None:
        self.challenger.close()
        try:
            self.ledger.note(self.run, comparison=self.comparison.to_json())
            self.ledger.fail(self.run, reason)
        except Exception as error:  # as above
            self.warn("The challenger's failure could not be entered: %s", error)
