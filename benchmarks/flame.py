"""Where a run's CPU goes: Nightshift's own stacks as a flame graph and as shares, and the server's.

    python benchmarks/flame.py linear linear.svg [--rows 2000000]

py-spy (in the peers' environment, benchmarks/requirements.txt) samples the scoring process where it
is busy; Linux's perf, if it is installed, PostgreSQL. Each profiles a run of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from compare import arena, take_turn  # noqa: E402
from models import MODELS  # noqa: E402

MOST = 12
"""Lines of a table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("picture", type=Path, help="where to write the flame graph, as SVG")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--spy", default=str(HERE.parent / ".venv/bench/bin/py-spy"))
    options = parser.parse_args()
    picture = options.picture.resolve()
    picture.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="nightshift-", ignore_cleanup_errors=True) as folder,
        arena(Path(folder), options.rows, [options.model]) as place,
    ):
        turn = Namespace(rows=options.rows, limit=900.0, peers=sys.executable)
        stacks, server = Path(folder) / "stacks", Path(folder) / "perf.data"
        spy = [
            options.spy,
            "record",
            "--pid",
            "{pid}",
            "--threads",
            "--rate",
            "200",
            "--nonblocking",
        ]
        perf = ["perf", "record", "--all-cpus", "--event", "cpu-clock", "--output", str(server)]
        for profilers in (
            [[*spy, "--format", "raw", "--output", str(stacks)]],
            [[*spy, "--output", str(picture)]],
            [perf] if shutil.which("perf") else [],
        ):
            os.environ["BENCHMARK_PROFILERS"] = json.dumps(profilers)
            take_turn(place, options.model, "nightshift", turn)
        drawn = picture.read_text()  # its title is py-spy's command, with where things are here
        picture.write_text(drawn.replace(options.spy, "py-spy").replace(str(picture), picture.name))
        print(shares(Counter(folded(stacks))))
        if server.exists():
            print(servers(server))


def folded(stacks: Path) -> Iterator[tuple[str, str]]:
    """Each sample's thread and innermost function."""
    for line in stacks.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        thread, *calls = frames.split(";")
        name = thread.rpartition(": ")[2]  # before it: `thread (0x7f00)`
        yield from [(name, calls[-1] if calls else "")] * int(count)


def shares(samples: "Counter[tuple[str, str]]") -> str:
    total, threads = samples.total(), Counter[str]()
    for (thread, _), count in samples.items():
        threads[thread] += count
    lines = [f"{total:,} samples of the scoring process", "", "| thread | share |", "|---|--:|"]
    lines += [f"| {name} | {n / total:.1%} |" for name, n in threads.most_common(MOST // 2)]
    lines += ["", "| function | thread | share |", "|---|---|--:|"]
    lines += [f"| `{f}` | {t} | {n / total:.1%} |" for (t, f), n in samples.most_common(MOST)]
    return "\n".join(lines)


def servers(data: Path) -> str:
    """The functions that PostgreSQL's processes were in."""
    command = ["perf", "report", "--input", str(data), "--comm", "postgres", "--stdio"]
    command += ["--sort", "symbol", "--percentage", "relative"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in report.splitlines() if line[:1] == " " and "%" in line]
    rows = [f"| `{' '.join(words[2:])}` | {words[0]} |" for words in lines[:MOST]]
    return "\n".join(["\nPostgreSQL", "", "| function | share |", "|---|--:|", *rows])


if __name__ == "__main__":
    main()
