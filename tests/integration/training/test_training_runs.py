"""The training loop on a small shop: real Parquet, point-in-time features, scikit-learn and MLflow."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from training_shop import (
    START,
    STEP,
    TODAY,
    at,
    champion,
    redefine,
    rewrite,
    show_folder,
)

from tidemill.definitions.catalog import (
    Gate,
)
from tidemill.models.artifact import ModelArtifact
from tidemill.project import Project
from tidemill_training.models import show
from tidemill_training.registry import Registry
from tidemill_training.spine import build_spine
from tidemill_training.train import train


def test_a_spine_holds_the_requests_whose_outcome_was_known(shop: Project):
    spine = build_spine(shop, "order_return", None, TODAY)
    assert spine.columns == ["order_id", "asked_at", "customer", "amount", "returned"]
    assert spine["asked_at"].is_sorted()
    assert spine["asked_at"].max() < TODAY - timedelta(days=1)  # type: ignore[operator]
    assert set(spine["returned"].unique()) == {0, 1}


def test_a_spine_does_not_change_when_more_becomes_known(shop: Project):
    before = build_spine(shop, "order_return", None, TODAY)
    late = pl.DataFrame({"order": ["o00000"], "event_time": [START], "returned": [True], "known_time": [TODAY]})
    rewrite(shop, "returns", lambda returns: pl.concat([returns, late.select(returns.columns)], how="vertical_relaxed"))
    assert build_spine(shop, "order_return", None, TODAY).equals(before)


def test_a_corrected_outcome_replaces_the_first_one_once_it_is_known(shop: Project):
    before = build_spine(shop, "order_return", None, TODAY)
    opposite = not before["returned"][0]
    corrected = pl.DataFrame(
        {"order": [before["order_id"][0]], "event_time": [START], "returned": [opposite], "known_time": [TODAY - STEP]}
    )
    rewrite(shop, "returns", lambda old: pl.concat([corrected.select(old.columns), old], how="vertical_relaxed"))
    after = build_spine(shop, "order_return", None, TODAY)
    assert (after.height, after["returned"][0]) == (before.height, int(opposite))


def test_training_registers_a_version_that_serves(shop: Project):
    deployment = shop.deployments.current("order_return")
    assert deployment is not None
    artifact = ModelArtifact.load(deployment.folder(shop.root), digest=deployment.digest)
    manifest = artifact.manifest
    assert (manifest.version, manifest.service) == (1, "returns_v1")
    assert manifest.feature_names == ("mean_visit", "visits", "city", "is_large")
    assert manifest.metrics["roc_auc"] > 0.65
    assert set(manifest.features[2].categories) == {"Oslo", "Bergen", "Hamar"}
    assert manifest.dataset.start < manifest.dataset.validation_start < manifest.dataset.test_start < TODAY
    assert 0 < artifact.predict({"mean_visit": [1.0], "visits": [None], "city": ["Rome"], "is_large": [True]})[0] < 1


def test_mlflow_holds_the_run_the_version_and_the_aliases(shop: Project):
    registry = Registry(shop)
    manifest = show(shop, "order_return").manifest
    run = registry.run(manifest.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_roc_auc"] == pytest.approx(manifest.metrics["roc_auc"])
    assert run.data.tags["tidemill.dataset"] == manifest.dataset.digest
    assert run.data.params["estimator"] == "HistGradientBoostingClassifier"
    assert run.inputs.dataset_inputs[0].dataset.name == "shop.returns_v1"
    assert registry.aliases("order_return") == {"champion": 1, "challenger": 1}


def test_the_model_is_tested_on_what_came_after_everything_it_saw(shop: Project):
    artifact = ModelArtifact.load(show_folder(shop, 1))
    kept = artifact.test_predictions()
    assert kept is not None
    assert kept.height == artifact.manifest.dataset.test_rows
    assert kept["asked_at"].min() > artifact.manifest.dataset.test_start  # type: ignore[operator]


def test_progress_is_told_from_nothing_to_everything(shop: Project):
    told: list[tuple[str, float]] = []
    trained = train(shop, "order_return", progress=lambda stage, share: told.append((stage, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert set(trained.seconds) == {stage for stage, _ in told} - {"done"}


def test_the_same_data_gives_the_same_model_again(shop: Project):
    again = train(shop, "order_return")
    first, second = show(shop, "order_return@1").manifest, again.artifact.manifest
    assert (again.version, second.dataset.digest) == (2, first.dataset.digest)
    assert second.predictions_digest == first.predictions_digest
    assert second.metrics == first.metrics


def test_the_champion_is_met_on_rows_that_neither_was_fitted_on(shop: Project):
    trained = train(at(shop, TODAY + timedelta(days=7)), "order_return")
    assert trained.opponent is not None
    assert trained.opponent.version == 1
    assert trained.opponent.rows == trained.artifact.manifest.dataset.test_rows
    assert trained.promoted
    assert champion(shop) == 2


def test_a_challenger_that_fails_a_gate_is_kept_and_does_not_serve(shop: Project):
    redefine(shop, gates=(Gate(kind="at_least", metric="roc_auc", value=0.99),))
    trained = train(shop, "order_return")
    assert not trained.promoted
    assert "is below 0.99" in trained.decision.reasons[0]
    assert champion(shop) == 1
    challenger = shop.deployments.current("order_return", "challenger")
    assert challenger is not None
    assert challenger.version == 2
    assert Registry(shop).aliases("order_return") == {"champion": 1, "challenger": 2}


def test_without_promotion_the_champion_stays(shop: Project):
    assert not train(shop, "order_return", promote=False).promoted
    assert champion(shop) == 1


def test_a_champion_of_redefined_features_is_compared_by_what_it_read_itself(shop: Project):
    service = shop.catalog.services[0]
    fewer = replace(
        service, projections=(replace(service.projections[0], features=("visits",)), service.projections[1])
    )
    shop.catalogs.add(replace(shop.catalog, services=(fewer,)), at=TODAY)
    shop.reload()
    trained = train(shop, "order_return")
    assert trained.opponent is not None
    assert trained.opponent.metrics == pytest.approx(dict(show(shop, "order_return@1").manifest.metrics))
    assert not trained.promoted
    assert "worse than champion version 1's" in " ".join(trained.decision.reasons)


def test_a_champion_whose_artifact_is_gone_is_not_beaten_by_absence(shop: Project):
    shutil.rmtree(show_folder(shop, 1))
    trained = train(shop, "order_return")
    assert not trained.promoted
    assert "cannot be compared with champion version 1" in trained.decision.reasons[0]
