"""The page of the HTTP API names every request that a server describes, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from small_project import served

from tidemill.project import Project

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "http-api.md"
_OF_DEFINITIONS = (
    (r"^/v1/models/[^/{]+/predict$", "/v1/models/{model}/predict"),
    (r"^/v1/features/[^/]+$", "/v1/features/{service}"),
    (r"^/v1/push/[^/]+$", "/v1/push/{source}"),
)


def test_the_page_names_every_request_and_no_other(project: Project) -> None:
    told = set(re.findall(r"`((?:GET|POST) /[^`]*)`", PAGE.read_text()))
    with served(project) as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {in_general(path)}" for path, methods in paths.items() for method in methods} == told


def in_general(path: str) -> str:
    """The path as the page has it: a server describes one for each model, service and stream."""
    for pattern, general in _OF_DEFINITIONS:
        path = re.sub(pattern, general, path)
    return path
