"""The source query: somebody's SELECT, made a part of ours."""

import re
from datetime import datetime

import sqlalchemy as sa

from adapters.database.times import BEGINNING, END

# What a query is made of, as far as it matters here: texts and comments, in which a colon or a
# semicolon is no syntax, the two parameters, and any other colon (casts, slices, JSON paths).
_PIECES = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<text> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
              | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<colons> :: )
    | (?P<bound> (?<!\w):(?:partition_start|partition_end)\b )
    | (?P<colon> : )
    """,
    re.VERBOSE | re.DOTALL,
)


def bound_query(query: str, start: datetime | None, end: datetime | None) -> sa.TextClause:
    """The query with :partition_start and :partition_end, where it has them, as parameters.

    Comments and a last semicolon are left out, so that it can stand in parentheses.
    """
    clause = sa.text(_PIECES.sub(_escaped, query).rstrip("; \t\r\n"))
    bounds = {"partition_start": start or BEGINNING, "partition_end": end or END}
    used = [
        sa.bindparam(name, value, sa.DateTime(timezone=True))
        for name, value in bounds.items()
        if name in clause.compile().params
    ]
    return clause.bindparams(*used)


def _escaped(piece: "re.Match[str]") -> str:
    """SQLAlchemy takes `\\:` for a colon, and `:name` for a parameter wherever it stands."""
    if piece["comment"]:
        return " "
    return piece[0] if piece["bound"] else piece[0].replace(":", "\\:")
