"""A version of a model, opened, with what its runs are compared with."""

from dataclasses import dataclass

from adapters.manifest import Manifest
from adapters.model import Model
from adapters.profile import Profile
from flows.desk import open_store
from flows.settings import Settings


@dataclass(frozen=True)
class Served:
    """A version of a model, opened."""

    manifest: Manifest
    model: Model
    reference: Profile
    """Of the sample that it was published with."""


def opened(settings: Settings, reference: str) -> Served:
    """Fetch the version that the reference names now, check it and open it."""
    store = open_store(settings)
    manifest = store.resolve(reference)
    return Served(manifest, store.load(manifest), store.reference(manifest))
