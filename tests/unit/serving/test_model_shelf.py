"""The shelf of models takes up what is promoted, as soon as it can be loaded."""

from __future__ import annotations

import logging

import pytest
from small_model import promote

from tidemill.project import Project
from tidemill_serving.models import ModelShelf


def test_a_version_whose_files_arrive_late_is_served_when_they_are_there(project: Project) -> None:
    shelf = ModelShelf(project.deployments, project.root)
    promote(project, 1)
    assert shelf.refresh(project.catalog)
    folder = promote(project, 2).folder
    assert folder is not None
    elsewhere = folder.rename(folder.with_name("on-its-way"))
    shelf.refresh(project.catalog)
    assert "version 2" in shelf.failures["delay"]
    assert shelf.served["delay"].version == 1
    elsewhere.rename(folder)
    looks = [shelf.refresh(project.catalog) for _ in range(10)]
    assert looks.count(True) == 1
    assert shelf.served["delay"].version == 2
    assert not shelf.failures


def test_a_version_that_stays_broken_is_tried_ever_more_seldom_and_reported_once(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, tried = [], []
    load = ModelShelf._load
    monkeypatch.setattr(ModelShelf, "_load", lambda *given: tried.append(looks[-1]) or load(*given))
    folder = promote(project, 1).folder
    assert folder is not None
    (folder / "model.skops").write_bytes(b"damaged")
    shelf = ModelShelf(project.deployments, project.root)
    for look in range(16):
        looks.append(look)
        shelf.refresh(project.catalog)
    assert tried == [0, 2, 6, 14]
    assert [record.levelno for record in caplog.records if "cannot be served" in record.message] == [logging.ERROR]
