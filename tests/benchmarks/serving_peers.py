"""The servers that `bench_serving.py` compares, each in a process of its own.

    python serving_peers.py WHICH FOLDER PORT

- ours: `tidemill serve` as it is; `ours-unlogged`: the same with a log that keeps nothing.
- feast: Feast's own feature server, tuned (registry cached, no restarts, asked for feature references).
- plain: what a careful team writes by hand: FastAPI, Feast's SDK with a cached registry, scikit-learn on one thread.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel


class Body(BaseModel):
    """What the hand-written server is sent."""

    rows: list[dict[str, Any]]


def ours(root: Path, port: int) -> None:
    from tidemill.project import open_project
    from tidemill_serving.process import run_server

    run_server(open_project(root), host="127.0.0.1", port=port)


def ours_unlogged(root: Path, port: int) -> None:
    from tidemill.predictions.log import PredictionLog

    PredictionLog.append_batch = lambda _log, _batch: None  # type: ignore[method-assign]
    ours(root, port)


def feast(root: Path, port: int) -> None:
    from feast.feature_server import get_app

    _run(get_app(_feature_store(root), registry_ttl_sec=0), port)


def plain(root: Path, port: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np
    import skops.io
    from fastapi import FastAPI

    store = _feature_store(root)
    folder = root / (root / "artifact.txt").read_text()
    untrusted = skops.io.get_untrusted_types(file=folder / "model.skops")
    estimator = skops.io.load(folder / "model.skops", trusted=untrusted)
    references = (root / "references.txt").read_text().split()
    names = [reference.partition(":")[2] for reference in references]
    app = FastAPI()

    @app.post("/predict")
    def predict(body: Body) -> dict[str, Any]:
        found = store.get_online_features(features=references, entity_rows=body.rows).to_dict()
        matrix = np.array([found[name] for name in names], dtype=np.float64).T
        return {"predictions": estimator.predict_proba(matrix)[:, 1].tolist()}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    _run(app, port)


def _feature_store(root: Path) -> Any:
    import json

    from feast import FeatureStore, RepoConfig

    config = json.loads((root / "feast.json").read_text())
    store = FeatureStore(config=RepoConfig(**config))
    store.refresh_registry()
    return store


def _run(app: Any, port: int) -> None:
    import gc

    import uvicorn

    gc.collect()
    gc.freeze()
    uvicorn.run(
        app, host="127.0.0.1", port=port, access_log=False, log_level="warning", loop="uvloop", http="httptools"
    )


if __name__ == "__main__":
    {"ours": ours, "ours-unlogged": ours_unlogged, "feast": feast, "plain": plain}[sys.argv[1]](
        Path(sys.argv[2]), int(sys.argv[3])
    )
