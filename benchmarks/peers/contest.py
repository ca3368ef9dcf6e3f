"""What all contestants share: the task they are given, the model, the report they give back."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 50_000
"""Rows at a time, for all who work in chunks."""


@dataclass(frozen=True)
class Task:
    """Score `table` and append (id, prediction) to `target`, which exists and is empty."""

    url: str
    """postgresql://user@/database?host=/folder&port=N: PostgreSQL on a Unix socket."""
    table: str
    columns: list[str]
    """The model's inputs in the model's order, without the key `id`."""
    target: str
    model: str
    folder: str
    rows: int
    mixed: bool
    port: int
    """On 127.0.0.1, for those who cannot use a Unix socket."""

    @property
    def select(self) -> str:
        return f"SELECT id, {', '.join(self.columns)} FROM {self.table}"

    @property
    def host(self) -> str:
        return self.url.partition("host=")[2].partition("&")[0]


def task() -> Task:
    return Task(**json.loads(sys.argv[1]))


def load_model(given: Task) -> Any:
    """The model as its library has it."""
    file = Path(given.folder) / f"{given.model}.joblib"
    if file.exists():
        import joblib

        return joblib.load(file)
    import torch

    return torch.load(file.with_suffix(".pt"), weights_only=False).eval()


def predictor(given: Task) -> Callable[[Any], Any]:
    """A function from a frame or matrix of the columns to predictions, (m,)."""
    model = load_model(given)
    if given.model != "network":
        return model.predict  # type: ignore[no-any-return]
    import numpy as np
    import torch

    def predict(features: Any) -> Any:
        with torch.inference_mode():
            matrix = np.ascontiguousarray(features, np.float32)
            return model(torch.from_numpy(matrix)).numpy()[:, 0]

    return predict


class Stopwatch:
    """Measures what is done inside `with`; the model and all libraries are there before."""

    def __enter__(self) -> "Stopwatch":
        self._cpu = _cpu()
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            seconds = time.perf_counter() - self._began
            report(seconds=seconds, cpu_seconds=_cpu() - self._cpu)


@contextmanager
def sampled() -> Iterator[None]:
    """Run profilers at the same time, if benchmarks/flame.py asks for them."""
    with ExitStack() as started:
        for command in json.loads(os.environ.get("BENCHMARK_PROFILERS", "[]")):
            command = [word.replace("{pid}", str(os.getpid())) for word in command]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            started.callback(process.communicate)
            started.callback(process.send_signal, signal.SIGINT)
            time.sleep(1)  # until it has started
        yield


def report(**found: Any) -> None:
    print("\n" + json.dumps({"peak_mb": peak_mb(), **found}), flush=True)


def peak_mb() -> float:
    """The most memory that this process had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count what the process had before it became this program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _cpu() -> float:
    """CPU seconds of this process; what it leaves to others, the one who started it counts."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
