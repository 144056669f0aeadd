"""The buttons that change who serves. Each asks first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import run, ui

from tidemill.errors import TidemillError
from tidemill.project import Project
from tidemill_serving.dashboard.deployment import promote, roll_back
from tidemill_serving.dashboard.models import ModelFacts


def champion_buttons(project: Project, model: ModelFacts, *, may_change: bool, changed: Callable[[], Any]) -> None:
    """Roll back, and promote any other version; `changed` is called after a change. Nothing without the right to."""
    taken = {item.version for item in (model.champion, model.previous) if item is not None}
    others = [item.version for item in model.versions if item.version not in taken]
    if not others and model.previous is None:
        return
    with ui.element("div").classes("actions"):
        if not may_change:
            ui.html("<span class='soft'>Sign in with the admin token to change who serves.</span>", sanitize=False)
            return
        previous = model.previous
        if previous is not None:  # to promote it by itself would come to the same
            _button(
                "Roll back",
                f"Roll back to version {previous.version}",
                f"Version {previous.version} of {model.name}, the champion before, will serve within a second, "
                f"{_whom(model)}.",
                lambda: roll_back(project.root, model.name),
                changed,
            )
        for version in others[:5]:
            _button(
                "Promote",
                f"Promote version {version}",
                f"Version {version} of {model.name} will serve within a second, {_whom(model)}, "
                "whatever its gates said.",
                lambda version=version: promote(project.root, model.name, version),
                changed,
            )


def _whom(model: ModelFacts) -> str:
    return f"in place of version {model.champion.version}" if model.champion else "as the first champion"


def _button(verb: str, title: str, question: str, act: Callable[[], str], changed: Callable[[], Any]) -> None:
    with ui.dialog() as dialog, ui.card():
        ui.html(f"<h3>{title}?</h3>", sanitize=False)
        ui.label(question)
        with ui.element("div").classes("actions"):
            confirm = ui.button(verb, color=None).props("unelevated no-caps").classes("act")
            ui.button("Cancel", on_click=dialog.close, color=None).props("flat no-caps").classes("quiet")

    async def do() -> None:
        confirm.props("loading")
        try:
            told = await run.io_bound(act)
            ui.notify(told, type="positive")
        except TidemillError as error:
            ui.notify(str(error), type="negative", multi_line=True, timeout=0, close_button="Close")
        finally:
            confirm.props(remove="loading")
            dialog.close()
        changed()

    confirm.on_click(do)
    ui.button(title, on_click=dialog.open, color=None).props("flat no-caps").classes("quiet")
