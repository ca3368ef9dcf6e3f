"""What the audit costs: throughput of scoring with the run's profile and without.

    python benchmarks/audit.py [--rows 1000000] [--columns 20] [--rounds 5]

The whole pipeline is measured, with everything on (Prefect, ledger, transactions), from an embedded
PostgreSQL and with a linear model, compared with which the profile costs the most. "Without"
counts rows alone, so that what is compared is counting, merging, and keeping the profile with each
chunk. The two take turns, each time in a new process, since other processes may be busy; the cost
is the median over the rounds. Exits with 1 if it is 10 % or more.

The cost of a chunk by itself is printed first: no database, no model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from memory import prepare

LIMIT = 0.10
CHUNK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--score", help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.score:
        print(json.dumps(measure(options.score, options.without)))
        return
    seconds = alone(options.columns)
    print(f"One chunk of {CHUNK:,} rows x {options.columns}: {1000 * seconds:.1f} ms by itself,")
    print(f"which is {CHUNK / seconds:,.0f} rows/s\n")
    with tempfile.TemporaryDirectory(prefix="nightshift-", ignore_cleanup_errors=True) as folder:
        cost = compare(Path(folder), options.rows, options.columns, options.rounds)
    print(f"\nThe profile costs {100 * cost:.1f} % of throughput (limit: {100 * LIMIT:.0f} %)")
    sys.exit(cost >= LIMIT)


def alone(columns: int, repeats: int = 20) -> float:
    """Seconds to profile a chunk, merge it and write the JSON; the median."""
    import numpy as np
    import pyarrow as pa

    from nightshift.adapters.profiles.profile import Profile

    rng = np.random.default_rng(0)
    inputs = pa.table({f"x{i}": rng.normal(size=CHUNK) for i in range(columns)})
    outputs = pa.table({"prediction": rng.normal(size=CHUNK)})
    reference = Profile.of(inputs, outputs)
    profile, taken = Profile(), []
    for _ in range(repeats):
        began = time.perf_counter()
        profile = profile.merged(Profile.of(inputs, outputs, reference))
        profile.to_json()
        taken.append(time.perf_counter() - began)
    return median(taken)


def compare(folder: Path, rows: int, columns: int, rounds: int) -> float:
    """The share of throughput that the profile takes."""
    from nightshift.flows.config.settings import load_settings
    from nightshift.flows.orchestrator.server import prefect_api

    prepare(folder, [rows], columns)
    os.chdir(folder)
    with prefect_api(load_settings().state_dir) as ready:
        ready()
        score(f"rows_{rows}", without=True)  # what is read first comes from the disk
        print(f"{'rows/s with':>14} {'without':>14} {'cost':>8} {'CPU cost':>9}")
        costs = []
        for number in range(rounds):
            turns = (True, False) if number % 2 else (False, True)
            pair = {without: score(f"rows_{rows}", without) for without in turns}
            counted, bare = pair[False], pair[True]
            costs.append(1 - counted["rows_per_second"] / bare["rows_per_second"])
            cpu = counted["cpu_seconds"] / bare["cpu_seconds"] - 1
            print(
                f"{counted['rows_per_second']:>14,.0f} {bare['rows_per_second']:>14,.0f} "
                f"{costs[-1]:>8.1%} {cpu:>9.1%}"
            )
    return median(costs)


def score(job: str, without: bool) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), "--score", job]
    command += ["--without"] if without else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(job: str, without: bool) -> dict[str, float]:
    """Score the job's whole table here; its speed, and this process's CPU."""
    from nightshift.adapters.profiles.profile import Profile
    from nightshift.flows.score import score

    if without:
        Profile.of = lambda _inputs, outputs, _reference=None: Profile(outputs.num_rows)  # type: ignore[method-assign]
    began = time.process_time()
    result = score(job, "all")
    cpu = time.process_time() - began
    return {"rows_per_second": result.rows_per_second, "cpu_seconds": cpu}


if __name__ == "__main__":
    main()
