"""What the model store does when its storage is away, wrong, slow, or forgets its conditions."""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import moto.settings
import pandas as pd
import pytest
from moto.core.responses import ActionAuthenticatorMixin
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from nightshift.adapters.errors import (
    ConfigurationError,
    StoreAccessDenied,
    StoreNotFound,
    StoreRefused,
    StoreUnavailable,
    StoreUnsafe,
    TransientError,
)
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.model_store import ModelStore, StoreOptions
from nightshift.adapters.store.storage import alone

Answer = Iterable[bytes]
App = Callable[[dict[str, Any], Any], Answer]

IMPATIENT = {"connect_timeout": 2, "read_timeout": 0.3, "retries": 0}


class Faulty:
    """The S3 endpoint of the other tests, the same buckets, with a fault between it and us."""

    def __init__(self) -> None:
        self.app: App = DomainDispatcherApplication(create_backend_app)
        self.fault: Callable[[App, dict[str, Any], Any], Answer] = lambda app, *request: app(
            *request
        )
        self.requests: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Answer:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        return self.fault(self.app, environ, start_response)


@pytest.fixture(scope="module")
def faulty_server() -> Iterator[tuple[Faulty, str]]:
    faulty = Faulty()
    server = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=WSGIRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield faulty, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def faulty(faulty_server: tuple[Faulty, str], bucket: Any) -> Faulty:
    """Stands between `bucket` and its server from now on."""
    faulty, url = faulty_server
    Faulty.__init__(faulty)
    bucket.options = StoreOptions(**{**vars(bucket.options), "endpoint_url": url})
    return faulty


def seconds(act: Callable[[], object], error: type[Exception], says: str) -> float:
    """How long it took to raise that."""
    start = time.monotonic()
    with pytest.raises(error, match=says):
        act()
    return time.monotonic() - start


# --- away ---------------------------------------------------------------------------------------


def test_a_refused_connection_is_unavailable(bucket: Any) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = bucket.open(endpoint_url=url, **IMPATIENT)
    assert seconds(store.models, TransientError, f"{url} cannot be reached") < 3


def test_a_name_that_does_not_resolve_is_unavailable(bucket: Any) -> None:
    store = bucket.open(endpoint_url="http://no-such-host.invalid:9000", **IMPATIENT)
    assert seconds(store.models, StoreUnavailable, r"no-such-host\.invalid") < 4


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that accepts and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield "http://{}:{}".format(*server.getsockname())


@pytest.fixture
def dropping() -> Iterator[str]:
    """An endpoint that drops packets: with a full queue, Linux drops a connection's first one."""
    with closing(socket.socket()) as server, ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = waiting.enter_context(closing(socket.socket()))
            client.setblocking(False)
            assert client.connect_ex(server.getsockname()) in {0, errno.EINPROGRESS}
        yield "http://{}:{}".format(*server.getsockname())


def test_an_endpoint_that_drops_packets_is_unavailable(bucket: Any, dropping: str) -> None:
    hasty = IMPATIENT | {"connect_timeout": 0.3, "read_timeout": 2}
    store = bucket.open(endpoint_url=dropping, **hasty)
    assert seconds(store.models, StoreUnavailable, "(?i)connect timeout|no answer") < 4


def test_an_endpoint_that_accepts_and_never_answers_is_unavailable(
    bucket: Any, silent: str
) -> None:
    store = bucket.open(endpoint_url=silent, **IMPATIENT)
    assert seconds(store.models, StoreUnavailable, "(?i)read timeout") < 4


def test_a_peer_that_stops_reading_is_given_up(bucket: Any, silent: str) -> None:
    rate = 64 * 1024**2
    store = bucket.open(endpoint_url=silent, slowest_transfer=rate, **IMPATIENT)
    act = lambda: store._storage.write("blobs/sha256/x", bytes(rate))  # noqa: E731
    assert seconds(act, StoreUnavailable, "no answer within 3 s") < 15


def test_patience_follows_from_the_settings(tmp_path: Path) -> None:
    options = StoreOptions(cache_dir=tmp_path)
    assert options.patience() == 27
    assert options.patience(500 * 1024**2) == 27 + 2000
    patient = replace(options, connect_timeout=10, read_timeout=60, retries=6, slowest_transfer=100)
    assert patient.patience(300) == 7 * 70 + (1 + 2 + 4 + 8 + 16 + 20) + 3


@pytest.mark.heavy
def test_the_defaults_tell_within_thirty_seconds(
    silent: str, dropping: str, tmp_path: Path
) -> None:
    stores = [
        ModelStore("s3://bucket/prefix", StoreOptions(tmp_path, url, key="k", secret="s"))
        for url in (silent, dropping)
    ]
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(seconds, s.models, StoreUnavailable, "reached") for s in stores]
        assert max(wait.result() for wait in waits) < 30


# --- wrong --------------------------------------------------------------------------------------


@pytest.fixture
def guarded(s3_server: Any) -> Iterator[tuple[str, str]]:
    """The server asks for real credentials; these are good ones."""
    iam = s3_server.client("iam")
    iam.create_user(UserName="worker")
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    )
    iam.put_user_policy(UserName="worker", PolicyName="all", PolicyDocument=policy)
    created = iam.create_access_key(UserName="worker")["AccessKey"]
    before = moto.settings.INITIAL_NO_AUTH_ACTION_COUNT
    moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = ActionAuthenticatorMixin.request_count
    yield created["AccessKeyId"], created["SecretAccessKey"]
    moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = before
    iam.delete_access_key(UserName="worker", AccessKeyId=created["AccessKeyId"])
    iam.delete_user_policy(UserName="worker", PolicyName="all")
    iam.delete_user(UserName="worker")
    iam.close()


def test_wrong_credentials_are_denied(
    bucket: Any, guarded: tuple[str, str], model: Model, sample: pd.DataFrame
) -> None:
    key, secret = guarded
    good = bucket.open(key=key, secret=secret)
    good.load(good.register("delay", model, sample))
    for wrong in ({"key": key, "secret": "wrong"}, {"key": "unknown", "secret": secret}):
        store = bucket.open(**wrong)
        for act in (
            store.models,
            lambda store=store: store.resolve("delay@1"),
            lambda store=store: store.register("delay", model, sample),
        ):
            with pytest.raises(StoreAccessDenied, match="Check the credentials"):
                act()
    assert secret not in repr(good._options)


def test_no_credentials_are_denied(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    store = bucket.open(key=None, secret=None)
    assert seconds(store.models, StoreAccessDenied, "Unable to locate credentials") < 3


def test_a_folder_that_may_not_be_read_is_denied(folder: Any, monkeypatch: Any) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    with pytest.raises(StoreAccessDenied, match="Permission denied"):
        folder.open().resolve("delay@1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"endpoint_url": "localhost:9000"}, "Invalid endpoint"),
        ({"region": "not a region!"}, "(?i)region"),
    ],
)
def test_settings_that_cannot_be_are_a_configuration_error(
    bucket: Any, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        bucket.open(**changes).models()


def test_a_name_that_no_bucket_can_have(bucket: Any) -> None:
    bucket.url = "s3://Not_A_Bucket!/x"
    with pytest.raises((ConfigurationError, StoreNotFound), match=r"(?i)bucket"):
        bucket.open().models()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        ("503 Slow Down", "SlowDown", StoreUnavailable),
        ("500 Internal Server Error", "InternalError", StoreUnavailable),
        ("403 Forbidden", "AccessDenied", StoreAccessDenied),
        ("400 Bad Request", "InvalidArgument", StoreRefused),
        ("507 Insufficient Storage", "XMinioStorageFull", StoreRefused),
    ],
)
def test_any_other_answer_is_reported_in_its_own_words(
    bucket: Any, faulty: Faulty, status: str, code: str, error: type[Exception]
) -> None:
    def answer(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        start_response(status, [("Content-Type", "application/xml")])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return [f"<Error><Code>{code}</Code><Message>in its words</Message></Error>".encode()]

    faulty.fault = answer
    store = bucket.open(retries=1)
    with pytest.raises(error, match=f"{code}.*in its words"):
        store._storage.read("models/x")
    with pytest.raises(error, match=code):
        store.versions("delay")


def test_a_full_disk_is_reported(
    folder: Any, model: Model, sample: pd.DataFrame, monkeypatch: Any
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nightshift.adapters.store.folder.os.fsync", full)
    with pytest.raises(StoreRefused, match=r"refused to write .*: .*No space left on device"):
        folder.open().register("delay", model, sample)
    assert folder.keys() == set()


def test_a_full_cache_is_not_blamed_on_the_store(
    folder: Any, model: Model, sample: pd.DataFrame, monkeypatch: Any
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = folder.open()
    manifest = store.register("delay", model, sample)
    monkeypatch.setattr("nightshift.adapters.store.folder.shutil.copyfileobj", full)
    with pytest.raises(StoreRefused, match=r"The cache .* refused .*No space left on device"):
        store.load(manifest)


# --- broken on its way --------------------------------------------------------------------------


def test_a_download_that_breaks_leaves_nothing(
    bucket: Any, faulty: Faulty, model: Model, sample: pd.DataFrame
) -> None:
    store = bucket.open()
    manifest = store.register("delay", model, sample)

    def cut(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        data = b"".join(app(environ, start_response))
        blob = environ["REQUEST_METHOD"] == "GET" and "/blobs/" in environ["PATH_INFO"]
        return [data[:100] if blob else data]

    faulty.fault = cut
    with pytest.raises(StoreUnavailable):
        store.load(manifest)
    assert [path for path in bucket.options.cache_dir.iterdir() if path.suffix != ".lock"] == []
    Faulty.__init__(faulty)
    store.load(manifest)


def test_an_answer_that_gets_lost_is_no_lost_race(
    bucket: Any, faulty: Faulty, model: Model, sample: pd.DataFrame
) -> None:
    """The write happens, the answer does not arrive, the repetition meets its own success."""

    def lose(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ
        first = faulty.requests.count(faulty.requests[-1]) == 1 or "HTTP_IF_MATCH" in environ
        if conditional and first and environ["PATH_INFO"] not in lost:
            b"".join(app(environ, lambda *_: None))
            lost.add(environ["PATH_INFO"])
            start_response("503 Service Unavailable", [])
            return [b"<Error><Code>ServiceUnavailable</Code></Error>"]
        return app(environ, start_response)

    lost: set[str] = set()
    store = bucket.open(retries=1)
    store.require_conditions()
    faulty.fault = lose
    assert store.register("delay", model, sample).version == 1
    assert store.register("delay", model, sample).version == 2
    assert store.versions("delay") == [1, 2]
    assert store.promote("delay", 1).sequence == 1
    lost.clear()
    assert store.promote("delay", 2).sequence == 2
    assert len(lost) == 1


# --- storage that forgets its conditions --------------------------------------------------------


@pytest.mark.parametrize("forgotten", [("HTTP_IF_NONE_MATCH",), ("HTTP_IF_MATCH",)])
def test_storage_without_conditions_is_refused(
    bucket: Any, faulty: Faulty, model: Model, sample: pd.DataFrame, forgotten: tuple[str, ...]
) -> None:
    good = bucket.open()
    good.register("delay", model, sample)

    def forget(app: App, environ: dict[str, Any], start_response: Any) -> Answer:
        return app({k: v for k, v in environ.items() if k not in forgotten}, start_response)

    faulty.fault = forget
    store = bucket.open()
    with pytest.raises(StoreUnsafe, match="overwrites"):
        store.register("delay", model, sample)
    with pytest.raises(StoreUnsafe, match="overwrites"):
        store.promote("delay", 1)
    assert store.versions("delay") == [1]
    assert store.aliases("delay") == {}
    store.load(store.resolve("delay@1"))  # reading needs no conditions


def test_a_file_system_without_hard_links_is_refused(
    folder: Any, model: Model, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StoreUnsafe, match="no hard links"):
        folder.open().register("delay", model, sample)


def test_a_lock_that_is_never_given_back_is_unavailable(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    store = folder.open(connect_timeout=0.1, read_timeout=0.1, retries=0)
    store.register("delay", model, sample)
    store.register("delay", model, sample)
    store.promote("delay", 1)
    with alone(folder._folder / ".lock", 1), pytest.raises(StoreUnavailable, match="locked"):
        store.promote("delay", 2)
    assert store.promote("delay", 2).sequence == 2


def test_conditions_are_probed_once(bucket: Any, faulty: Faulty, model: Model, sample: Any) -> None:
    store = bucket.open()
    for _ in range(2):
        store.register("delay", model, sample)
    store.promote("delay", 1)
    puts = [request for request in faulty.requests if request.endswith("/.conditions")]
    assert 1 <= len(puts) <= 6
    before = len(puts)
    store.promote("delay", 2)
    assert len([r for r in faulty.requests if r.endswith("/.conditions")]) == before
