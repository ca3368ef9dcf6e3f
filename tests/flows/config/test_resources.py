"""Who is at work."""

import getpass
import socket

import pytest

from nightshift.flows.config.resources import current_user


@pytest.mark.parametrize("error", [KeyError, OSError])  # before Python 3.13, and from it on
def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def getuser() -> str:
        raise error("getpwuid(): uid not found: 1000690000")

    monkeypatch.setattr(getpass, "getuser", getuser)
    assert current_user() == f"unknown@{socket.gethostname()}"
