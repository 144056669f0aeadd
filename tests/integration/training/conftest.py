"""A shop whose model was trained once, copied for every test that changes something."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the shop is imported by name

from training_shop import START, TODAY, catalog_of, open_at, write_shop

from tidemill.project import Project
from tidemill_training.train import train


@pytest.fixture(scope="session")
def trained_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop's folder whose model was trained once; copied for every test that changes something."""
    root = tmp_path_factory.mktemp("trained") / "shop"
    write_shop(root)
    project = open_at(root, TODAY)
    project.catalogs.add(catalog_of(root), at=START)
    assert train(project, "order_return").version == 1
    project.close()
    return root


@pytest.fixture
def shop(trained_shop: Path, tmp_path: Path) -> Iterator[Project]:
    shutil.copytree(trained_shop, tmp_path / "shop")
    project = open_at(tmp_path / "shop", TODAY)
    yield project
    project.close()


@pytest.fixture
def fresh_shop(tmp_path: Path) -> Iterator[Project]:
    """Definitions applied, nothing trained."""
    write_shop(tmp_path / "shop")
    project = open_at(tmp_path / "shop", TODAY)
    project.catalogs.add(catalog_of(project.root), at=START)
    yield project
    project.close()
