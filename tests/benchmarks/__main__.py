"""`make bench`: every comparison with a peer, one after the other, and one JSON file of all results.

Each script prints its own table and refuses to compare speeds before the answers are equal. Scripts run in processes of
their own, so that one's memory is not another's.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
RESULT = Path("benchmarks.json")


def main() -> int:
    """Run the scripts named on the command line (`bench_join`), or all; 1 if any failed."""
    chosen = sys.argv[1:] or sorted(file.stem for file in HERE.glob("bench_*.py"))
    results: dict[str, object] = {"python": platform.python_version(), "machine": platform.machine()}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            print(f"\n=== {name}", flush=True)
            report = Path(folder) / f"{name}.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(report)]
            if subprocess.run(command, check=False).returncode != 0:
                failed.append(name)
            if report.exists():
                results[name] = json.loads(report.read_text())
    RESULT.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nAll figures are in {RESULT}." + (f" Failed: {', '.join(failed)}." if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
