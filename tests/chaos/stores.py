"""An S3 server that is away, slow, or gives half of what was asked for."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from tests.chaos.trial import Fault, Trial
from tests.chaos.world import World
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

Answer = Iterable[bytes]
App = Callable[[dict[str, Any], Any], Answer]

ACCESS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
BUCKET, PREFIX = "models", "store"


class Server:
    """A real S3 server over HTTP, with a fault between it and those who ask."""

    def __init__(self, folder: Path) -> None:
        """`folder` is a model store, of which the bucket gets a copy."""
        self._app: App = DomainDispatcherApplication(create_backend_app)
        self.heal()
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self.start()
        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **ACCESS)
        self.client.create_bucket(Bucket=BUCKET)
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                self.put(path.relative_to(folder).as_posix(), path.read_bytes())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """For runs that load their model from here, and are not very patient."""
        given = {
            "URL": f"s3://{BUCKET}/{PREFIX}",
            "ENDPOINT_URL": self.url,
            "REGION": "us-east-1",
            "KEY": "key",
            "SECRET": "secret",
            "CONNECT_TIMEOUT": "1",
            "READ_TIMEOUT": "1",
            "RETRIES": "1",
        }
        return {f"NIGHTSHIFT_STORE__{name}": value for name, value in given.items()}

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=data)

    def start(self) -> None:
        server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=_Quiet)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, name="s3", daemon=True).start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def heal(self) -> None:
        self.fault: Callable[[App, dict[str, Any], Any], Answer] = lambda app, *asked: app(*asked)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Answer:
        return self.fault(self._app, environ, start_response)


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Not a line per request, nor one for each that is broken on purpose."""


def is_blob(environ: dict[str, Any]) -> bool:
    return environ["REQUEST_METHOD"] == "GET" and "/blobs/" in environ["PATH_INFO"]


def server(world: World) -> Server:
    """The world's; started when it is first needed."""
    if "s3" not in world.more:
        made = Server(Path(world.environment["NIGHTSHIFT_STORE__URL"]))
        world.more["s3"] = made
        world.opened.callback(made.stop)
    found: Server = world.more["s3"]
    found.heal()
    return found


# --- what is done to it -------------------------------------------------------------------------


def down_at_start(trial: Trial) -> None:
    """The server is down. In half of the trials it is up again while the run still tries."""
    s3, back = server(trial.world), trial.chance.random() < 0.5
    s3.stop()
    process = trial.stage.start(**s3.environment, NIGHTSHIFT_RETRIES="6" if back else "1")
    since = time.monotonic()
    if not back:
        trial.gives_up(process, since, "StoreUnavailable")
        s3.start()
        trial.resumes(**s3.environment)
        return
    time.sleep(trial.chance.uniform(0.5, 1.5))
    s3.start()
    trial.missed = not trial.rides_out(process, time.monotonic()).attempts


def dies_during_a_download(trial: Trial) -> None:
    """The connection ends after a part of a blob; the server is well again after some tries."""
    times = trial.chance.choice([1, 3, 1000])

    def die(answer: bytes) -> Answer:
        yield answer[: trial.chance.randrange(len(answer))]
        raise ConnectionAbortedError

    broken(trial, times, die)


def truncated(trial: Trial) -> None:
    """A blob's body is short, and its length says so: nothing but the digest gives it away."""
    s3 = server(trial.world)

    def shorten(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        if not is_blob(environ):
            return app(environ, start_response)
        data = b"".join(app(environ, lambda *_: None))
        data = data[: trial.chance.randrange(len(data))]
        start_response("200 OK", [("Content-Length", str(len(data)))])
        return [data]

    s3.fault = shorten
    process = trial.stage.start(**s3.environment)
    trial.gives_up(process, time.monotonic(), "BlobCorrupt", "StoreUnavailable")
    s3.heal()
    trial.resumes(**s3.environment)


def unavailable(trial: Trial) -> None:
    """503, for some requests or for all."""
    times = trial.chance.choice([2, 5, 1000])
    answered(trial, times, "503 Slow Down", "SlowDown", "StoreUnavailable")


def expired(trial: Trial) -> None:
    """The credentials have expired; then they are renewed."""
    answered(trial, 1000, "400 Bad Request", "ExpiredToken", "StoreAccessDenied")


def slow(trial: Trial) -> None:
    """Answers come too late, for some requests or for all."""
    s3, left = server(trial.world), [trial.chance.choice([1, 3, 1000])]
    over = threading.Event()

    def wait(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        left[0] -= 1
        if left[0] >= 0:
            over.wait(3)  # the run waits for 1 s
        return app(environ, start_response)

    forever, s3.fault = left[0] == 1000, wait
    through(trial, s3, left, forever, "StoreUnavailable", over.set)


def deleted(trial: Trial) -> None:
    """A blob is deleted between the moment when its version is resolved and its download."""
    s3, gone = server(trial.world), dict[str, bytes]()

    def delete(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        if is_blob(environ) and not gone:
            key = environ["PATH_INFO"].partition(f"/{PREFIX}/")[2]
            found = {"Bucket": BUCKET, "Key": f"{PREFIX}/{key}"}
            s3.heal()
            gone[key] = s3.client.get_object(**found)["Body"].read()
            s3.client.delete_object(**found)
        return app(environ, start_response)

    s3.fault = delete
    process = trial.stage.start(**s3.environment)
    trial.gives_up(process, time.monotonic(), "BlobCorrupt")
    for key, data in gone.items():
        s3.put(key, data)
    trial.resumes(**s3.environment)


# --- ways to do it ------------------------------------------------------------------------------


def broken(trial: Trial, times: int, broken_answer: Callable[[bytes], Answer]) -> None:
    s3, left = server(trial.world), [times]

    def fault(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        if not is_blob(environ):
            return app(environ, start_response)
        left[0] -= 1
        if left[0] < 0:
            return app(environ, start_response)
        return broken_answer(b"".join(app(environ, start_response)))

    s3.fault = fault
    through(trial, s3, left, times == 1000, "StoreUnavailable")


def answered(trial: Trial, times: int, status: str, code: str, error: str) -> None:
    s3, left = server(trial.world), [times]

    def fault(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        left[0] -= 1
        if left[0] < 0:
            return app(environ, start_response)
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>chaos</Message></Error>".encode()]

    s3.fault = fault
    through(trial, s3, left, times == 1000, error)


def through(
    trial: Trial,
    s3: Server,
    left: list[int],
    forever: bool,
    error: str,
    over: Callable[[], object] = lambda: None,
) -> None:
    """The run is through by itself, or, if it is too much, the next one is.

    `left` counts down how often the fault is yet to come.
    """
    planned = left[0]
    since = time.monotonic()
    process = trial.stage.start(**s3.environment, NIGHTSHIFT_RETRIES="2" if forever else "5")
    if not forever:
        trial.rides_out(process, since)
        trial.missed = left[0] == planned
        return
    trial.gives_up(process, since, error)
    s3.heal()
    over()
    trial.resumes(**s3.environment)


FAULTS = (
    Fault("S3 down at start", down_at_start, 10),
    Fault("S3 dies during a download", dies_during_a_download, 10),
    Fault("S3 gives a truncated body", truncated, 10),
    Fault("S3 answers 503", unavailable, 10),
    Fault("S3 is slow", slow, 10),
    Fault("S3 credentials expired", expired, 5),
    Fault("a model deleted during its loading", deleted, 5),
)
