"""Processes that programs have begun which a trial, or the whole suite, has begun."""

from contextlib import suppress
from pathlib import Path

import psutil


def begun_in(folder: Path) -> list[psutil.Process]:
    """Those that were given a path in this folder, and so may be in a session of their own."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            given = [*process.cmdline(), *process.environ().values()]
            if any(str(folder) in value for value in given):
                found.append(process)
    return found


def end_all(folder: Path) -> None:
    """kill -9 of these; until there is none, as each may begin others first."""
    while found := begun_in(folder):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)
