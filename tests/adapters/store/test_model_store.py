"""One contract for the model store, kept by a folder and by S3 over HTTP."""

import json
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from nightshift.adapters.errors import (
    AliasMoved,
    BlobCorrupt,
    ConfigurationError,
    GoldenRowsDiffer,
    InvalidPredictions,
    ModelNotFound,
    PredictionFailed,
    RecordInvalid,
    SerializationFailed,
    SignatureUndefined,
    StoreNotFound,
    StoreRefused,
)
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.arrays import Features, PredictionArray
from nightshift.adapters.models.model import Model
from nightshift.adapters.store.manifest import Alias, Manifest
from nightshift.adapters.store.model_store import ModelStore, StoreOptions
from nightshift.adapters.store.trust_policy import TrustPolicy

Train = Callable[[float], Model]


def path_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


# --- models that should not be registered --------------------------------------------------------


class Sum(Model):
    """Adds its columns up."""

    def predict_batch(self, features: Features) -> PredictionArray:
        return np.asarray(features).sum(axis=1)


class Unserializable(Sum):
    def __init__(self) -> None:
        self.function = lambda: None


class Lossy(Sum):
    """Forgets its offset on its way through bytes."""

    offset = 1.0

    def predict_batch(self, features: Features) -> PredictionArray:
        return super().predict_batch(features) + self.offset

    def __setstate__(self, state: object) -> None:
        self.offset = 0.0

    def __getstate__(self) -> object:
        return {"version": 1}


class Unreadable(Sum):
    def serialize(self) -> bytes:
        return b"not a pickle"


class Random(Sum):
    def predict_batch(self, features: Features) -> PredictionArray:
        return np.random.default_rng().normal(size=len(features))


class Raising(Sum):
    def predict_batch(self, features: Features) -> PredictionArray:
        raise ValueError("no such matrix")


class Short(Sum):
    def predict_batch(self, features: Features) -> PredictionArray:
        return super().predict_batch(features)[:-1]


class Indexed(Sum):
    """Uses the sample's index, which no table has."""

    def predict_batch(self, features: Features) -> PredictionArray:
        assert isinstance(features, pd.DataFrame)
        return super().predict_batch(features) + features.index.to_numpy()


# --- the contract -------------------------------------------------------------------------------


class TestRegister:
    def test_gives_what_load_needs(
        self, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        before = datetime.now(UTC)
        manifest = store.register(
            "delay", model, sample, metrics={"mae": np.float64(1.5)}, description="the first",
            trained_through=date(2013, 9, 30), by="ada",
        )  # fmt: skip
        assert manifest == store.resolve("delay@1") == store.manifest("delay", 1)
        assert manifest.reference == "delay@1"
        assert manifest.adapter == "sklearn"
        assert manifest.metrics == {"mae": 1.5}
        assert manifest.description == "the first"
        assert manifest.trained_through == date(2013, 9, 30)
        assert manifest.created_by == "ada"
        assert before <= manifest.created_at <= datetime.now(UTC)
        assert manifest.signature.input_names == ["distance", "hour"]
        assert manifest.golden.rows == 32
        assert {"python", "numpy", "pandas", "scikit-learn"} <= set(manifest.libraries)
        loaded = store.load(manifest)
        assert np.array_equal(loaded.predict_batch(sample), model.predict_batch(sample))

    def test_numbers_versions_from_one(
        self, store: ModelStore, trained: Train, sample: pd.DataFrame
    ) -> None:
        for slope in (1.0, 2.0, 3.0):
            store.register("delay", trained(slope), sample)
        store.register("other", trained(1.0), sample)
        assert store.models() == ["delay", "other"]
        assert store.versions("delay") == [1, 2, 3]
        loaded = store.load(store.resolve("delay@2"))
        row = pd.DataFrame({"distance": [0.0], "hour": [1]})
        assert loaded.predict(row) == pytest.approx(2.0)

    def test_an_empty_store_has_nothing(self, store: ModelStore) -> None:
        assert store.models() == []
        assert store.versions("delay") == []
        assert store.aliases("delay") == {}

    def test_what_others_leave_in_the_folders_is_not_a_model(
        self, place: Any, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        store.register("delay", model, sample)
        versions = ("delay/versions/007/x", "delay/versions/latest/x")
        aliases = ("delay/aliases/7.json", "delay/aliases/Best.json", "delay/aliases/notes.txt")
        for key in ("README", "Junk/x", *versions, *aliases):
            place.write(f"models/{key}", b"junk")
        assert store.models() == ["delay"]
        assert store.versions("delay") == [1]
        assert store.aliases("delay") == {}
        assert store.register("delay", model, sample).version == 2

    def test_a_sample_of_one_row_is_one_golden_row(
        self, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        manifest = store.register("delay", model, sample.head(1))
        assert manifest.golden.rows == 1
        store.load(manifest)

    @pytest.mark.parametrize(
        ("kind", "error", "says"),
        [
            (Unserializable, SerializationFailed, "does not become bytes"),
            (Unreadable, SerializationFailed, "cannot be read"),
            (Lossy, SerializationFailed, "read back from its own bytes it gives other predictions"),
            (Random, SignatureUndefined, "make its predictions repeatable"),
            (Raising, PredictionFailed, "no such matrix"),
            (Short, InvalidPredictions, "100 predictions"),
            (Indexed, SignatureUndefined, "once it has been through a database: 'prediction'"),
        ],
    )
    def test_refuses_what_could_not_be_used_and_writes_nothing(
        self,
        place: Any,
        sample: pd.DataFrame,
        kind: type[Model],
        error: type[Exception],
        says: str,
    ) -> None:
        store = place.open(TrustPolicy(pickle="always", classes=frozenset({path_of(kind)})))
        with pytest.raises(error, match=says):
            store.register("delay", kind(), sample.set_index(sample.index + 1000))
        assert place.keys() == set()

    def test_refuses_parts_of_the_script_that_registers(
        self, store: ModelStore, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        regression = type("Clean", (LinearRegression,), {"__module__": "__main__"})
        monkeypatch.setattr(sys.modules["__main__"], "Clean", regression, raising=False)
        fitted = regression().fit(sample, sample.hour)
        with pytest.raises(SerializationFailed, match="Clean of the script that registers it"):
            store.register("delay", SklearnModel(fitted), sample)

    @pytest.mark.parametrize(
        "name", ["", "Delay", "../delay", "a/b", "-a", ".a", "a b", "ä", "a" * 101]
    )
    def test_refuses_names_that_lead_elsewhere(
        self, place: Any, store: ModelStore, model: Model, sample: pd.DataFrame, name: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="cannot be a name"):
            store.register(name, model, sample)
        with pytest.raises(ConfigurationError):
            store.resolve(f"{name}@1")
        with pytest.raises(ConfigurationError):
            store.versions(name)
        assert place.keys() == set()

    def test_refuses_metrics_that_are_no_numbers(
        self, place: Any, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"metrics\.mae.*finite"):
            store.register("delay", model, sample, metrics={"mae": float("nan")})
        assert place.keys() == set()

    def test_heals_a_blob_by_registering_again(
        self, place: Any, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        manifest = store.register("delay", model, sample)
        place.write(manifest.blob.key, b"damaged")
        with pytest.raises(BlobCorrupt):
            store.load(manifest)
        again = store.register("delay", model, sample)
        assert again.digest == manifest.digest
        store.load(manifest)

    @pytest.mark.heavy
    def test_twenty_at_once_get_twenty_numbers(
        self, place: Any, trained: Train, sample: pd.DataFrame
    ) -> None:
        models = [trained(float(slope)) for slope in range(20)]

        def register(model: Model) -> int:
            return int(place.open().register("delay", model, sample).version)

        with ThreadPoolExecutor(20) as pool:
            versions = list(pool.map(register, models))
        assert sorted(versions) == list(range(1, 21))
        store = place.open()
        assert store.versions("delay") == list(range(1, 21))
        row = pd.DataFrame({"distance": [0.0], "hour": [1]})
        for slope, version in enumerate(versions):
            loaded = store.load(store.manifest("delay", version))
            assert loaded.predict(row) == pytest.approx(slope, abs=1e-9)


class TestAliases:
    def test_resolve_reads_names_aliases_and_numbers(
        self, store: ModelStore, trained: Train, sample: pd.DataFrame
    ) -> None:
        for slope in (1.0, 2.0):
            store.register("delay", trained(slope), sample)
        store.promote("delay", 1)
        store.promote("delay", 2, "challenger")
        assert store.resolve("delay").version == 1
        assert store.resolve("delay@champion").version == 1
        assert store.resolve("delay@challenger").version == 2
        assert store.resolve("delay@2").version == 2
        assert sorted(store.aliases("delay")) == ["challenger", "champion"]

    def test_promote_keeps_its_history(
        self, store: ModelStore, trained: Train, sample: pd.DataFrame
    ) -> None:
        for slope in (1.0, 2.0, 3.0):
            store.register("delay", trained(slope), sample)
        for version in (1, 3, 2):
            alias = store.promote("delay", version, by=f"person {version}")
        assert alias.version == 2
        assert alias.sequence == 3
        assert [(m.version, m.by) for m in alias.history] == [
            (1, "person 1"), (3, "person 3"), (2, "person 2"),
        ]  # fmt: skip
        assert store.aliases("delay") == {"champion": alias}
        assert store.promote("delay", 2) == alias  # already there: nothing moves

    def test_rollback_goes_back_step_by_step(
        self, store: ModelStore, trained: Train, sample: pd.DataFrame
    ) -> None:
        for slope in (1.0, 2.0, 3.0):
            store.register("delay", trained(slope), sample)
        for version in (1, 2, 3):
            store.promote("delay", version)
        assert store.rollback("delay").version == 2
        assert store.rollback("delay", by="bob").version == 1
        assert store.aliases("delay")["champion"].history[-1].by == "bob"
        with pytest.raises(ModelNotFound, match="one promotion earlier"):
            store.rollback("delay")
        store.promote("delay", 3)
        assert store.rollback("delay").version == 1
        assert store.aliases("delay")["champion"].sequence == 7

    def test_what_is_not_there_is_named_with_what_is(
        self, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        store.register("delay", model, sample)
        store.promote("delay", 1, "challenger")
        for reference in ("delay", "delay@champion", "delay@2", "delay@0"):
            with pytest.raises(ModelNotFound, match="it has delay@1, delay@challenger") as caught:
                store.resolve(reference)
            asked = "delay@champion" if reference == "delay" else reference
            assert caught.value.reference == asked
        with pytest.raises(ModelNotFound, match="it has delay"):
            store.resolve("unknown")
        with pytest.raises(ModelNotFound):
            store.promote("delay", 2)
        with pytest.raises(ModelNotFound):
            store.promote("unknown", 1)
        with pytest.raises(ModelNotFound):
            store.rollback("delay", "unknown")
        assert sorted(store.aliases("delay")) == ["challenger"]

    @pytest.mark.parametrize("alias", ["7", "../x", "a/b", "Champion", ""])
    def test_refuses_aliases_that_are_none(
        self, store: ModelStore, model: Model, sample: pd.DataFrame, alias: str
    ) -> None:
        store.register("delay", model, sample)
        with pytest.raises(ConfigurationError, match="alias"):
            store.promote("delay", 1, alias)

    def test_concurrent_promotions_have_one_winner_per_step(
        self, place: Any, model: Model, sample: pd.DataFrame
    ) -> None:
        store = place.open()
        for _ in range(8):
            store.register("delay", model, sample)

        def promote(version: int) -> Alias | AliasMoved:
            try:
                return store.promote("delay", version)  # type: ignore[no-any-return]
            except AliasMoved as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(promote, range(1, 9)))
        won = [outcome for outcome in outcomes if isinstance(outcome, Alias)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, AliasMoved)]
        assert len(won) + len(lost) == 8
        assert won
        final = store.aliases("delay")["champion"]
        assert sorted(alias.sequence for alias in won) == list(range(1, len(won) + 1))
        assert {move.version for move in final.history} == {alias.version for alias in won}
        assert len(final.history) == final.sequence == len(won)
        for error in lost:
            assert error.found != error.expected

    def test_the_loser_learns_who_won(
        self, place: Any, model: Model, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow, quick = place.open(), place.open()
        for _ in range(3):
            slow.register("delay", model, sample)
        slow.promote("delay", 1)
        swap = slow._storage.swap

        def interrupted(key: str, data: bytes, tag: str) -> bool:
            quick.promote("delay", 2)
            return bool(swap(key, data, tag))

        slow.promote("delay", 1, "other")  # the storage has been probed
        monkeypatch.setattr(slow._storage, "swap", interrupted)
        with pytest.raises(AliasMoved) as caught:
            slow.promote("delay", 3)
        assert (caught.value.expected, caught.value.found) == (1, 2)
        assert quick.resolve("delay").version == 2

    def test_a_b_a_is_noticed(
        self, place: Any, model: Model, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow, quick = place.open(), place.open()
        for _ in range(3):
            slow.register("delay", model, sample)
        slow.promote("delay", 1)
        swap = slow._storage.swap

        def interrupted(key: str, data: bytes, tag: str) -> bool:
            quick.promote("delay", 2)
            quick.promote("delay", 1)
            return bool(swap(key, data, tag))

        slow.promote("delay", 1, "other")
        monkeypatch.setattr(slow._storage, "swap", interrupted)
        with pytest.raises(AliasMoved):
            slow.promote("delay", 3)


class TestLoad:
    def test_a_missing_store_is_not_a_missing_model(
        self, place: Any, model: Model, sample: pd.DataFrame
    ) -> None:
        place.url = place.missing_url
        store = place.open()
        for act in (
            store.models,
            lambda: store.resolve("delay"),
            lambda: store.versions("delay"),
            lambda: store.promote("delay", 1),
            lambda: store.register("delay", model, sample),
        ):
            with pytest.raises(StoreNotFound, match="missing"):
                act()

    @pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "empty", "delete"])
    @pytest.mark.parametrize("which", ["blob", "golden"])
    def test_a_damaged_blob_is_not_opened(
        self, place: Any, store: ModelStore, model: Model, sample: pd.DataFrame, which: str,
        damage: str,
    ) -> None:  # fmt: skip
        manifest = store.register("delay", model, sample)
        blob = getattr(manifest, which)
        data = place.read(blob.key)
        match damage:
            case "flip":
                middle = len(data) // 2
                place.write(
                    blob.key, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
                )
            case "truncate":
                place.write(blob.key, data[:-1])
            case "grow":
                place.write(blob.key, data + b"\0")
            case "empty":
                place.write(blob.key, b"")
            case "delete":
                place.delete(blob.key)
        with pytest.raises(BlobCorrupt) as caught:
            store.load(manifest)
        assert caught.value.place == f"{place.url}/{blob.key}"
        assert caught.value.expected == blob.digest
        place.write(blob.key, data)
        store.load(manifest)  # nothing of the damage stayed in the cache

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "EOF"),
            (b"{", "EOF"),
            (b"\xff\xfe", "JSON"),
            (b"[]", "object"),
            (b'{"format": 2}', "format"),
        ],
    )
    def test_a_manifest_that_is_none_is_one_clear_error(
        self, place: Any, store: ModelStore, content: bytes, says: str
    ) -> None:
        place.write("models/delay/versions/1/manifest.json", content)
        with pytest.raises(RecordInvalid, match=says) as caught:
            store.resolve("delay@1")
        assert caught.value.place.endswith("models/delay/versions/1/manifest.json")
        place.write("models/delay/aliases/champion.json", content)
        with pytest.raises(RecordInvalid, match=says):
            store.resolve("delay")
        with pytest.raises(RecordInvalid, match=says):
            store.aliases("delay")

    def test_a_manifest_elsewhere_is_refused(
        self, place: Any, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        manifest = store.register("delay", model, sample)
        for name, version in (("delay", 2), ("other", 1)):
            place.write(f"models/{name}/versions/{version}/manifest.json", manifest.to_json())
            with pytest.raises(RecordInvalid, match="it is the manifest of delay@1"):
                store.resolve(f"{name}@{version}")
        alias = store.promote("delay", 1)
        place.write("models/delay/aliases/other.json", alias.to_json())
        with pytest.raises(RecordInvalid, match="it is the alias delay@champion"):
            store.resolve("delay@other")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "../../etc"),
            ("version", 0),
            ("adapter", 7),
            ("blob", {"digest": "../../../etc/passwd", "size": 1}),
            ("blob", {"digest": "A" * 64, "size": 1}),
            ("golden", {"digest": "0" * 64, "size": 1, "rows": 10**9}),
            ("unknown", 1),
        ],
    )
    def test_a_manifest_with_a_bad_field_names_it(
        self, place: Any, store: ModelStore, model: Model, sample: pd.DataFrame, field: str,
        value: Any,
    ) -> None:  # fmt: skip
        manifest = store.register("delay", model, sample)
        fields = json.loads(manifest.to_json()) | {field: value}
        place.write("models/delay/versions/1/manifest.json", json.dumps(fields).encode())
        with pytest.raises(RecordInvalid, match=field):
            store.resolve("delay@1")

    def test_a_key_never_leaves_the_store(
        self, store: ModelStore, model: Model, sample: pd.DataFrame
    ) -> None:
        """Even for a manifest made by hand, past all validation."""
        manifest = store.register("delay", model, sample)
        blob = manifest.blob.model_copy(update={"digest": "../../../secret"})
        with pytest.raises(StoreRefused, match="not a plain path"):
            store.fetch(manifest.model_copy(update={"blob": blob}))

    def test_golden_rows_find_an_environment_that_predicts_otherwise(
        self, place: Any, model: Model, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = place.open()
        manifest = store.register("delay", model, sample)
        predict = SklearnModel.predict_batch
        monkeypatch.setattr(
            SklearnModel, "predict_batch", lambda self, features: predict(self, features) * 1.001
        )
        with pytest.raises(GoldenRowsDiffer, match="'prediction' differs in 32 of 32 rows"):
            store.load(manifest)
        older = manifest.model_copy(update={"libraries": {"numpy": "2.0.0rc0", "no-such": "1"}})
        with pytest.raises(GoldenRowsDiffer, match=r"numpy 2\.0\.0rc0 then, .* now") as caught:
            store.load(older)
        assert "no-such 1 then, missing now" in caught.value.versions

    def test_golden_rows_that_no_longer_predict_at_all(
        self, place: Any, model: Model, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = place.open()
        manifest = store.register("delay", model, sample)
        monkeypatch.setattr(SklearnModel, "predict_batch", Raising.predict_batch)
        with pytest.raises(GoldenRowsDiffer, match="no such matrix"):
            store.load(manifest)

    def test_a_store_goes_to_another_process(
        self, place: Any, model: Model, sample: pd.DataFrame
    ) -> None:
        store = place.open()
        store.register("delay", model, sample)
        copy = pickle.loads(pickle.dumps(store))
        assert copy.url == store.url == place.url
        copy.load(copy.resolve("delay@1"))


# --- names and round trips ----------------------------------------------------------------------


@given(name=st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,99}", fullmatch=True))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_good_name_comes_back(store: ModelStore, name: str) -> None:
    key = f"models/{name}/versions/1/manifest.json"
    assert store._storage.create(key, b"x") or store._storage.read(key) == b"x"
    assert name in store.models()
    assert store.versions(name) == [1]


@given(name=st.text(max_size=20))
def test_any_other_name_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    store = ModelStore("/nowhere", StoreOptions(cache_dir=tmp_path_factory.getbasetemp()))
    try:
        store.resolve(f"{name}@1")
    except (ConfigurationError, StoreNotFound) as error:
        good = name and name[0] in "abcdefghijklmnopqrstuvwxyz0123456789" and "@" not in name
        if isinstance(error, StoreNotFound):
            assert good


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x/y", "s3://", "s3:///x", "file://data/models", "file:///", "gs://b/p", "s3:x"],
)
def test_other_places_are_refused(folder: Any, url: str) -> None:
    folder.url = url
    with pytest.raises(ConfigurationError, match="is not a supported model store URL"):
        folder.open()


def test_a_manifest_is_shown_in_short(
    store: ModelStore, model: Model, sample: pd.DataFrame
) -> None:
    manifest = store.register("delay", model, sample)
    assert repr(manifest) == str(manifest) == "<Manifest delay@1 sklearn>"


def test_canonical_form_is_what_was_written(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    """Read back, re-ordered or indented, a manifest has the same canonical form; changed, not."""
    manifest = folder.open().register("delay", model, sample, metrics={"mae": 1})
    fields = json.loads(manifest.to_json())
    shuffled = Manifest.model_validate_json(json.dumps(dict(reversed(fields.items()))))
    assert shuffled.canonical() == manifest.canonical()
    fields["metrics"]["mae"] = 2
    assert Manifest.model_validate_json(json.dumps(fields)).canonical() != manifest.canonical()


@pytest.mark.parametrize(
    ("url", "problem", "remedy"),
    [
        ("s3://models/team#1", "the fragment '#1' would be ignored", "without it"),
        ("s3://models/team#", "the fragment '#' would be ignored", "without it"),
        ("s3://models/team?versionId=7", "the query '?versionId=7' would be ignored", "Leave"),
        ("s3://someone@models/team", "the user 'someone' in it", "NIGHTSHIFT_STORE__KEY"),
        ("s3://minio:9000/models", "the port '9000' would be ignored", "store.endpoint_url"),
        ("s3://models//team", "an empty part", "s3://bucket/prefix"),
        ("s3://models/a/../b", "an empty part, . or ..", "s3://bucket/prefix"),
        ("s3://mod els/team", "'mod els' is not the name of a bucket", "s3://bucket/prefix"),
        ("s3://models/te\tam", "control character", "Leave it out"),
        ("file:///models/team#1", "the fragment '#1' would be ignored", "%23"),
        ("file:///models/team?1", "the query '?1' would be ignored", "%3F"),
    ],
)
def test_what_would_be_ignored_of_a_store_url_is_refused(
    folder: Any, url: str, problem: str, remedy: str
) -> None:
    folder.url = url
    with pytest.raises(ConfigurationError) as caught:
        folder.open()
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_two_teams_folders_are_two_stores(folder: Any, tmp_path: Path) -> None:
    (first := tmp_path / "team#1").mkdir()
    (second := tmp_path / "team#2").mkdir()
    for url in (str(first), first.as_uri()):
        folder.url = url
        folder.open()._storage.create("models/delay/x.json", b"1")
    assert (first / "models").is_dir()
    assert not (second / "models").exists()
    for bucket in ("models", "Models_1", "arn:aws:s3:eu-west-1:123456789012:accesspoint"):
        folder.url = f"s3://{bucket}/team/eu/"
        assert folder.open().url == f"s3://{bucket}/team/eu"


def test_the_same_bytes_again_are_said_to_be_the_same(
    folder: Any, model: Model, sample: pd.DataFrame
) -> None:
    store = folder.open()
    first = store.register("delay", model, sample)
    second = store.register("delay", model, sample)
    if first.blob.digest == second.blob.digest:
        assert "it has the same bytes as version 1" in second.warnings
    assert not any("same bytes" in warning for warning in first.warnings)
