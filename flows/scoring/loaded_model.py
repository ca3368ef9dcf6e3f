"""A loaded model version, with the profile that its runs are compared with."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nightshift.adapters.models.model import Model
from nightshift.adapters.profiles.profile import Profile
from nightshift.adapters.store.manifest import Manifest
from nightshift.flows.config.resources import open_store
from nightshift.flows.config.settings import Settings


@dataclass(frozen=True)
class BorrowedModel:
    """A model, for one run or shard."""

    model: Model
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when a call timed out and is still running; a model that is not thread-safe is not called
    again."""


class LoadedModel:
    """A loaded model version that several threads may borrow.

    `reference` is the profile of the sample that it was registered with.
    """

    def __init__(
        self, manifest: Manifest, reference: Profile, load_model: Callable[[], Model]
    ) -> None:
        self.manifest, self.reference = manifest, reference
        self._load, self._loading = load_model, threading.Lock()
        self._free = [load_model()]

    @contextmanager
    def borrow(self) -> Iterator[BorrowedModel]:
        """The model, for this thread alone unless it is thread-safe.

        Another copy is loaded if all others are borrowed, or abandoned in a call that timed out.
        Raises what loading raises.
        """
        with self._loading:
            model = self._free.pop() if self._free else self._load()
            if model.thread_safe:
                self._free.append(model)
        borrowed = BorrowedModel(model)
        try:
            yield borrowed
        finally:
            if not (model.thread_safe or borrowed.abandoned.is_set()):
                self._free.append(model)


def load(settings: Settings, reference: str) -> LoadedModel:
    """Fetch the version that the reference names now, verify its signature and load it."""
    store = open_store(settings)
    manifest = store.resolve(reference)
    return LoadedModel(manifest, store.reference(manifest), lambda: store.load(manifest))
