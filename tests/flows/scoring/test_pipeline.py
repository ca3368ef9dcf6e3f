"""Reading, predicting and writing overlap, and fail in the chunks' order."""

import gc
import itertools
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshift.flows.scoring.pipeline import overlapped

PATIENCE = 10.0  # seconds; only a test that fails waits for it
STAGES = ("read", "predict", "write")


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@dataclass
class Recorder:
    """Three stages that note what they did, and fail where they should."""

    rows: int
    failures: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    read: list[int] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    def chunks(self) -> Generator[int, None, None]:
        for chunk in range(self.rows):
            self._note("read", chunk)
            yield chunk
        self._note("read", self.rows)
        self.read.pop()

    def predict(self, chunk: int) -> int:
        self._note("predict", chunk)
        return chunk * 10

    def write(self, scored: int) -> None:
        self._note("write", scored // 10)

    def run(self, depth: int = 2) -> Generator[int, None, None]:
        return overlapped(self.chunks(), self.predict, self.write, depth)

    def _note(self, stage: str, chunk: int) -> None:
        if (stage, chunk) in self.failures:
            raise self.failures[stage, chunk]
        done = {"read": self.read, "predict": self.predicted, "write": self.written}
        done[stage].append(chunk)


class Failure(Exception):
    """Something that only this test raises."""


# --- when all goes well -------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 5))
def test_every_chunk_once_in_order(rows: int, depth: int) -> None:
    stages = Recorder(rows)
    assert list(stages.run(depth)) == [10 * chunk for chunk in range(rows)]
    assert stages.read == stages.predicted == stages.written == list(range(rows))


def test_no_chunks() -> None:
    assert list(Recorder(0).run()) == []


def test_a_chunk_is_yielded_once_it_is_written() -> None:
    stages = Recorder(10)
    for count, scored in enumerate(stages.run()):
        assert scored // 10 == count
        assert stages.written[count] == count


def test_nothing_happens_before_it_is_asked_for() -> None:
    stages = Recorder(3)
    stages.run().close()
    assert stages.read == []


def test_the_caller_predicts_and_one_thread_each_reads_and_writes() -> None:
    threads: dict[str, set[threading.Thread]] = {stage: set() for stage in STAGES}

    def seen(stage: str, value: int) -> int:
        threads[stage].add(threading.current_thread())
        return value

    def write(chunk: int) -> None:
        seen("write", chunk)

    chunks = (seen("read", chunk) for chunk in range(20))
    done = overlapped(chunks, lambda chunk: seen("predict", chunk), write)
    assert len(list(done)) == 20
    assert threads["predict"] == {threading.current_thread()}
    assert [len(threads[stage]) for stage in STAGES] == [1, 1, 1]
    assert len(set.union(*threads.values())) == 3


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_three_stages_run_at_the_same_time(depth: int) -> None:
    """Chunk 2 is read, 1 predicted and 0 written, each waiting until the others are at it."""
    together = threading.Barrier(3)

    def meet(stage: str, chunk: int) -> int:
        if (stage, chunk) in {("read", 2), ("predict", 1), ("write", 0)}:
            together.wait(PATIENCE)
        return chunk

    def write(chunk: int) -> None:
        meet("write", chunk)

    chunks = (meet("read", chunk) for chunk in range(6))
    done = overlapped(chunks, lambda chunk: meet("predict", chunk), write, depth)
    assert list(done) == list(range(6))


class Chunk:
    """Something that can be counted while it is held."""


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("slow", ["write", "predict"])
def test_what_is_held_is_bounded(slow: str, depth: int) -> None:
    """However slow a stage, 2 x depth + 1 chunks and no more are held, of any number."""
    held: weakref.WeakSet[Chunk] = weakref.WeakSet()
    most, ahead = 0, depth if slow == "predict" else 2 * depth
    enough_read = threading.Event()

    def read() -> Iterator[Chunk]:
        nonlocal most
        for count in range(60):
            if count == ahead:
                enough_read.set()
            chunk = Chunk()
            held.add(chunk)
            most = max(most, len(held))
            yield chunk
            del chunk

    def wait(chunk: Chunk) -> Chunk:
        assert enough_read.wait(PATIENCE)  # as far ahead as ever, before this one goes on
        return chunk

    def write(chunk: Chunk) -> None:
        if slow == "write":
            wait(chunk)

    predict: Callable[[Chunk], Chunk] = wait if slow == "predict" else lambda chunk: chunk
    assert sum(1 for _ in overlapped(read(), predict, write, depth)) == 60
    assert depth < most <= 2 * depth + 2  # one of them is in the hands of the caller


# --- when a stage fails -------------------------------------------------------------------------


@settings(deadline=None)
@given(
    rows=st.integers(1, 8),
    depth=st.integers(1, 3),
    places=st.sets(st.tuples(st.sampled_from(STAGES), st.integers(0, 7)), min_size=1, max_size=4),
)
def test_the_first_failure_in_order_is_raised_and_all_before_it_is_written(
    rows: int, depth: int, places: set[tuple[str, int]]
) -> None:
    failures: dict[tuple[str, int], BaseException] = {place: Failure(*place) for place in places}
    stages = Recorder(rows, failures)
    order = [
        (stage, chunk)
        for chunk in range(rows + 1)
        for stage in STAGES
        if (stage, chunk) in failures
    ]
    reached = [place for place in order if place[1] < rows or place == ("read", rows)]
    if not reached:
        assert len(list(stages.run(depth))) == rows
        return
    yielded: deque[int] = deque()
    with pytest.raises(Failure) as raised:
        yielded.extend(scored // 10 for scored in stages.run(depth))
    assert raised.value is failures[reached[0]]
    assert stages.written == list(range(reached[0][1]))
    assert list(yielded) == stages.written


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", [Failure, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_surfaces_as_itself(stage: str, kind: type[BaseException]) -> None:
    error = kind("why")
    stages = Recorder(6, {(stage, 3): error})
    with pytest.raises(kind) as raised:
        list(stages.run())
    assert raised.value is error
    assert "_note" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert stages.written == list(range(len(stages.written)))
    assert len(stages.written) <= 3


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_iteration_does_not_pass_for_the_end(stage: str) -> None:
    stages = Recorder(6, {(stage, 3): StopIteration("not the end")})
    with pytest.raises(RuntimeError) as raised:
        list(stages.run())
    assert isinstance(raised.value.__cause__, StopIteration)
    assert stages.written == [0, 1, 2]


def test_a_failed_write_is_not_hidden_by_a_later_failed_prediction() -> None:
    predicting, failed = threading.Event(), Failure("write")

    def predict(chunk: int) -> int:
        if chunk == 1:
            predicting.set()
            raise ValueError("predict")
        return chunk

    def write(_: int) -> None:
        assert predicting.wait(PATIENCE)
        raise failed

    with pytest.raises(Failure) as raised:
        list(overlapped(iter(range(5)), predict, write))
    assert raised.value is failed


def test_a_source_that_goes_on_after_its_error_is_not_followed() -> None:
    class Stubborn(Iterator[int]):
        count = -1

        def __next__(self) -> int:
            self.count += 1
            if self.count == 2:
                raise Failure
            return self.count

    written: list[int] = []
    with pytest.raises(Failure):
        list(overlapped(Stubborn(), lambda chunk: chunk, written.append))
    assert written == [0, 1]


def test_what_failed_is_let_go() -> None:
    held: weakref.WeakSet[Chunk] = weakref.WeakSet()

    def read() -> Iterator[Chunk]:
        for _ in range(9):
            chunk = Chunk()
            held.add(chunk)
            yield chunk

    def predict(chunk: Chunk) -> Chunk:
        if len(held) > 2:
            raise Failure
        return chunk

    with suppress(Failure):  # pytest.raises would keep the traceback, and its frames the chunks
        list(overlapped(read(), predict, lambda _: None))
    gc.collect()
    assert not held


# --- when the caller goes away ------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closed_early(taken: int) -> None:
    stages = Recorder(1000)
    done = stages.run()
    assert len(list(itertools.islice(done, taken))) == taken
    done.close()
    read, written = list(stages.read), list(stages.written)
    assert written == list(range(len(written)))
    assert len(read) <= taken + 5
    assert list(done) == []
    assert (stages.read, stages.written) == (read, written)


def test_closed_while_a_read_and_a_write_are_under_way() -> None:
    """Both come to their end, none begins after them, and the source can be closed at once."""
    reading, writing, go_on = threading.Event(), threading.Event(), threading.Event()
    written = []

    def read() -> Generator[int, None, None]:
        for chunk in range(100):
            if chunk == 4:
                reading.set()
                assert go_on.wait(PATIENCE)
            yield chunk

    def write(chunk: int) -> None:
        if chunk == 0:
            assert reading.wait(PATIENCE)
        if chunk == 1:
            writing.set()
            assert go_on.wait(PATIENCE)
        written.append(chunk)

    with closing(read()) as source:
        done = overlapped(source, lambda chunk: chunk, write)
        assert next(done) == 0
        assert writing.wait(PATIENCE)
        release = threading.Timer(0.05, go_on.set)
        release.start()
        done.close()
        release.join()
        assert go_on.is_set()  # so close() waited
    assert written == [0, 1]


def test_the_consumer_raises() -> None:
    stages = Recorder(100)

    def consume() -> None:
        with closing(stages.run()) as done:
            for _ in done:
                raise Failure

    with pytest.raises(Failure):
        consume()
    assert len(stages.read) <= 6


def test_ctrl_c_while_a_write_is_under_way() -> None:
    main = threading.main_thread().ident
    assert main is not None
    predicted, written = threading.Event(), []

    def predict(chunk: int) -> int:
        if chunk == 2:
            predicted.set()  # from now on, the write of chunk 0 is waited for
        return chunk

    def write(chunk: int) -> None:
        if chunk == 0:
            assert predicted.wait(PATIENCE)
            signal.pthread_kill(main, signal.SIGINT)
        written.append(chunk)

    with pytest.raises(KeyboardInterrupt):
        list(overlapped(iter(range(10_000)), predict, write))
    assert 1 <= len(written) < 10_000
    assert written == list(range(len(written)))
