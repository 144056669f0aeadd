"""How long a reader waits alone, and while a run goes over the entities it reads, which all have changed.

Rounds by turns: alone, beside a run, alone again. A round's ratio is of what was measured within seconds, and the
middle one of all rounds counts, so that whatever else the machine does in one of them decides nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from materialize_data import END, ROUND, open_project, write_changes

ROUNDS = 7
_ALONE = 1.0  # seconds
_PAUSE = 0.0005  # seconds between two reads


@dataclass(frozen=True, kw_only=True)
class Round:
    """Microseconds of reads, and how long the run took."""

    alone: list[float]
    during: list[float]
    seconds: float

    @property
    def ratio(self) -> float:
        return float(np.percentile(self.during, 99) / np.percentile(self.alone, 99))


def measure(root: Path, address: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """A project in `root` whose entities have all been loaded up to `END`."""
    with _loader(root, address) as load:
        found = [_round(root, address, number, load) for number in range(1, rounds + 1)]
    alone, during = ([time for one in found for time in getattr(one, name)] for name in ("alone", "during"))
    return {
        "p50_alone": float(np.median(alone)),
        "p99_alone": float(np.percentile(alone, 99)),
        "p50_during": float(np.median(during)),
        "p99_during": float(np.percentile(during, 99)),
        "ratio": float(np.median([one.ratio for one in found])),
        "ratios": [one.ratio for one in found],
        "seconds": float(np.median([one.seconds for one in found])),
    }


def _round(root: Path, address: str, number: int, load: Callable[[int], float]) -> Round:
    assert write_changes(root, 1.0) == END + number * ROUND
    project = open_project(root, address)
    rows = [{"driver_id": 1}]

    def read_until(over: Callable[[], bool]) -> list[float]:
        times = []
        while not over():
            began = time.perf_counter()
            project.online.read("all", rows)
            times.append((time.perf_counter() - began) * 1e6)
            time.sleep(_PAUSE)
        return times

    def read_alone() -> list[float]:
        deadline = time.monotonic() + _ALONE / 2
        return read_until(lambda: time.monotonic() > deadline)

    took: list[float] = []
    before = read_alone()
    run = threading.Thread(target=lambda: took.append(load(number)))
    run.start()
    during = read_until(lambda: not run.is_alive())
    run.join()
    after = read_alone()
    project.close()
    assert took, "the run beside the reader failed"
    return Round(alone=before + after, during=during, seconds=took[0])


@contextmanager
def _loader(root: Path, address: str) -> Iterator[Callable[[int], float]]:
    """A process that loads as `tidemill materialize` does, a round whenever it is told, and says how long it took."""
    command = [sys.executable, __file__, str(root), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, heard = process.stdin, process.stdout

        def load(number: int) -> float:
            told.write(f"{number}\n")
            told.flush()
            return json.loads(heard.readline())

        assert heard.readline() == "ready\n"
        yield load
        told.close()


def _load(root: Path, address: str, rounds: Sequence[str] | Any) -> None:
    from tidemill.materialize.priority import give_way

    project = open_project(root, address)
    project.offline, project.online, project.ledger.runs()
    give_way(project)
    print("ready", flush=True)
    for number in rounds:
        until, began = END + int(number) * ROUND, time.perf_counter()
        (report,) = project.materializer.materialize(until=until, at=until, views=["stats"])
        assert report.state == "succeeded", report.error
        print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    _load(Path(sys.argv[1]), sys.argv[2], sys.stdin)
