"""Run a contestant as a process of its own and see what it takes: time, CPU, memory."""

import json
import os
import platform
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil

_EVERY = 0.25
"""Seconds between looks at a contestant's processes."""


class ContestantFailed(Exception):
    """It ended with an error, or said nothing."""

    def __init__(self, name: str, output: str) -> None:
        super().__init__(name, output)
        self.name, self.output = name, output

    def __str__(self) -> str:
        return f"{self.name} failed:\n{self.output}"


class Watch(threading.Thread):
    """Memory and CPU of a process and all that it has started, now and then."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._root, self._stopped = process, threading.Event()
        self._cpu: dict[int, float] = {}
        self.peak = 0.0

    def run(self) -> None:
        while not self._stopped.wait(_EVERY):
            private, shared = 0, 0
            for process in family(self._root):
                try:
                    memory = process.memory_info()
                    used = process.cpu_times()
                except psutil.Error:
                    continue
                self._cpu[process.pid] = used.user + used.system
                private += memory.rss - memory.shared
                shared = max(shared, memory.shared)
            self.peak = max(self.peak, (private + shared) / 1e6)

    def stop(self) -> tuple[float, float]:
        """MB at the peak, and CPU seconds."""
        self._stopped.set()
        self.join()
        return self.peak, sum(self._cpu.values())


def family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def run(
    python: str, script: Path, task: dict[str, Any], environment: dict[str, str], limit: float
) -> dict[str, float]:
    """What the contestant reported, and its peak memory and CPU with all its processes."""
    process = subprocess.Popen(
        [python, str(script), json.dumps(task)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=task["folder"],
    )
    watch = Watch(psutil.Process(process.pid))
    watch.start()
    began = time.perf_counter()
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        for member in reversed(family(psutil.Process(process.pid))):
            member.kill()
        raise ContestantFailed(script.stem, f"not done after {limit:,.0f} s") from error
    finally:
        peak, cpu = watch.stop()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        raise ContestantFailed(script.stem, f"{output[-2000:]}\n{errors[-4000:]}")
    found: dict[str, float] = json.loads(lines[-1])
    found["peak_mb"] = max(found["peak_mb"], peak)
    found["tree_cpu_seconds"] = cpu
    found["process_seconds"] = time.perf_counter() - began
    return found


def server_cpu(data: Path) -> float:
    """CPU seconds of all of a PostgreSQL server's processes so far, the ended ones, too."""
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    total = 0.0
    for index, process in enumerate(family(postmaster)):
        try:
            used = process.cpu_times()
        except psutil.Error:
            continue
        total += used.user + used.system
        if index == 0:
            total += used.children_user + used.children_system
    return total


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
