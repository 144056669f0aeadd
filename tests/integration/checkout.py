"""A copy of what a clone holds, in which pages' commands are run as a new user would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
from ports import free_port
from waiting import PATIENT

CHECKOUT = Path(__file__).parents[2]
PARTS = ("Makefile", "pyproject.toml", "README.md", "requirements", "feature_repo", "platform", "training", "serving")


def copy_checkout(target: Path) -> Path:
    """What a clone holds, with the environment of this test run as its `.venv` and a table of the user's own."""
    for part in PARTS:
        _copy(CHECKOUT / part, target / part)
    # `make` would take what changed since `make setup` for a reason to install: into the environment of this very run,
    # which would from then on run the copy's code.
    for file in (target / "pyproject.toml", *(target / "requirements").iterdir()):
        os.utime(file, (0, 0))
    (target / ".venv").symlink_to(Path(sys.prefix))
    table = pl.DataFrame({"customer_id": [1, 2], "at": ["2024-01-01", "2024-01-02"], "spent": [10.5, 3.0]})
    for folder in (target, target / "feature_repo"):
        table.with_columns(pl.col("at").str.to_datetime()).write_parquet(folder / "my_table.parquet")
    return target


def stop_everything(checkout: Path) -> None:
    """End the servers of every project below a checkout."""
    for state in checkout.rglob(".tidemill"):
        run("tidemill down", state.parent, check=False)


def commands_of(page: Path) -> list[str]:
    """The lines of a page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(script: str, folder: Path, *, check: bool = True) -> str:
    """Run a script as one shell session that ends at the first failure; returns what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environment |= PATIENT | {"TIDEMILL_PORT": str(free_port())}
    environment["PATH"] = f"{Path(sys.prefix) / 'bin'}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-xeuo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3_600,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".tidemill", "data", "*.egg-info"))
    else:
        shutil.copy2(source, target)
