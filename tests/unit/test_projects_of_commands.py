"""What a command opens is closed when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tidemill.cli.options import ProjectOption, open_for_command
from tidemill.project import Project


@pytest.mark.parametrize("failing", [False, True])
def test_the_project_of_a_command_is_closed_at_its_end_also_where_it_fails(tmp_path: Path, failing: bool) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: small\n")
    app, found = typer.Typer(), []

    @app.command()
    def look(project: ProjectOption = None) -> None:
        opened = open_for_command(project)
        opened.catalogs.newest()
        found.append((opened, "database" in vars(opened)))
        if failing:
            raise OSError("no room")

    result = CliRunner().invoke(app, ["--project", str(tmp_path)])
    assert isinstance(result.exception, OSError) is failing
    [(opened, was_open)] = found
    assert isinstance(opened, Project)
    assert was_open
    assert "database" not in vars(opened)
