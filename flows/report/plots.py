"""Pictures as small SVG: how a column is distributed, and what ranks highest. Pure.

Texts come from databases, so matplotlib never sees them: it places marks, which are replaced by
the escaped text at the end. So no text is read as mathematics, no glyph is looked up, and the
layout does not depend on fonts. By default, lines and texts have the colour of the text around.
"""

import io
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from nightshift.flows.checks.results import Level
from nightshift.flows.report.distributions import LAST, NOW, TRAINING, Distributions
from nightshift.flows.text import format_percent, printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS: dict[str, str] = {
    Level.OK: "#5b8def",
    Level.WARN: "#e0a100",
    Level.FAIL: "#e5484d",
    Level.NOT_JUDGED: "#8b95a5",
}
"""Colours of bars by level, readable on light and on dark."""

_TEXT = "#010203"  # becomes currentColor
_FAINT = "#8b95a5"
_COLOURS = {NOW: "#5b8def", LAST: "#f2871f", TRAINING: _FAINT}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nightshift",
    "text.usetex": False,
    "text.parse_math": False,
    "path.simplify": False,
}
_ALPHA = {NOW: 0.5, TRAINING: 0.4}
_LETTER = 6.2  # pixels, on average
_lock = threading.Lock()  # matplotlib has one set of settings for all threads
_short = partial(shorten, most=26)


@dataclass(frozen=True)
class Bar:
    """One line of a ranking."""

    label: str
    value: float
    text: str
    """The value as people read it."""
    level: str = Level.OK


def draw_distributions(
    found: Distributions, title: str, size: tuple[int, int] = (460, 190), legend: bool = True
) -> str:
    """Shares by bar: this run filled, the others as lines. `size` is in pixels."""
    picture = _Picture(size)
    width, height = size
    top = 26 if legend else 8
    axes = picture.axes((38, top, width - 38 - 10, height - top - 24))
    draw = _bars if found.labels else _steps
    for name in (TRAINING, NOW, LAST):
        if name in found.shares:
            draw(axes, found, name)
    highest = max(max(shares) for shares in found.shares.values())
    axes.set_ylim(0, highest * 1.08 or 1)
    for share in _round_steps(highest, 3):
        axes.axhline(share, color=_FAINT, alpha=0.35, linewidth=0.6, zorder=0, clip_on=False)
        at = top + (height - top - 24) * (1 - share / (highest * 1.08))
        picture.text(34, at, format_percent(share), "right")
    for place, label in _ticks(found, width - 48):
        picture.text(38 + place * (width - 48), height - 12, label, "center")
    if legend:
        names = [name for name in (NOW, LAST, TRAINING) if name in found.shares]
        picture.legend({name: _COLOURS[name] for name in names}, (38, 10))
    return picture.svg(title)


def draw_ranking(
    bars: Sequence[Bar],
    title: str,
    lines: Mapping[str, float] | None = None,
    most: float | None = None,
    width: int = 460,
    root: bool = False,
) -> str:
    """Horizontal bars, the first on top, and vertical lines with their names.

    A bar longer than `most` ends there; its text has its value. With `root`, lengths are square
    roots, so that small values can be seen.
    """
    lines = lines or {}
    row, top, right = 19, 20 if lines else 4, 54
    left = 14 + _LETTER * max((len(_short(bar.label)) for bar in bars), default=0)
    rows = max(len(bars), 1)
    height = top + row * rows + 4
    picture = _Picture((width, height))
    axes = picture.axes((left, top, width - left - right, row * rows))
    longest = max([bar.value for bar in bars] + list(lines.values()), default=1.0)
    scale = min(longest, most) if most else longest
    scale = scale or 1.0
    axes.set_xlim(0, 1)
    axes.set_ylim(rows - 0.5, -0.5)

    def length(value: float) -> float:
        share = min(max(value, 0.0), scale) / scale
        return share**0.5 if root else share

    for level, colour in LEVELS.items():
        places = [index for index, bar in enumerate(bars) if bar.level == level]
        lengths = [length(bars[index].value) for index in places]
        axes.barh(places, lengths, height=0.68, color=colour, clip_on=False)
    for name, value in lines.items():
        dashed: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 2)), "clip_on": False}
        axes.axvline(length(value), color=LEVELS.get(name, _FAINT), **dashed)
        x, before = left + (width - left - right) * length(value), value == min(lines.values())
        picture.text(x, 9, f"{name} {value:g}", "right" if before and len(lines) > 1 else "left")
    for index, bar in enumerate(bars):
        middle = top + row * (index + 0.5)
        picture.text(left - 8, middle, bar.label, "right")
        picture.text(width - 4, middle, bar.text, "right")
    return picture.svg(title)


def on_card(svg: str) -> str:
    """Dark on a light ground, for an image: nothing around it sets a colour there."""
    card = '<rect width="100%" height="100%" rx="6" fill="#f6f8fa"/>'
    head, rest = svg.split(">", 1)
    return f'{head} style="color:#2b3440">{card}{rest}'


class _Picture:
    """A figure whose units are pixels, with y from the top."""

    def __init__(self, size: tuple[int, int]) -> None:
        from matplotlib.figure import Figure  # takes a third of a second

        self.width, self.height = size
        self.figure = Figure((self.width / 72, self.height / 72), dpi=72, facecolor="none")
        self._texts: list[str] = []

    def axes(self, box: tuple[float, float, float, float]) -> "Axes":
        """Without frame and ticks, at (left, top, width, height)."""
        left, top, width, height = box
        below = self.height - top - height
        place = (
            left / self.width, below / self.height, width / self.width, height / self.height,
        )  # fmt: skip
        axes = self.figure.add_axes(place, frameon=False)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def text(self, x: float, y: float, text: str, align: str) -> None:
        mark = f"[[{len(self._texts)}]]"
        self._texts.append(_short(text))
        style: dict[str, Any] = {"ha": align, "va": "center", "fontsize": 11, "color": _TEXT}
        self.figure.text(x / self.width, 1 - y / self.height, mark, **style)

    def legend(self, colours: Mapping[str, str], place: tuple[float, float]) -> None:
        from matplotlib.patches import Rectangle

        x, y = place
        for name, colour in colours.items():
            box = Rectangle(
                (x / self.width, 1 - (y + 4) / self.height),
                10 / self.width, 8 / self.height,
                transform=self.figure.transFigure, color=colour,
            )  # fmt: skip
            self.figure.add_artist(box)
            self.text(x + 15, y, name, "left")
            x += 15 + _LETTER * len(name) + 18

    def svg(self, title: str) -> str:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with _lock, matplotlib.rc_context(_SETTINGS):
            FigureCanvasSVG(self.figure)
            self.figure.savefig(written, format="svg", metadata=nothing)
        return self._slim(written.getvalue(), title)

    def _slim(self, drawn: str, title: str) -> str:
        """Most of what matplotlib writes is not needed by a browser; the texts are put in."""
        body = drawn[drawn.index("</defs>") + len("</defs>") : drawn.rindex("</svg>")]
        body = re.sub(r'</?g( id="[^"]*")? ?/?>| transform="rotate\(-0 [^"]*"', "", body)
        body = re.sub(r"(\d\.\d)\d+", r"\1", body)
        body = re.sub(r"font-family: [^;\"]*|font: [^;\"]*", "font: 11px sans-serif", body)
        body = body.replace(_TEXT, "currentColor")
        body = re.sub(r"\s+", " ", body).replace("> <", "><").replace(" />", "/>")
        body = re.sub(r"\[\[(\d+)\]\]", lambda mark: escape(self._texts[int(mark[1])]), body)
        name = escape(printable(title))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-label="{name}">'
            f"{body.strip()}</svg>"
        )


def _steps(axes: "Axes", found: Distributions, name: str) -> None:
    shares = found.shares[name]
    options: dict[str, Any] = {"color": _COLOURS[name], "clip_on": False}
    if name != LAST:
        axes.stairs(shares, found.edges, fill=True, alpha=_ALPHA[name], **options)
    if name != TRAINING:
        axes.stairs(shares, found.edges, linewidth=1.5, **options)
    axes.set_xlim(found.edges[0], found.edges[-1])


def _bars(axes: "Axes", found: Distributions, name: str) -> None:
    shares = found.shares[name]
    options: dict[str, Any] = {"color": _COLOURS[name], "clip_on": False}
    places = np.arange(len(shares))
    if name == LAST:
        axes.hlines(shares, places - 0.43, places + 0.43, linewidth=2, **options)
    else:
        width = 0.86 if name == TRAINING else 0.6
        axes.bar(places, shares, width, linewidth=0, alpha=_ALPHA[name], **options)
    axes.set_xlim(-0.5, len(shares) - 0.5)


def _ticks(found: Distributions, width: float) -> list[tuple[float, str]]:
    """(place in [0, 1], label) of a few values below the bars, with room for each."""
    if found.labels:
        count, letters = len(found.labels), int(width / _LETTER)
        longest = min(max(map(len, found.labels)), 12)
        step = max(1, -(-(min(longest, 5) + 1) * count // letters))
        room = max(letters * step // count - 1, 3)
        return [
            ((index + 0.5) / count, shorten(label, room))
            for index, label in enumerate(found.labels)
            if index % step == 0
        ]
    low, high = found.edges[0], found.edges[-1]
    if found.is_time:
        values = list(np.linspace(low, high, 4)[1:-1])
        return [((value - low) / (high - low), _day(value)) for value in values]
    values = [value for value in _round_values(low, high, width) if low <= value <= high]
    return [((value - low) / (high - low), f"{value:,.6g}") for value in values]


def _round_values(low: float, high: float, width: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    return [float(value) for value in MaxNLocator(int(width / 65)).tick_values(low, high)]


def _round_steps(highest: float, count: int) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(count).tick_values(0, highest)
    return [float(value) for value in values if 0 <= value <= highest]


def _day(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):  # outside the years 1 to 9999
        return f"{seconds:.4g}"
