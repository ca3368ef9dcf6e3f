"""How a model version is written: `churn@7`."""

from typing import Self


class ModelRef(str):
    """The text `name@version`, with its two parts; it equals, and is stored as, that text."""

    __slots__ = ("name", "version")

    name: str
    version: int

    def __new__(cls, name: str, version: int) -> Self:
        self = super().__new__(cls, f"{name}@{version}")
        self.name, self.version = name, version
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[str, int]]:
        return type(self), (self.name, self.version)
