"""The command line, called in this process."""

from typing import NamedTuple, Protocol


class Printed(NamedTuple):
    stdout: str
    stderr: str


class Nightshift(Protocol):
    """Calls it; what it has printed, once its exit code is the one expected."""

    def __call__(self, *arguments: str, code: int = 0) -> Printed: ...
