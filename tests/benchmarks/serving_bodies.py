"""The same requests in each server's own words, and whether the answers are the same."""

from __future__ import annotations

import math
from typing import Any

import httpx
import numpy as np
from serving_project import references

from tidemill.definitions import Catalog


class Bodies:
    """Requests for the same entities in each server's own words."""

    def __init__(self, entities: int, catalog: Catalog) -> None:
        self._random, self._entities = np.random.default_rng(7), entities
        self._references = references(catalog, "three_views")

    def rows(self, size: int, count: int = 200) -> list[list[dict[str, int]]]:
        return [
            [{"driver_id": int(entity)} for entity in self._random.choice(self._entities, size, replace=False)]
            for _ in range(count)
        ]

    def feast(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        return {"features": self._references, "entities": {"driver_id": [row["driver_id"] for row in rows]}}


def compare_features(rows: list[dict[str, int]], bodies: Bodies, ours: int, feast: int) -> None:
    mine = httpx.post(f"http://127.0.0.1:{ours}/v1/features/three_views", json={"rows": rows}).json()["features"]
    answer = httpx.post(f"http://127.0.0.1:{feast}/get-online-features", json=bodies.feast(rows)).json()
    theirs = {
        name: vector["values"]
        for name, vector in zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    }
    for name, column in mine.items():
        if column != theirs[name]:
            raise SystemExit(f"{name} differs: {column} and {theirs[name]}")


def compare_predictions(rows: list[dict[str, int]], ours: int, plain: int) -> None:
    mine = httpx.post(f"http://127.0.0.1:{ours}/v1/models/reference/predict", json={"rows": rows}).json()
    theirs = httpx.post(f"http://127.0.0.1:{plain}/predict", json={"rows": rows}).json()["predictions"]
    for row, other in zip(mine["predictions"], theirs, strict=True):
        if not math.isclose(row["prediction"], other, rel_tol=1e-12):
            raise SystemExit(f"Predictions differ: {row['prediction']} and {other}")
