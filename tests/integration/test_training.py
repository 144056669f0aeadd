"""The training loop on a small shop: real Parquet, real point-in-time features, real scikit-learn, real MLflow."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import tidemill
from tidemill.clock import ManualClock
from tidemill.definitions import ValueType
from tidemill.definitions.catalog import (
    Catalog,
    Entity,
    Feature,
    Gate,
    LabelDefinition,
    Model,
    OnDemandView,
    Projection,
    RequestField,
    Schedule,
    Service,
    Source,
    SpineDefinition,
    Split,
    Trigger,
    View,
)
from tidemill.definitions.code import reference_to
from tidemill.errors import (
    ConflictError,
    DefinitionError,
    InputError,
    NotAppliedError,
    NotDefinedError,
    NotReproducibleError,
    TrainingDataError,
)
from tidemill.metadata.reports import ReportRepository
from tidemill.models.artifact import ModelArtifact
from tidemill.project import Project
from tidemill_training import train as training
from tidemill_training.models import list_versions, promote, rollback, show
from tidemill_training.registry import Registry
from tidemill_training.reproduce import reproduce
from tidemill_training.retrain import retrain
from tidemill_training.spine import build_spine
from tidemill_training.train import train
from tidemill_training.versions import trained_by_us

START = datetime(2024, 1, 1, tzinfo=UTC)
TODAY = START + timedelta(days=50)
STEP = timedelta(microseconds=1)

ESTIMATORS = """
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC


def boosted():
    return HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=20, early_stopping=True)


def linear():
    return LogisticRegression()


def without_probabilities():
    return LinearSVC()
"""
REQUEST = """
def amount_facts(inputs):
    return {"is_large": [None if amount is None else amount > 50 for amount in inputs["amount"]]}
"""


def catalog_of(root: Path) -> Catalog:
    visits = View(
        name="customer_visits",
        entities=("customer",),
        join_keys=("customer",),
        features=(
            Feature(name="mean_visit", dtype=ValueType.DOUBLE),
            Feature(name="visits", dtype=ValueType.INT64),
            Feature(name="city", dtype=ValueType.STRING),
        ),
        source="visits",
        ttl=timedelta(days=2),
        schedule=Schedule(every=timedelta(hours=1), lag=timedelta(minutes=5)),
    )
    request = OnDemandView(
        name="order_request",
        features=(Feature(name="is_large", dtype=ValueType.BOOL),),
        function=reference_to(function(root, "request_facts", "amount_facts"), root),
        mode="python",
        request=(RequestField(name="amount", dtype=ValueType.DOUBLE),),
    )
    return Catalog(
        project="shop",
        entities=(Entity(name="customer", join_key="customer", dtype=ValueType.STRING),),
        sources=(
            Source(name="visits", path="data/visits", timestamp_field="event_time", known_field="known_time"),
            Source(name="orders", path="data/orders", timestamp_field="asked_at"),
            Source(name="returns", path="data/returns", timestamp_field="event_time", known_field="known_time"),
        ),
        views=(visits,),
        on_demand_views=(request,),
        services=(
            Service(
                name="returns_v1",
                projections=(
                    Projection(view="customer_visits", features=("mean_visit", "visits", "city")),
                    Projection(view="order_request", features=("is_large",)),
                ),
            ),
        ),
        models=(
            Model(
                name="order_return",
                service="returns_v1",
                spine=SpineDefinition(
                    source="orders",
                    time_column="asked_at",
                    id_column="order_id",
                    keys=(("customer", "customer"),),
                    request=("amount",),
                ),
                label=LabelDefinition(source="returns", column="returned", id_column="order"),
                estimator=reference_to(function(root, "estimators", "boosted"), root),
                split=Split(test=timedelta(days=10), validation=timedelta(days=5)),
                metrics=("roc_auc", "average_precision", "log_loss"),
                gates=(
                    Gate(kind="at_least", metric="roc_auc", value=0.6),
                    Gate(kind="not_worse_than_champion", metric="roc_auc", value=0.05),
                ),
                retrain=(
                    Trigger(kind="new_data", settings=(("rows", 300),)),
                    Trigger(kind="schedule", settings=(("cron", "0 6 * * 1"), ("timezone", "UTC"))),
                    Trigger(kind="performance", settings=(("metric", "roc_auc"), ("drop", 0.03))),
                    Trigger(kind="drift", settings=(("psi", 0.2),)),
                ),
                seed=11,
            ),
        ),
    )


def function(root: Path, module: str, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(f"shop_{module}", root / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)


def write_shop(root: Path, *, days: int = 60, every: int = 20, seed: int = 0) -> None:
    """Orders every 20 minutes whose return depends on the customer's visits; a return is known a day later."""
    random = np.random.default_rng(seed)
    root.mkdir()
    (root / "feature_store.yaml").write_text("project: shop\n")
    (root / "estimators.py").write_text(ESTIMATORS)
    (root / "request_facts.py").write_text(REQUEST)
    customers = np.array([f"c{number}" for number in range(20)])
    ticks = np.repeat(np.arange(days * 4), len(customers))
    visited = pl.Series([START], dtype=pl.Datetime("us", "UTC"))[0]
    visits = pl.DataFrame(
        {
            "customer": np.tile(customers, days * 4),
            "event_time": [visited + timedelta(hours=6 * int(tick)) for tick in ticks],
            "mean_visit": random.normal(0, 1, len(ticks)),
            "visits": random.integers(0, 9, len(ticks)),
            "city": random.choice(["Oslo", "Bergen", "Hamar"], len(ticks)),
        }
    ).with_columns(
        known_time=pl.col("event_time") + pl.duration(minutes=2),
        visits=pl.when(pl.int_range(pl.len()) % 11 != 0).then("visits"),
    )
    rows = days * 24 * 60 // every
    asked = [START + timedelta(minutes=every * row, hours=3) for row in range(rows)]
    orders = pl.DataFrame(
        {
            "order_id": [f"o{row:05}" for row in range(rows)],
            "asked_at": asked,
            "customer": random.choice(customers, rows),
            "amount": random.gamma(2, 25, rows),
        }
    )
    held = orders.sort("asked_at").join_asof(
        visits.sort("known_time"), left_on="asked_at", right_on="known_time", by="customer", check_sortedness=False
    )
    pull = 1.5 * held["mean_visit"].fill_null(0).to_numpy() + (orders["amount"].to_numpy() > 50)
    returned = random.random(rows) < 1 / (1 + np.exp(1.5 - pull))
    returns = pl.DataFrame({"order": orders["order_id"], "event_time": orders["asked_at"], "returned": returned})
    returns = returns.with_columns(known_time=pl.col("event_time") + pl.duration(days=1))
    for name, frame in (("visits", visits), ("orders", orders), ("returns", returns)):
        (root / "data" / name).mkdir(parents=True)
        frame.write_parquet(root / "data" / name / "part-0.parquet")


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


def open_at(root: Path, at: datetime) -> Project:
    return tidemill.open(root, clock=ManualClock(at))


def at(project: Project, moment: datetime) -> Project:
    assert isinstance(project.clock, ManualClock)
    project.clock.set(moment)
    return project


def redefine(project: Project, **changes: Any) -> None:
    catalog = project.catalog
    project.catalogs.add(replace(catalog, models=(replace(catalog.models[0], **changes),)), at=TODAY)
    project.reload()


def champion(project: Project) -> int:
    deployment = project.deployments.current("order_return")
    assert deployment is not None
    return deployment.version


def rewrite(project: Project, source: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    file = project.root / "data" / source / "part-0.parquet"
    change(pl.read_parquet(file)).write_parquet(file)


# The spine


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


# Training


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


def show_folder(project: Project, version: int) -> Path:
    return project.state / "models" / "order_return" / str(version)


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
    assert "is worse than champion version 1's" in " ".join(trained.decision.reasons)


def test_a_champion_whose_artifact_is_gone_is_not_beaten_by_absence(shop: Project):
    shutil.rmtree(show_folder(shop, 1))
    trained = train(shop, "order_return")
    assert not trained.promoted
    assert "cannot be compared with champion version 1" in trained.decision.reasons[0]


# What cannot be trained


def test_nothing_is_trained_before_definitions_are_applied(tmp_path: Path):
    write_shop(tmp_path / "shop", days=1)
    project = open_at(tmp_path / "shop", TODAY)
    with pytest.raises(NotAppliedError, match="tidemill apply"):
        train(project, "order_return")
    project.close()


def test_an_unknown_model_is_named_with_what_was_meant(shop: Project):
    with pytest.raises(NotDefinedError, match="Did you mean 'order_return'"):
        train(shop, "order_returns")


def no_positive(returns: pl.DataFrame) -> pl.DataFrame:
    return returns.with_columns(returned=pl.lit(value=False))


def three_outcomes(returns: pl.DataFrame) -> pl.DataFrame:
    return returns.with_columns(returned=pl.int_range(pl.len()) % 3)


def other_ids(returns: pl.DataFrame) -> pl.DataFrame:
    return returns.with_columns(order="x" + pl.col("order"))


def one_day(orders: pl.DataFrame) -> pl.DataFrame:
    return orders.filter(pl.col("asked_at") < START + timedelta(days=1))


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("returns", no_positive, "None of the .* labels to be fitted on is positive"),
        ("returns", three_outcomes, "should be true or false, or 1 or 0, and holds Int64: 0, 1, 2"),
        ("returns", other_ids, "No label of 'returns' is known"),
        ("returns", pl.DataFrame.clear, "No label of 'returns' is known"),
        ("orders", pl.DataFrame.clear, "'orders' asks about nobody in that time"),
        ("orders", one_day, "nothing is left to fit on"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused_and_nothing_registered(
    source: str, change: Callable[[pl.DataFrame], pl.DataFrame], message: str, fresh_shop: Project
):
    rewrite(fresh_shop, source, change)
    with pytest.raises(TrainingDataError, match=message):
        train(fresh_shop, "order_return")
    assert list_versions(fresh_shop) == []
    assert fresh_shop.deployments.current("order_return") is None


def test_a_label_that_its_source_does_not_have_is_named(fresh_shop: Project):
    redefine(fresh_shop, label=LabelDefinition(source="returns", column="retuned", id_column="order"))
    with pytest.raises(DefinitionError, match=r"'returns' has no column 'retuned'.*returned"):
        train(fresh_shop, "order_return")


def test_the_future_cannot_be_trained_on(shop: Project):
    with pytest.raises(InputError, match="not known yet"):
        train(shop, "order_return", until=TODAY + timedelta(hours=1))


def test_an_estimator_that_changed_since_it_was_applied_is_refused(shop: Project):
    (shop.root / "estimators.py").write_text(ESTIMATORS + "\n# another thought\n")
    with pytest.raises(DefinitionError, match="changed since it was applied"):
        train(shop, "order_return")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("without_probabilities", DefinitionError, "gives no probabilities"),
        ("linear", TrainingDataError, "put a SimpleImputer before it"),
    ],
)
def test_an_estimator_that_does_not_fit_the_work_says_why(
    name: str, error: type[Exception], message: str, fresh_shop: Project
):
    redefine(fresh_shop, estimator=reference_to(function(fresh_shop.root, "estimators", name), fresh_shop.root))
    with pytest.raises(error, match=message):
        train(fresh_shop, "order_return")
    assert list_versions(fresh_shop) == []


def test_a_model_that_is_being_trained_already_is_left_alone(shop: Project):
    with trained_by_us(shop, "order_return"), pytest.raises(ConflictError, match="by another process"):
        train(shop, "order_return")


# Ending in the middle


class Killed(BaseException):
    """Ends the process where it is raised, in effect."""


def killed(*_args: object, **_settings: object) -> None:
    raise Killed


def at_reserving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "reserve", killed)


def at_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelArtifact, "save", killed)


def at_completing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "complete", killed)


def at_deploying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_deploy", killed)


def at_mirroring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "mirror_aliases", killed)


@pytest.mark.parametrize("end", [at_reserving, at_saving, at_completing, at_deploying, at_mirroring])
def test_a_training_that_ends_anywhere_leaves_a_state_from_which_the_next_goes_on(
    end: Callable[[pytest.MonkeyPatch], None], shop: Project, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        end(patched)
        with pytest.raises(Killed):
            train(shop, "order_return")
    for listed in list_versions(shop, "order_return"):
        ModelArtifact.load(show_folder(shop, listed.version))
    assert champion(shop) == (2 if end is at_mirroring else 1)
    following = train(shop, "order_return")
    assert following.promoted
    assert following.version > 1
    expected = {"champion": following.version, "challenger": following.version}
    assert Registry(shop).aliases("order_return") == expected


KILL = """
import os, signal, sys
from datetime import datetime, UTC
import tidemill
from tidemill.clock import ManualClock
from tidemill.models.artifact import ModelArtifact
from tidemill_training.train import train

ModelArtifact.test_predictions  # the class that save belongs to
def die(*_, **__):
    (project.state / "models" / "order_return" / ".2.halfway").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
ModelArtifact.save = die
project = tidemill.open(sys.argv[1], clock=ManualClock(datetime.fromisoformat(sys.argv[2])))
train(project, "order_return")
"""


def test_a_training_that_is_killed_gives_its_lock_back_and_what_it_left_is_cleaned_up(shop: Project):
    command = [sys.executable, "-c", KILL, str(shop.root), TODAY.isoformat()]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert champion(shop) == 1
    assert train(shop, "order_return").version == 3
    names = {item.name for item in (shop.state / "models" / "order_return").iterdir()}
    assert names == {"1", "3", ".lock"}


# Reproduction


def test_a_model_is_reproduced_to_the_last_bit(shop: Project):
    report = reproduce(shop, "order_return@champion").check()
    assert report.equal
    assert report.largest_difference == 0.0
    assert {found.what for found in report.comparisons} >= {"dataset digest", "test roc_auc", "test log_loss"}


def test_a_model_is_reproduced_after_data_has_gone_on_and_definitions_have_changed(shop: Project):
    redefine(shop, split=Split(test=timedelta(days=3)), seed=99)
    more = pl.read_parquet(shop.root / "data" / "visits" / "part-0.parquet").with_columns(
        known_time=pl.lit(TODAY + timedelta(days=1)), mean_visit=pl.lit(99.0)
    )
    more.write_parquet(shop.root / "data" / "visits" / "part-1.parquet")
    assert reproduce(at(shop, TODAY + timedelta(days=9)), "order_return@1").equal


def test_what_lands_after_a_training_does_not_change_it_even_if_it_was_known_before(fresh_shop: Project):
    """Extraction brings yesterday's outcomes this night, and a training in between must not count on them."""
    folder = fresh_shop.root / "data" / "returns"
    returns = pl.read_parquet(folder / "part-0.parquet")
    midnight = TODAY - timedelta(hours=5)
    landed = returns.filter(pl.col("known_time") < midnight)
    (folder / "part-0.parquet").unlink()
    landed.write_parquet(folder / f"{START:%Y%m%dT%H%M%SZ}_{midnight:%Y%m%dT%H%M%SZ}.parquet")
    trained = train(fresh_shop, "order_return")
    assert trained.artifact.manifest.dataset.until == midnight
    later = returns.filter(pl.col("known_time") >= midnight)
    later.write_parquet(folder / f"{midnight:%Y%m%dT%H%M%SZ}_{TODAY:%Y%m%dT%H%M%SZ}.parquet")
    assert reproduce(fresh_shop, "order_return@champion").equal


def test_runs_recorded_later_for_earlier_times_do_not_change_what_a_model_was_trained_on(shop: Project):
    noon = START + timedelta(days=20)
    run = shop.ledger.claim("customer_visits", start=START, end=noon, at=noon)
    assert run is not None
    shop.ledger.succeed(run, cutoff=noon, rows_read=0, rows_written=0, rows_skipped=0, at=noon)
    assert len(shop.ledger.cutoffs("customer_visits")[0]) == 1
    assert reproduce(shop, "order_return@1").equal


def test_history_that_was_tampered_with_shows(shop: Project):
    rewrite(shop, "visits", lambda visits: visits.with_columns(mean_visit=pl.col("mean_visit") + 0.1))
    report = reproduce(shop, "order_return@1")
    assert not report.equal
    assert report.largest_difference >= 0.0
    with pytest.raises(NotReproducibleError, match="dataset digest"):
        report.check()


def test_a_model_whose_functions_have_changed_says_so(shop: Project):
    (shop.root / "estimators.py").write_text(ESTIMATORS.replace("max_iter=30", "max_iter=31"))
    with pytest.raises(NotReproducibleError, match=r"estimators.py changed.*Check out the definitions"):
        reproduce(shop, "order_return@1")


@pytest.mark.parametrize("reference", ["order_return@9", "order_return@chalenger", "order_retrun"])
def test_a_version_that_does_not_exist_is_named(reference: str, shop: Project):
    with pytest.raises(NotDefinedError):
        reproduce(shop, reference)


# Retraining


def test_nothing_is_fitted_while_no_trigger_fires(shop: Project):
    decision = retrain(shop, "order_return", at=TODAY + timedelta(hours=1))
    assert decision.outcome == "not due"
    assert len(decision.reasons) == 4
    assert [found.version for found in list_versions(shop)] == [1]


def test_enough_new_outcomes_fit_a_challenger_that_is_promoted(shop: Project):
    decision = retrain(at(shop, TODAY + timedelta(days=5)), "order_return", at=TODAY + timedelta(days=5))
    fired = {check.kind: check.reason for check in decision.fired}
    assert fired["new_data"].startswith("360 outcomes became known")
    assert decision.outcome == "promoted"
    assert champion(shop) == 2


def test_a_schedule_fires_once_for_each_tick(shop: Project):
    monday = datetime(2024, 2, 26, 6, tzinfo=UTC)
    redefine(shop, retrain=(Trigger(kind="schedule", settings=(("cron", "0 6 * * 1"), ("timezone", "UTC"))),))
    assert not retrain(at(shop, monday), "order_return", at=monday - timedelta(seconds=1)).fired
    assert retrain(shop, "order_return", at=monday).fired
    assert not retrain(shop, "order_return", at=monday).fired


def test_a_worse_challenger_is_refused_with_its_reasons_and_the_decision_is_kept(shop: Project):
    week = TODAY + timedelta(days=7)
    late = pl.col("event_time") > TODAY - timedelta(days=30)
    rewrite(shop, "visits", lambda v: v.with_columns(mean_visit=pl.when(~late).then("mean_visit").otherwise(0.0)))
    redefine(shop, gates=(Gate(kind="at_least", metric="roc_auc", value=0.65),))
    decision = retrain(at(shop, week), "order_return", at=week, force=True)
    assert decision.outcome == "refused"
    assert "is below 0.65" in decision.reasons[0]
    assert champion(shop) == 1
    kept = ReportRepository(shop.database, shop.name).newest("retrain", "order_return")
    assert kept is not None
    assert (kept.body["outcome"], kept.made_at) == ("refused", week)
    assert kept.body["triggers"][-1] == {"kind": "on_demand", "fired": True, "reason": "asked for"}


def test_without_a_champion_there_is_reason_enough(fresh_shop: Project):
    decision = retrain(fresh_shop, "order_return", at=TODAY)
    assert decision.outcome == "promoted"
    assert decision.fired[0].reason == "there is no champion yet"


# Which version serves


def test_versions_are_listed_newest_first_with_their_aliases(shop: Project):
    train(shop, "order_return", promote=False)
    listed = list_versions(shop, "order_return")
    assert [(found.version, found.aliases) for found in listed] == [(2, ("challenger",)), (1, ("champion",))]
    (show_folder(shop, 1) / "manifest.json").write_text("{")
    assert list_versions(shop)[1].problem
    with pytest.raises(NotDefinedError, match="order_return"):
        list_versions(shop, "order_retrun")


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
