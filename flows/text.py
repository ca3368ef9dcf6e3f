"""How numbers, times and long texts are written for people: once, for all rooms.

Pure.
"""

from collections.abc import Iterable
from datetime import datetime

WIDTH = 90
"""Letters of a reason in a table; the whole of a longer one is written below it."""
MOST_TEXTS = 10

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def format_percent(share: float) -> str:
    """A share in [0, 1]: 0.1234 -> `12.34%`. What is tiny is not 0%, what is nearly all not 100%.

    Raises nothing; shares beyond 1 are written as they are.
    """
    if 0 < share < 0.0001:
        return "<0.01%"
    if 0.9999 < share < 1:
        return ">99.99%"
    return f"{100 * share:.4g}%"


def format_duration(seconds: float) -> str:
    """`0.42 s`, `12 s`, `3.5 min`, `2.1 h`, `3.0 days`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 1.5 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * _HOUR:
        return f"{seconds / _MINUTE:.1f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.1f} h"
    return f"{seconds / _DAY:,.1f} days"


def format_time(at: datetime | None) -> str:
    """A UTC time to the second; nothing for none."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def printable(text: str) -> str:
    """On one line, without characters that XML cannot hold or that would deceive a reader."""
    line = " ".join(text.split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return shown or "(empty)"


def shorten(text: str, most: int) -> str:
    """At most so many printable letters; left out in the middle, as names differ at the ends."""
    text = printable(text)
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def shorten_reason(reason: str) -> str:
    """At most WIDTH letters of a reason, for a table; `list_full_texts` has the whole."""
    return shorten(reason, WIDTH) if reason else ""


def list_full_texts(labelled: Iterable[tuple[str, str]]) -> list[str]:
    """The texts longer than WIDTH, each once with the labels it is about; the first MOST_TEXTS.

    `[("a", long), ("b", long), ("c", "short")]` gives `["a, b: <long>"]`.
    """
    labels: dict[str, list[str]] = {}
    for label, text in labelled:
        whole = printable(text)
        if len(whole) > WIDTH:
            labels.setdefault(whole, []).append(label)
    lines = [f"{_join(about)}: {text}" for text, about in labels.items()]
    if len(lines) > MOST_TEXTS:
        return [*lines[:MOST_TEXTS], f"and {len(lines) - MOST_TEXTS} other texts"]
    return lines


def _join(labels: list[str]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(labels[:3]) + more
