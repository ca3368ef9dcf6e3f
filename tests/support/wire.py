"""A wire to PostgreSQL that can be cut: at any message, before or after the server has got it."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Cut = Callable[[int, bytes], str | None]
"""Of the n-th message to the server: None, or to cut "before" it, or "after" it is carried out."""


class Wire:
    """Forwards a UNIX socket in `folder` to the server's."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self.messages = itertools.count()
        self.cut: Cut = lambda number, data: None
        self.cuts = 0
        self._server = str(server)
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / server.name))
        self._listener.listen(50)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        """Like a server that goes away: no connection stays, none is accepted."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)

    def hang_up(self) -> None:
        for end in self._open:
            _close(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:  # it is being restarted
                server.close()
                _close(client)
                continue
            self._open += [client, server]
            lost = threading.Event()
            for pump in (self._to_server, self._to_client):
                thread = threading.Thread(target=pump, args=(client, server, lost))
                self._threads.append(thread)
                thread.start()

    def _to_server(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        for data in _received(client):
            when = self.cut(next(self.messages), data)
            if when is not None:
                self.cuts += 1
            if when == "before":
                break
            if when == "after":
                lost.set()
            with contextlib.suppress(OSError):
                server.sendall(data)
        if lost.is_set():  # the server carries it out, then sees that the client is gone
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            return
        _close(client)
        _close(server)

    def _to_client(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        for data in _received(server):
            if lost.is_set():  # the server has answered, but the client never hears it
                break
            with contextlib.suppress(OSError):
                client.sendall(data)
        _close(client)
        _close(server)


def _received(end: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := end.recv(1 << 16):
            yield data


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
