"""A project of one source, `orders`, whose `extract.py` each test writes itself."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidemill.definitions.catalog import Catalog, Source
from tidemill.project import Project, open_project

HEAD = """
from datetime import datetime, timedelta
import polars as pl
from tidemill.extract import Column, Contract, extracts, read_csv, read_parquet, read_sql
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    opened = open_project(tmp_path)
    source = Source(name="orders", path="data/orders", timestamp_field="at", known_field="known")
    opened.catalogs.add(Catalog(project="shop", sources=(source,)), at=datetime(2024, 1, 1, tzinfo=UTC))
    yield opened
    opened.close()


@pytest.fixture
def extraction(project: Project) -> Callable[[str], None]:
    """Write the project's `extract.py`."""

    def write(body: str) -> None:
        (project.root / "extract.py").write_text(HEAD + textwrap.dedent(body))

    return write
