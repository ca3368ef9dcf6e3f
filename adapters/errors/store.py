"""What can go wrong with the model store."""

from nightshift.adapters.errors.root import NightshiftError


class StoreError(NightshiftError):
    """The model store refused, or does not have what was asked for."""


class ModelNotFound(StoreError):
    def __init__(self, store: str, reference: str, known: tuple[str, ...]) -> None:
        super().__init__(store, reference, known)
        self.store, self.reference, self.known = store, reference, known

    def __str__(self) -> str:
        there = f"it has {', '.join(self.known)}" if self.known else "it has none"
        name, _, pointer = self.reference.partition("@")
        mine = [known for known in self.known if known.rpartition("@")[0] == name]
        mine = [known for known in mine if known.rpartition("@")[2].isdigit()]
        remedy = "`nightshift models` lists what can be used; `nightshift register` adds to it."
        if mine and not pointer.isdigit():
            version = mine[-1].rpartition("@")[2]
            remedy = f"`nightshift promote {name} {version}` lets an alias name a version."
        return f"{self.reference!r} is not in the model store {self.store}: {there}. {remedy}"


class StoreNotFound(StoreError):
    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.store = store

    def __str__(self) -> str:
        return (
            f"The model store {self.store} does not exist. "
            "Create the bucket, or correct store.url in nightshift.yaml."
        )


class StoreAccessDenied(StoreError):
    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store, self.problem = store, problem

    def __str__(self) -> str:
        return (
            f"The model store {self.store} refused access: {self.problem}. Check the credentials: "
            "NIGHTSHIFT_STORE__KEY and NIGHTSHIFT_STORE__SECRET, or the usual AWS_ variables."
        )


class StoreUnsafe(StoreError):
    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store, self.problem = store, problem

    def __str__(self) -> str:
        return (
            f"The model store {self.store} cannot keep versions apart: {self.problem}. "
            "Use storage with atomic conditional writes (AWS S3, Ceph, a local folder, ...)."
        )


class StoreRefused(StoreError):
    def __init__(self, place: str, doing: str, problem: str) -> None:
        super().__init__(place, doing, problem)
        self.place, self.doing, self.problem = place, doing, problem

    def __str__(self) -> str:
        return f"{self.place} refused to {self.doing}: {self.problem}"


class AliasMoved(StoreError):
    def __init__(self, model: str, alias: str, expected: int | None, found: int | None) -> None:
        super().__init__(model, alias, expected, found)
        self.model, self.alias, self.expected, self.found = model, alias, expected, found

    def __str__(self) -> str:
        return (
            f"{self.model}@{self.alias} was to move from version {self.expected}, but was "
            f"moved to {self.found} first. Look at `nightshift models`, then promote again."
        )


class RecordInvalid(StoreError):
    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return (
            f"{self.place} cannot be understood: {self.problem}. "
            "It was damaged, replaced, or written by a newer Nightshift. Register another version; "
            "if it is an alias, delete the file and promote again."
        )


class BlobCorrupt(StoreError):
    def __init__(self, place: str, expected: str, found: str) -> None:
        super().__init__(place, expected, found)
        self.place, self.expected, self.found = place, expected, found

    def __str__(self) -> str:
        return (
            f"{self.place} should have the SHA-256 digest {self.expected} but has {self.found}. "
            "It was damaged or replaced, and was not opened. Register the model again."
        )
