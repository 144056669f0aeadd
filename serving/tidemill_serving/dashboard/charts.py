"""Plots as inline SVG: text in, markup out. Colours come from the page's style, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from tidemill_serving.dashboard.markup import EMPTY, Part, Tone, join

WIDTH = 640


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of a whole; `tone` colours it, `what` names it."""

    what: str
    amount: float
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar with its label before it and its number behind it."""

    label: Part
    amount: float
    text: str
    tone: Tone = Tone.PLAIN
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve over time; a value of None leaves a gap."""

    name: str
    points: Sequence[tuple[datetime, float | None]]


@dataclass(frozen=True, kw_only=True)
class Span:
    """Something that lasted from `start` to `end` in a lane."""

    lane: str
    start: datetime
    end: datetime
    tone: Tone
    title: str


def stacked(shares: Sequence[Share], *, label: str) -> Markup:
    """One bar of a whole, in shares. Every share that is there is seen, however small."""
    whole = sum(share.amount for share in shares)
    if not whole:
        return EMPTY
    present = [share for share in shares if share.amount]
    widths = [max(share.amount / whole * 100, 1.2) for share in present]
    scale, left, parts = 100 / sum(widths), 0.0, []
    for share, width in zip(present, widths, strict=True):
        parts.append(
            Markup("<rect class='{}' x='{:.3f}%' width='{:.3f}%' height='100%'><title>{}</title></rect>").format(
                share.tone.value, left * scale, width * scale, f"{share.what}: {share.amount:,.0f}"
            )
        )
        left += width
    return Markup("<svg class='stacked' role='img' aria-label='{}'>{}</svg>").format(label, join(parts))


def bars(items: Sequence[Bar], *, top: float, marks: Sequence[tuple[float, str]] = (), label: str) -> Markup:
    """Horizontal bars up to `top`, with thresholds as dashed lines. HTML, so that the labels wrap on a phone."""
    lines = join(
        Markup("<i class='mark' style='left:{:.2f}%' title='{}'></i>").format(min(at / top, 1) * 100, text)
        for at, text in marks
    )
    rows = join(
        Markup(
            "<div class='bar-row' title='{}'><span class='bar-label'>{}</span>"
            "<span class='bar-track'><b class='{}' style='width:{:.2f}%'></b>{}</span>"
            "<span class='bar-text'>{}</span></div>"
        ).format(item.title, item.label, item.tone.value, max(min(item.amount / top, 1) * 100, 0.4), lines, item.text)
        for item in items
    )
    return Markup("<div class='bars' role='img' aria-label='{}'>{}</div>").format(label, rows)


def sparkline(values: Sequence[float], *, label: str, height: int = 36) -> Markup:
    """Small columns without axes, for the shape alone."""
    if not values or max(values) <= 0:
        return EMPTY
    top, step = max(values), 100 / len(values)
    columns = join(
        Markup("<rect x='{:.2f}' y='{:.2f}' width='{:.2f}' height='{:.2f}'/>").format(
            place * step, height * (1 - item / top), step * 0.72, height * item / top
        )
        for place, item in enumerate(values)
    )
    return Markup(
        "<svg class='spark' viewBox='0 0 100 {}' preserveAspectRatio='none' role='img' aria-label='{}'>{}</svg>"
    ).format(height, label, columns)


def curves(lines: Sequence[Line], *, label: str, marks: Sequence[tuple[float, str]] = (), height: int = 220) -> Markup:
    """Curves over time on one scale, with a legend and, as dashed lines, values to compare with."""
    found = [(at, item) for line in lines for at, item in line.points if item is not None]
    if not found:
        return EMPTY
    times = [at for at, _ in found]
    low, high = _nice_range([item for _, item in found] + [at for at, _ in marks])
    axis = _TimeAxis(min(times), max(times), left=46, right=WIDTH - 12)

    def y(item: float) -> float:
        return 12 + (height - 40) * (1 - (item - low) / (high - low))

    steps = [low + (high - low) * place / 4 for place in range(5)]
    rules = join(
        Markup(
            "<line class='rule' x1='46' x2='{}' y1='{y:.1f}' y2='{y:.1f}'/>"
            "<text x='38' y='{t:.1f}' class='end'>{}</text>"
        ).format(WIDTH - 12, _short(step), y=y(step), t=y(step) + 4)
        for step in steps
    )
    compared = join(
        Markup("<line class='compare' x1='46' x2='{}' y1='{y:.1f}' y2='{y:.1f}'><title>{}</title></line>").format(
            WIDTH - 12, text, y=y(at)
        )
        for at, text in marks
    )
    drawn = join(_curve(line, place, axis, y) for place, line in enumerate(lines))
    legend = join(
        Markup("<span><i class='series-{}'></i>{}</span>").format(place % 5, line.name)
        for place, line in enumerate(lines)
    )
    if marks:
        legend += Markup("<span><i class='compare'></i>{}</span>").format("; ".join(text for _, text in marks))
    return Markup(
        "<figure class='plot scroll' tabindex='0'>"
        "<svg class='curves' viewBox='0 0 {} {}' role='img' aria-label='{}'>{}{}{}{}</svg>"
        "<figcaption>{}</figcaption></figure>"
    ).format(WIDTH, height, label, rules, axis.labels(height - 6), compared, drawn, legend)


def reliability(bins: Sequence[tuple[float, float, int]], *, label: str, size: int = 260) -> Markup:
    """What was predicted against what came true: (predicted, observed, rows) for each bin; the diagonal is honest."""
    most = max((rows for _, _, rows in bins), default=0)
    if not most:
        return EMPTY

    def place(share: float) -> float:
        return 34 + share * (size - 48)

    def up(share: float) -> float:
        return size - 30 - share * (size - 48)

    ticks = join(
        Markup("<text x='{:.1f}' y='{}' class='mid'>{}</text><text x='28' y='{:.1f}' class='end'>{}</text>").format(
            place(at), size - 12, f"{at:.0%}", up(at) + 4, f"{at:.0%}"
        )
        for at in (0, 0.5, 1)
    )
    points = join(
        Markup("<circle class='series-0' cx='{:.1f}' cy='{:.1f}' r='{:.1f}'><title>{}</title></circle>").format(
            place(predicted),
            up(observed),
            3 + 7 * math.sqrt(rows / most),
            f"predicted {predicted:.1%}, came true {observed:.1%} of {rows:,}",
        )
        for predicted, observed, rows in bins
        if rows
    )
    frame = Markup("<path class='rule' d='M{0:.1f} {1:.1f} V{2:.1f} H{3:.1f}' fill='none'/>").format(
        place(0), up(1), up(0), place(1)
    )
    honest = Markup("<line class='compare' x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}'/>").format(
        place(0), up(0), place(1), up(1)
    )
    said = "across: predicted; up: came true; on the dashed line both are equal"
    return Markup(
        "<figure class='plot square'><svg viewBox='0 0 {0} {0}' role='img' aria-label='{1}'>{2}{3}{4}{5}</svg>"
        "<figcaption>{6}</figcaption></figure>"
    ).format(size, label, frame, ticks, honest, points, said)


def timeline(spans: Sequence[Span], *, start: datetime, end: datetime, label: str) -> Markup:
    """Lanes of what lasted when. Whatever is shorter than two pixels is still seen."""
    lanes = list(dict.fromkeys(span.lane for span in spans))
    width = 1_100
    axis, height = _TimeAxis(start, end, left=190, right=width - 12), 26 * len(lanes) + 34
    rows = join(
        Markup("<text x='0' y='{:.0f}'>{}</text><line class='rule' x1='190' x2='{}' y1='{y}' y2='{y}'/>").format(
            26 * place + 20, _cut(lane, 30), width - 12, y=26 * place + 16
        )
        for place, lane in enumerate(lanes)
    )
    drawn = join(
        Markup("<rect class='{}' x='{:.2f}' y='{}' width='{:.2f}' height='14' rx='2'><title>{}</title></rect>").format(
            span.tone.value,
            axis.at(span.start),
            26 * lanes.index(span.lane) + 9,
            max(axis.at(span.end) - axis.at(span.start), 2.5),
            span.title,
        )
        for span in spans
    )
    return Markup(
        "<figure class='plot scroll' tabindex='0'>"
        "<svg class='lanes' viewBox='0 0 {} {}' role='img' aria-label='{}'>{}{}{}</svg></figure>"
    ).format(width, height, label, rows, axis.labels(height - 6), drawn)


@dataclass(frozen=True)
class _TimeAxis:
    start: datetime
    end: datetime
    left: float
    right: float

    def at(self, moment: datetime) -> float:
        whole = (self.end - self.start) / timedelta(seconds=1) or 1.0
        share = (moment - self.start) / timedelta(seconds=1) / whole
        return self.left + (self.right - self.left) * min(max(share, 0.0), 1.0)

    def labels(self, y: float) -> Markup:
        length = self.end - self.start
        form = "%H:%M" if length <= timedelta(hours=30) else "%-d %b"
        places = [(0.0, "start"), (0.5, "mid"), (1.0, "end")] if length else [(0.0, "start")]
        return join(
            Markup("<text x='{:.1f}' y='{}' class='{}'>{}</text>").format(
                self.left + (self.right - self.left) * share, y, anchor, (self.start + length * share).strftime(form)
            )
            for share, anchor in places
        )


def _curve(line: Line, place: int, axis: _TimeAxis, y) -> Markup:
    path, pen_down, dots = [], False, []
    for at, item in line.points:
        if item is None:
            pen_down = False
            continue
        path.append(f"{'L' if pen_down else 'M'}{axis.at(at):.1f} {y(item):.1f}")
        pen_down = True
        title = f"{line.name}: {item:.4g}, {at:%Y-%m-%d %H:%M} UTC"
        dots.append(
            Markup("<circle class='series-{}' cx='{:.1f}' cy='{:.1f}' r='3'><title>{}</title></circle>").format(
                place % 5, axis.at(at), y(item), title
            )
        )
    stroke = Markup("<path class='series-{}' d='{}' fill='none'/>").format(place % 5, " ".join(path))
    return stroke + join(dots if len(dots) <= 60 else ())


def _nice_range(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values need, so that a flat line is not on the edge."""
    low, high = min(values), max(values)
    room = (high - low) * 0.1 or max(abs(high) * 0.05, 0.01)
    low, high = low - room, high + room
    return (max(low, 0.0) if min(values) >= 0 else low), (min(high, 1.0) if max(values) <= 1 < high else high)


def _short(number: float) -> str:
    return f"{number:.2f}" if abs(number) < 10 else f"{number:,.0f}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
