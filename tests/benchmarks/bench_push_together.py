"""Events as they happen, one in each call, from 16 callers at a time: Tidemill beside Feast; same Redis, same rows.

    python tests/benchmarks/bench_push_together.py [--events 200000] [--seconds 2] [--json FILE]

Over HTTP: `POST /v1/push/departed` of one server process, from 16 connections, each event into 4 views x 4 windows as
in `bench_push.py`; Feast's own feature server (registry cached, `/push` to the online store) writes the same rows to
one plain view. In the library: `project.push` from 16 threads, and Feast's `store.push` from 16 threads. The two take
turns; nobody's events come twice. Before and after, all windows are held against the offline ones of the events that
were accepted, and Feast's values against the last row of each key.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from bench_push import (
    HISTORY,
    KEYS,
    NOW,
    PLAIN,
    START,
    WEEK,
    apply_feast,
    compare_windows,
    make_catalog,
    make_events,
    write_all,
)
from http_load import Load, Measured, measure
from serving_process import serving

from tidemill.clock import SimulatedClock
from tidemill.online.embedded import EmbeddedRedis
from tidemill.project import Project, open_project

CALLERS, TURNS = 16, 3
OURS, FEAST = 8711, 8712
LIBRARY_CALLS = 400
"""Of Feast in each turn; of ours there are ten times as many."""
TARGETS = {"events a second": 10_000.0, "over Feast": 20.0}


def run(count: int, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": platform.platform(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project, events = prepare(root, count)
        try:
            used = Events(events)
            found["http"] = over_http(root, project, used, seconds)
            found["library"] = in_the_library(root, project, used)
            compare_windows(project.online, pl.concat([history(), used.taken]))
        finally:
            EmbeddedRedis(project.redis_folder).stop()
            project.close()
    return found


class Events:
    """Events in order, of which each is pushed once; `taken` are those that have been."""

    def __init__(self, events: pl.DataFrame) -> None:
        self._events, self._next = events, 0

    def take(self, count: int) -> pl.DataFrame:
        if self._next + count > len(self._events):
            raise SystemExit(f"More than {len(self._events):,} events were pushed; give more with --events.")
        self._next += count
        return self._events[self._next - count : self._next]

    def ahead(self) -> pl.DataFrame:
        """Those that come next, to take some of them later."""
        return self._events[self._next :]

    @property
    def taken(self) -> pl.DataFrame:
        return self._events[: self._next]


def history() -> pl.DataFrame:
    return make_events(HISTORY, START, WEEK, seed=1)


def prepare(root: Path, count: int) -> tuple[Project, pl.DataFrame]:
    """A project whose windows hold a week, and Feast's definitions of one plain view over the same Redis."""
    (root / "feature_store.yaml").write_text(json.dumps({"project": "bench", "tidemill": {"redis_timeout": 10}}))
    project = open_project(root)
    SimulatedClock(project.state / "clock.json").set(NOW)
    project.catalogs.add(make_catalog(), at=NOW)
    write_all(project.online, history())
    events = make_events(count, START + WEEK, NOW - START - WEEK, seed=2)
    server = EmbeddedRedis(project.redis_folder)
    config = apply_feast(server, root / "feast", events, ("route",))
    (root / "feast.json").write_text(json.dumps(config))
    return project, events


def over_http(root: Path, project: Project, used: Events, seconds: float) -> dict[str, Any]:
    rounds: dict[str, list[Measured]] = {"tidemill": [], "feast": []}
    with serving("ours", root, OURS), serving("feast", root, FEAST):
        compare_answers(project, used)
        for _ in range(TURNS):
            before, ahead = accepted(), used.ahead()
            bodies = [json.dumps({"rows": [row]}) for row in rows_of(ahead)]
            bodies.insert(0, bodies.pop())  # the load begins with the second
            rounds["tidemill"].append(load(OURS, "/v1/push/departed", bodies, seconds))
            used.take(accepted() - before)
            compare_windows(project.online, pl.concat([history(), used.taken]))
            bodies = [json.dumps(feast_body(row)) for row in rows_of(ahead[:2_000])]
            rounds["feast"].append(load(FEAST, "/push", bodies, seconds))
    return {who: figures(each) for who, each in rounds.items()}


def load(port: int, path: str, bodies: Sequence[str], seconds: float) -> Measured:
    found = measure(Load(port=port, path=path, bodies=tuple(bodies), connections=CALLERS, seconds=seconds))
    if found.failed:
        raise SystemExit(f"{found.failed} of {found.requests} requests to {path} failed.")
    return found


def figures(rounds: Sequence[Measured]) -> dict[str, float]:
    return {name: statistics.median(getattr(one, name) for one in rounds) for name in ("rate", "p50", "p99")}


def rows_of(events: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """As JSON has them."""
    for row in events.iter_rows(named=True):
        yield row | {"event": row["event"].isoformat()}


def feast_body(row: dict[str, Any]) -> dict[str, Any]:
    return {"push_source_name": "departed", "df": {name: [row[name]] for name in PLAIN}, "to": "online"}


def accepted() -> int:
    """Events that our server says it has taken."""
    page = httpx.get(f"http://127.0.0.1:{OURS}/metrics").text
    lines = [line for line in page.splitlines() if line.startswith("tidemill_pushed_rows_total{")]
    return sum(int(float(line.split()[-1])) for line in lines if 'outcome="accepted"' in line)


def compare_answers(project: Project, used: Events) -> None:
    """Some events one by one to both: ours in all windows, Feast's the last of each key; and a repeat counts once."""
    some = used.take(300)
    with httpx.Client() as client:
        for row in rows_of(some):
            answer = client.post(f"http://127.0.0.1:{OURS}/v1/push/departed", json={"rows": [row]})
            assert answer.json()["accepted"] == 1, answer.text
            assert client.post(f"http://127.0.0.1:{FEAST}/push", json=feast_body(row)).status_code == 200
        again = client.post(f"http://127.0.0.1:{OURS}/v1/push/departed", json={"rows": [next(rows_of(some))]})
        assert again.json()["duplicates"] == 1, again.text
    compare_windows(project.online, pl.concat([history(), some]))
    compare_feast(project.root, some)


def compare_feast(root: Path, pushed: pl.DataFrame) -> None:
    last = pushed.group_by(KEYS["route"]).agg(pl.col("delay").sort_by("event").last())
    store = feast_store(root)
    found = store.get_online_features(["route:delay"], last.select(KEYS["route"]).to_dicts()).to_dict()
    assert found["delay"] == last["delay"].to_list()


def feast_store(root: Path) -> Any:
    from feast import FeatureStore, RepoConfig

    return FeatureStore(config=RepoConfig(**json.loads((root / "feast.json").read_text())))


def in_the_library(root: Path, project: Project, used: Events) -> dict[str, Any]:
    from feast.data_source import PushMode

    feast = feast_store(root)
    rates: dict[str, list[float]] = {"tidemill": [], "feast": []}
    for _ in range(TURNS):
        ours = used.take(10 * LIBRARY_CALLS).to_dicts()
        rates["tidemill"].append(from_threads(lambda row: project.push("departed", [row], at=NOW), ours))
        rows = [pl.DataFrame([row]).select(*PLAIN).to_pandas() for row in ours[:LIBRARY_CALLS]]
        rates["feast"].append(from_threads(lambda row: feast.push("departed", row, to=PushMode.ONLINE), rows))
    return {who: {"rate": statistics.median(each)} for who, each in rates.items()}


def from_threads(push: Callable[[Any], Any], rows: Sequence[Any]) -> float:
    """Calls a second, one row each, from as many threads as there are callers."""
    together = threading.Barrier(CALLERS + 1)
    failures: list[BaseException] = []

    def work(mine: Sequence[Any]) -> None:
        together.wait()
        with noted(failures):
            for row in mine:
                push(row)

    threads = [threading.Thread(target=work, args=(rows[number::CALLERS],)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    together.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(rows) / (time.perf_counter() - begun)


@contextmanager
def noted(failures: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for the thread
        failures.append(error)


def report(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, Python {found['python']}\n")
    print(f"single events a second, {CALLERS} at a time, into 4 keys x 4 windows; Feast: rows into one plain view")
    for how, rates in found.items():
        if how not in ("http", "library"):
            continue
        ours, feast = rates["tidemill"], rates["feast"]
        print(f"  {how:10} {ours['rate']:10,.0f} {feast['rate']:10,.0f} {ours['rate'] / feast['rate']:6.1f}x")
        if "p50" in ours:
            print(
                "             ms p50, p99: " + "; ".join(f"{one['p50']:.2f}, {one['p99']:.2f}" for one in (ours, feast))
            )
        for name, figure in (("events a second", ours["rate"]), ("over Feast", ours["rate"] / feast["rate"])):
            held = "held" if figure >= TARGETS[name] else "MISSED"
            print(f"    {name:26} {figure:10,.1f}   at least {TARGETS[name]:g}   {held}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    outcome = run(options.events, options.seconds)
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome, indent=2))
