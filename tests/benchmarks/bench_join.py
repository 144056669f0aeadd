"""Point-in-time join beside its peers: `make bench`, or `python tests/benchmarks/bench_join.py [--full] [--only NAME]`.

Every engine runs in a process of its own, the engines of a round side by side in time, several rounds; answers are
compared before anything is printed. Ratios hold within one run only, since machines are shared.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from join_data import Workload, make

HERE = Path(__file__).parent
SAME_QUESTION = ("tidemill, known only breaks ties", "duckdb asof", "polars join_asof")
ENGINES = ("tidemill", *SAME_QUESTION, "tidemill, served")

WORKLOADS = (
    Workload(name="10^5 x 10^6", labels=10**5, rows=10**6, runs=5),
    Workload(name="3x10^5 x 3x10^6", labels=3 * 10**5, rows=3 * 10**6),
    Workload(name="10^6 x 10^7", labels=10**6, rows=10**7, runs=5),
    Workload(name="10^6 x 10^7, text keys", labels=10**6, rows=10**7, text_keys=(True,)),
    Workload(name="10^6 x 10^7, 3 views", labels=10**6, rows=10**7, views=3, text_keys=(False, True, False)),
    Workload(name="10^6 x 10^7, clustered", labels=10**6, rows=10**7, order="clustered"),
)
FULL = (
    Workload(name="5x10^6 x 5x10^7", labels=5 * 10**6, rows=5 * 10**7),
    Workload(name="5x10^6 x 5x10^7, clustered", labels=5 * 10**6, rows=5 * 10**7, order="clustered"),
)


def main() -> None:
    options = _options()
    wanted = [item for item in (*WORKLOADS, *(FULL if options.full else ())) if options.only in item.name]
    report: dict[str, Any] = {"machine": _machine(), "workloads": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.data or temporary)
        for workload in wanted:
            found = _measure(workload, make(workload, folder), options.rounds or workload.runs)
            report["workloads"][workload.name] = found
            _print(workload, found)
    report["growth"] = _growth(report["workloads"])
    if report["growth"] is not None:
        print(f"\nTime grows as rows^{report['growth']:.2f} from 10^6 to 10^7 feature rows.")
    Path(options.json).write_text(json.dumps(report, indent=2))
    print(f"Written to {options.json}.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also 5x10^7 rows")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
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
        numbers["peak"] = max(numbers["peak_gb"])
    own = found["tidemill"]["median"]
    ratios = {engine: numbers["median"] / own for engine, numbers in found.items()}
    return {"engines": found, "ratios": ratios}


def _run(engine: str, folder: Path, workload: Workload, *, runs: int = 2) -> dict[str, Any]:
    command = [
        sys.executable,
        str(HERE / "join_engines.py"),
        engine,
        str(folder),
        json.dumps(asdict(workload)),
        str(runs),
    ]
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


def _print(workload: Workload, found: dict[str, Any]) -> None:
    print(f"\n{workload.name}: answers equal")
    for engine, numbers in found["engines"].items():
        print(
            f"  {engine:34} {numbers['median']:8.2f} s {statistics.median(numbers['processor']):8.2f} s cpu "
            f"{numbers['peak']:6.2f} GB   x {found['ratios'][engine]:.2f}"
        )


def _growth(workloads: dict[str, Any]) -> float | None:
    """The exponent of time over rows, by least squares of the logarithms."""
    points = [
        (item.rows, workloads[item.name]["engines"]["tidemill"]["median"])
        for item in WORKLOADS[:3]
        if item.name in workloads
    ]
    if len(points) < 2:
        return None
    rows, seconds = np.log(np.array(points)).T
    return float(np.polyfit(rows, seconds, 1)[0])


def _machine() -> dict[str, Any]:
    libraries = ("tidemill", "polars", "pyarrow", "numpy", "scipy", "duckdb")
    return {
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
    }


if __name__ == "__main__":
    main()
