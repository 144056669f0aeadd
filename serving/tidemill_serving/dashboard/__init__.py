"""The dashboard: pages for people, mounted below `/dashboard` of the API. The only package that imports NiceGUI.

Each page is a module with a frozen `...Facts`, a `gather` that reads them from the project (blocking; run in a
thread), and a `render` that makes markup of them. Only `mount` knows that a browser is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tidemill.project import Project

__all__ = ["mount_dashboard"]


def mount_dashboard(app: FastAPI, project: Project) -> None:
    """Serve the project's dashboard below `/dashboard` of an application. Importing NiceGUI takes a second or two."""
    from tidemill_serving.dashboard.mount import mount

    mount(app, project)
