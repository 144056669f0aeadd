"""The repository that `feast init` makes, with our plug-ins named in it: it answers what it answered before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from waiting import PATIENCE

import tidemill
from tidemill.feast.apply import register
from tidemill.feast.repository import opened_repository
from tidemill.online.embedded import EmbeddedRedis

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
OFFLINE = "offline_store: {type: tidemill.feast.offline.PolarsOfflineStore}\n"
FEASTS_ONLINE = "online_store:\n    type: sqlite\n    path: data/online_store.db\n"
ONLINE = "online_store: {type: tidemill.feast.online.TidemillRedisOnlineStore}\n"
ENGINE = "batch_engine: {type: tidemill.feast.engine.ArrowComputeEngine}\n"
ASKED = [
    "driver_hourly_stats:conv_rate",
    "transformed_conv_rate:conv_rate_plus_val1",
    "driver_hourly_stats:avg_daily_trips",
]
EXTRA = ["acc_rate", "driver_metadata", "driver_config", "driver_profile"]  # what the on-demand view reads besides


@dataclass(frozen=True)
class Quickstarts:
    """The same repository as Feast makes it, with our offline store, and with all of our plug-ins."""

    feasts: Path
    offline: Path
    all_ours: Path
    now: datetime

    @property
    def ours(self) -> dict[str, Path]:
        return {"offline": self.offline, "all": self.all_ours}


@pytest.fixture(scope="module")
def quickstarts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstarts]:
    from feast.repo_operations import init_repo

    folder = tmp_path_factory.mktemp("quickstart")
    with chdir(folder), redirect_stdout(StringIO()), local_time_is_utc():
        init_repo("drivers", "local")  # writes when rows were created in local time, without a zone
    made = folder / "drivers" / "feature_repo"
    configuration = (made / "feature_store.yaml").read_text()
    assert FEASTS_ONLINE in configuration
    texts = {
        "feasts": configuration,
        "offline": configuration + OFFLINE,
        "all_ours": configuration.replace(FEASTS_ONLINE, ONLINE) + OFFLINE + ENGINE,
    }
    roots = {name: folder / name for name in texts}
    for name, root in roots.items():
        shutil.copytree(made, root)
        (root / "feature_store.yaml").write_text(texts[name] + "data_quality_monitoring: {auto_baseline: false}\n")
        with opened_repository(root) as repository:
            register(repository)
    yield Quickstarts(**roots, now=datetime.now(UTC))
    for root in filter(Path.exists, (roots["all_ours"], folder / "all_pushed_to")):
        project = tidemill.open(root)
        EmbeddedRedis(project.redis_folder).stop()
        project.close()


@contextmanager
def local_time_is_utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def opened(root: Path) -> Any:
    from feast import FeatureStore

    return FeatureStore(repo_path=str(root))


def spine(now: datetime) -> pd.DataFrame:
    """Who the quickstart asks about, for training (long ago) and for scoring (now)."""
    return pd.DataFrame(
        {
            "driver_id": [1001, 1002, 1003, 1001, 1002, 1003],
            "event_timestamp": [datetime(2021, 4, 12, 10, 59, 42, tzinfo=UTC)] * 3 + [now] * 3,
            "label_driver_reported_satisfaction": [1, 5, 3, 4, 2, 6],
            "val_to_add": [1, 2, 3, 4, 5, 6],
            "val_to_add_2": [10, 20, 30, 40, 50, 60],
        }
    )


@pytest.mark.parametrize("plugins", ["offline", "all"])
@pytest.mark.parametrize("asked", ["references", "service"])
def test_the_training_set_of_the_quickstart_is_the_same(quickstarts: Quickstarts, plugins: str, asked: str) -> None:
    found = {}
    for name, root in (("feasts", quickstarts.feasts), ("ours", quickstarts.ours[plugins])):
        with chdir(root):  # Feast's own store reads some paths from where one stands
            store = opened(root)
            features = ASKED if asked == "references" else store.get_feature_service("driver_activity_v2")
            job = store.get_historical_features(entity_df=spine(quickstarts.now), features=features)
            found[name] = job.to_df().sort_values("label_driver_reported_satisfaction", ignore_index=True)

    pd.testing.assert_frame_equal(found["ours"][list(found["feasts"].columns)], found["feasts"])


def test_what_is_needed_only_to_compute_comes_last_in_the_order_of_its_view(quickstarts: Quickstarts) -> None:
    """In a process of its own: Feast's order there is that of its hash seed."""
    program = f"""
import pandas as pd, sys
from feast import FeatureStore
spine = pd.DataFrame({{"driver_id": [1001], "event_timestamp": [pd.Timestamp.now("UTC")], "val_to_add": [1],
                      "val_to_add_2": [2]}})
job = FeatureStore(repo_path={str(quickstarts.offline)!r}).get_historical_features(spine, {ASKED!r})
print(",".join(job.to_arrow().column_names))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    features = ["conv_rate", "conv_rate_plus_val1", "avg_daily_trips", *EXTRA]
    assert done.stdout.split()[-1].split(",") == [
        "driver_id", "event_timestamp", "val_to_add", "val_to_add_2", *features,
    ]  # fmt: skip


@pytest.mark.parametrize("plugins", ["offline", "all"])
def test_loading_reading_and_pushing_go_as_in_the_quickstart(quickstarts: Quickstarts, plugins: str) -> None:
    before = {name: online(root, quickstarts.now) for name, root in roots_of(quickstarts, plugins)}
    assert before["ours"] == before["feasts"]
    assert before["ours"]["fresh"]["driver_config"][0] != {"max_distance_km": 500}

    row = {
        "driver_id": [1001],
        "event_timestamp": [quickstarts.now - timedelta(seconds=1)],
        "created": [quickstarts.now - timedelta(seconds=1)],
        "conv_rate": [1.0],
        "acc_rate": [1.0],
        "avg_daily_trips": [1000],
        "driver_metadata": [{"vehicle_type": "truck", "rating": "5.0"}],
        "driver_config": [json.dumps({"max_distance_km": 500})],
        "driver_profile": [{"name": "another name", "age": "30"}],
    }
    after = {name: online(root, quickstarts.now, pushed=row) for name, root in roots_of(quickstarts, plugins)}
    assert after["ours"] == after["feasts"]
    assert after["ours"]["fresh"]["driver_config"][0] == {"max_distance_km": 500}
    root = roots_of(quickstarts, plugins)[1][1]
    with chdir(root):
        history = opened(root).get_historical_features(
            spine(quickstarts.now).tail(3), ["driver_hourly_stats:conv_rate", "driver_hourly_stats:driver_config"]
        )
        assert history.to_polars()["driver_config"].to_list()[0] == '{"max_distance_km": 500}'


def roots_of(quickstarts: Quickstarts, plugins: str) -> list[tuple[str, Path]]:
    """Copies of their own, so that what is pushed there is pushed once, and no other test meets it."""
    copies = {
        "feasts": (quickstarts.feasts, f"feasts_beside_{plugins}"),
        "ours": (quickstarts.ours[plugins], f"{plugins}_pushed_to"),
    }
    for source, name in copies.values():
        if not source.with_name(name).exists():
            shutil.copytree(source, source.with_name(name))
    return [(whose, source.with_name(name)) for whose, (source, name) in copies.items()]


def online(root: Path, now: datetime, *, pushed: dict[str, list[Any]] | None = None) -> dict[str, dict[str, Any]]:
    from feast.data_source import PushMode

    with chdir(root), redirect_stdout(StringIO()):
        store = opened(root)
        if pushed is None:
            store.materialize_incremental(end_date=now)
        else:
            store.push("driver_stats_push_source", pd.DataFrame(pushed), to=PushMode.ONLINE_AND_OFFLINE)
        rows = [{"driver_id": driver, "val_to_add": 1000, "val_to_add_2": 2000} for driver in (1001, 1002)]
        return {
            "batch": store.get_online_features([*ASKED, "driver_hourly_stats:driver_profile"], rows).to_dict(),
            "fresh": store.get_online_features(store.get_feature_service("driver_activity_v3"), rows).to_dict(),
        }


def test_feast_s_data_quality_metrics_are_what_its_own_store_measures(quickstarts: Quickstarts, tmp_path: Path) -> None:
    from feast.monitoring.monitoring_service import MonitoringService

    found = {}
    for name, line in (("feasts", ""), ("ours", OFFLINE)):
        root = Path(shutil.copytree(quickstarts.feasts, tmp_path / name))
        with (root / "feature_store.yaml").open("a") as configuration:
            configuration.write(line)
        with chdir(root):
            service = MonitoringService(opened(root))
            service.auto_compute(project="drivers", feature_view_name="driver_hourly_stats")
            service.compute_baseline(project="drivers", feature_view_name="driver_hourly_stats")
            service.compute_baseline(project="drivers", feature_view_name="driver_hourly_stats")
            found[name] = service.get_feature_metrics(project="drivers", feature_view_name="driver_hourly_stats")
            kept = pl.read_parquet(root / "feast_monitoring" / "feast_monitoring_feature_metrics.parquet")
            assert kept.height == len(found[name])
    assert [comparable(row) for row in ordered(found["ours"])] == [comparable(row) for row in ordered(found["feasts"])]
    assert {"baseline", "daily", "quarterly"} <= {row["granularity"] for row in found["ours"]}


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["granularity"], str(row["metric_date"]), row["feature_name"]))


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Without when it was computed, and numbers as far as sums in another order agree."""
    kept = {name: value for name, value in row.items() if name != "computed_at"}
    return {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in kept.items()}


def test_metrics_of_numbers_that_are_none_count_them_and_leave_them_out(tmp_path: Path) -> None:
    from feast import FileSource

    from tidemill.feast.monitoring import end_baseline, keep, kept, measure, newest_time

    at = datetime(2024, 3, 5, tzinfo=UTC)
    pl.DataFrame({"at": [at] * 5, "x": [1.0, 3.0, np.nan, np.inf, None]}).write_parquet(tmp_path / "x.parquet")
    source = FileSource(name="x", path="x.parquet", timestamp_field="at")
    features = [("x", "numeric"), ("gone", "numeric")]
    (row,) = measure(tmp_path, source, features, time_column="at", start=None, end=None, bins=2, most_values=1)

    assert (row["row_count"], row["null_count"], row["mean"], row["max_val"]) == (5, 1, 2.0, 3.0)
    assert newest_time(tmp_path, source, "at") == at
    assert newest_time(tmp_path, FileSource(name="y", path="logs", timestamp_field="at"), "at") is None

    named = {"project_id": "p", "feature_view_name": "v", "metric_date": at.date(), "granularity": "daily"}
    row |= named | {"data_source_type": "batch", "computed_at": at, "is_baseline": True}
    for _ in range(2):
        keep(tmp_path, "feature", [row])
    end_baseline(tmp_path, "other project")
    assert [found["is_baseline"] for found in kept(tmp_path, "p", "feature", {"feature_name": "x"}, None, None)] == [
        True
    ]
    end_baseline(tmp_path, "p", feature_view_name="v")
    assert [found["is_baseline"] for found in kept(tmp_path, "p", "feature", None, at.date(), None)] == [False]
    assert kept(tmp_path, "p", "feature", None, at.date() + timedelta(days=1), None) == []


def test_labels_are_joined_with_features_by_the_keys_that_their_file_holds(quickstarts: Quickstarts) -> None:
    from feast.data_source import PushMode

    with chdir(quickstarts.offline):
        store = opened(quickstarts.offline)
        label = {
            "driver_id": [1001, 1001],
            "event_timestamp": [quickstarts.now - timedelta(hours=hours) for hours in (3, 2)],
            "is_reliable": [0, 1],
            "quality_score": pd.Series([0.25, 0.75], dtype="float32"),
            "reviewer_notes": ["late", "mended"],
            "labeler": ["ada", "bob"],
        }
        store.push("driver_quality_labels_push", pd.DataFrame(label), to=PushMode.OFFLINE)
        asked = ["driver_quality_labels:is_reliable", "driver_quality_labels:labeler", "driver_hourly_stats:acc_rate"]
        found = store.get_historical_features(spine(quickstarts.now).tail(3), asked).to_polars()

    assert found["is_reliable"].to_list() == [1, None, None]
    assert found["labeler"].to_list() == ["bob", None, None]
    assert found["acc_rate"].null_count() == 0


def test_a_spine_without_what_an_on_demand_view_asks_for_is_refused_before_the_work(quickstarts: Quickstarts) -> None:
    from feast.errors import RequestDataNotFoundInEntityDfException

    with chdir(quickstarts.offline), pytest.raises(RequestDataNotFoundInEntityDfException, match="val_to_add"):
        opened(quickstarts.offline).get_historical_features(
            features=ASKED, start_date=quickstarts.now - timedelta(days=1), end_date=quickstarts.now
        )
