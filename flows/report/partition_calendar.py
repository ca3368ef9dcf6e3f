"""The picture of a backfill: its partitions by state, as one small SVG. Pure.

A row is a month of days, a day of hours or a year of months, so that a week and three years both
fit. More hours than two months have are shown by their days, each by the worst of its hours.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from nightshift.flows.config.job import Granularity

# From the least to the most that a person should know about; each with colour and mark.
STATES = {
    "skipped": ("#b9c3d0", ""),
    "published": ("#2f9e62", ""),
    "waiting": ("#dbe9fb", ""),
    "running": ("#f2a93b", "···"),
    "failed": ("#d43d3d", "×"),
}
_WORST = list(STATES)
_MOST_HOURS = 62 * 25
_LEFT, _TOP, _LEGEND, _RIGHT = 86, 34, 30, 14
_WIDEST, _LARGEST, _LARGE, _SMALL = 720, 34, 26, 20
_NUMBERED = 45  # more partitions than these have no numbers within


def draw(partitions: Sequence[tuple[str, str]], granularity: Granularity) -> str:
    """(label, state) of each partition, in time's order -> SVG."""
    if granularity == "hour" and len(partitions) > _MOST_HOURS:
        partitions, granularity = _by_day(partitions), "day"
    rows = _rows(partitions, granularity)
    first, last = _columns(rows, granularity)
    wished = _LARGEST if len(rows) == 1 else _LARGE if len(rows) <= 12 else _SMALL
    columns = last - first + 1
    size = max(_SMALL, min(wished, (_WIDEST - _LEFT - _RIGHT) // columns))
    gap = 3
    width = _LEFT + columns * size + _RIGHT
    height = _TOP + len(rows) * size + _LEGEND + 12
    paths: dict[str, list[str]] = {state: [] for state in STATES}
    texts = []
    for index, (name, row) in enumerate(rows.items()):
        y = _TOP + index * size
        texts.append(_text(_LEFT - 10, y + size / 2, name, "end"))
        for column, short, state in row:
            x = _LEFT + (column - first) * size
            side = size - gap
            paths[state].append(f"M{x} {y}h{side}v{side}h-{side}z")
            mark = STATES[state][1]
            inside = mark or (short if len(partitions) <= _NUMBERED else "")
            if inside:
                style = "w" if state in ("published", "failed", "running") else "n"
                texts.append(_text(x + side / 2, y + side / 2 + 1, inside, "middle", style))
    heads = [
        _text(_LEFT + (column - first) * size + (size - gap) / 2, _TOP - 12, head, "middle", "s")
        for column, head in _heads(granularity, last)
        if first <= column <= last
    ]
    counts = {state: sum(found == state for _, found in partitions) for state in STATES}
    x, legend = _LEFT, []
    for state, count in counts.items():
        if count:
            y = height - _LEGEND + 6
            paths[state].append(f"M{x} {y}h12v12h-12z")
            caption = f"{state} {count:,}"
            legend.append(_text(x + 18, y + 7, caption, "start"))
            x += 18 + 7 * len(caption) + 22
    width = max(width, x)
    drawn = "".join(
        f'<path d="{"".join(path)}" fill="{STATES[state][0]}" stroke="#6f97cc" '
        f'stroke-width="{1 if state == "waiting" else 0}"/>'
        for state, path in paths.items()
        if path
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>text{{font:12px sans-serif;fill:#2b3440;'
        "dominant-baseline:middle}.s{fill:#6b7787;font-size:11px}"
        ".n{font-size:11px}.w{fill:#fff;font-size:11px}</style>"
        '<rect width="100%" height="100%" rx="6" fill="#f6f8fa"/>'
        f"{drawn}{''.join(heads)}{''.join(texts)}{''.join(legend)}</svg>"
    )


def data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def _rows(
    partitions: Iterable[tuple[str, str]], granularity: Granularity
) -> dict[str, list[tuple[int, str, str]]]:
    """Row's name -> (column from 1, text inside, state) of its partitions."""
    rows: dict[str, list[tuple[int, str, str]]] = {}
    for label, state in partitions:
        if granularity == "all":
            name, number = "", 1
        elif granularity == "hour":
            name, number = label[:10], int(label[11:13])
        else:
            name, number = label[:-3], int(label[-2:])
        row = rows.setdefault(name, [])
        # An hour that clocks repeat moves the later ones of its day on by one.
        column = max(number + 1, row[-1][0] + 1 if row else 1) if granularity == "hour" else number
        row.append((column, "" if granularity == "all" else str(number), state))
    return rows


def _columns(
    rows: dict[str, list[tuple[int, str, str]]], granularity: Granularity
) -> tuple[int, int]:
    """The first and the last column drawn. Alone, a row has no more than its own."""
    found = [column for row in rows.values() for column, _, _ in row]
    first, last = min(found, default=1), max(found, default=1)
    if len(rows) == 1:
        return first, last
    return 1, {"day": 31, "hour": max(24, last), "month": 12}.get(granularity, last)


def _by_day(partitions: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    days: dict[str, str] = {}
    for label, state in partitions:
        day = label[:10]
        days[day] = max(days.get(day, state), state, key=_WORST.index)
    return list(days.items())


def _heads(granularity: Granularity, last: int) -> list[tuple[int, str]]:
    if granularity == "day":
        return [(day, str(day)) for day in (1, 5, 10, 15, 20, 25, 31)]
    if granularity == "month":
        names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun"]
        names += ["Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        return list(enumerate(names, start=1))
    if granularity == "hour":
        return [(hour + 1, f"{hour:02}") for hour in range(0, min(last, 24), 3)]
    return []


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'
