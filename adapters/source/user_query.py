"""The job's source query, made a part of Nightshift's SELECTs."""

import re
from datetime import datetime
from functools import cache

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import capabilities
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.database.types import Instant

# A query's colons: casts, the two parameters, and any other (slices, JSON paths). In texts and
# comments, which each database writes in its own way, they are not syntax.
_COLONS = r"""
    | (?P<colons> :: )
    | (?P<bound> (?<!\w):(?:partition_start|partition_end)\b )
    | (?P<colon> : )"""


@cache
def _pieces(comment_or_text: str) -> "re.Pattern[str]":
    return re.compile(comment_or_text + _COLONS, re.VERBOSE | re.DOTALL)


def bound_query(
    query: str, start: datetime | None, end: datetime | None, dialect: sa.Dialect
) -> sa.TextClause:
    """The query, with :partition_start and :partition_end bound where it uses them.

    Comments and a final semicolon are removed, so that it can stand in parentheses.
    """
    pieces = _pieces(capabilities(dialect).comment_or_text)
    clause = sa.text(pieces.sub(_escaped, query).rstrip("; \t\r\n"))
    bounds = {"partition_start": start or BEGINNING, "partition_end": end or END}
    used = [
        sa.bindparam(name, value, Instant())
        for name, value in bounds.items()
        if name in clause.compile().params
    ]
    return clause.bindparams(*used)


def _escaped(piece: "re.Match[str]") -> str:
    """SQLAlchemy reads `\\:` as a colon, and `:name` as a parameter, even in a text."""
    if piece["comment"]:
        return " "
    return piece[0] if piece["bound"] else piece[0].replace(":", "\\:")
