"""Processes started by the programs that a trial, or the whole suite, has started."""

from contextlib import suppress
from pathlib import Path

import psutil


def find_processes(folder: Path) -> list[psutil.Process]:
    """Those that were given a path in this folder, and so may be in a session of their own."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            given = [*process.cmdline(), *process.environ().values()]
            if any(str(folder) in value for value in given):
                found.append(process)
    return found


def end_all(folder: Path) -> None:
    """kill -9 of these; repeated until there are none, as each may start others first."""
    while found := find_processes(folder):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)
