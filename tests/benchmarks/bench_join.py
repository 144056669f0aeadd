"""Point-in-time join beside its peers: `make bench`, or `python tests/benchmarks/bench_join.py [--full] [--only NAME]`.

Every engine runs in a process of its own, the engines of a round side by side in time, several rounds; answers are
compared before anything is printed. Ratios hold within one run only, since machines are shared. Then Tidemill alone:
served mode beside event mode, by turns in one process, and how its time grows with the rows. The table that is printed
last is the one of `docs/reference/join-benchmarks.md`. With `--full` (5x10^7 rows) it takes about half an hour.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import machine
import numpy as np
from join_data import Workload, make

HERE = Path(__file__).parent
SAME_QUESTION = ("tidemill, known only breaks ties", "duckdb asof", "polars join_asof")
ENGINES = ("tidemill", *SAME_QUESTION)
PEERS = {"duckdb asof": "DuckDB, ASOF with packed tie-break", "polars join_asof": "Polars `join_asof`"}

WORKLOADS = (
    Workload(name="10^5 x 10^6", labels=10**5, rows=10**6, runs=3),
    Workload(name="10^6 x 10^7", labels=10**6, rows=10**7, runs=5),
    Workload(name="10^6 x 10^7, text keys", labels=10**6, rows=10**7, text_keys=(True,)),
    Workload(name="10^6 x 10^7, 3 views", labels=10**6, rows=10**7, views=3, text_keys=(False, True, False)),
    Workload(name="10^6 x 10^7, clustered", labels=10**6, rows=10**7, order="clustered", runs=5),
)
FULL = (
    Workload(name="5x10^6 x 5x10^7", labels=5 * 10**6, rows=5 * 10**7, runs=1),
    Workload(name="5x10^6 x 5x10^7, clustered", labels=5 * 10**6, rows=5 * 10**7, order="clustered", runs=1),
)
GROWTH = tuple(
    Workload(name="growth", labels=rows // 10, rows=rows) for rows in (10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7)
)
SERVED = ("10^6 x 10^7", "10^6 x 10^7, 3 views")
TARGETS: dict[str, dict[str, float]] = {
    "10^6 x 10^7": {"duckdb asof": 2.5, "polars join_asof": 1.5, "peak_gb": 1.0},
    "10^6 x 10^7, 3 views": {"duckdb asof": 2.0, "polars join_asof": 1.3, "peak_gb": 1.2},
    "10^6 x 10^7, clustered": {"duckdb asof": 4.0},
    "5x10^6 x 5x10^7": {"duckdb asof": 1.4, "peak_gb": 2.5},
    "5x10^6 x 5x10^7, clustered": {"duckdb asof": 4.0, "peak_gb": 2.5},
}
MOST_FOR_SERVED = 1.2


def main() -> None:
    options = _options()
    wanted = [item for item in (*WORKLOADS, *(FULL if options.full else ())) if options.only in item.name]
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "targets": TARGETS,
        "workloads": {},
        "served_over_event": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.data or temporary)
        for workload in wanted:
            data = make(workload, folder)
            found = _measure(workload, data, options.rounds or workload.runs)
            report["workloads"][workload.name] = found
            _print(workload, found)
            if workload.name in SERVED:
                report["served_over_event"][workload.name] = _served(workload, data)
        if not options.only:
            report["growth"] = _growth(folder)
    print(f"\n{machine.in_words(report['machine'])}\n")
    print("\n".join(_table(report["workloads"])))
    Path(options.json).write_text(json.dumps(report, indent=2))
    print(f"\nWritten to {options.json}.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also 5x10^7 rows")
    parser.add_argument("--only", default="", help="workloads whose name contains this; nothing on growth then")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--data", default="", help="keep the generated files here")
    parser.add_argument("--json", default="bench_join.json")
    return parser.parse_args()


def _measure(workload: Workload, folder: Path, rounds: int) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {
        engine: {"first": [], "seconds": [], "processor": [], "peak_gb": []} for engine in ENGINES
    }
    digests: dict[str, str] = {}
    for _ in range(rounds):
        for engine in ENGINES:
            answer = _run(engine, folder, workload)
            digests[engine] = answer["digest"]
            found[engine]["seconds"] += answer["seconds"]
            found[engine]["processor"] += answer["processor"]
            found[engine]["peak_gb"].append(answer["peak_gb"])
            found[engine]["first"].append(answer["first"])
    _compare(workload, folder, digests)
    for numbers in found.values():
        numbers["median"] = statistics.median(numbers["seconds"])
        numbers["median_processor"] = statistics.median(numbers["processor"])
        numbers["peak"] = max(numbers["peak_gb"])
    own = found["tidemill"]
    return {
        "engines": found,
        "ratios": {engine: numbers["median"] / own["median"] for engine, numbers in found.items()},
        "processor_ratios": {
            engine: numbers["median_processor"] / own["median_processor"] for engine, numbers in found.items()
        },
    }


def _run(engine: str, folder: Path, workload: Workload, *, runs: int = 2) -> dict[str, Any]:
    script = str(HERE / "join_engines.py")
    command = [sys.executable, script, engine, str(folder), json.dumps(asdict(workload)), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{engine} failed on {workload.name}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _compare(workload: Workload, folder: Path, digests: dict[str, str]) -> None:
    """The same question has the same answers; the full one is compared with a window function where that can run."""
    if len({digests[engine] for engine in SAME_QUESTION}) != 1:
        raise SystemExit(f"{workload.name}: answers differ: { {engine: digests[engine] for engine in SAME_QUESTION} }")
    if workload.rows <= 10**6 and _run("duckdb window", folder, workload, runs=1)["digest"] != digests["tidemill"]:
        raise SystemExit(f"{workload.name}: answers differ from the window function's.")


def _served(workload: Workload, folder: Path, *, runs: int = 7) -> dict[str, Any]:
    """What served mode costs over event mode: the median of pairs that ran one after the other."""
    found = _run("served beside event", folder, workload, runs=runs)
    ratios = {kind: _median_ratio(found["served"][kind], found["event"][kind]) for kind in ("seconds", "processor")}
    print(
        f"  served mode over event mode: {ratios['seconds']:.2f} of the seconds, {ratios['processor']:.2f} of the "
        f"processor seconds (at most {MOST_FOR_SERVED})"
    )
    return {**ratios, "at_most": MOST_FOR_SERVED}


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def _growth(folder: Path) -> dict[str, Any]:
    """The exponents of seconds and processor seconds over rows, by least squares of the logarithms."""
    runs = {workload.rows: _run("tidemill", make(workload, folder), workload, runs=5) for workload in GROWTH}
    found: dict[str, Any] = {"rows": list(runs)}
    for kind in ("seconds", "processor"):
        found[kind] = [statistics.median(run[kind]) for run in runs.values()]
        found[f"exponent_of_{kind}"] = float(np.polyfit(np.log(found["rows"]), np.log(found[kind]), 1)[0])
    print(
        f"\nFrom 10^5 to 10^7 feature rows, a label for every ten, seconds grow as "
        f"rows^{found['exponent_of_seconds']:.2f}, processor seconds as rows^{found['exponent_of_processor']:.2f}:"
    )
    for rows, seconds, processor in zip(found["rows"], found["seconds"], found["processor"], strict=True):
        print(f"  {rows:>12,} {seconds:8.3f} s {processor:8.3f} s cpu")
    return found


def _print(workload: Workload, found: dict[str, Any]) -> None:
    print(f"\n{workload.name}: answers equal")
    targets = TARGETS.get(workload.name, {})
    for engine, numbers in found["engines"].items():
        wanted = f"  (at least {targets[engine]})" if engine in targets else ""
        if engine == "tidemill" and "peak_gb" in targets:
            wanted = f"  (at most {targets['peak_gb']} GB)"
        print(
            f"  {engine:34} {numbers['median']:8.2f} s {numbers['median_processor']:8.2f} s cpu "
            f"{numbers['peak']:6.2f} GB   x {found['ratios'][engine]:.2f}{wanted}",
            flush=True,
        )


def _table(workloads: dict[str, Any]) -> list[str]:
    """The rows of the published page."""
    lines = [f"| labels x rows | Tidemill | {' | '.join(PEERS.values())} |", "|---|---|" + "---|" * len(PEERS)]
    for name, found in workloads.items():
        cells = [name]
        for engine in ("tidemill", *PEERS):
            numbers = found["engines"][engine]
            cell = f"{numbers['median']:.2f} s, {numbers['median_processor']:.1f} cpu s, {numbers['peak']:.1f} GB"
            cells.append(cell if engine == "tidemill" else f"{cell} ({found['ratios'][engine]:.1f}x)")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
