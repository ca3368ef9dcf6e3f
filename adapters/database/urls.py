"""Database URLs, of which every part is used, or else refused by name.

SQLAlchemy's parser drops parameters without a value and whatever follows the bracket of an IPv6
address; a driver may drop more, which `Capabilities.check_url` knows.
"""

import difflib
import re
from collections.abc import Collection
from urllib.parse import parse_qsl

import sqlalchemy as sa

from nightshift.adapters.errors import ConfigurationError

PLACE, FIELD = "nightshift.yaml", "database.url"

_INVISIBLE = re.compile(r"^\s|\s$|[\x00-\x1f\x7f]")
_MORE_THAN_AN_ADDRESS = re.compile(r"\][^:/?]")


def parse_database_url(text: str) -> sa.URL:
    """The URL. Raises ConfigurationError for a part that would be ignored; sa.exc.ArgumentError or
    ValueError for what is not a database URL.
    """
    require_visible(PLACE, FIELD, text)
    url = sa.make_url(text)
    beginning, _, query = text.partition("?")
    found = parse_qsl(query, keep_blank_values=True)
    without = [name for name, value in found if not value]
    without += [name for name in query.split("&") if name and "=" not in name]
    if without:
        raise unread(f"the parameter {without[0]!r} has no value", "Give it one, or leave it out.")
    if url.host and ":" in url.host and _MORE_THAN_AN_ADDRESS.search(beginning):
        raise unread("there is more than an address in brackets", "Write it like [::1]:5432.")
    return url


def require_visible(place: str, field: str, text: str) -> None:
    """Raises ConfigurationError for a line break, or a space at an end: parsers drop them."""
    if _INVISIBLE.search(text):
        problem = f"{text!r} has a control character, or a space at an end"
        raise ConfigurationError(place, field, problem, "Leave it out.")


def unread(problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(PLACE, FIELD, problem, remedy)


def require_known(
    url: sa.URL, known: Collection[str], ours: Collection[str] = (), repeated: Collection[str] = ()
) -> None:
    """Raises ConfigurationError for a parameter that is not `known`, that is one of `ours`, which
    Nightshift sets itself, whose value is not valid, or that has several values and is not one of
    `repeated`.
    """
    for name, value in url.query.items():
        if name in ours:
            problem = f"Nightshift sets the parameter {name!r} itself"
            raise unread(problem, "Leave it out.")
        if name not in known and name != "plugin":  # SQLAlchemy's own
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Correct it, or leave it out."
            raise unread(f"its driver has no parameter {name!r}", hint)
        if not isinstance(value, str) and name not in repeated:
            raise unread(f"the parameter {name!r} has several values", "Leave one.")
    try:
        url.get_dialect()().create_connect_args(url)
    except (sa.exc.ArgumentError, TypeError, ValueError) as error:
        raise unread(f"a parameter's value is not valid ({error})", "Correct it.") from error


def require_once(url: sa.URL, names: dict[str, str]) -> None:
    """Raises ConfigurationError for a parameter that repeats a part of the URL.

    `names` are parts by the parameters that would replace them.
    """
    for parameter, part in names.items():
        if parameter in url.query and getattr(url, part) not in {None, ""}:
            problem = f"it has a {part} twice: before the ? and as the parameter {parameter!r}"
            raise unread(problem, "Leave one.")
