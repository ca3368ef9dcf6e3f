"""All faults, carried out one after the other."""

from collections.abc import Iterator, Sequence

from tests.chaos import databases, orchestration, processes, sources, stores
from tests.chaos.trial import Fault, Result, attempt
from tests.chaos.world import World

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


def numbers(fault: Fault, world: World, few: bool, trials: int | None, only: int | None) -> range:
    """Which of a fault's trials to carry out: the first ones, or a few that are far apart."""
    if only is not None:
        return range(only, only + 1)
    most = fault.trials if isinstance(fault.trials, int) else fault.trials(world)
    count = trials or (fault.few if few else most)
    step = max(most // max(count, 1), 1)
    return range(0, count * step, step)


def run(
    faults: Sequence[Fault],
    world: World,
    seed: int,
    few: bool = False,
    trials: int | None = None,
    only: int | None = None,
) -> Iterator[Result]:
    """Each trial's result as it comes."""
    for fault in faults:
        missing = fault.needs(world)
        if missing is not None:
            yield Result(fault.name, -1, 0, None, None, 0, True, f"not run: {missing}")
            continue
        fault.prepare(world)
        for number in numbers(fault, world, few, trials, only):
            result = attempt(fault, number, world, seed)
            for again in range(1, TRIES):
                if not result.missed or result.problem:
                    break
                result = attempt(fault, number, world, seed, again)
            yield result
