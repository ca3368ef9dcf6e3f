"""Processes that die, meet, or wake up too late."""

import random
import signal
import threading
import time
from collections import Counter

from tests.chaos.oracle import Disagreement
from tests.chaos.scoring_process import JOB, KILLED, PUBLISHED, ScoringProcess
from tests.chaos.trial import BOUND, Fault, Trial
from tests.chaos.world import Stage, World, another, eventually

SLOW = {"DOUBLER_BEHAVES": ""}
"""The model takes its time: a run lasts a third of a second longer."""


def killed_at_a_statement(trial: Trial) -> None:
    """kill -9 as the n-th message leaves for the server: it never arrives, or its answer is lost.

    The messages of a run are gone through one after the other, each both ways.
    """
    turn, late = divmod(trial.number, 2)
    killed_at(trial, turn, "after" if late else "before")


def killed_at(trial: Trial, turn: int, when: str, job: str = JOB, **more: str) -> None:
    def kill(process: ScoringProcess) -> str:
        process.kill()
        return when

    process, _ = trial.stage.struck(turn, kill, job=job, **more)
    trial.missed = not trial.dies(process)
    trial.resumes(job=job, **more)


def killed_at_a_moment(trial: Trial) -> None:
    """kill -9 at a moment between the first message and the last."""
    process, started = trial.stage.struck(0, lambda _: None, **SLOW)
    trial.strikes(process, started)
    time.sleep(trial.chance.uniform(0, 0.7))
    process.kill()
    trial.missed = not trial.dies(process)
    trial.resumes()


# --- a job that rejects rows --------------------------------------------------------------------

REJECTING = "chaos_rejects"
REFUSES = {"DOUBLER_BEHAVES": "", "CHAOS_SECONDS": "0", "CHAOS_BEHAVIOUR": "negative"}
REFUSED = 7
"""Each row whose key is a multiple of this one has a number that the model cannot take."""


def rejecting(world: World) -> None:
    negative = f"UPDATE orders SET x = -1 WHERE id %% {REFUSED} = 0"
    another(world, REJECTING, "rejecting", negative, max_rejects=200)


def killed_while_rejecting(trial: Trial) -> None:
    """kill -9 of a run that keeps some rows as rejects; they, too, are there once in the end."""
    stage = trial.stage
    wanted(stage, f"id %% {REFUSED} <> 0")
    turn = trial.chance.randrange(stage.world.under_way.start, stage.world.under_way.stop)
    killed_at(trial, turn, trial.chance.choice(["before", "after"]), job="rejecting", **REFUSES)
    refused = stage.sql(f"SELECT id FROM orders WHERE id %% {REFUSED} = 0 AND {TODAY}")
    kept = stage.sql("SELECT row_key FROM nightshift_rejects")
    if len(kept) != len(refused) or len(set(kept)) != len(kept):
        raise Disagreement(f"{len(kept)} rejects for {len(refused)} rows")


TODAY = "placed_at < '2024-03-02Z'"


def wanted(stage: Stage, which: str = "true") -> None:
    """Nothing is published; then the orders of the day that are to be scored."""
    rows = stage.sql(f"SELECT id, 2 * x, 2 FROM orders WHERE {TODAY} AND {which}")
    stage.previous, stage.wanted = Counter(), [Counter(map(tuple, rows))]


# --- a database that has no ledger yet -----------------------------------------------------------

NEW = "chaos_new"


def nothing_yet(world: World) -> None:
    another(world, NEW, "new", empty=True)
    with world.stage("first", random.Random(), NEW) as stage:
        wire = stage.wire()
        said: list[bytes] = []
        wire.cut = lambda _, data: said.append(data)  # type: ignore[func-returns-value]
        outcome = stage.start(job="new", **stage.wired(wire)).outcome()
        assert outcome.name == PUBLISHED, outcome
    first = b"INSERT INTO nightshift_jobs"  # of what a run enters
    world.creating = next(number for number, data in enumerate(said) if first in data)


def killed_while_creating(trial: Trial) -> None:
    """kill -9 while the first run of all makes the ledger, its tables and the view: at each third
    message, in turn before it arrives and after it.
    """
    stage = trial.stage
    stage.has_ledger = False
    wanted(stage)
    when = "after" if trial.number % 2 else "before"
    killed_at(trial, 3 * trial.number, when, job="new")
    stage.has_ledger = True


def creations(world: World) -> int:
    return world.creating // 3


def two_at_once(trial: Trial) -> None:
    """Two processes score the same partition; one of them is killed in half of the trials."""
    processes = [trial.stage.start(), trial.stage.start()]
    if trial.chance.random() < 0.5:
        time.sleep(trial.chance.uniform(0, 0.6))
        processes[trial.chance.randrange(2)].kill()
    found = [process.outcome() for process in processes]
    names = {outcome.name for outcome in found}
    if not names <= {KILLED, PUBLISHED, "PartitionBusy"} or names == {"PartitionBusy"}:
        raise Disagreement(f"two at once: {found}")
    trial.check()
    trial.missed = names == {PUBLISHED}  # one was through before the other began
    trial.gave_up += [outcome.seconds for outcome in found if outcome.name == "PartitionBusy"]
    if PUBLISHED in names:
        trial.recovered = max(outcome.seconds for outcome in found if outcome.name == PUBLISHED)
    else:
        trial.resumes()


def a_zombie(trial: Trial) -> None:
    """A process stands still, is replaced, and wakes up: with an older model than the other's.

    In half of the trials the message that it was sending arrives only then, too.
    """
    stage, awake = trial.stage, threading.Event()
    late = trial.chance.random() < 0.5
    turn = trial.chance.choice(trial.world.under_way)

    def stop(process: ScoringProcess) -> None:
        process.signal(signal.SIGSTOP)
        if late:
            awake.wait(60)

    stage.set("idle_in_transaction_session_timeout", "1s")
    lease = {"NIGHTSHIFT_DATABASE__LEASE": "1"}
    zombie, stopped = stage.struck(turn, stop, "doubler@1", **lease)
    trial.strikes(zombie, stopped)
    since = time.monotonic()

    def replaced() -> bool:
        other = stage.start(**lease).outcome()
        if other.name not in {PUBLISHED, "PartitionBusy"}:
            raise Disagreement(f"a zombie's successor: {other}")
        return other.name == PUBLISHED

    eventually(replaced, "a zombie is replaced", BOUND)
    trial.recovered = time.monotonic() - since
    awake.set()
    zombie.signal(signal.SIGCONT)
    trial.gives_up(zombie, time.monotonic(), "OwnershipLost")


FAULTS = (
    Fault("kill -9 at each statement", killed_at_a_statement, lambda world: 2 * world.messages, 9),
    Fault("kill -9 at a random moment", killed_at_a_moment, 20, 2),
    Fault(
        "kill -9 with rows rejected", killed_while_rejecting, 20, 2, REJECTING, prepare=rejecting
    ),
    Fault(
        "kill -9 while the ledger is made",
        killed_while_creating,
        creations,
        3,
        NEW,
        prepare=nothing_yet,
    ),
    Fault("two executors of one run", two_at_once, 20, 2),
    Fault("a zombie wakes up, replaced", a_zombie, 20, 3),
)
