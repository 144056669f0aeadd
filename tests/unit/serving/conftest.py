"""Fixtures of the serving tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_project import NOW, catalog, open_small

from tidemill.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A small project with applied definitions, whose online store is a dictionary."""
    opened = open_small(tmp_path)
    opened.catalogs.add(catalog(), at=NOW)
    yield opened
    opened.close()
