"""A TCP port with TLS for the embedded PostgreSQL, which is built without TLS.

PostgreSQL's protocol (manual, "SSL Session Encryption"): the client asks with 8 bytes whether the
server speaks TLS, is answered S or N, and then both speak TLS on the same connection.
"""

import asyncio
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_SSL_REQUEST, _GSS_REQUEST = (number.to_bytes(4) for number in (80877103, 80877104))


class EncryptedPostgres:
    """Listens on 127.0.0.1 and forwards, decrypted, to the server's UNIX socket.

    It closes connections that do not ask for TLS, like a pg_hba.conf with only `hostssl` lines.
    Without a context it answers like a server without TLS, and continues in plain text.
    """

    def __init__(self, server: Path, context: ssl.SSLContext | None) -> None:
        self.port = 0
        self.encrypted = 0
        """Connections that spoke TLS."""
        self._server, self._context = str(server), context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._listener = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        self._listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (header := await reader.readexactly(8))[4:] in {_GSS_REQUEST, _SSL_REQUEST}:
                if header[4:] == _SSL_REQUEST and self._context is not None:
                    writer.write(b"S")
                    await writer.drain()
                    await writer.start_tls(self._context)
                    self.encrypted += 1
                    header = b""
                    break
                writer.write(b"N")
            else:
                if self._context is not None:
                    return
            upstream, downstream = await asyncio.open_unix_connection(self._server)
            downstream.write(header)
            await asyncio.gather(_pump(reader, downstream), _pump(upstream, writer))
        except (OSError, asyncio.IncompleteReadError):  # the client does not trust us, say
            return
        finally:
            writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    finally:
        target.close()
