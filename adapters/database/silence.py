"""A server that has stopped, and does not say so: whoever waits for it is woken.

A process that hangs, or whose disk does, keeps its connections; its machine goes on acknowledging
what is sent, and its own time-outs stand still with it. So nothing but a clock of ours can tell. A
question that gets no answer has all sockets of this process to that server closed, whichever driver
has opened them: what waits on one of them fails as after any lost connection, and is tried again.
"""

import os
import socket
import stat
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

PATIENCE = 90.0
"""Seconds for an answer."""

_places: "defaultdict[Hashable, set[Any]]" = defaultdict(set)
"""Of each server, the addresses that its connections have led to."""


def remember(connection: Any, engine: sa.Engine) -> None:
    """Where a driver's connection leads to, so that all that lead there can be closed."""
    end = getattr(connection, "_sock", None) or connection
    with _same(end.fileno()) as opened:
        _places[_server(engine)].add(opened.getpeername())


@contextmanager
def watched(engine: sa.Engine) -> Iterator[None]:
    """Ask the server now and then whether it is there: nothing in here waits for it for ever."""
    stopped, server = threading.Event(), _server(engine)

    def ask() -> None:
        alarm: threading.Timer | None = None
        while not stopped.wait(PATIENCE / 3):
            if server not in _places:
                continue
            if alarm is None or not alarm.is_alive():
                alarm = threading.Timer(PATIENCE, _wake, (server,))
                alarm.daemon = True
                alarm.start()
            with (
                suppress(sa.exc.SQLAlchemyError, OSError),  # a refusal to connect is no answer
                engine.connect() as connection,
            ):
                connection.exec_driver_sql("SELECT 1")
                alarm.cancel()
        if alarm is not None:
            alarm.cancel()

    thread = threading.Thread(target=ask, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _wake(server: Hashable) -> None:
    for file in Path("/dev/fd").iterdir():
        with suppress(OSError):  # it is closed already, or leads nowhere
            number = int(file.name)
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with _same(number) as opened:
                    if opened.getpeername() in _places[server]:
                        opened.shutdown(socket.SHUT_RDWR)


def _same(number: int) -> socket.socket:
    """A socket that another library has opened; closing this one leaves it open."""
    return socket.socket(fileno=os.dup(number))


def _server(engine: sa.Engine) -> Hashable:
    url = engine.url
    where = url.query.get("host") or url.query.get("unix_socket")
    return url.get_backend_name(), url.host, url.port, where
