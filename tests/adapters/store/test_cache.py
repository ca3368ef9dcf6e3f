"""The blob cache, and several processes in one store and one cache."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nightshift.adapters.errors import StoreRefused
from nightshift.adapters.models.model import Model


def cached(place: Any) -> dict[str, Path]:
    """Cached blobs by digest."""
    return {path.name: path for path in place.options.cache_dir.iterdir() if not path.suffix}


def test_a_blob_is_fetched_once(place: Any, model: Model, sample: pd.DataFrame) -> None:
    store = place.open()
    manifest = store.register("delay", model, sample)
    data = store.fetch(manifest)
    place.delete(manifest.blob.key)
    assert store.fetch(manifest) == place.open().fetch(manifest) == data
    assert list(cached(place)) == [manifest.digest]


@pytest.mark.parametrize("content", [b"", b"short", None])
def test_a_corrupt_entry_is_dropped_and_fetched_again(
    place: Any, model: Model, sample: pd.DataFrame, content: bytes | None
) -> None:
    store = place.open()
    manifest = store.register("delay", model, sample)
    data = store.fetch(manifest)
    entry = cached(place)[manifest.digest]
    entry.write_bytes(bytes(len(data)) if content is None else content)
    assert store.fetch(manifest) == data
    assert entry.read_bytes() == data


def test_the_least_recently_used_make_room(folder: Any, trained: Any, sample: pd.DataFrame) -> None:
    store = folder.open()
    manifests = [store.register("delay", trained(float(slope)), sample) for slope in range(4)]
    size = max(manifest.size for manifest in manifests)
    small = folder.open(cache_bytes=3 * size)
    for age, manifest in enumerate(manifests[:3]):
        small.fetch(manifest)
        os.utime(cached(folder)[manifest.digest], (age, age))
    small.fetch(manifests[0])  # used again: now the second is the oldest
    small.fetch(manifests[3])
    assert set(cached(folder)) == {manifests[i].digest for i in (0, 2, 3)}


def test_a_blob_beyond_the_bound_is_not_kept(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    store = folder.open(cache_bytes=10)
    manifest = store.register("delay", model, sample)
    store.load(manifest)
    assert cached(folder) == {}


def test_what_a_crash_left_is_removed(folder: Any, model: Model, sample: pd.DataFrame) -> None:
    store = folder.open()
    manifest = store.register("delay", model, sample)
    folder.options.cache_dir.mkdir()
    names = "another", "another.under.way", manifest.digest + ".killed"
    old, fresh, same = (folder.options.cache_dir / f"{name}.part" for name in names)
    for file in (old, fresh, same):
        file.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    store.fetch(manifest)
    assert [file.exists() for file in (old, fresh, same)] == [False, True, False]


def test_a_cache_that_cannot_be_is_reported(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    folder.options.cache_dir.write_text("a file, not a folder")
    store = folder.open()
    manifest = store.register("delay", model, sample)
    with pytest.raises(StoreRefused, match=r"The cache .* refused to keep a blob"):
        store.fetch(manifest)


WORKER = """
import json, sys
from pathlib import Path
import pandas as pd
from sklearn.linear_model import LinearRegression
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.store.model_store import ModelStore, StoreOptions
from nightshift.adapters.store.trust_policy import TrustPolicy

url, options, number = json.loads(sys.argv[1])
options["cache_dir"] = Path(options["cache_dir"])
options["cache_bytes"] = 3000  # room for few, so that they evict each other's
store = ModelStore(url, StoreOptions(**options), TrustPolicy(pickle="always"))
sample = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
print("ready", flush=True)
sys.stdin.readline()
for step in range(4):
    model = SklearnModel(LinearRegression().fit(sample, sample.x * (10 * number + step)))
    store.register("delay", model, sample, by=f"{number}.{step}")
for _ in range(3):
    for version in store.versions("delay"):
        store.load(store.manifest("delay", version))
"""


@pytest.mark.heavy
def test_processes_share_a_store_and_a_cache(place: Any) -> None:
    options = {**vars(place.options), "cache_dir": str(place.options.cache_dir)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WORKER, json.dumps([place.url, options, number])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()  # all are ready before one begins
    outcomes = [worker.communicate("\n", timeout=60) for worker in workers]
    assert [
        (worker.returncode, error) for worker, (_, error) in zip(workers, outcomes, strict=True)
    ] == [(0, "")] * 2
    store = place.open()
    assert store.versions("delay") == list(range(1, 9))
    names = {store.manifest("delay", version).created_by for version in range(1, 9)}
    assert names == {f"{number}.{step}" for number in range(2) for step in range(4)}
    assert sum(path.stat().st_size for path in cached(place).values()) <= 3000
