"""Which version serves: listed, promoted by hand, rolled back, never damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from training_shop import (
    TODAY,
    champion,
    show_folder,
)
from typer.testing import CliRunner

from tidemill.cli.models import models_app
from tidemill.errors import (
    ConflictError,
    InputError,
    NotDefinedError,
)
from tidemill.project import Project
from tidemill_training.models import list_versions, promote, rollback, show
from tidemill_training.registry import Registry
from tidemill_training.train import train


def test_versions_are_listed_newest_first_with_their_aliases(shop: Project):
    train(shop, "order_return", promote=False)
    listed = list_versions(shop, "order_return")
    assert [(found.version, found.aliases) for found in listed] == [(2, ("challenger",)), (1, ("champion",))]
    (show_folder(shop, 1) / "manifest.json").write_text("{")
    assert list_versions(shop)[1].problem
    with pytest.raises(NotDefinedError, match="order_return"):
        list_versions(shop, "order_retrun")


def test_a_version_is_shown_with_what_it_was_made_from(shop: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    asked = ["show", "order_return@champion", "--project", str(shop.root)]
    shown = CliRunner().invoke(models_app, asked, catch_exceptions=False).stdout
    dataset = show(shop, "order_return").manifest.dataset
    for told in ("returns_v1, 4 features", dataset.digest[:16], f"{dataset.until:%Y-%m-%d %H:%M} UTC"):
        assert told in shown
    found = json.loads(CliRunner().invoke(models_app, [*asked, "--json"], catch_exceptions=False).stdout)
    assert found["manifest"]["dataset"]["digest"] == dataset.digest
    assert [change["version"] for change in found["champions"]] == [1]


def test_a_bad_champion_is_rolled_back_in_one_call(shop: Project):
    train(shop, "order_return")
    back = rollback(shop, "order_return", reason="too many false alarms")
    assert (back.version, champion(shop)) == (1, 1)
    assert back.reason == "rolled back from version 2: too many false alarms"
    assert Registry(shop).aliases("order_return")["champion"] == 1
    with pytest.raises(ConflictError, match="first champion"):
        rollback(shop, "order_return")


def test_any_whole_version_can_be_promoted_by_hand(shop: Project):
    train(shop, "order_return", promote=False)
    assert promote(shop, "order_return@2", reason="looks good").version == 2
    assert show(shop, "order_return").history[0].reason == "looks good"


def test_a_damaged_version_is_never_promoted(shop: Project):
    train(shop, "order_return", promote=False)
    file = show_folder(shop, 2) / "model.skops"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        promote(shop, "order_return@2")
    assert champion(shop) == 1


def test_a_version_whose_features_are_gone_is_not_promoted(shop: Project):
    train(shop, "order_return", promote=False)
    service = shop.catalog.services[0]
    fewer = replace(service, projections=service.projections[1:])
    shop.catalogs.add(replace(shop.catalog, services=(fewer,)), at=TODAY)
    shop.reload()
    with pytest.raises(ConflictError, match="no longer gives mean_visit, visits, city"):
        promote(shop, "order_return@2")
    assert champion(shop) == 1
