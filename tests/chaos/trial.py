"""One trial of a fault, and what came of it."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.oracle import Disagreement, Reader, check_ledger, check_leftovers, wrong_rows
from tests.chaos.scoring_process import JOB, KILLED, PATIENCE, PUBLISHED, Outcome, ScoringProcess
from tests.chaos.world import Stage, World, eventually

BOUND = 60.0
"""Seconds within which a run must have given up, or be through."""


@dataclass
class Trial:
    """What a fault has to work with."""

    stage: Stage
    number: int
    gave_up: list[float] = field(default_factory=list)
    """Seconds from the fault until a run ended with an error."""
    recovered: float | None = None
    """Seconds from the fault's end until readers saw the wanted predictions."""
    worst: int = 0
    """The most wrong rows that were there at any moment."""
    missed: bool = False
    """The fault did not come: a run was through before it, say. Such a trial shows nothing."""

    @property
    def world(self) -> World:
        return self.stage.world

    @property
    def chance(self) -> random.Random:
        return self.stage.chance

    def check(self) -> None:
        """Readers see the previous publication or the wanted one, and the ledger agrees."""
        stage = self.stage
        right = [stage.previous, *stage.wanted]
        self.worst = max(self.worst, wrong_rows(stage.view(), right))
        check_ledger(stage)

    def strikes(self, process: ScoringProcess, struck: threading.Event) -> None:
        """Wait until the fault has come, unless the run is through before."""
        eventually(lambda: struck.is_set() or process.over, "a fault", PATIENCE)
        self.missed |= not struck.is_set()

    def dies(self, process: ScoringProcess) -> bool:
        """It was killed; or else, which is False, was through before that."""
        outcome = process.outcome()
        if outcome.name not in {KILLED, PUBLISHED}:
            raise Disagreement(f"a run that was to be killed: {outcome}")
        self.check()
        return outcome.name == KILLED

    def gives_up(self, process: ScoringProcess, since: float, *errors: str) -> Outcome:
        """It ends with one of these errors, in bounded time."""
        outcome = process.outcome()
        self.gave_up.append(time.monotonic() - since)
        if outcome.name not in errors:
            raise Disagreement(f"not {' or '.join(errors)}: {outcome}")
        if self.gave_up[-1] > BOUND:
            raise Disagreement(f"it gave up only after {self.gave_up[-1]:.0f} s")
        self.check()
        return outcome

    def rides_out(self, process: ScoringProcess, since: float) -> Outcome:
        """The same run is through in spite of it, by trying again."""
        outcome = process.outcome()
        if outcome.name != PUBLISHED:
            raise Disagreement(f"it was to go on by itself: {outcome}")
        self.recovered = time.monotonic() - since
        return outcome

    def resumes(self, since: float | None = None, job: str = JOB, **environment: str) -> Outcome:
        """Another run, undisturbed, is through."""
        started = time.monotonic() if since is None else since
        return self.rides_out(self.stage.start(job=job, **environment), started)


@dataclass(frozen=True)
class Fault:
    """One way to break the world."""

    name: str
    strike: Callable[[Trial], None]
    """Breaks it, repairs it, and makes sure that a run gets through in the end."""
    trials: int | Callable[[World], int]
    few: int = 1
    """Trials of a bounded run."""
    template: str = "chaos"
    """The database that its trials get a copy of."""
    prepare: Callable[[World], None] = lambda _: None
    """Called once, before its first trial."""
    needs: Callable[[World], str | None] = lambda _: None
    """What is missing for it here, if anything."""


@dataclass(frozen=True)
class Result:
    """What came of one trial."""

    fault: str
    number: int
    wrong_rows: int
    gave_up: float | None
    recovered: float | None
    looks: int
    """How often a reader looked during the trial."""
    missed: bool = False
    """Whether the fault did not come."""
    problem: str | None = None


_numbers = itertools.count(1)


def attempt(fault: Fault, number: int, world: World, seed: int, again: int = 0) -> Result:
    """Carry out one trial. What it does by chance depends on nothing but these arguments."""
    chance = random.Random(f"{seed}/{fault.name}/{number}" + f"/{again}" * bool(again))
    problem, trial, reader = None, None, None
    try:
        with world.stage(f"trial_{next(_numbers)}", chance, fault.template) as stage:
            trial = Trial(stage, number)
            with Reader(stage) as reader:
                fault.strike(trial)
                trial.check()
                trial.worst = max(trial.worst, wrong_rows(stage.view(), stage.wanted))
            check_leftovers(stage)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        if reader is not None and reader.worst:
            problem += f" (a reader saw {reader.example})"
    wrong = max(trial.worst if trial else 0, reader.worst if reader else 0)
    return Result(
        fault.name,
        number,
        wrong,
        max(trial.gave_up, default=None) if trial else None,
        trial.recovered if trial else None,
        reader.looks if reader else 0,
        trial is not None and trial.missed,
        f"{wrong} wrong rows" if wrong and problem is None else problem,
    )
