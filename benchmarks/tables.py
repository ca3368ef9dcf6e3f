"""The tables of the benchmark, made in the database itself, and samples of them to train on."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Columns by name: their SQL type, and the expression that fills them."""

    columns: dict[str, tuple[str, str]]

    @property
    def names(self) -> list[str]:
        return list(self.columns)


def floats() -> Table:
    return Table({f"x{i}": ("double precision NOT NULL", "random()") for i in range(20)})


def mixed() -> Table:
    """50 columns: numbers with NULLs, texts with few and with many values, times, booleans."""
    columns = {}
    for i in range(20):
        value = "random()"
        columns[f"f{i}"] = ("double precision", _with_nulls(value) if i % 4 == 0 else value)
    for i in range(12):
        value = "(random() * 1000)::integer"
        kind = ("integer", "bigint", "smallint")[i % 3]
        columns[f"n{i}"] = (kind, _with_nulls(value) if i % 4 == 0 else value)
    for i in range(8):
        values = "ARRAY['red', 'green', 'blue', 'black', 'white', 'yellow']"
        columns[f"few{i}"] = ("text", f"({values})[1 + (random() * 5)::integer]")
    for i in range(4):
        columns[f"many{i}"] = ("text", "'code-' || (random() * 5000)::integer")
    for i in range(4):
        value = "timestamp '2020-01-01' + interval '1 second' * (random() * 1e8)::integer"
        columns[f"at{i}"] = ("timestamp", value)
    for i in range(2):
        columns[f"flag{i}"] = ("boolean", "random() < 0.5")
    return Table(columns)


def _with_nulls(value: str) -> str:
    return f"CASE WHEN random() < 0.95 THEN {value} END"


TABLES = {"floats": floats(), "mixed": mixed()}


def create(connection: Any, name: str, rows: int) -> None:
    """Make the table with `rows` rows and the key `id` from 1 on, the same ones each time."""
    columns = TABLES[name].columns
    declared = ", ".join(f"{column} {kind}" for column, (kind, _) in columns.items())
    values = ", ".join(value for _, value in columns.values())
    connection.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, {declared})")
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        f"INSERT INTO {name} SELECT i, {values} FROM generate_series(1, {rows}) AS i"
    )
    connection.execute(f"VACUUM ANALYZE {name}")
