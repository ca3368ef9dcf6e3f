"""What the documents say is tested, written there from the collected tests themselves.

    python tests/support/matrix.py            write it
    python tests/support/matrix.py --check    only tell, by exit code 1, what is not up to date

A document keeps a place for it: `<!-- tests: NAME -->`, and `<!-- end -->` on a later line.
"""

import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Table:
    """The tests whose ids begin with `tests`, one row each; a list of them if `column` is None."""

    document: str
    name: str
    tests: tuple[str, ...]
    column: Callable[[pytest.Function], str | None] | None = None
    """Under which heading a test with these parameters counts; None: it is none of the table's."""
    headings: Sequence[str] = ()
    """The order of the columns; others follow as they come."""
    by_file: bool = False
    """A row is a file, and its text the first line of that file's docstring."""


def parameter(name: str) -> Callable[[pytest.Function], str | None]:
    """The heading is the value of the parameter."""

    def heading(test: pytest.Function) -> str | None:
        callspec = getattr(test, "callspec", None)
        return None if callspec is None else callspec.params.get(name)

    return heading


def adapter(test: pytest.Function) -> str | None:
    """A case of the adapters' contract suite begins with the adapter's name."""
    case = parameter("trained")(test)
    return case[0] if case else None


LANES = {
    "fast": "PostgreSQL",
    "generic": "PostgreSQL, plain SQLAlchemy",
    "lite": "SQLite",
    "maria": "MariaDB",
    "duck": "DuckDB",
}


def lane(test: pytest.Function) -> str | None:
    """The lane of tests/adapters/database, whether it is a parameter or a fixture of the test."""
    for name in ("lane", "postgres_lane"):
        if (found := parameter(name)(test)) in LANES:
            return LANES[str(found)]
    return next((LANES[name] for name in test.fixturenames if name in LANES), None)


TABLES = (
    Table(
        "docs/databases.md",
        "databases",
        ("tests/adapters/database/",),
        lane,
        tuple(LANES.values()),
        by_file=True,
    ),
    Table(
        "docs/models.md", "contract", ("tests/adapters/test_contract.py::TestContract",), adapter
    ),
    Table("docs/models.md", "attacks", ("tests/adapters/test_attacks.py",)),
)


# --- from tests to Markdown -----------------------------------------------------------------------


def written(table: Table, tests: Sequence[pytest.Function]) -> str:
    """The table as Markdown."""
    rows: dict[str, Counter[str]] = {}
    said: dict[str, str] = {}
    for test in tests:
        place = test.nodeid.partition("[")[0]
        if not place.startswith(table.tests):
            continue
        if table.by_file:
            place = place.partition("::")[0]
        heading = table.column(test) if table.column else ""
        if heading is not None:
            rows.setdefault(place, Counter())[heading] += 1
            said[place] = title(place, test) if table.by_file else sentence(test)
    if table.column is None:
        return "\n".join(f"- {said[place]}: `{place.rpartition('::')[2]}`" for place in rows)
    headings = list(dict.fromkeys([*table.headings, *(h for row in rows.values() for h in row)]))
    lines = [f"| | {' | '.join(headings)} |", "|---|" + "---|" * len(headings)]
    for place, row in rows.items():
        counts = " | ".join(str(row[heading] or "") for heading in headings)
        lines.append(f"| {said[place]} | {counts} |")
    return "\n".join(lines)


def title(place: str, test: pytest.Function) -> str:
    doc: str = (test.module.__doc__ or "").strip().partition("\n\n")[0]
    name = place.rpartition("/")[2]
    return f"[{' '.join(doc.split()).removesuffix('.')}](../{place})" if doc else name


def sentence(test: pytest.Function) -> str:
    """The first line of a test's docstring, or else its name as words."""
    doc: str = (test.function.__doc__ or "").strip().partition("\n")[0]
    name: str = test.function.__name__
    return doc.removesuffix(".") or name.removeprefix("test_").replace("_", " ").capitalize()


def filled(text: str, table: Table, content: str) -> str:
    """The document with the content in the table's place."""
    place = re.compile(rf"(<!-- tests: {table.name} -->\n).*?(^<!-- end -->$)", re.S | re.M)
    filled, places = place.subn(lambda ends: f"{ends[1]}\n{content}\n\n{ends[2]}", text)
    if places != 1:
        raise SystemExit(f"{table.document}: <!-- tests: {table.name} --> is there {places} times")
    return filled


class _Collected:
    """A pytest plugin that keeps the tests before any is deselected."""

    def __init__(self) -> None:
        self.tests: list[pytest.Function] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        self.tests = list(items)


def collected() -> list[pytest.Function]:
    """Every test of the tables; none is run."""
    files = sorted({tests.partition("::")[0] for table in TABLES for tests in table.tests})
    found = _Collected()
    arguments = ["--collect-only", "-m", "", f"--rootdir={ROOT}", *(str(ROOT / f) for f in files)]
    with redirect_stdout(io.StringIO()) as said:
        failed = pytest.main(arguments, plugins=[found])
    if failed:
        raise SystemExit(said.getvalue())
    return found.tests


def main() -> int:
    tests = collected()
    stale = 0
    for table in TABLES:
        path = ROOT / table.document
        before = path.read_text(encoding="utf-8")
        after = filled(before, table, written(table, tests))
        if after != before and "--check" in sys.argv:
            stale = 1
            print(f"{table.document}: {table.name} is not what the tests are; run {__file__}")
        elif after != before:
            path.write_text(after, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
