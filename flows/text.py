"""Reasons in a table: a long one is cut there, and told in full once, below. Pure."""

from collections.abc import Iterable

WIDTH, MOST = 90, 10


def in_a_line(text: str) -> str:
    return " ".join(text.split())


def cut(text: str) -> str:
    """What fits in a table's cell."""
    line = in_a_line(text)
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…"


def in_full(labelled: Iterable[tuple[str, str]]) -> list[str]:
    """For each text that was cut: which (label, text) it is about, and all of it; the first MOST.

    `[("a", long), ("b", long), ("c", "short")]` gives `["a, b: <long>"]`.
    """
    labels: dict[str, list[str]] = {}
    for label, text in labelled:
        if len(in_a_line(text)) > WIDTH:
            labels.setdefault(in_a_line(text), []).append(label)
    told = [f"{_some(about)}: {text}" for text, about in labels.items()]
    if len(told) > MOST:
        return [*told[:MOST], f"and {len(told) - MOST} other texts"]
    return told


def _some(labels: list[str]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(labels[:3]) + more
