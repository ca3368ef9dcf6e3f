"""A server that has stopped, and does not say so: whoever waits for it is woken.

A process that hangs, or whose disk does, keeps its connections; its machine goes on acknowledging
what is sent, and its own time-outs stand still with it. So nothing but a clock of ours can tell. A
heartbeat that gets no answer has all connections of this process to that server closed: what waits
on one of them fails as after any lost connection, and is tried again.
"""

import os
import socket
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

PATIENCE = 90.0
"""Seconds for an answer, at least; a lock may be waited for, for a minute."""

_connections: "WeakKeyDictionary[Any, Hashable]" = WeakKeyDictionary()


def remember(connection: Any, engine: sa.Engine) -> None:
    """A driver's connection, so that it can be closed from outside."""
    _connections[connection] = _server(engine)


@contextmanager
def bounded(engine: sa.Engine, seconds: float) -> Iterator[None]:
    """What is asked of the server in here fails if that takes longer; and all else with it."""
    timer = threading.Timer(max(seconds, PATIENCE), _wake, (_server(engine),))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _wake(server: Hashable) -> None:
    for connection, place in list(_connections.items()):
        if place == server:
            with suppress(Exception):  # it is closed already
                end = getattr(connection, "_sock", None) or connection
                with socket.socket(fileno=os.dup(end.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)


def _server(engine: sa.Engine) -> Hashable:
    url = engine.url
    where = url.query.get("host") or url.query.get("unix_socket")
    return url.get_backend_name(), url.host, url.port, where
