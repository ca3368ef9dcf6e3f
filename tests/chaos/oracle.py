"""What must be true after a trial, and at every moment of it.

Readers see the previous publication or the wanted one, whole; the ledger counts exactly the rows
that are there; and nothing is left behind: no session, lock, table, thread, file or process.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import psycopg
from tests.chaos.leftover_processes import find_processes
from tests.chaos.scoring_process import KILLED
from tests.chaos.world import SEEN, Stage, View, eventually, relations


class Disagreement(AssertionError):
    """Something that must be true is not."""


def wrong_rows(seen: View, right: list[View]) -> int:
    """By how many rows the view differs from the nearest that it may be: missing, extra, other."""
    if seen in right:  # much faster than finding how they differ
        return 0

    def apart(one: View) -> int:
        return max((seen - one).total(), (one - seen).total())

    return min(apart(one) for one in right)


class Reader:
    """A reader that looks at the predictions all the time, on a connection of its own."""

    PAUSE = 0.02  # seconds

    def __init__(self, stage: Stage) -> None:
        self.looks = 0
        self.worst = 0
        """The most wrong rows that were seen at once."""
        self.example = ""
        self.problem: Exception | None = None
        """What kept this reader from reading on; a server that is away does not."""
        self._stage, self._over = stage, threading.Event()
        self._thread = threading.Thread(target=self._look, name="reader")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is not None:
            return
        if self.problem is not None:
            raise Disagreement(f"a reader could not read: {self.problem}") from self.problem
        if self.worst:
            raise Disagreement(f"a reader saw {self.worst} wrong rows: {self.example}")
        if not self.looks:
            raise Disagreement("a reader never saw anything")

    def _look(self) -> None:
        try:
            self._look_on()
        except Exception as error:
            self.problem = error

    def _look_on(self) -> None:
        stage, seen_wanted = self._stage, False
        place = stage.url.set(drivername="postgresql").render_as_string(hide_password=False)
        while not self._over.is_set():
            try:
                with psycopg.connect(place, autocommit=True, application_name="reader") as reader:
                    while not self._over.wait(self.PAUSE):
                        seen = self._seen(reader)
                        # What was published once must not become unpublished.
                        may = (
                            stage.wanted
                            if seen_wanted and not stage.forgets
                            else [stage.previous, *stage.wanted]
                        )
                        if wrong := wrong_rows(seen, may):
                            self.worst = max(self.worst, wrong)
                            self.example = str(describe(seen, may[-1]))
                        seen_wanted = seen_wanted or seen in stage.wanted
                        self.looks += 1
            except psycopg.OperationalError:  # the server is being restarted: part of the trial
                self._over.wait(self.PAUSE)

    def _seen(self, reader: psycopg.Connection) -> View:
        try:
            return Counter(reader.execute(SEEN).fetchall())
        except psycopg.errors.UndefinedTable:
            if self._stage.has_ledger:
                raise
            return Counter()


def check_ledger(stage: Stage) -> None:
    """The shards' counters, the chunks' sums and the rows that are there agree, for every run."""
    problems = list(_ledger_problems(stage))
    if problems:
        raise Disagreement("; ".join(problems))


_COUNTS = """
    SELECT r.run_id, s.shard, r.state, s.chunks_written, s.rows_written, s.rows_rejected,
        (SELECT coalesce(array_agg(c.chunk ORDER BY c.chunk), '{}') FROM nightshift_chunks c
         WHERE c.run_id = s.run_id AND c.shard = s.shard) AS chunks,
        (SELECT coalesce(sum(c.rows), 0) FROM nightshift_chunks c
         WHERE c.run_id = s.run_id AND c.shard = s.shard) AS rows,
        (SELECT coalesce(sum(c.rejected), 0) FROM nightshift_chunks c
         WHERE c.run_id = s.run_id AND c.shard = s.shard) AS rejected,
        (SELECT count(*) FROM nightshift_rejects j
         WHERE j.run_id = s.run_id AND j.shard = s.shard) AS rejects
    FROM nightshift_runs r LEFT JOIN nightshift_shards s USING (run_id) ORDER BY 1, 2"""


def _ledger_problems(stage: Stage) -> Iterator[str]:
    if not stage.has_ledger:
        return
    entered: dict[int, int] = {}
    states: dict[int, str] = {}
    for line in stage.sql(_COUNTS):
        name = f"run {line.run_id}, shard {line.shard}"
        if line.shard is None:
            yield f"{name} has no shard"
            continue
        entered[line.run_id] = entered.get(line.run_id, 0) + line.rows_written
        states[line.run_id] = line.state
        if line.chunks != list(range(line.chunks_written)):
            yield f"{name} counts {line.chunks_written} chunks and has {line.chunks}"
        if (line.rows_written, line.rows_rejected) != (line.rows, line.rejected):
            yield f"{name} counts {line.rows_written} rows, its chunks {line.rows}"
        if line.rows_rejected != line.rejects:
            yield f"{name} counts {line.rows_rejected} rejects and has {line.rejects}"
    there = dict(stage.sql("SELECT run_id, count(*) FROM order_scores_runs GROUP BY 1"))
    for run_id in entered.keys() | there.keys():
        counted, found = entered.get(run_id, 0), there.get(run_id, 0)
        if counted != found:
            yield f"run {run_id} counts {counted} rows, and {found} are there"
    pointer = "SELECT run_id, range_start, range_end FROM nightshift_published ORDER BY 2"
    shown = stage.sql(pointer)
    published = {run_id for run_id, state in states.items() if state == "published"}
    if {line.run_id for line in shown} != published:
        yield f"{published} are published, and the pointer shows {shown}"
    if any(before.range_end > after.range_start for before, after in pairwise(shown)):
        yield f"ranges overlap: {shown}"
    moved = Counter(
        row[0] for row in stage.sql("SELECT run_id FROM nightshift_publication_changes")
    )
    once = "SELECT run_id FROM nightshift_runs WHERE published_at IS NOT NULL"
    were = [row[0] for row in stage.sql(once)]
    if moved != Counter(were):
        yield f"{were} were published, and the moves are {moved}"


def check_leftovers(stage: Stage) -> None:
    """Once all its runs are over, nothing of them is there but their rows."""
    for process in stage.processes:
        outcome = process.outcome(1)
        if outcome.name != KILLED and outcome.left:
            raise Disagreement(f"left in the process of a run: {', '.join(outcome.left)}")
    stage.engine.dispose()
    others = "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database()"
    others += " AND pid <> pg_backend_pid() AND application_name <> 'reader'"
    eventually(lambda: not stage.sql(others), f"sessions that end: {stage.sql(others)}", 15)
    problems = {
        "prepared transactions": "SELECT gid FROM pg_prepared_xacts"
        " WHERE database = current_database()",
        "temporary tables": "SELECT relname FROM pg_class WHERE relpersistence = 't'",
        "advisory locks": "SELECT objid FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    }
    for what, query in problems.items():
        if left := stage.sql(query):
            raise Disagreement(f"left behind: {what}: {left}")
    if found := relations(stage) ^ stage.world.relations:
        raise Disagreement(f"left behind, or gone: {', '.join(sorted(found))}")
    eventually(lambda: not find_processes(stage.folder), "the end of all that it has started", 15)
    parts = [path.name for path in (stage.folder / "state").rglob("*.part")]
    if parts:
        raise Disagreement(f"left behind: {', '.join(parts)}")


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    into.append(time.monotonic() - started)


def describe(view: View, right: View) -> dict[str, Any]:
    """A few of the rows that differ, for the report of a failure."""
    return {"extra": list(view - right)[:5], "missing": list(right - view)[:5]}
