"""What stands around every page: the way to the others, which project this is, and what time it is there."""

from __future__ import annotations

from datetime import datetime

from markupsafe import Markup

from tidemill_serving.dashboard import look
from tidemill_serving.dashboard.markup import PATH, Tone, chip, join, page_head

PAGES = (
    ("/", "Overview"),
    ("/features", "Features"),
    ("/models", "Models"),
    ("/monitoring", "Monitoring"),
    ("/runs", "Runs"),
)
_STANDS_STILL = "It stands still until it is set; tidemill clock release goes back to the present"
THEME = Markup(
    "<button class='theme' onclick='tidemillTheme()' aria-label='Light or dark' title='Light or dark'>◐</button>"
)


def title_of(path: str, project: str) -> str:
    """What the browser's tab says."""
    return f"{dict(PAGES).get(path, 'No such page')} · {project} · Tidemill"


def bar(path: str, project: str) -> Markup:
    """The project's name and the links, `path` marked as where one is."""
    links = join(
        Markup("<a href='{}{}'{}>{}</a>").format(
            PATH, place, Markup(" aria-current='page'") if place == path else "", name
        )
        for place, name in PAGES
    )
    return Markup(
        "<a class='brand' href='{}/' title='Tidemill, project {project}'>{}<b>Tidemill</b><span>{project}</span></a>"
        "<nav aria-label='Pages'>{}</nav>"
    ).format(PATH, look.ICON, links, project=project)


def clock(now: datetime, *, simulated: bool) -> Markup:
    """The project's time: every time on the page is of its zone."""
    kind = chip("simulated", Tone.WATCH, title=_STANDS_STILL) if simulated else ""
    told = Markup("<time datetime='{}'>{} UTC</time>").format(now.isoformat(), f"{now:%-d %b %Y, %H:%M}")
    return Markup("<span class='clock' title='Every time here is UTC'>{} {}</span>").format(told, kind)


def nowhere(path: str, project: str) -> str:
    """A whole HTML page for an address that has none."""
    said = page_head(
        "No such page",
        Markup("There is nothing at <code>{}</code>. All there is stands above.").format(f"{PATH}/{path}"),
    )
    return Markup(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{}</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>{}{}</head>"
        "<body><header class='top'>{}{}</header><div class='body'>{}</div></body></html>"
    ).format(title_of(path, project), look.icon(), look.head(), bar(path, project), THEME, said)
