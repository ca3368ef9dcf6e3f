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
"""Seconds for an answer, and for this process to take it in."""

_FILES = ("sqlite", "duckdb")

_places: "defaultdict[Hashable, set[Any]]" = defaultdict(set)
"""Of each server, the addresses that its connections have led to."""


def remember(connection: Any, engine: sa.Engine) -> None:
    """Where a driver's connection leads to, so that all that lead there can be closed."""
    end = getattr(connection, "_sock", None) or connection
    with suppress(OSError), _same(end.fileno()) as opened:  # lost already: its next use says so
        _places[_server(engine)].add(opened.getpeername())


@contextmanager
def watched(engine: sa.Engine) -> Iterator[None]:
    """Ask the server now and then whether it is there: nothing in here waits for it for ever.

    Asked on a connection of its own, so that a server that has no place for another, or refuses
    one, is not taken for silent.
    """
    stopped, server = threading.Event(), _server(engine)

    def ask() -> None:
        connection: sa.Connection | None = None
        pause = PATIENCE / 30
        while not stopped.wait(pause):
            pause = PATIENCE / 3
            try:
                with _awaited(server):
                    if connection is None:
                        plain = {"isolation_level": "AUTOCOMMIT"}
                        connection = engine.connect().execution_options(**plain)
                    connection.exec_driver_sql("SELECT 1")
            except (sa.exc.SQLAlchemyError, OSError):  # whoever waits finds out as well
                _give_up(connection)
                connection = None
        _give_up(connection)

    thread = threading.Thread(target=ask, name="watch", daemon=True)
    if engine.dialect.name not in _FILES:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if thread.ident is not None:
            thread.join()


@contextmanager
def _awaited(server: Hashable) -> Iterator[None]:
    """Close all that lead to the server if this is not over in time."""
    answered = threading.Event()

    def unless_answered() -> None:
        if not answered.wait(PATIENCE / 9):  # it may be there, and this process was busy
            _wake(server)

    alarm = threading.Timer(PATIENCE, unless_answered)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        answered.set()
        alarm.cancel()


def _give_up(connection: sa.Connection | None) -> None:
    """Close it without a word to the server, which may not answer."""
    if connection is not None:
        with suppress(sa.exc.SQLAlchemyError, OSError):
            connection.invalidate()
            connection.close()


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
