"""The form that asks the online store for one entity's newest values."""

from __future__ import annotations

from nicegui import run, ui

from tidemill.errors import TidemillError
from tidemill.project import Project
from tidemill_serving.dashboard import features
from tidemill_serving.dashboard.markup import EMPTY, trouble
from tidemill_serving.dashboard.reading import Trouble, attempt
from tidemill_serving.rows import RowField, RowSchema


async def lookup_form(project: Project) -> None:
    """What to look up, a field for each key and request value, and the answer below."""
    found = await run.io_bound(attempt, lambda: features.questions(project.catalog))
    if not found or isinstance(found, Trouble):
        return
    with ui.element("section").classes("card"):
        ui.html("<h2>Look up an entity</h2>", sanitize=False, tag="header")
        _form(project, found)


def _form(project: Project, questions: dict[str, RowSchema]) -> None:
    chosen = (
        ui.select(list(questions), value=next(iter(questions)), label="From").props("outlined dense").mark("question")
    )
    fields = ui.element("div").classes("form")
    inputs: dict[str, ui.input] = {}

    def show_fields() -> None:
        fields.clear()
        inputs.clear()
        with fields:
            for field in questions[str(chosen.value)].fields:
                inputs[field.name] = _input(field).on("keydown.enter", ask)

    async def ask() -> None:
        texts = {name: str(item.value or "") for name, item in inputs.items()}
        try:
            result = await run.io_bound(features.look_up, project, str(chosen.value), texts)
        except TidemillError as error:
            answer.set_content(trouble(str(error)))
            return
        answer.set_content(EMPTY if result is None else features.render_result(result))

    chosen.on_value_change(lambda: show_fields())
    show_fields()
    with ui.element("div").classes("actions"):
        ui.button("Look up", on_click=ask, color=None).props("unelevated no-caps").classes("act")
    answer = ui.html("", sanitize=False)
    answer.props("aria-live=polite")


def _input(field: RowField) -> ui.input:
    hint = features.expected(field.dtype)
    return ui.input(field.name, placeholder=hint).props(f"outlined dense stack-label name={field.name}")
