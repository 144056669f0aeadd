"""What `tidemill doctor` finds, and what it says to do."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidemill.cli.doctor import Finding, examine
from tidemill.definitions.catalog import Catalog, Entity, Feature, Source, View
from tidemill.definitions.types import ValueType
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import open_project

AT = datetime(2024, 3, 5, tzinfo=UTC)
CATALOG = Catalog(
    project="shop",
    entities=(Entity(name="user", join_key="user", dtype=ValueType.INT64),),
    sources=(Source(name="visits", path="visits", timestamp_field="at"),),
    views=(
        View(
            name="last_visit",
            entities=("user",),
            join_keys=("user",),
            features=(Feature(name="pages", dtype=ValueType.INT64),),
            source="visits",
        ),
    ),
)


def found(root: Path) -> dict[str, Finding]:
    return {finding.part: finding for finding in examine(root)}


def test_a_folder_that_is_no_project_is_said_to_be_none(tmp_path: Path) -> None:
    project = found(tmp_path)["project"]
    assert not project.ok
    assert str(tmp_path) in project.found
    assert "init" in project.advice


def test_definitions_that_were_never_applied_are_to_be_applied(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    parts = found(tmp_path)
    assert parts["metadata database"].found == "answers; no definitions yet"
    assert (parts["definitions"].ok, parts["definitions"].advice) == (False, "Run `tidemill apply` first.")


@pytest.mark.parametrize(("online", "expected"), [(True, "never loaded: last_visit"), (False, "every view was loaded")])
def test_a_view_that_no_run_has_loaded_is_named(tmp_path: Path, online: bool, expected: str) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    with closing(open_project(tmp_path)) as project:
        project.catalogs.add(replace(CATALOG, views=(replace(CATALOG.views[0], online=online),)), at=AT)
    try:
        parts = found(tmp_path)
    finally:
        EmbeddedRedis(tmp_path / ".tidemill" / "redis").stop()
    assert parts["online data"].found == expected
    assert parts["online data"].ok is not online
    assert parts["online store"].found == "answers"
