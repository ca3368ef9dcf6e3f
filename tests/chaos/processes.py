"""Processes that die, meet, or wake up too late."""

import signal
import threading
import time

from tests.chaos.night import KILLED, PUBLISHED, Night
from tests.chaos.oracle import Disagreement
from tests.chaos.trial import Fault, Trial
from tests.chaos.world import eventually

SLOW = {"DOUBLER_BEHAVES": ""}
"""The model takes its time: a night lasts a third of a second longer."""


def killed_at_a_statement(trial: Trial) -> None:
    """kill -9 as the n-th message leaves for the server: it never arrives, or nobody hears of it.

    The messages of a night are gone through one after the other, so that none is left out.
    """
    when = trial.chance.choice(["before", "after"])

    def kill(night: Night) -> str:
        night.kill()
        return when

    night, _ = trial.stage.struck(trial.number % trial.world.messages, kill)
    trial.dies(night)
    trial.resumes()


def killed_at_a_moment(trial: Trial) -> None:
    """kill -9 at a moment between the first message and the last."""
    night, begun = trial.stage.struck(0, lambda _: None, **SLOW)
    begun.wait(30)
    time.sleep(trial.chance.uniform(0, 1.0))
    night.kill()
    trial.dies(night)
    trial.resumes()


def two_at_once(trial: Trial) -> None:
    """Two processes score the same partition; one of them is killed in half of the trials."""
    nights = [trial.stage.night(), trial.stage.night()]
    if trial.chance.random() < 0.5:
        time.sleep(trial.chance.uniform(0, 0.6))
        nights[trial.chance.randrange(2)].kill()
    found = [night.outcome() for night in nights]
    names = {outcome.name for outcome in found}
    if not names <= {KILLED, PUBLISHED, "PartitionBusy"} or names == {"PartitionBusy"}:
        raise Disagreement(f"two at once: {found}")
    trial.check()
    trial.told += [outcome.seconds for outcome in found if outcome.name == "PartitionBusy"]
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

    def stop(night: Night) -> None:
        night.signal(signal.SIGSTOP)
        if late:
            awake.wait(60)

    stage.set("idle_in_transaction_session_timeout", "1s")
    lease = {"NIGHTSHIFT_DATABASE__LEASE": "1"}
    zombie, stopped = stage.struck(turn, stop, "doubler@1", **lease)
    stopped.wait(30)
    since = time.monotonic()

    def replaced() -> bool:
        other = stage.night(**lease).outcome()
        if other.name not in {PUBLISHED, "PartitionBusy"}:
            raise Disagreement(f"a zombie's successor: {other}")
        return other.name == PUBLISHED

    eventually(replaced, "a zombie is replaced", 30)
    trial.recovered = time.monotonic() - since
    awake.set()
    zombie.signal(signal.SIGCONT)
    trial.gives_up(zombie, time.monotonic(), "OwnershipLost")


FAULTS = (
    Fault("kill -9 at each statement", killed_at_a_statement, lambda world: world.messages, 12),
    Fault("kill -9 at a random moment", killed_at_a_moment, 60, 4),
    Fault("two executors of one run", two_at_once, 20, 2),
    Fault("a zombie wakes up, replaced", a_zombie, 20, 3),
)
