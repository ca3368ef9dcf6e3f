"""Models that are not thread-safe: no thread calls one that another has, nor one that hangs."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

import pytest

from nightshift.adapters.errors import BackfillFailed, StoreUnavailable
from nightshift.adapters.libraries.sklearn import SklearnModel
from nightshift.adapters.models.model import Model
from nightshift.adapters.profiles.profile import Profile
from nightshift.flows.backfill import backfill
from nightshift.flows.score import score
from nightshift.flows.scoring.loaded_model import LoadedModel
from project import Project
from watched import Hanging, ThreadSafe, Twice, Watched, manifest

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 2)


def served(model: Callable[[], Model]) -> LoadedModel:
    return LoadedModel(manifest(Twice()), Profile(), model)


def test_one_that_is_thread_safe_is_opened_once() -> None:
    shared = served(lambda: ThreadSafe(Twice()))
    with shared.borrow() as one, shared.borrow() as other:
        assert one.model is other.model
        one.abandoned.set()
    with shared.borrow() as again:
        assert again.model is other.model


def test_one_that_is_not_has_a_copy_for_each_at_a_time() -> None:
    shared = served(lambda: Watched(Twice()))
    with shared.borrow() as one, shared.borrow() as other:
        assert one.model is not other.model
    with shared.borrow() as third:
        assert third.model in {one.model, other.model}


def test_one_that_hangs_is_not_borrowed_again() -> None:
    shared = served(lambda: Watched(Twice()))
    with shared.borrow() as hanging:
        hanging.abandoned.set()
    with shared.borrow() as other:
        assert other.model is not hanging.model


def test_a_copy_that_cannot_be_opened_leaves_the_others() -> None:
    models: list[Model] = [Watched(Twice())]

    def opening() -> Model:
        if not models:
            raise StoreUnavailable("s3://models", "it is away")
        return models.pop()

    shared = served(opening)
    with shared.borrow() as one, pytest.raises(StoreUnavailable), shared.borrow():
        pass
    with shared.borrow() as again:
        assert again.model is one.model


# --- in runs ------------------------------------------------------------------------------------


@pytest.fixture
def predicting(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Any], None]]:
    """Two days of 100 orders, and a model that is not thread-safe; what is in the list is called
    with the estimator of each batch.
    """
    project.fill(200)
    project.register()
    from doubler import Doubler  # type: ignore[import-not-found]

    before: list[Callable[[Any], None]] = []
    original = Doubler.predict

    def predict(self: Any, X: Any) -> Any:  # noqa: N803
        if len(X) > 32:  # no golden rows
            for call in before:
                call(self)
        return original(self, X)

    monkeypatch.setattr(Doubler, "predict", predict)
    monkeypatch.setattr(SklearnModel, "thread_safe", False)
    return before


class Together:
    """Holds the first call until there is a second one; the estimators of both."""

    def __init__(self) -> None:
        self._both = threading.Barrier(2)
        self.called: list[int] = []

    def __call__(self, estimator: Any) -> None:
        self.called.append(id(estimator))
        with suppress(threading.BrokenBarrierError):
            self._both.wait(30)

    @property
    def by_different_models(self) -> bool:
        assert not self._both.broken
        one, other = self.called
        return one != other


@pytest.mark.usefixtures("prefect")
def test_partitions_side_by_side(project: Project, predicting: list[Any]) -> None:
    together = Together()
    predicting.append(together)
    backfill("orders", FIRST, LAST, max_parallel=2)
    assert together.by_different_models
    assert project.scores() == project.expected()


@pytest.mark.usefixtures("prefect")
def test_shards_on_threads(project: Project, predicting: list[Any]) -> None:
    together = Together()
    predicting.append(together)
    project.write_job(shards={"count": 2, "on": "threads", "at_once": 2})
    score("orders", "all")
    assert together.by_different_models
    assert project.scores() == project.expected()


@pytest.mark.usefixtures("prefect")
def test_the_partition_after_one_that_hung(
    project: Project, predicting: list[Any], hanging: Hanging
) -> None:
    called: list[int] = []

    def hang_at_first(estimator: Any) -> None:
        called.append(id(estimator))
        if len(called) == 1:
            hanging.here()

    predicting.append(hang_at_first)
    project.write_job(predict_timeout="60s")
    with pytest.raises(BackfillFailed, match=r"1 of 2 partitions failed\. 2024-03-01: "):
        backfill("orders", FIRST, LAST)
    first, second = called
    assert first != second
    assert project.scores() == project.expected("id > 100")
