"""The HTTP API against Feast's own server and a hand-written FastAPI app; same Redis, same data, same run.

    python tests/benchmarks/bench_serving.py [--entities 100000] [--seconds 5] [--rounds 15] [--json FILE]

Answers are compared first. Each server is one process; the load comes from another one. Rates are requests a second.
A tail of a moment is chance: what is said of p99 at 70 % of capacity is the median of short rounds, in which the server
with its log and the one without take turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from http_load import Load, Measured, measure
from serving_bodies import Bodies, compare_features, compare_predictions
from serving_process import serving
from serving_project import T0, make_catalog, prepare

from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project

FEATURES, PREDICT = "/v1/features/three_views", "/v1/models/reference/predict"
OURS, UNLOGGED = "tidemill", "tidemill without its log"
FEAST, PLAIN = "Feast's server, tuned", "FastAPI + Feast + scikit-learn"
CALM = "prediction, 1 row, at 70 % of capacity"
TARGETS = {
    "features, 1 row, 16 connections: over Feast's tuned server": ("at least", 12.0),
    "features, 1 row, 1 connection: p50 over Feast's": ("at most", 0.3),
    "features, 100 rows, 16 connections: over Feast's tuned server": ("at least", 30.0),
    "prediction, 1 row, 32 connections: over FastAPI + Feast + scikit-learn": ("at least", 10.0),
    "prediction at 70 % of capacity: p99, ms": ("at most", 20.0),
    "prediction at 70 % of capacity: p99 with the log over p99 without": ("at most", 1.05),
    "catalog reloads under load: failed requests": ("at most", 0.0),
    "start to ready, s": ("at most", 3.0),
    "memory of one process, MB": ("at most", 250.0),
}


TURNS = 3
"""Of each server, of which the median counts: how fast a machine is changes within a minute."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long each server is asked, and in how many rounds where two are compared by their tails."""

    seconds: float
    rounds: int


def load(
    port: int, path: str, bodies: list[Any], *, connections: int, seconds: float, rate: float | None = None
) -> Measured:
    texts = tuple(json.dumps(body) for body in bodies)
    return measure(Load(port=port, path=path, bodies=texts, connections=connections, seconds=seconds, rate=rate))


def bench_features(root: Path, bodies: Bodies, effort: Effort) -> dict[str, Any]:
    """Ours and Feast's take turns, idle while the other is asked."""
    found: dict[str, Any] = {}
    with serving("ours", root, 8701), serving("feast", root, 8702):
        for size in (1, 100):
            compare_features(bodies.rows(size, 1)[0], bodies, 8701, 8702)
        for size, connections in ((1, 1), (1, 16), (10, 16), (100, 1), (100, 16)):
            rows = bodies.rows(size)
            how = {"connections": connections, "seconds": effort.seconds}
            ours, feast = [{"rows": one} for one in rows], [bodies.feast(one) for one in rows]
            rounds: dict[str, list[Measured]] = {OURS: [], FEAST: []}
            for _ in range(TURNS):
                rounds[OURS].append(load(8701, FEATURES, ours, **how))
                rounds[FEAST].append(load(8702, "/get-online-features", feast, **how))
            name = f"features, {_count(size, 'row')}, {_count(connections, 'connection')}"
            found[name] = {who: median(each) for who, each in rounds.items()}
    return found


def bench_predictions(root: Path, bodies: Bodies, effort: Effort) -> dict[str, Any]:
    """Everything the servers can do, and then 70 % of it."""
    requests = [{"rows": rows} for rows in bodies.rows(1)]
    found: dict[str, Any] = {}
    with serving("ours", root, 8703), serving("plain", root, 8704):
        compare_predictions(bodies.rows(50, 1)[0], 8703, 8704)
        for connections in (1, 32):
            how = {"connections": connections, "seconds": effort.seconds}
            found[f"prediction, 1 row, {_count(connections, 'connection')}"] = {
                OURS: load(8703, PREDICT, requests, **how),
                PLAIN: load(8704, "/predict", requests, **how),
            }
    capacity = found["prediction, 1 row, 32 connections"][OURS].rate
    return found | {CALM: bench_calm(root, requests, effort, rate=0.7 * capacity)}


def bench_calm(root: Path, requests: list[Any], effort: Effort, *, rate: float) -> dict[str, Measured]:
    """With the log and without, in turns that are short and many; whoever was first is second in the next round."""
    ports = {OURS: 8703, UNLOGGED: 8704}
    found: dict[str, list[Measured]] = {name: [] for name in ports}
    with serving("ours", root, ports[OURS]), serving("ours-unlogged", root, ports[UNLOGGED]):
        for number in range(effort.rounds):
            for name in sorted(ports, reverse=number % 2 == 1):
                found[name].append(load(ports[name], PREDICT, requests, connections=64, seconds=1.0, rate=rate))
    return {name: median(rounds) for name, rounds in found.items()}


def median(rounds: list[Measured]) -> Measured:
    """The median of every figure, and all failures."""
    figures = {field.name: statistics.median(getattr(one, field.name) for one in rounds) for field in fields(Measured)}
    return Measured(**(figures | {"failed": sum(one.failed for one in rounds)}))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def bench_reload(root: Path, project: Project, bodies: Bodies, effort: Effort) -> Measured:
    """A new catalog every second while requests come."""
    catalog, stop = make_catalog(), threading.Event()

    def change() -> None:
        number = 0
        while not stop.wait(1.0):
            number += 1
            view = replace(catalog.views[0], description=f"change {number}")
            project.catalogs.add(replace(catalog, views=(view, *catalog.views[1:])), at=T0)

    with serving("ours", root, 8705):
        changing = threading.Thread(target=change)
        changing.start()
        requests = [{"rows": rows} for rows in bodies.rows(1)]
        measured = load(8705, PREDICT, requests, connections=16, seconds=max(5.0, effort.seconds))
        stop.set()
        changing.join()
    return measured


def bench_start(root: Path) -> tuple[float, float]:
    """Seconds from the process's beginning to ready, and its memory in MB after some work."""
    begun = time.perf_counter()
    with serving("ours", root, 8706) as process:
        ready = time.perf_counter() - begun
        rows = [{"driver_id": entity} for entity in range(100)]
        for _ in range(50):
            httpx.post(f"http://127.0.0.1:8706{PREDICT}", json={"rows": rows})
        return ready, process.memory_info().rss / 2**20


def run(entities: int, effort: Effort) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project = prepare(root, entities)
        try:
            bodies = Bodies(entities, make_catalog())
            ready, memory = bench_start(root)
            table = bench_features(root, bodies, effort) | bench_predictions(root, bodies, effort)
            reload = bench_reload(root, project, bodies, effort)
        finally:
            project.close()
            EmbeddedRedis(project.redis_folder).stop()
    return {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("feast", "scikit-learn", "uvicorn", "redis")},
        "table": {work: {name: asdict(one) for name, one in peers.items()} for work, peers in table.items()},
        "ratios": _ratios(table, reload, ready, memory),
    }


def _ratios(table: dict[str, Any], reload: Measured, ready: float, memory: float) -> dict[str, float]:
    def over(work: str, peer: str) -> float:
        return table[work][OURS].rate / table[work][peer].rate

    single = table["features, 1 row, 1 connection"]
    calm = table[CALM]
    figures = (
        over("features, 1 row, 16 connections", FEAST),
        single[OURS].p50 / single[FEAST].p50,
        over("features, 100 rows, 16 connections", FEAST),
        over("prediction, 1 row, 32 connections", PLAIN),
        calm[OURS].p99,
        calm[OURS].p99 / calm[UNLOGGED].p99,
        float(reload.failed),
        ready,
        memory,
    )
    return dict(zip(TARGETS, figures, strict=True))


def report(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, Python {found['python']}, {found['versions']}")
    for work, peers in found["table"].items():
        print(f"\n{work}")
        for name, one in peers.items():
            times = f"p50 {one['p50']:8.2f} ms   p99 {one['p99']:8.2f} ms"
            print(
                f"  {name:34} {one['rate']:9,.0f} requests a second   {times}   failed {one['failed']}{_lateness(one)}"
            )
    print()
    for name, figure in found["ratios"].items():
        how, target = TARGETS[name]
        held = figure <= target if how == "at most" else figure >= target
        print(f"  {name:76} {figure:9.2f}   {how} {target:g}   {'held' if held else 'MISSED'}")


def _lateness(one: dict[str, Any]) -> str:
    return f"   (the load itself was late by {one['late']:.2f} ms)" if one["late"] else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    outcome = run(options.entities, Effort(seconds=options.seconds, rounds=options.rounds))
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2))
