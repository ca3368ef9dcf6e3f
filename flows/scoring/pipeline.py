"""Read | predict | write, overlapped. Knows nothing of Prefect, databases or models."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Chunk = TypeVar("Chunk")
Scored = TypeVar("Scored")

_END = object()


def overlapped(
    chunks: Iterator[Chunk],
    predict: Callable[[Chunk], Scored],
    write: Callable[[Scored], None],
    depth: int = 2,
) -> Generator[Scored, None, None]:
    """Yield each chunk once it is written, in order.

    One thread reads ahead, the caller's thread predicts, one thread writes behind; at most
    2 x `depth` + 1 chunks are held. When reading, predicting or writing a chunk fails, the
    chunks before it are written and yielded, none after it is, and its error is raised. An
    interrupt, or closing the generator, waits only for the read and the write under way; close
    it before the source of its chunks.
    """
    broken = False

    def write_in_turn(scored: Scored) -> Scored:
        nonlocal broken
        if broken:
            raise RuntimeError("an earlier chunk was not written")
        try:
            write(scored)
        except BaseException:
            broken = True
            raise
        return scored

    def writes() -> Iterator[Future[Scored]]:
        """Each chunk's write, in order; a failed read or prediction is the last of them."""
        try:
            ahead.extend(reader.submit(next, chunks, _END) for _ in range(depth))
            while (chunk := ahead.popleft().result()) is not _END:
                ahead.append(reader.submit(next, chunks, _END))
                yield writer.submit(write_in_turn, predict(chunk))  # type: ignore[arg-type]
        except Exception as error:
            failed = Future[Scored]()
            failed.set_exception(error)
            yield failed

    reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
    ahead: deque[Future[Chunk | object]] = deque()
    behind: deque[Future[Scored]] = deque()
    try:
        for written in writes():
            behind.append(written)
            while behind and (len(behind) > depth or behind[0].done()):
                yield behind.popleft().result()
        while behind:
            yield behind.popleft().result()
    finally:
        for wait in (False, True):  # nothing new begins while the other is waited for
            for executor in (reader, writer):
                executor.shutdown(wait, cancel_futures=True)
