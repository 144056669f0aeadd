"""A Feast repository with one line changed: each plug-in works beside Feast's own parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from own_redis import closed_with_redis
from rides import CONFIGURATION, NOON, at, write_files

import tidemill
from tidemill.feast.apply import register
from tidemill.feast.repository import opened_repository

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
OFFLINE = "offline_store: {type: tidemill.feast.offline.PolarsOfflineStore}"
ONLINE = "online_store: {type: tidemill.feast.online.TidemillRedisOnlineStore}"
ENGINE = "batch_engine: {type: tidemill.feast.engine.ArrowComputeEngine}\n"


@pytest.fixture(params=["our offline store", "our online store", "all of ours"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    text = {
        "our offline store": CONFIGURATION.replace(
            ONLINE, "online_store: {type: sqlite, path: data/online.db}"
        ).replace(ENGINE, ""),
        "our online store": CONFIGURATION.replace(OFFLINE, "offline_store: {type: dask}").replace(ENGINE, ""),
        "all of ours": CONFIGURATION,
    }[request.param]
    root = tmp_path / "rides"
    root.mkdir()
    (root / "feature_store.yaml").write_text(text)
    write_files(root)
    with opened_repository(root) as opened:
        register(opened)
    project = tidemill.open(root)
    project.clock.set(NOON)
    with closed_with_redis(project):
        yield root


def test_history_materialization_reads_and_pushes_work(repository: Path) -> None:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(repository))
    spine = pd.DataFrame({"city": ["ams", "ber"], "event_timestamp": [at(0), at(-4.5)]})
    history = store.get_historical_features(entity_df=spine, features=["weather:rain"]).to_df()
    store.materialize(start_date=at(-48), end_date=at(0), feature_views=["weather", "position"])
    store.push("positions", pd.DataFrame({"driver_id": [1], "at": [at(-0.1)], "zone": ["south"]}))
    online: dict[str, list[Any]] = store.get_online_features(
        features=["weather:rain", "position:zone"], entity_rows=[{"city": "ams", "driver_id": 1}]
    ).to_dict()

    assert sorted(history["rain"].tolist()) == [0.25, 0.5]
    assert online["rain"] == [0.5]
    assert online["zone"] == ["south"]
