"""The few shapes that every page is made of. Whatever is put into them is escaped, unless it is markup already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from markupsafe import Markup

Part = Markup | str
EMPTY = Markup("")
NOTHING = "\u2013"
"""Stands where there is no value."""
PATH = "/dashboard"
"""Below which all pages are."""
_METRICS = {"roc_auc": "ROC AUC", "brier": "Brier score"}


class Tone(StrEnum):
    """How something stands; the colour follows, and a word or a sign always says it too."""

    GOOD = "good"
    WATCH = "watch"
    BAD = "bad"
    PLAIN = "plain"


def join(parts: Iterable[Part]) -> Markup:
    return EMPTY.join(parts)


def page(title: str, lead: Part, *parts: Part) -> Markup:
    return page_head(title, lead) + join(parts)


def page_head(title: str, lead: Part) -> Markup:
    return Markup("<header class='page-head'><h1>{}</h1><p>{}</p></header>").format(title, lead)


def card(title: str, *body: Part, note: Part = "", wide: bool = False) -> Markup:
    head = Markup("<header><h2>{}</h2><span class='note'>{}</span></header>").format(title, note)
    return Markup("<section class='card{}'>{}{}</section>").format(" wide" if wide else "", head, join(body))


def grid(*parts: Part) -> Markup:
    return Markup("<div class='grid'>{}</div>").format(join(parts))


def stack(*parts: Part) -> Markup:
    """Cards one below the other in one column of a grid."""
    return Markup("<div class='stack'>{}</div>").format(join(parts))


def tiles(*parts: Part) -> Markup:
    return Markup("<div class='tiles'>{}</div>").format(join(parts))


def tile(label: str, value: Part, detail: Part = "", *, tone: Tone = Tone.PLAIN, picture: Part = "") -> Markup:
    """One number that matters, large."""
    return Markup(
        "<div class='tile {}'><span class='label'>{}</span><span class='value'>{}</span>"
        "<span class='detail'>{}</span>{}</div>"
    ).format(tone.value, label, value, detail, picture)


def chip(text: Part, tone: Tone = Tone.PLAIN, *, title: str = "") -> Markup:
    return Markup("<span class='chip {}' title='{}'>{}</span>").format(tone.value, title, text)


def dot(tone: Tone, word: str) -> Markup:
    """A coloured dot with the word for those who do not see its colour."""
    return Markup("<span class='dot {}'><span class='hidden'>{}</span></span>").format(tone.value, word)


def finding(severity: str, subject: str, what: str, advice: str) -> Markup:
    """One thing a check found, and what to do about it."""
    tone = {"critical": Tone.BAD, "warning": Tone.WATCH}.get(severity, Tone.PLAIN)
    return Markup("<div class='finding'>{}<div><b>{}</b> {}<p>{}</p></div></div>").format(
        dot(tone, severity), subject, what, advice
    )


def folded(parts: Sequence[Part], most: int, what: str) -> Markup:
    """The first parts, and the others behind a line that opens them."""
    shown, others = join(parts[:most]), parts[most:]
    if not others:
        return shown
    return shown + Markup("<details class='more'><summary>{} more {}</summary>{}</details>").format(
        len(others), what, join(others)
    )


def table(heads: Sequence[Part], rows: Iterable[Sequence[Part]], *, numbers: Sequence[int] = (), label: str) -> Markup:
    """`numbers` are the columns that are aligned right; `label` says what the table holds, for screen readers."""

    def cells(row: Sequence[Part], name: str) -> Markup:
        kinds = (" class='number'" if place in numbers else "" for place in range(len(row)))
        return join(
            Markup(f"<{name}{kind}>{{}}</{name}>").format(cell)  # noqa: S704 - tag and class are ours
            for kind, cell in zip(kinds, row, strict=True)
        )

    body = join(Markup("<tr>{}</tr>").format(cells(row, "td")) for row in rows)
    return Markup(
        "<div class='scroll' tabindex='0' role='region' aria-label='{}'>"
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(label, cells(heads, "th"), body)


def empty(what: str, why: str, command: str = "") -> Markup:
    """Nothing is here yet: why, and the command that changes it."""
    shown = Markup("<code class='command'>{}</code>").format(command) if command else EMPTY
    return Markup("<div class='empty'><strong>{}</strong><p>{}</p>{}</div>").format(what, why, shown)


def replaced(model: str, looked_at: int, serving: int) -> Markup:
    """A check looked at a version that another has replaced since."""
    return Markup(
        "<p class='outdated'>This was said of version {}, which version {} has replaced since. Look at that one: {}</p>"
    ).format(looked_at, serving, code(f"tidemill monitor {model}"))


def trouble(text: str) -> Markup:
    """A part that could not be read; the rest of the page stands."""
    return Markup("<div class='trouble' role='alert'>{}</div>").format(text)


def link(place: str, text: Part) -> Markup:
    """A link to another page; `place` as in `/runs`."""
    return Markup("<a href='{}{}'>{}</a>").format(PATH, place, text)


def named(text: str) -> Markup:
    """A name in a narrow column: it breaks after its underscores before it breaks anywhere else."""
    return Markup("_<wbr>").join(text.split("_"))


def metric_name(metric: str) -> str:
    """`roc_auc` as people write it."""
    return _METRICS.get(metric, metric.replace("_", " "))


def code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def definitions(items: Iterable[tuple[Part, Part]]) -> Markup:
    """Terms with what they are."""
    return Markup("<dl>{}</dl>").format(join(Markup("<dt>{}</dt><dd>{}</dd>").format(*item) for item in items))


def moment(at: datetime | None) -> Markup:
    """An instant as people read it, UTC, with the exact one on hover."""
    if at is None:
        return Markup("<span class='soft'>never</span>")
    return Markup("<time datetime='{}' title='{}'>{}</time>").format(
        at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S} UTC", f"{at:%-d %b %Y, %H:%M}"
    )


def interval(start: datetime | None, end: datetime) -> Markup:
    """From when to when, UTC; the day is told once where both are on the same."""
    if start is None:
        return Markup("<span class='interval'>{} \u2192 {}</span>").format("the beginning", moment(end))
    same = start.date() == end.date()
    until = Markup("<time datetime='{}' title='{}'>{}</time>").format(
        end.isoformat(), f"{end:%Y-%m-%d %H:%M:%S} UTC", f"{end:%H:%M}"
    )
    return Markup("<span class='interval'>{} \u2192 {}</span>").format(moment(start), until if same else moment(end))


def lasting(duration: timedelta | float | None) -> str:
    """A duration in its largest unit or two: 850 ms, 42 s, 3 min, 2 h 5 min, 6 d 4 h."""
    if duration is None:
        return NOTHING
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds < 0:
        return f"\u2212{lasting(-seconds)}"
    if seconds == 0:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    for size, unit, small, little in ((1_440, "d", 60, "h"), (60, "h", 1, "min")):
        if minutes >= size:
            whole, rest = divmod(minutes, size)
            return f"{whole} {unit} {rest // small} {little}" if rest // small else f"{whole} {unit}"
    return f"{minutes} min"


def ago(at: datetime | None, now: datetime, *, never: str = "never") -> str:
    """How long before `now`: a moment ago, 3 min ago; or in how long."""
    if at is None:
        return never
    passed = (now - at).total_seconds()
    if passed < -1:
        return f"in {lasting(-passed)}"
    return "just now" if passed < 5 else f"{lasting(passed)} ago"


def count(number: int, one: str, many: str = "") -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def value(found: Any) -> Markup:
    """A feature's value as text; a missing one says so."""
    if found is None:
        return Markup("<span class='soft'>null</span>")
    if isinstance(found, datetime):
        return moment(found)
    if isinstance(found, bool):
        return Markup("<code>{}</code>").format("true" if found else "false")
    return Markup("<code>{}</code>").format(f"{found:.6g}" if isinstance(found, float) else str(found))
