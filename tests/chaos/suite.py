"""All faults, carried out by processes side by side, each in a world of its own."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType

from tests.chaos import databases, orchestration, processes, sources, stores
from tests.chaos.trial import Fault, Result, attempt
from tests.chaos.world import World, world

FAULTS: tuple[Fault, ...] = (
    *processes.FAULTS,
    *databases.FAULTS,
    *stores.FAULTS,
    *sources.FAULTS,
    *orchestration.FAULTS,
)

KILLS = 200
"""Trials in which a process is killed that the whole suite must have, at least."""
TRIES = 3
"""Of a trial whose fault did not come, with other luck."""


@dataclass(frozen=True)
class Plan:
    """Which trials to carry out."""

    seed: int = 1
    only: str = ""
    """Those of faults with this text in their name."""
    few: bool = False
    """A bounded run."""
    trials: int | None = None
    """So many of each fault in place of its own."""
    trial: int | None = None
    """The one of that number."""

    @property
    def faults(self) -> list[Fault]:
        return [fault for fault in FAULTS if self.only in fault.name]

    def numbers(self, fault: Fault, world: World) -> range:
        """A fault's trials: the first ones, or a few that are far apart."""
        if self.trial is not None:
            return range(self.trial, self.trial + 1)
        most = fault.trials if isinstance(fault.trials, int) else fault.trials(world)
        count = self.trials or (fault.few if self.few else most)
        step = max(most // max(count, 1), 1)
        return range(0, count * step, step)


def run(plan: Plan, jobs: int) -> Iterator[Result]:
    """Each trial's result as it comes. Raises ChildProcessError if a process fails, not a trial."""
    spawn = multiprocessing.get_context("spawn")
    parts, open_ends = [], []
    try:
        for part in range(jobs):
            results, say = spawn.Pipe(duplex=False)
            parts.append(spawn.Process(target=_carry_out, args=(plan, part, jobs, say)))
            parts[-1].start()
            say.close()
            open_ends.append(results)
        while open_ends:
            for results in wait(open_ends):
                assert isinstance(results, Connection)
                try:
                    yield results.recv()
                except EOFError:
                    open_ends.remove(results)
    finally:
        for process in parts:
            if open_ends:
                process.terminate()
            process.join()
    if any(process.exitcode for process in parts):
        raise ChildProcessError("a process of the suite itself has failed: see above")


def _carry_out(plan: Plan, part: int, parts: int, say: Connection) -> None:
    """One process: its share of each fault's trials."""
    end_in_order()
    suite = multiprocessing.parent_process()
    assert suite is not None
    threading.Thread(target=_end_with, args=(suite,), daemon=True).start()
    with world() as place:
        for turn, fault in enumerate(plan.faults):
            missing = fault.needs(place)
            if missing is not None:
                if part == 0:
                    say.send(Result(fault.name, -1, 0, None, None, 0, True, f"not run: {missing}"))
                continue
            fault.prepare(place)
            for number in plan.numbers(fault, place)[(part + turn) % parts :: parts]:
                say.send(_struck(fault, number, place, plan.seed))


def _struck(fault: Fault, number: int, place: World, seed: int) -> Result:
    result = attempt(fault, number, place, seed)
    for again in range(1, TRIES):
        if not result.missed or result.problem:
            break
        result = attempt(fault, number, place, seed, again)
    return result


def end_in_order() -> None:
    """When this process is ended, also by Ctrl-C, it first ends what it has started."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: FrameType | None) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for one in signals:
        signal.signal(one, end)


def _end_with(suite: "multiprocessing.process.BaseProcess") -> None:
    suite.join()
    with suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)
