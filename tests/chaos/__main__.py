"""Break the world in every way that is listed, and report what readers saw."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from tests.chaos.report import Report
from tests.chaos.suite import KILLS, Plan, end_in_order, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides all that happens by chance")
    parser.add_argument("--few", action="store_true", help="a few trials of each fault only")
    parser.add_argument("--trials", type=int, help="so many of each fault in place of its own")
    parser.add_argument("--only", default="", help="faults whose name has this text")
    parser.add_argument("--trial", type=int, help="only the trial of that number")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (2)")
    parser.add_argument("--list", action="store_true", help="list the faults and end")
    parser.add_argument("--json", type=Path, help="write the report there, too")
    parser.add_argument("--markdown", type=Path, help="write the table there, too")
    given = parser.parse_args()
    plan = Plan(given.seed, given.only, given.few, given.trials, given.trial)
    if given.list:
        print(*(fault.name for fault in plan.faults), sep="\n")
        return 0
    if not plan.faults:
        parser.error(f"no fault has {given.only!r} in its name")
    end_in_order()
    started, results = time.monotonic(), []
    for result in run(plan, jobs=1 if given.trial is not None else given.jobs):
        results.append(result)
        outcome = "the fault did not come" if result.missed else f"{result.recovered or 0:.1f} s"
        outcome = result.problem or outcome
        print(f"{result.fault} {result.number}: {outcome}", file=sys.stderr, flush=True)
    order = [fault.name for fault in plan.faults]
    results.sort(key=lambda result: (order.index(result.fault), result.number))
    command = shlex.join(["python", "-m", "tests.chaos", *sys.argv[1:]])
    report = Report.of(command, given.seed, time.monotonic() - started, results)
    print(report.text())
    problems = report.problems
    if plan == Plan(plan.seed) and report.kills < KILLS:
        problems.append(f"a process was killed in {report.kills} trials, fewer than {KILLS}")
    print(*problems, sep="\n")
    if given.json:
        given.json.write_text(report.json() + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text(report.markdown() + "\n", encoding="utf-8")
    if any(result.wrong_rows for result in results):
        return 3  # which nothing excuses
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
