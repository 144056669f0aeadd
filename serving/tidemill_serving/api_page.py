"""`/docs`: the API for people, drawn from `openapi.json` by a page of our own.

FastAPI's page loads its scripts from elsewhere: it stays white where there is no way to the internet, and runs what it
loads with the rights of whoever signed in.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

PATH = "/docs"


def add_api_page(app: FastAPI, *, home: str = PATH) -> None:
    """Serve the page, and lead from `/` to `home`."""

    @app.get(PATH, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(_page())

    @app.get("/", include_in_schema=False)
    def begin() -> RedirectResponse:
        return RedirectResponse(home)


@cache
def _page() -> str:
    from markupsafe import Markup

    from tidemill_serving.dashboard.look import head, icon

    body = files("tidemill_serving").joinpath("api_page.html").read_text()
    return Markup(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>HTTP API · Tidemill</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>{}{}</head><body>{}</body></html>"
    ).format(icon(), head(), Markup(body))  # noqa: S704 - a file of ours
