"""The dashboard in a browser: NiceGUI pages around what the other modules gather and render.

Whatever reads or writes runs in a thread; the event loop, which also answers predictions, only ever waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from nicegui import app as pages
from nicegui import run, ui

from tidemill.clock import is_simulated
from tidemill.errors import TidemillError
from tidemill.project import Project
from tidemill_serving.auth import Tokens
from tidemill_serving.dashboard import features, frame, look, models, monitoring, overview, runs
from tidemill_serving.dashboard.lookup import lookup_form
from tidemill_serving.dashboard.markup import PATH, trouble
from tidemill_serving.dashboard.promotion import champion_buttons
from tidemill_serving.problems import UnauthorizedError

_EVERY = 15.0

T = TypeVar("T")


def mount(app: FastAPI, project: Project) -> None:
    """Add the pages to NiceGUI, and NiceGUI to the application. One project in each process."""
    _add_pages(project, Tokens.of(project.settings))
    ui.run_with(
        app,
        mount_path=PATH,
        title=f"Tidemill: {project.name}",
        favicon=look.ICON,
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,
        show_welcome_message=False,
        reconnect_timeout=10,
    )


def _add_pages(project: Project, tokens: Tokens) -> None:
    @ui.page("/")
    async def overview_page() -> None:
        await _live("/", project, lambda: overview.render(overview.gather(project)))

    @ui.page("/features", response_timeout=30)
    async def features_page() -> None:
        with _frame("/features", project):
            _show(features.render_head())
            await lookup_form(project)
            _show(await _read(lambda: features.render(features.gather(project))))

    @ui.page("/models", response_timeout=30)
    async def models_page(request: Request) -> None:
        may_change = _is_admin(tokens, request)
        with _frame("/models", project):
            await _models(project, may_change)

    @ui.page("/monitoring", response_timeout=30)
    async def monitoring_page(model: str | None = None) -> None:
        with _frame("/monitoring", project):
            _show(await _read(lambda: monitoring.render(monitoring.gather(project, model))))

    @ui.page("/runs", response_timeout=30)
    async def runs_page() -> None:
        await _live("/runs", project, lambda: runs.render(runs.gather(project)))

    @pages.get("/{elsewhere:path}", include_in_schema=False)
    def nowhere(elsewhere: str) -> HTMLResponse:
        return HTMLResponse(frame.nowhere(elsewhere, project.name), status_code=404)


async def _models(project: Project, may_change: bool) -> None:
    @ui.refreshable
    async def content() -> None:
        facts = await run.io_bound(models.gather, project)
        if facts is None:
            return
        _show(models.render_head())
        if not facts.models:
            _show(models.render_nothing(facts))
        for model in facts.models:
            _show(models.render_versions(model, facts.now))
            champion_buttons(project, model, may_change=may_change, changed=content.refresh)
            _show(models.render_history(model, facts.now))

    await content()


async def _live(path: str, project: Project, make: Callable[[], Markup]) -> None:
    """A page that is read again every few seconds for as long as it is open."""
    with _frame(path, project) as clock:
        shown = _show(await _read(make))

        async def again() -> None:
            clock.set_content(_clock(project))
            fresh = str(await _read(make))
            if fresh != shown.content:
                shown.set_content(fresh)

        ui.timer(_EVERY, again, immediate=False)


async def _read(make: Callable[[], Markup]) -> Markup:
    """Gather and render in a thread. What fails as a whole is told on the page."""
    try:
        return await run.io_bound(make) or Markup("")
    except TidemillError as error:
        return trouble(str(error))


def _show(content: Markup) -> ui.html:
    # Everything in it was escaped when it was made.
    return ui.html(content, sanitize=False)


@contextmanager
def _frame(path: str, project: Project) -> Iterator[ui.html]:
    """The bar with the way to every page; what is made inside of it is the page's own. Yields the bar's clock."""
    ui.add_head_html(look.head())
    ui.page_title(frame.title_of(path, project.name))
    with ui.element("header").classes("top"):
        _show(frame.bar(path, project.name))
        clock = _show(_clock(project))
        _show(frame.THEME)
    with ui.element("div").classes("body"):
        yield clock


def _clock(project: Project) -> Markup:
    return frame.clock(project.clock.now(), simulated=is_simulated(project.clock))


def _is_admin(tokens: Tokens, request: Request) -> bool:
    """Whether the request's token would be taken by /v1/admin."""
    try:
        tokens.check("/v1/admin/models", request.headers.raw)
    except UnauthorizedError:
        return False
    return True
