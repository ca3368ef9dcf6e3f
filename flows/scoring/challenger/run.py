"""The challenger's run beside the champion's: the same chunks, kept, compared, never published.

Whatever goes wrong with it is its own end only: it is told, entered in the ledger, and the
champion goes on as if it had never been there.
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
"""Seconds for one call of the challenger where the job has no predict_timeout: the champion may
take as long as it likes, but not wait for the challenger for ever."""
_RESERVE = 0.1
"""Of a job's timeout, what a challenger does not use even if the champion seems not to need it."""


class ChallengerRun:
    """One run of a challenger."""

    def __init__(
        self, predictions: PredictionTable, challenger: Challenger, run: Run, warn: Warn
    ) -> None:
        self.ledger, self.predictions = predictions.ledger, predictions
        self.challenger, self.run, self.warn = challenger, run, warn
        self.comparison = Comparison() if run.profile is None else Comparison.from_json(run.profile)
        self._told = False
        self._unreadable: NightshiftError | None = None
        self._timeout: float | None = None
        self._since = self._spent = 0.0
        self._done = self._rows = 0

    @classmethod
    @contextmanager
    def beside(
        cls,
        desk: JobResources,
        champion: LoadedModel,
        served: LoadedModel,
        request: RunRequest,
        run: Run,
        warn: Warn,
    ) -> "Iterator[ChallengerRun | None]":
        """A run of the challenger that is as far as the champion's; None if there is none."""
        rival = None
        with ExitStack() as held:
            try:
                lent = held.enter_context(served.lent())
                rival = cls._begun(desk, champion, served.manifest, lent, request, run, warn)
            except Exception as error:  # of whatever kind: the champion goes on
                warn("Without the challenger: %s", error)
            if rival is None:
                yield None
                return
            with rival.ledger.keep_alive(rival.run):
                try:
                    yield rival
                except BaseException:
                    rival.stop("the champion's run stopped")
                    raise
            rival.finish()

    @classmethod
    def _begun(
        cls,
        desk: JobResources,
        champion: LoadedModel,
        manifest: Manifest,
        lent: BorrowedModel,
        request: RunRequest,
        run: Run,
        warn: Warn,
    ) -> "ChallengerRun | None":
        job, ledger = desk.job, desk.ledger
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
            lent.model,
            champion.manifest,
            job.source.key,
            desk.source.kept_columns,
            None if job.challenger is None else job.challenger.tolerance,
            seconds,
            lent.left.set,
        )
        return cls(desk.predictions(manifest.signature), challenger, own, warn)

    def allow(self, timeout: timedelta | None, rows: int, begun: float) -> None:
        """Have it take no time that the champion needs to score so many rows within the job's
        timeout, since `begun` on the clock of `perf_counter`.
        """
        self._timeout = None if timeout is None else timeout.total_seconds()
        self._rows, self._since = rows, begun

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
        begun = perf_counter()
        found = challenger.compare(chunk, scored, left)
        self._spent += perf_counter() - begun
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
        if self.challenger.failure is not None and not self._told:
            self._told = True
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
