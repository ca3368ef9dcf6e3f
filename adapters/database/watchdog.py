"""Notices a database server that has stopped without closing its connections.

A server process that hangs, or whose disk does, keeps its connections; its kernel goes on
acknowledging packets, and its own timeouts have stopped with it. Only a clock on this side can
notice. If a question is not answered in time, all sockets of this process to that server are shut
down, whichever driver opened them: every wait on one of them fails like any lost connection and is
retried.
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

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.ticking import Ticker

PATIENCE = 90.0
"""Seconds to wait for an answer."""

_addresses: "defaultdict[Hashable, set[Any]]" = defaultdict(set)
"""Server -> the peer addresses of its connections."""


def track_connection(connection: Any, engine: sa.Engine) -> None:
    """Record a driver connection's peer address, so that the watchdog can shut it down."""
    end = getattr(connection, "_sock", None) or connection
    with (
        suppress(OSError, AttributeError),
        _duplicate(end.fileno()) as opened,
    ):  # lost already: its next use fails
        _addresses[_server(engine)].add(opened.getpeername())


@contextmanager
def watch(engine: sa.Engine) -> Iterator[None]:
    """Ask the server regularly whether it answers, so that nothing in here waits for ever.

    The watchdog has a connection of its own. A server that refuses it, or has no connection left,
    has answered.
    """
    if not capabilities(engine.dialect).is_server:
        yield
        return
    question = _Question(engine)
    try:
        with Ticker(question.ask, PATIENCE / 3, "watchdog", first=PATIENCE / 30):
            yield
    finally:
        question.give_up()


class _Question:
    """`SELECT 1`, asked again and again on one connection."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: sa.Connection | None = None

    def ask(self) -> None:
        try:
            with _answered_in_time(_server(self._engine)):
                if self._connection is None:
                    self._connection = self._engine.connect()
                self._connection.exec_driver_sql("SELECT 1")
        except (
            sa.exc.SQLAlchemyError,
            OSError,
        ):  # the query that waits for the server sees it, too
            self.give_up()

    def give_up(self) -> None:
        """Close the connection without a word to the server, which may not answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sa.exc.SQLAlchemyError, OSError):
                connection.invalidate()
                connection.close()


@contextmanager
def _answered_in_time(server: Hashable) -> Iterator[None]:
    """Shut down all connections to the server if this block takes longer than PATIENCE."""
    answered = threading.Event()

    def shut_down_unless_answered() -> None:
        if not answered.wait(PATIENCE / 9):  # the answer may be here, and this process was busy
            _shut_down(server)

    alarm = threading.Timer(PATIENCE, shut_down_unless_answered)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        answered.set()
        alarm.cancel()


def _shut_down(server: Hashable) -> None:
    for file in Path("/dev/fd").iterdir():
        with suppress(OSError):  # closed already, or not connected
            number = int(file.name)
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with _duplicate(number) as opened:
                    if opened.getpeername() in _addresses[server]:
                        opened.shutdown(socket.SHUT_RDWR)


def _duplicate(number: int) -> socket.socket:
    """Another handle of a socket that a driver has opened; closing this one leaves it open."""
    return socket.socket(fileno=os.dup(number))


def _server(engine: sa.Engine) -> Hashable:
    url = engine.url
    where = url.query.get("host") or url.query.get("unix_socket")
    return url.get_backend_name(), url.host, url.port, where
