"""A version of a model, opened, with what its runs are compared with."""

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
    left: threading.Event = field(default_factory=threading.Event)
    """Set once a call of it was left going on; if it is not thread-safe, it may have no other."""


class LoadedModel:
    """A version of a model, opened, for threads side by side.

    `reference` is of the sample that it was registered with.
    """

    def __init__(
        self, manifest: Manifest, reference: Profile, open_model: Callable[[], Model]
    ) -> None:
        self.manifest, self.reference = manifest, reference
        self._open_model, self._opening = open_model, threading.Lock()
        self._free = [open_model()]

    @contextmanager
    def lent(self) -> Iterator[BorrowedModel]:
        """The model: for nobody else meanwhile, unless it is thread-safe.

        Opened once more where there are more threads than copies, or a call goes on in the last
        one; raises what opening raises.
        """
        with self._opening:
            model = self._free.pop() if self._free else self._open_model()
            if model.thread_safe:
                self._free.append(model)
        lent = BorrowedModel(model)
        try:
            yield lent
        finally:
            if not (model.thread_safe or lent.left.is_set()):
                self._free.append(model)


def opened(settings: Settings, reference: str) -> LoadedModel:
    """Fetch the version that the reference names now, check it and open it."""
    store = open_store(settings)
    manifest = store.resolve(reference)
    return LoadedModel(manifest, store.reference(manifest), lambda: store.load(manifest))
