"""What the benchmark prints: medians and ratios, as Markdown."""

from statistics import median
from typing import Any

_NAMES = {
    "floor": "the floor (hand-written, no checks)",
    "nightshift": "**Nightshift**, everything on",
    "pandas_loop": "pandas: read_sql, predict, to_sql",
    "mlflow_pyfunc": "MLflow pyfunc over pandas chunks",
    "ray_data": "Ray Data",
    "spark_jdbc": "PySpark, JDBC and a pandas UDF",
    "connectorx_adbc": "connectorx in, ADBC out",
    "polars_adbc": "polars with ADBC, in and out",
}


def described(found: dict[str, Any]) -> str:
    at = found["machine"]
    return (
        f"{found['rows']:,} rows, {found['date']}, {at['cores']} cores of {at['cpu']},"
        f" {at['memory_gb']} GB, {at['system']}, Python {at['python']},"
        f" load before {at['load_before']}\n{found['command']}"
    )


def summary(turns: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over each contestant's turns."""
    return {
        name: {key: median(turn[key] for turn in found) for key in found[0]}
        for name, found in turns.items()
    }


def markdown(model: str, table: str, rows: int, found: dict[str, Any]) -> str:
    medians, turns = found["summary"], found["turns"]
    base = medians.get("nightshift")
    lines = [
        f"### {model} ({table})",
        "",
        "| contestant | rows/s | seconds | to Nightshift's | CPU: client | CPU: database | peak MB"
        " | with start | turns |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in sorted(medians.items(), key=lambda item: item[1]["seconds"]):
        ratio = f"{row['seconds'] / base['seconds']:.2f} x" if base else ""
        cpu = max(row["cpu_seconds"], 0 if name in _ALONE else row["tree_cpu_seconds"])
        lines.append(
            f"| {_NAMES[name]} | {rows / row['seconds']:,.0f} | {row['seconds']:.2f} | {ratio}"
            f" | {cpu:.2f} | {row['database_cpu_seconds']:.2f} | {row['peak_mb']:.0f}"
            f" | {row['process_seconds']:.1f} | {len(turns[name])} |"
        )
    if base and "floor" in medians:
        floor = medians["floor"]["seconds"]
        lines += [
            "",
            f"Published after {base['published_seconds']:.2f} s, at"
            f" {floor / base['published_seconds']:.2f} of the floor's speed; with the end of the"
            f" flow run {floor / base['seconds']:.2f}.",
        ]
    if base and "predict_cpu_seconds" in base:
        total = base["cpu_seconds"] + base["database_cpu_seconds"]
        rest = base["cpu_seconds"] - base["predict_cpu_seconds"]
        lines += ["", f"CPU outside predict and the database: {rest / total:.0%} of the total."]
    return "\n".join(lines)


_ALONE = ("floor", "nightshift", "pandas_loop", "mlflow_pyfunc", "connectorx_adbc", "polars_adbc")
"""Those who are one process, and count their own CPU, without the start."""
