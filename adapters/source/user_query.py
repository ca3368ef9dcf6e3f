"""The source query: somebody's SELECT, made a part of ours."""

import re
from datetime import datetime

import sqlalchemy as sa

from nightshift.adapters.database.capabilities import MYSQL
from nightshift.adapters.database.times import BEGINNING, END
from nightshift.adapters.database.types import Instant

# What a query is made of, as far as it matters here: texts and comments, in which a colon or a
# semicolon is no syntax, the two parameters, and any other colon (casts, slices, JSON paths).
_TEXT = r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<text> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
              | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )"""
# MariaDB and MySQL know a backslash in any text, names in backticks, comments after a # and, after
# a --, only if a space follows: 5--3 is a sum.
_MYSQL_TEXT = r"""
      (?P<comment> (?:\#|--(?=\s|$))[^\n]* | /\*.*?\*/ )
    | (?P<text> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`]|``)*` )"""
_COLONS = r"""
    | (?P<colons> :: )
    | (?P<bound> (?<!\w):(?:partition_start|partition_end)\b )
    | (?P<colon> : )"""
_FLAGS = re.VERBOSE | re.DOTALL
_PIECES = re.compile(_TEXT + _COLONS, _FLAGS)
_PIECES_OF = dict.fromkeys(MYSQL, re.compile(_MYSQL_TEXT + _COLONS, _FLAGS))


def bound_query(
    query: str, start: datetime | None, end: datetime | None, dialect: str = ""
) -> sa.TextClause:
    """The query with :partition_start and :partition_end, where it has them, as parameters.

    Comments and a last semicolon are left out, so that it can stand in parentheses.
    """
    pieces = _PIECES_OF.get(dialect, _PIECES)
    clause = sa.text(pieces.sub(_escaped, query).rstrip("; \t\r\n"))
    bounds = {"partition_start": start or BEGINNING, "partition_end": end or END}
    used = [
        sa.bindparam(name, value, Instant())
        for name, value in bounds.items()
        if name in clause.compile().params
    ]
    return clause.bindparams(*used)


def _escaped(piece: "re.Match[str]") -> str:
    """SQLAlchemy takes `\\:` for a colon, and `:name` for a parameter wherever it stands."""
    if piece["comment"]:
        return " "
    return piece[0] if piece["bound"] else piece[0].replace(":", "\\:")
