"""The command line, called in this process."""

from typing import NamedTuple, Protocol


class Printed(NamedTuple):
    stdout: str
    stderr: str


class Nightshift(Protocol):
    """Calls it; returns what it printed, if its exit code is the expected one."""

    def __call__(self, *arguments: str, code: int = 0) -> Printed: ...
